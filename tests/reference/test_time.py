"""Clocks, deadlines and the interval table, worked out by hand from SPEC's sections on time and intervals."""

import pytest
from observed import expect, flow, flows, packets, result

from dialogue import MS, SECOND, START, Dialogue, ethernet, ipv4, merge
from synfin.reference import Packet, track
from synfin.reference.intervals import bucket_middle, quantile
from synfin.reference.time import Source, effective
from synfin.reference.time import merge as merge_sources

HOUR = 3600 * SECOND
NOT_TCP = ethernet(ipv4("10.9.9.9", "10.9.9.8", bytes(20), protocol=17))


def empty(*times) -> list[Packet]:
    """Packets that are skipped, at these instants."""
    return [Packet(time, NOT_TCP, len(NOT_TCP), 1) for time in times]


def judged(*times) -> list[int]:
    return [stamped.time for stamped in merge_sources([Source("x", empty(*times))])]


def clocks(*times) -> list[int]:
    return [stamped.clock for stamped in merge_sources([Source("x", empty(*times))])]


def test_a_lone_packet_far_ahead_takes_the_clock_s_time():
    assert judged(10, 20 + 2 * HOUR, 30, 40) == [10, 10, 30, 40]
    assert clocks(10, 10 + HOUR, 30) == [10, 10 + HOUR, 10 + HOUR]  # exactly an hour is not more than an hour


def test_two_packets_far_ahead_move_the_clock_to_the_smaller():
    assert judged(10, 5 * HOUR, 4 * HOUR, 30) == [10, 5 * HOUR, 4 * HOUR, 30]
    assert clocks(10, 5 * HOUR, 4 * HOUR, 30) == [10, 4 * HOUR, 4 * HOUR, 4 * HOUR]


def test_a_first_packet_needs_two_after_it_and_a_last_one_none():
    assert judged(2 * HOUR, 20, 30) == [20, 20, 30]
    assert judged(2 * HOUR, 20) == [2 * HOUR, 20]
    assert judged(10, 20, 9 * HOUR) == [10, 20, 9 * HOUR]
    assert judged(2 * HOUR, 20, 2 * HOUR) == [2 * HOUR, 20, 2 * HOUR]


def test_a_packet_without_a_timestamp_takes_its_source_s_clock():
    assert judged(None, 50, 40, None) == [0, 50, 40, 50]
    assert judged(10, 2 * HOUR, None, 30) == [10, 10, 10, 30]  # it does not confirm a jump


def test_outliers_are_counted_and_the_replacement_shows_in_the_row():
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b, time=d.now + 7 * HOUR)
    d.ack(d.a)
    found = result(d.packets)
    assert found.time_outliers == 1
    expect(found.flows[0], synack_first=START + 10 * MS, last_seen=START + 20 * MS, rtt_server_ns=0)


def test_files_are_merged_by_their_clocks_and_ties_go_in_path_order():
    def order(*files):
        return [(s.file, s.number) for s in merge_sources([Source(name, empty(*times)) for name, times in files])]

    assert order(("a", (10, 30)), ("b", (20, 40))) == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert order(("a", (10, 10)), ("b", (10,))) == [("a", 1), ("a", 2), ("b", 1)]
    # A late packet goes by its source's clock, not by its own timestamp.
    assert order(("a", (30, 5)), ("b", (20, 25, 31))) == [("b", 1), ("b", 2), ("a", 1), ("a", 2), ("b", 3)]


def test_effective_time():
    assert effective(90, 100, 50) == 90
    assert effective(10, 100, 50) == 50
    assert effective(200, 100, 50) == 100
    assert effective(60, 100, 50, 70) == 70


@pytest.mark.parametrize("late, rows", [(75 * SECOND - 1, 1), (75 * SECOND, 2)])
def test_a_record_has_ended_at_its_deadline_and_not_before(late, rows):
    d = Dialogue()
    d.syn(d.a)
    d.syn(d.a, step=late)
    assert len(flows(d)) == rows


@pytest.mark.parametrize("late, reason", [(75 * SECOND - 1, "end_of_input"), (75 * SECOND, "attempt_timeout")])
def test_at_the_end_of_input_the_reorder_allowance_falls_away(late, reason):
    d = Dialogue()
    d.syn(d.a)
    tail = empty(d.now + late)
    (row,) = track([("x", packets(d.packets) + tail)]).flows
    assert row["end_reason"] == reason


