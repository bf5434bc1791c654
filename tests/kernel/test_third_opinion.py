"""The kernels' own counters of resends, holes, copies and round trips beside synfin's, over loss, reordering, duplication."""

from __future__ import annotations

import pytest
from third_opinion import opinions, troubles


@pytest.mark.parametrize("tap", ["client", "server"])
@pytest.mark.parametrize("trouble", troubles())
def test_the_kernel_agrees(trouble: str, tap: str) -> None:
    found = opinions(trouble, tap)
    assert [one for one in found if not one.agrees] == []
    seen = {one.what.split()[0]: one.ours for one in found}
    if trouble in ("loss", "all three"):
        assert seen["resends" if tap == "client" else "out"] > 0
    if trouble == "duplication" and tap == "server":
        assert seen["repeated"] > 0
    if trouble == "reordering" and tap == "server":
        assert seen["out"] > 0
