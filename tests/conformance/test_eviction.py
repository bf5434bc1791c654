"""What a cap on records takes, in which order, and what rows and intervals say of it (SPEC 8).

Expectations are written from the contract; the slow tracker, which looks for the record to take among all that live, must agree
on every column.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dialogue import MS, SECOND, START, Captured, Dialogue, merge
from rows import compare
from synfin.settings import Settings

Build = Callable[[Dialogue], None]


def unanswered(d: Dialogue) -> None:
    d.syn(d.a)


def one_sided(d: Dialogue) -> None:
    d.data(d.a)


def half_open(d: Dialogue) -> None:
    d.syn(d.a)
    d.synack(d.b)


def closed(d: Dialogue) -> None:
    d.handshake().close()


def reset(d: Dialogue) -> None:
    d.handshake()
    d.rst(d.a)


def refused(d: Dialogue) -> None:
    d.syn(d.a)
    d.rst(d.b, extra="A", seq=0)


def established(d: Dialogue) -> None:
    d.handshake()


def midstream(d: Dialogue) -> None:
    d.data(d.a)
    d.ack(d.b)


def half_closed(d: Dialogue) -> None:
    d.handshake()
    d.fin(d.a)
    d.ack(d.b)


def closing(d: Dialogue) -> None:
    half_closed(d)
    d.fin(d.b)


#: What a record is like -> its place in the order of eviction.
RANKS: dict[Build, int] = {
    unanswered: 0, one_sided: 0, half_open: 1, closed: 2, reset: 2, refused: 2, established: 3, midstream: 3, half_closed: 3,
    closing: 3,
}  # fmt: skip


def one_after_another(*builds: Build) -> list[Dialogue]:
    """A connection each, on ports from 40000, 100 ms apart."""
    dialogues = []
    for number, build in enumerate(builds):
        d = Dialogue(a_port=40_000 + number, start=START + number * 100 * MS)
        build(d)
        dialogues.append(d)
    return dialogues


def flood(count: int, at: int) -> list[Captured]:
    """SYNs from as many ports, a millisecond apart."""
    return [_syn(number, at) for number in range(count)]


def _syn(number: int, at: int) -> Captured:
    d = Dialogue(a_port=50_000 + number, start=at + number * MS)
    return d.syn(d.a, step=0)


def tracked(tap, packets: list[Captured], **settings: int) -> list[dict]:
    """The rows, on which both trackers agree."""
    chosen = Settings(**settings)
    rows = tap.rows(packets, chosen)
    assert compare([tap.path], chosen) == []
    return rows


@pytest.mark.parametrize("earlier", RANKS)
@pytest.mark.parametrize("later", RANKS)
def test_the_order_is_by_rank_and_then_by_the_last_packet(tap, earlier, later):
    """Of two records the cap takes the lower rank; of equals, the one whose last packet came first."""
    dialogues = one_after_another(earlier, later)
    rows = tracked(tap, [*merge(*dialogues), _syn(0, START + SECOND)], max_flows=2)
    gone = 1 if RANKS[later] < RANKS[earlier] else 0
    rank = ("unanswered", "half_open", "lingering", "open")[min(RANKS[earlier], RANKS[later])]
    assert len(rows) == 3 and tap.stats["evicted"] == {rank: 1}
    reason = {closed: "fin", reset: "rst", refused: "rst"}
    builds = (earlier, later)
    assert rows[gone]["end_reason"] == reason.get(builds[gone], "evicted")
    assert rows[1 - gone]["end_reason"] == reason.get(builds[1 - gone], "end_of_input")
    assert tap.intervals[-1]["connections"] == 1 + (builds[1 - gone] not in reason)


def test_a_further_packet_makes_a_record_the_newest(tap):
    """Also one that is odd, rejected, or held: it is a packet of the record. Order is that of the input, not of timestamps."""
    a, b, c = one_after_another(established, established, established)
    a.rst(a.b, seq=a.b.nxt - 5, step=SECOND)  # rejected
    b.syn(b.a, seq=77, step=SECOND + 100 * MS)  # held
    late = c.data(c.a, time=START)
    packets = sorted([p for d in (a, b, c) for p in d.packets if p is not late], key=lambda packet: packet.time_ns)
    rows = tracked(tap, [*packets, late, *(_syn(n, START + 2 * SECOND) for n in range(2))], max_flows=3)
    assert [row["client_port"] for row in rows if row["end_reason"] == "evicted"] == [40_000, 50_000]
    assert rows[0]["rst_rejected"] == 1


def test_an_icmp_error_is_no_packet_of_the_record(tap):
    a, b = one_after_another(unanswered, unanswered)
    error = a.icmp(a.packets[0], step=SECOND)
    rows = tracked(tap, [a.packets[0], b.packets[0], error, _syn(0, START + 2 * SECOND)], max_flows=2)
    assert [(row["client_port"], row["handshake"], row["end_reason"]) for row in rows][:2] == [
        (40_000, "unreachable", "evicted"), (40_001, "pending", "end_of_input"),
    ]  # fmt: skip


def test_a_resent_syn_is_younger(tap):
    a, b = one_after_another(unanswered, unanswered)
    again = a.syn(a.a, step=SECOND)
    rows = tracked(tap, [a.packets[0], b.packets[0], again, _syn(0, START + 2 * SECOND)], max_flows=2)
    assert [row["end_reason"] for row in rows] == ["end_of_input", "evicted", "end_of_input"]


def test_a_flood_of_syns_leaves_open_connections_alone(tap):
    dialogues = one_after_another(established, half_open, closed)
    rows = tracked(tap, merge(*dialogues) + flood(50, START + SECOND), max_flows=5)
    assert [row["end_reason"] for row in rows[:3]] == ["end_of_input", "end_of_input", "fin"]
    assert tap.stats["evicted"] == {"unanswered": 48} and tap.stats["handshakes"]["pending"] == 51
    assert sum(row["evicted"] for row in tap.intervals) == 48
    assert sum(row["unanswered"] for row in tap.intervals) == 0


def test_an_eviction_takes_effect_at_the_input_clock(tap):
    """The SYN that brings it about carries an older timestamp; gauges fall, and the count rises, where the clock stands."""
    d = Dialogue(start=START)
    d.syn(d.a, step=0)
    clock = d.icmp(d.packets[0], 0, 0, step=1_300 * MS)  # an echo reply: it moves the clock and no record
    rows = tracked(tap, [d.packets[0], clock, _syn(0, START + 900 * MS)], max_flows=1, interval=100 * MS)
    assert [row["end_reason"] for row in rows] == ["evicted", "end_of_input"]
    at = {(row["interval_start"] - START) // (100 * MS): row for row in tap.intervals}
    assert [number for number, row in at.items() if row["evicted"]] == [13]
    assert [at[number]["opening"] for number in (0, 8, 9, 12, 13)] == [1, 1, 2, 2, 1]


@pytest.mark.parametrize("early", [0, 1])
def test_a_record_whose_deadline_has_passed_makes_room_by_its_end(tap, early):
    """In the middle of an interval, and to the nanosecond: the deadline is met where the clock less the allowance is at it."""
    first, second = _syn(0, START), _syn(1, START + 2 * SECOND)
    third = _syn(2, START + 76 * SECOND - 2 * MS - early)
    rows = tracked(tap, [first, second, third], max_flows=2, interval=60 * SECOND)
    reasons = {row["client_port"]: row["end_reason"] for row in rows}
    assert list(reasons.values()).count("end_of_input") == 2
    assert ("attempt_timeout" in reasons.values(), "evicted" in reasons.values()) == (not early, bool(early))


def test_time_wait_lasts_where_the_cap_took_the_record(tap):
    (d,) = one_after_another(closed)
    row = tracked(tap, [*d.packets, _syn(0, START + SECOND)], max_flows=1)[0]
    assert (row["end_reason"], row["time_wait_side"], row["time_wait_end"]) == ("fin", "client", None)


def test_a_held_syn_counts_as_odd_where_the_cap_takes_its_record(tap):
    (d,) = one_after_another(established)
    d.syn(d.a, seq=77)
    row = tracked(tap, [*d.packets, _syn(0, START + SECOND)], max_flows=1)[0]
    assert (row["end_reason"], row["odd_syns"], row["client_packets"]) == ("evicted", 1, 3)


def test_what_comes_after_an_eviction_begins_a_record_of_its_own(tap):
    a, b = one_after_another(established, established)
    a.data(a.a, 100, step=SECOND)
    a.ack(a.b)
    rows = tracked(tap, merge(a, b), max_flows=1)
    assert [(row["handshake"], row["end_reason"]) for row in rows] == [
        ("complete", "evicted"), ("complete", "evicted"), ("not_seen", "end_of_input"),
    ]  # fmt: skip
    assert tap.stats["evicted"] == {"open": 2}


def test_reuse_and_deadlines_need_no_room(tap):
    """A record that ends on the same ends, or whose deadline the clock has passed, makes room itself."""
    d = Dialogue()
    d.handshake().close()
    d.reborn(a_isn=90_000, b_isn=80_000)
    d.handshake()
    rows = tracked(tap, [*d.packets, _syn(0, d.now + 7441 * SECOND)], max_flows=1)
    assert [row["end_reason"] for row in rows] == ["fin", "idle", "end_of_input"] and tap.stats["evicted"] == {}


def test_a_record_past_its_deadline_that_the_clock_has_not_passed_is_still_there(tap):
    """Between the deadline and the clock less the allowance, a late packet could still belong to it: it is evicted."""
    packets = [_syn(0, START), _syn(1, START + 75 * SECOND + 500 * MS)]
    rows = tracked(tap, packets, max_flows=1)
    assert [row["end_reason"] for row in rows] == ["evicted", "end_of_input"]


def test_at_most_so_many_live_at_once(tap):
    tracked(tap, flood(2_000, START), max_flows=7)
    assert {row["connections"] for row in tap.intervals} == {7} and tap.stats["cap"] == 7
    assert tap.stats["evicted"] == {"unanswered": 1_993}
