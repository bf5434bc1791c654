"""On every shared capture, synfin and tshark agree, or differ for a reason that a rule over the packets shows."""

from __future__ import annotations

from collections import Counter

import pytest
from suite import HAS_TCPTRACE, HAS_TSHARK, ROOT, all_against_tcptrace, all_against_tshark, with_tshark_rows

from synfin.verify import tools
from synfin.verify.join import Joined
from synfin.verify.lives import text
from synfin.verify.tshark_classes import TSHARK_ARGUMENTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ROOT.exists(), reason="SYNFIN_CAPTURES names no folder of captures"),
    pytest.mark.skipif(not HAS_TSHARK, reason="differences are looked up with tshark, which is not on the PATH"),
]


def test_no_difference_is_unexplained():
    unexplained = [
        (path, one.column, [text(end) for end in one.pair], one.ours, one.theirs, one.parts)
        for path, joined in all_against_tshark().items()
        for one in joined.differences
        if not one.explained
    ]
    assert unexplained == []


def test_nearly_every_stream_is_one_record():
    joined = all_against_tshark().values()
    streams, matched = sum(one.others for one in joined), sum(one.matched for one in joined)
    assert streams > 26_000
    assert matched > 0.99 * streams


def test_columns_that_have_one_meaning_are_equal_but_for_few():
    compared, equal = Counter(), Counter()
    for joined in all_against_tshark().values():
        compared += joined.compared
        equal += joined.equal
    for column in ("packets", "payload_bytes", "rst", "first_seen", "last_seen", "mss", "window_scale", "zero_windows"):
        assert equal[column] > 0.99 * compared[column] > 0, column


@pytest.mark.skipif(not HAS_TCPTRACE, reason="tcptrace is not on the PATH")
def test_no_difference_from_tcptrace_is_unexplained():
    found = {path: one for path, one in all_against_tcptrace().items() if isinstance(one, Joined)}
    unexplained = [
        (path, one.column, [text(end) for end in one.pair], one.ours, one.theirs, one.parts)
        for path, joined in found.items()
        for one in joined.differences
        if not one.explained
    ]
    assert unexplained == []
    compared, equal = Counter(), Counter()
    for joined in found.values():
        compared += joined.compared
        equal += joined.equal
    assert len(found) > 200
    for column in ("packets", "payload_bytes", "rst", "mss", "first_seen", "zero_windows", "out_of_order"):
        assert equal[column] > 0.99 * compared[column] > 20_000, column
    loose = sum(
        name == "near_a_loss" for joined in found.values() for one in joined.differences for name, _ in one.parts
    )
    assert loose < 0.001 * compared["rtt_samples"]  # tcptrace's rule is known but for these


def test_every_reason_has_an_argument():
    used = {name for joined in all_against_tshark().values() for one in joined.differences for name, _ in one.parts}
    assert used <= TSHARK_ARGUMENTS.keys()


@pytest.mark.parametrize("place", [0, 60, 120, 180, 240])
def test_tshark_run_now_gives_the_rows_made_before(place):
    """The sums of verify's own run of tshark are those of rows that another script made."""
    import gzip

    capture = with_tshark_rows()[place]
    with gzip.open(ROOT / "ref" / f"{capture['sha256']}.tsv.gz", "rt", encoding="utf-8") as file:
        before = {life.name: life for life in tools.tshark_rows(file)}
    now = {life.name: life for life in tools.tshark(str(ROOT / capture["path"]))}
    assert now.keys() == before.keys()
    for name, life in now.items():
        for way in (0, 1):
            shared = before[name].ways[way].keys() & life.ways[way].keys()
            assert {key: life.ways[way][key] for key in shared} == {key: before[name].ways[way][key] for key in shared}
