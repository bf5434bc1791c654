"""What a tracker tells of a run while it goes on: gauges of this moment, and round trips counted in full."""

from __future__ import annotations

from pathlib import Path

import pytest

import corpus
from dialogue import MS, SECOND, START, Dialogue
from rows import rows_of, slow
from synfin._core.batch import PacketBatch
from synfin._core.tracker import Tracker
from synfin.run import Run
from synfin.settings import Settings
from synfin.sources.captures import CaptureInput

EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "examples").glob("*.pcap*"))
REAL = [corpus.ROOT / row["path"] for row in corpus.captures()]
GAUGES = (
    "syn_sent", "syn_received", "established", "fin_wait_1", "fin_wait_2", "close_wait", "closing", "last_ack", "time_wait",
    "connections", "opening", "half_open", "half_closed", "midstream",
)  # fmt: skip


def run_of(paths) -> tuple[Run, list[dict]]:
    """A run of captures that is over, and its flow rows."""
    run = Run(CaptureInput([str(path) for path in paths]), Settings())
    flows = [row for table, block in run.blocks() if table == "flows" for row in rows_of(block, table)]
    return run, flows


def top_of_bucket(value: int) -> int:
    """The highest value in a value's bucket, from SPEC 5's words: 1 ns wide below 128, then 64 parts of each power of two."""
    if value < 128:
        return value
    lower = 1 << (value.bit_length() - 1)
    part = lower // 64
    return lower + ((value - lower) // part + 1) * part - 1


def expected(values: list[int]) -> dict:
    buckets: dict[int, int] = {}
    for top in map(top_of_bucket, sorted(values)):
        buckets[top] = buckets.get(top, 0) + 1
    return {"count": len(values), "sum_ns": sum(values), "buckets": buckets}


def round_trips(rows: list[dict]) -> dict[str, dict]:
    """The three histograms as the rows of a finished run have them."""

    def sure(row: dict, *sides: str) -> bool:
        return all(row[f"rtt_{side}_quality"] in ("clean", "matched") for side in sides)

    return {
        "rtt_server": expected([row["rtt_server_ns"] for row in rows if sure(row, "server")]),
        "rtt_client": expected([row["rtt_client_ns"] for row in rows if sure(row, "client")]),
        "rtt_handshake": expected(
            [
                row["rtt_handshake_ns"]
                for row in rows
                if sure(row, "server", "client") and row["rtt_handshake_ns"] is not None
            ]
        ),
    }


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_histograms_hold_the_round_trips_of_the_slow_trackers_rows(path):
    rows, intervals, _ = slow([path])
    run, _ = run_of([path])
    found = run.tracker.histograms()
    assert found == round_trips(rows)
    for histogram in found.values():
        assert list(histogram["buckets"]) == sorted(histogram["buckets"])
    # The last interval shows what is left at the end of the input.
    assert run.tracker.gauges() == {name: intervals[-1][name] for name in GAUGES}


def test_round_trips_of_all_examples_are_many_enough_to_tell_something():
    found = run_of(EXAMPLES)[0].tracker.histograms()
    assert all(histogram["count"] > 20 for histogram in found.values())


@corpus.needs_captures
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_histograms_hold_the_round_trips_of_the_rows_of_real_traffic(path):
    run, rows = run_of([path])
    assert run.tracker.histograms() == round_trips(rows)


def fed(packets, settings=None) -> Tracker:
    """A tracker that has had these packets: (Captured, clock)."""
    batch = PacketBatch()
    for packet, clock in packets:
        batch.append(packet.data, packet.time_ns, clock)
    tracker = Tracker(settings or Settings())
    assert tracker.feed(batch)
    return tracker


def test_a_sum_beyond_one_word_is_told_in_full():
    packets = []
    for port in range(40_001, 40_008):
        d = Dialogue(a_port=port)
        d.syn(d.a, time=START)
        d.synack(d.b, time=START + 2**62)
        packets += d.packets
    tracker = fed((packet, START) for packet in packets)
    assert 7 * 2**62 > 2**64
    assert tracker.histograms()["rtt_server"] == expected([2**62] * 7)


def test_a_late_half_enters_the_handshake_once():
    # The client goes on before its SYN-ACK comes to the tap: the handshake is done by proof, its halves come afterwards.
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b, captured=False)
    d.ack(d.a)
    d.data(d.a, 10)
    d.ack(d.b)
    d.data(d.b, 10)
    d.ack(d.a)
    tracker = fed((packet, packet.time_ns) for packet in d.packets)
    tracker.finish()
    rows = rows_of(tracker.take("flows", True), "flows")
    assert rows[0]["handshake"] == "complete"
    assert tracker.histograms() == round_trips(rows)


def test_gauges_are_those_of_this_moment():
    d = Dialogue(step=MS)
    course = [
        (d.syn(d.a), {"syn_sent": 1, "connections": 1, "opening": 1}),
        (d.synack(d.b), {"syn_sent": 1, "syn_received": 1, "connections": 1, "half_open": 1}),
        (d.ack(d.a), {"established": 2, "connections": 1}),
        (d.fin(d.a), {"fin_wait_1": 1, "established": 1, "connections": 1}),
        (d.ack(d.b), {"fin_wait_2": 1, "close_wait": 1, "connections": 1, "half_closed": 1}),
        (d.fin(d.b), {"fin_wait_2": 1, "last_ack": 1, "connections": 1}),
        (d.ack(d.a), {"time_wait": 1}),
    ]
    tracker = Tracker(Settings())
    assert tracker.gauges() == dict.fromkeys(GAUGES, 0)
    for packet, gauges in course:
        batch = PacketBatch()
        batch.append(packet.data, packet.time_ns)
        assert tracker.feed(batch)
        assert tracker.gauges() == dict.fromkeys(GAUGES, 0) | gauges
    # TIME-WAIT is over after its time and the reorder allowance, though no packet comes.
    settings = Settings()
    tracker.advance(d.now + settings.time_wait + settings.reorder - MS)
    assert tracker.gauges()["time_wait"] == 1
    tracker.advance(d.now + settings.time_wait + settings.reorder + MS)
    assert tracker.gauges() == dict.fromkeys(GAUGES, 0)


def test_gauges_hold_what_the_settled_slices_do_not(tmp_path):
    # `stats` tells the end of the last settled slice; once everything is settled both say the same.
    d = Dialogue()
    d.handshake()
    tracker = fed((packet, packet.time_ns) for packet in d.packets)
    assert tracker.stats()["gauges"]["established"] == 0
    assert tracker.gauges()["established"] == 2
    tracker.advance(d.now + 3 * SECOND)
    assert tracker.stats()["gauges"] == tracker.gauges()