DEADLINES = {
    "unanswered": (lambda d: d.syn(d.a), 75),
    "half-open": (lambda d: (d.syn(d.a), d.synack(d.b)), 75),
    "established": (lambda d: d.handshake(), 124 * 60),
    "midstream, one end": (lambda d: d.ack(d.a), 300),
    "midstream, both ends": (lambda d: (d.ack(d.a), d.ack(d.b)), 124 * 60),
    "one FIN": (lambda d: d.handshake().fin(d.a), 124 * 60),
    "both FINs": (lambda d: (d.handshake().fin(d.a), d.fin(d.b)), 60),
    "closed": (lambda d: d.handshake().close(), 60),
    "reset": (lambda d: d.handshake().rst(d.a), 10),
    "refused": (lambda d: (d.syn(d.a), d.rst(d.b, extra="A")), 10),
}


@pytest.mark.parametrize("name", DEADLINES)
def test_every_row_of_the_table_of_deadlines(name):
    build, seconds = DEADLINES[name]
    for span, ended in ((seconds * SECOND - 1, False), (seconds * SECOND, True)):
        d = Dialogue()
        build(d)
        d.ack(d.a, step=span)
        # An ACK that comes in time belongs to the record; one at the deadline begins another.
        assert (len(flows(d)) == 2) is ended, (name, span)


def test_what_restarts_a_deadline_and_what_does_not():
    d = Dialogue()
    d.syn(d.a)
    d.ack(d.b, ack=1, step=70 * SECOND)  # odd: an unanswered SYN's deadline is restarted by SYNs only
    d.syn(d.a, step=5 * SECOND)
    assert len(flows(d)) == 2
    d = Dialogue().handshake()
    d.rst(d.b, seq=1, step=124 * 60 * SECOND - 1)  # rejected
    d.ack(d.a, step=1)
    assert [row["end_reason"] for row in flows(d)] == ["idle", "end_of_input"]
    d = Dialogue().handshake().close()
    d.fin(d.b, seq=d.b.nxt - 1, step=59 * SECOND)  # resent
    d.ack(d.a, step=59 * SECOND)
    d.ack(d.a, step=SECOND)
    expect(flows(d)[0], time_wait_end="expired", packets_after_close=2, server_fin_count=2)


