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


@pytest.fixture
def cable(namespaces):
    """Two namespaces, the ends `va` and `vb` of a cable between them, and nothing that talks by itself."""
    from netns import Namespace, veth

    with Namespace() as left, Namespace() as right:
        for namespace in (left, right):
            namespace.sysctl("ipv6/conf/default/disable_ipv6", 1)
        with veth(left, "va", right, "vb"):
            yield left, right
