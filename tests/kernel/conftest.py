"""Real sockets in network namespaces; without the right to make them these tests are skipped with the reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(autouse=True, scope="session")
def namespaces() -> None:
    """Skip where network namespaces are not allowed, or where iproute2 is missing."""
    from netns import Namespace, NotAllowed

    try:
        with Namespace() as namespace:
            namespace.counters()
            namespace.states()
    except NotAllowed as reason:
        pytest.skip(str(reason))