def test_after_a_thousand_packets_far_behind_the_clock_steps_back_and_deadlines_move_with_it():
    d = Dialogue()
    d.syn(d.a)
    d.syn(d.a)
    before = d.now
    behind = before - 2 * HOUR
    late = empty(*([behind] * 1000))
    again = Dialogue(start=behind + 74 * SECOND)
    again.syn(again.a)
    found = track([("x", packets(d.packets) + late + packets(again.packets))])
    assert found.clock_steps == 1
    (row,) = found.flows
    expect(row, syn_count=3, syn_first=before - 10 * MS, syn_last=behind + 74 * SECOND + 10 * MS)
    cut = [row for row in found.intervals if not row["complete"]]
    assert [row["interval_start"] for row in cut] == [START, behind // SECOND * SECOND + 74 * SECOND]
    assert track([("x", packets(d.packets) + late[2:] + packets(again.packets))]).clock_steps == 0


def test_interval_rows_of_one_connection():
    d = Dialogue(step=400 * MS)
    d.handshake()  # 0.4, 0.8, 1.2
    d.close()  # 1.6, 2.0, 2.4, 2.8
    rows = result(d.packets).intervals
    assert [row["interval_start"] - START for row in rows] == [0, SECOND, 2 * SECOND]
    assert [row["complete"] for row in rows] == [True, True, False]
    expect(rows[0], syn_sent=1, syn_received=1, half_open=1, opening=0, connections=1, opening_peak=1, half_open_peak=1)
    expect(rows[0], syns=1, synacks=1, packets=2, ip_bytes=80, rtt_server_max_ns=400 * MS, rtt_client_max_ns=None)
    expect(rows[1], fin_wait_1=1, established=1, completed=1, half_open=0, half_open_peak=1, rtt_client_max_ns=400 * MS)
    expect(rows[2], time_wait=1, closed_fin=1, connections=0, half_closed=0, time_wait_peak=1, packets=3)


def test_what_happens_at_a_border_counts_after_it():
    d = Dialogue(step=SECOND)
    d.handshake()  # at 1 s, 2 s, 3 s exactly
    rows = result(d.packets).intervals
    assert [(row["interval_start"] - START) // SECOND for row in rows] == [1, 2, 3]
    assert [(row["opening"], row["half_open"], row["established"]) for row in rows] == [(1, 0, 0), (0, 1, 0), (0, 0, 2)]
    assert [row["opening_peak"] for row in rows] == [1, 0, 0]  # at the end of the first slice of 2 s it is over


def test_gauges_are_written_while_nothing_happens_and_an_expiry_counts_at_its_deadline():
    d = Dialogue()
    d.syn(d.a)
    found = track([("x", packets(d.packets) + empty(START + 100 * SECOND))])
    rows = found.intervals
    assert [(row["interval_start"] - START) // SECOND for row in rows] == list(range(76))
    assert all(row["opening"] == 1 for row in rows[:75])
    expect(rows[75], opening=0, unanswered=1, opening_peak=0, complete=True)


def test_late_packets_count_no_further_back_than_the_reorder_allowance():
    d = Dialogue()
    d.handshake()
    d.data(d.a, 10, time=START + 10 * SECOND)
    d.data(d.a, 10, time=START + 2 * SECOND)
    rows = {(row["interval_start"] - START) // SECOND: row["packets"] for row in result(d.packets).intervals}
    assert (rows[2], rows[9], rows[10]) == (0, 0, 2)  # not before its record's last effective time
    other = Dialogue(a_port=9)
    other.syn(other.a, time=START + 2 * SECOND)
    rows = {
        (row["interval_start"] - START) // SECOND: row["packets"] for row in result(d.packets + other.packets).intervals
    }
    assert (rows[2], rows[9], rows[10]) == (0, 1, 2)


def test_resent_syns_and_outcomes_of_attempts():
    refused, aborted = Dialogue(a_port=1), Dialogue(a_port=2)
    refused.syn(refused.a)
    refused.syn(refused.a)
    refused.rst(refused.b, extra="A")
    aborted.syn(aborted.a)
    aborted.synack(aborted.b)
    aborted.rst(aborted.a)
    (row,) = result(merge(refused, aborted)).intervals
    expect(row, syns=3, syn_resends=1, refused=1, aborted=1, completed=0, closed_rst=0, connections=0)


def test_the_accounting_identity_and_skips():
    d = Dialogue().handshake()
    found = track([("x", packets(d.packets) + empty(d.now))])
    assert found.skips == {"not_tcp": 1}
    assert found.packets == 4 == 1 + sum(row["client_packets"] + row["server_packets"] for row in found.flows)


def test_quantiles_are_bucket_middles():
    assert [bucket_middle(value) for value in (0, 127, 128, 129, 130, 255, 256, 1 << 20)] == [
        0, 127, 129, 129, 131, 255, 258, (1 << 20) + (1 << 13),
    ]  # fmt: skip
    assert quantile([], 50) is None
    assert [quantile([3, 1, 2], percent) for percent in (50, 90, 99)] == [2, 3, 3]
    assert quantile(list(range(1, 101)), 90) == 90


def test_the_vlan_may_be_part_of_the_key():
    tagged, plain = Dialogue(vlans=(7,)), Dialogue()
    tagged.syn(tagged.a)
    plain.syn(plain.a)
    both = merge(tagged, plain)
    expect(result(both).flows[0], vlan_id=7, vlan_variants=1, syn_count=2)
    one, other = result(both, key=("vlan",)).flows
    assert one["flow_id"] != other["flow_id"] and {one["vlan_id"], other["vlan_id"]} == {7, None}


def test_the_flow_id_by_hand():
    d = Dialogue()
    d.syn(d.a)
    data = (
        bytes.fromhex("04 0a000001 9c40 0a000002 0050")
        + (START + 10 * MS).to_bytes(8, "big")
        + (1000).to_bytes(4, "big")
    )
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    assert flow(d)["flow_id"] == value & (1 << 63) - 1
