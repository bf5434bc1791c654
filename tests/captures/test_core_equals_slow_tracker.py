"""The core's rows of every real capture against the slow tracker's, in every column of both tables."""

from __future__ import annotations

import pytest

from corpus import ROOT, captures, needs_captures
from rows import compare

pytestmark = [needs_captures, pytest.mark.slow]


def test_every_column_of_both_tables_and_every_skip():
    paths = [ROOT / row["path"] for row in captures() if not row["format"].endswith(".zst")]
    paths += sorted((ROOT / "zeek-expected").glob("*.pcap"))
    found = {str(path.relative_to(ROOT)): lines for path in paths if (lines := compare([path]))}
    assert found == {}
    assert len(paths) > 350
