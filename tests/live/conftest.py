"""Live capture: rings made by hand for everyone; real interfaces in network namespaces where these are allowed."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))


@pytest.fixture(scope="session")
def namespaces():
    """Skip where network namespaces are not allowed, or where iproute2 is missing."""
    from netns import Namespace, NotAllowed

    try:
        with Namespace() as namespace:
            namespace.counters()
    except NotAllowed as reason:
        pytest.skip(str(reason))
