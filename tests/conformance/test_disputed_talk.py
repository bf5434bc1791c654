"""Talk on which the two implementations once differed, and what both must say of it (docs/design/0001-open-cases.md)."""

from __future__ import annotations

import pytest
from tap import state_of

from dialogue import MS, SECOND, START, Dialogue, options
from rows import compare
from synfin.settings import Settings


@pytest.fixture
def agreed(tap):
    """The rows of a dialogue, on which the slow tracker agrees."""

    def rows(packets, settings=None):
        found = tap.rows(packets, settings)
        assert compare([tap.path], settings) == []
        return found

    return rows


def test_a_record_begun_midstream_has_no_handshake_rtt_whatever_comes_late(agreed):
    d = Dialogue()
    d.data(d.b, 1, seq=d.b.isn + 1, ack=d.a.isn + 1)
    d.syn(d.a)
    d.synack(d.b)
    d.ack(d.a)
    (row,) = agreed(d)
    assert (row["handshake"], row["syn_count"], row["synack_count"]) == ("complete", 1, 1)
    assert row["rtt_server_ns"] is row["rtt_client_ns"] is row["handshake_done"] is None
    assert row["rtt_client_quality"] == "none"


def test_a_fin_counts_as_acknowledged_by_the_highest_acknowledgement(agreed):
    """The server's own FIN carries an older one: its sender had acknowledged the client's FIN all the same."""
    d = Dialogue(a_isn=1000, b_isn=5000)
    d.synack(d.b, ack=900_001_000)
    d.ack(d.a, seq=1000, ack=400_000_000)  # odd: far below what the server has acknowledged
    d.fin(d.a, seq=1000, ack=400_000_000)  # goes on where the odd one ended: taken
    d.fin(d.b, seq=400_000_000, ack=1000)
    (row,) = agreed(d)
    assert row["odd_segments"] == 1
    assert state_of(row, d.b) == "LAST-ACK"


@pytest.mark.parametrize(("covered", "odd"), [(0, 0), (10, 1)])
def test_only_the_clients_syn_payload_can_be_acknowledged(agreed, covered, odd):
    """Linux drops the payload of a SYN in a simultaneous open (tcp_rcv_synsent_state_process)."""
    d = Dialogue()
    d.syn(d.a)
    d.syn(d.b, 10)
    d.synack(d.a, ack=d.b.isn + 1 + covered)
    (row,) = agreed(d)
    assert (row["simultaneous_open"], row["odd_syns"], row["synack_count"]) == (True, odd, 1 - odd)


def test_a_peak_counts_from_where_the_clock_stepped_back(agreed, tap):
    """An attempt that was open at the step is refused in the slice of the step: no slice's end sees it."""
    back = START // (60 * SECOND) * 60 * SECOND + 39 * SECOND
    attempt = Dialogue(start=back + 90_000 * SECOND)
    for _ in range(3):  # not a lone outlier
        attempt.syn(attempt.a)
    noise = Dialogue(a_port=50_000, start=back, step=0)
    for _ in range(1001):
        noise.ack(noise.a)
    attempt.now = back + 10 * MS
    attempt.rst(attempt.b, extra="A")
    settings = Settings(interval=60 * SECOND)
    packets = [*attempt.packets[:3], *noise.packets, attempt.packets[3]]
    (row, _) = agreed(packets, settings)
    assert row["handshake"] == "refused"
    first, last = tap.intervals[0], tap.intervals[-1]
    assert (first["opening_peak"], first["complete"]) == (1, False)
    assert (last["interval_start"], last["opening_peak"], last["refused"]) == (back - 39 * SECOND, 0, 1)


def test_what_came_before_the_synack_leaves_a_hole(agreed):
    """The tap swapped data with the SYN-ACK: bytes between the two are seen for the first time later."""
    d = Dialogue()
    d.syn(d.a)
    d.data(d.b, 300, seq=d.b.isn + 301)
    d.synack(d.b)
    d.data(d.b, 300, seq=d.b.isn + 1)
    (row,) = agreed(d)
    assert (row["server_unique_bytes"], row["server_out_of_order_segments"]) == (600, 1)
    assert row["server_retransmitted_segments"] == 0


def test_a_held_syn_that_comes_again_after_the_close_is_a_resend(agreed, tap):
    d = Dialogue().handshake()
    nxt = d.a.nxt
    d.syn(d.a, seq=900_000)
    d.a.nxt = nxt
    d.close()
    d.syn(d.a, seq=900_000)
    old, new = agreed(d)
    assert (old["end_reason"], new["syn_count"], new["syn_first"]) == ("fin", 2, d.packets[3].time_ns)
    assert sum(row["syn_resends"] for row in tap.intervals) == 1


@pytest.mark.parametrize(("ack", "rejected"), [(-1, 1), (0, 0), (1, 1)])
def test_a_rst_after_the_synack_alone_must_acknowledge_what_it_did(agreed, ack, rejected):
    d = Dialogue()
    d.synack(d.b, ack=d.a.isn + 1)
    d.synack(d.a, seq=d.a.isn - 70_000)  # odd, but its sender was seen
    d.rst(d.b, extra="A", ack=d.a.isn + 1 + ack)
    (row,) = agreed(d)
    assert (row["rst_rejected"], row["odd_syns"]) == (rejected, 1)


def test_a_late_syn_does_not_open_a_failed_attempt_again(agreed):
    d = Dialogue()
    d.synack(d.b, ack=d.a.isn + 1)
    d.rst(d.a, seq=d.a.isn + 1)
    d.syn(d.a)
    (row,) = agreed(d)
    assert (row["handshake"], row["syn_count"], row["end_reason"]) == ("aborted", 1, "rst")
    assert state_of(row, d.a) == "CLOSED"


def test_a_fin_before_the_handshake_is_complete_counts_from_then_on(agreed):
    d = Dialogue()
    d.synack(d.b, ack=d.a.isn + 1)
    d.send(d.a, "F", seq=d.a.isn + 1)
    d.ack(d.a)
    d.ack(d.b)
    (row,) = agreed(d)
    assert (row["handshake"], row["close"]) == ("complete", "half_closed")
    assert (state_of(row, d.a), state_of(row, d.b)) == ("FIN-WAIT-2", "CLOSE-WAIT")


def test_a_fin_that_the_tap_shows_before_its_senders_synack_moves_the_sender(agreed):
    d = Dialogue()
    d.syn(d.a)
    d.send(d.b, "FA", seq=d.b.isn + 1)
    d.synack(d.b)
    d.ack(d.a, ack=d.b.isn + 1)
    d.ack(d.a)
    (row,) = agreed(d)
    assert (state_of(row, d.a), state_of(row, d.b)) == ("CLOSE-WAIT", "FIN-WAIT-2")


def test_an_isn_known_from_the_peers_synack_begins_no_new_record(agreed):
    d = Dialogue()
    d.synack(d.b, ack=d.a.isn + 1)
    d.a.nxt = d.a.isn + 1
    d.close()
    d.synack(d.a)
    (row,) = agreed(d)
    assert (row["odd_syns"], row["packets_after_close"]) == (1, 1)


def test_windows_are_scaled_by_the_synack_that_was_answered(agreed):
    d = Dialogue()
    d.a.options = options(scale=7)
    d.syn(d.a)
    d.synack(d.b, opts=options(scale=7))
    d.synack(d.b, seq=77)
    d.ack(d.a, ack=78, window=1000)
    d.data(d.b, 1, seq=78 + 70_000)  # outside 65,535, the window of the SYN; inside 1,000 << 7
    (row,) = agreed(d)
    assert (row["synack_isn_variants"], row["odd_segments"]) == (2, 1)


def test_swapped_fins_are_both_acknowledged_though_the_late_one_carries_no_ack(agreed):
    """The closer has acknowledged the other's FIN before: its own FIN, which the tap shows last, need not say so again."""
    d = Dialogue().handshake()
    fin = d.send(d.a, "F", captured=False)
    d.fin(d.b)
    d.ack(d.a)
    d.packets.append(fin._replace(time_ns=d.now + d.step))
    (row,) = agreed(d)
    assert (row["close"], row["closer"], row["time_wait_side"]) == ("fin_3way", "client", "client")
    assert (state_of(row, d.a), state_of(row, d.b)) == ("TIME-WAIT", "CLOSED")


def test_swapped_fins_after_a_reset_move_no_state(agreed):
    d = Dialogue()
    d.synack(d.b, ack=d.a.isn + 1)
    d.rst(d.a, extra="A", seq=d.a.isn + 1)
    fin = d.send(d.b, "FA", seq=d.b.isn + 1, ack=d.a.isn + 1, captured=False)
    d.send(d.a, "FA", seq=d.a.isn + 1, ack=d.b.isn + 2)
    d.packets.append(fin._replace(time_ns=d.now + d.step))
    (row,) = agreed(d)
    assert (row["handshake"], state_of(row, d.a), state_of(row, d.b)) == ("aborted", "CLOSED", "LISTEN")


def test_a_fin_sent_before_its_sender_acknowledged_the_syn_counts_when_it_does(agreed):
    """A split open: the server's FIN comes before its acknowledgement of the client's SYN-ACK."""
    d = Dialogue()
    d.syn(d.a)
    d.ack(d.b)
    d.syn(d.b)
    d.synack(d.a)
    d.send(d.b, "F", seq=d.b.isn + 1)
    d.ack(d.b)
    d.ack(d.a, ack=d.b.isn + 2)
    (row,) = agreed(d)
    assert (row["handshake"], row["close"], row["split_open"]) == ("complete", "half_closed", True)
    assert (state_of(row, d.a), state_of(row, d.b)) == ("CLOSE-WAIT", "FIN-WAIT-2")


def test_a_stream_begins_after_its_syn_though_an_ack_came_below_it(agreed):
    d = Dialogue()
    d.syn(d.a)
    d.ack(d.b, seq=d.b.isn - 100)
    d.syn(d.b)
    d.synack(d.a)
    d.ack(d.b, seq=d.b.isn + 1)
    d.fin(d.b, seq=d.b.isn + 1)
    d.ack(d.a, ack=d.b.isn + 2)
    (row,) = agreed(d)
    assert (row["server_missing_bytes"], row["server_out_of_order_segments"], row["close"]) == (0, 0, "half_closed")


def test_a_segment_outside_the_window_proves_no_handshake(agreed):
    """A FIN among data that the server has acknowledged: it goes on where the client's SYN ended, but cannot be new."""
    d = Dialogue()
    d.syn(d.a, 10)
    d.data(d.b, 1, ack=d.a.isn + 11)
    d.send(d.a, "FA", seq=d.a.isn + 1, ack=d.b.isn)
    (row,) = agreed(d)
    assert (row["handshake"], row["odd_segments"], state_of(row, d.a)) == ("pending", 1, "SYN-SENT")


def test_a_simultaneous_open_may_complete_before_the_second_synack(agreed):
    d = Dialogue()
    d.syn(d.a)
    d.ack(d.b, seq=d.b.isn + 1)
    d.syn(d.b)
    d.synack(d.a)
    d.synack(d.b)
    (row,) = agreed(d)
    assert (row["handshake"], state_of(row, d.a), state_of(row, d.b)) == ("complete", "ESTABLISHED", "ESTABLISHED")


def test_any_synack_agrees_to_multipath_also_before_the_syn_is_seen(agreed):
    d = Dialogue()
    d.synack(d.b, ack=d.a.isn + 1)
    d.synack(d.b, seq=77, ack=d.a.isn + 1, opts=options(mptcp=b"\x01\x01"))
    d.syn(d.a, opts=options(mptcp=b"\x01\x01"))
    (row,) = agreed(d)
    assert (row["mptcp"], row["synack_isn_variants"]) == ("agreed", 2)


def test_the_other_ends_syn_after_an_aborted_attempt_opens_simultaneously(agreed):
    """The client tries again with the same ISN, and its peer, whose SYN-ACK had another ISN, opens as well."""
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b)
    d.rst(d.a, extra="A", seq=d.a.isn + 1)
    d.syn(d.a)
    d.syn(d.b, seq=d.b.isn + 500_000)
    (row,) = agreed(d)
    assert (row["simultaneous_open"], row["syn_count"]) == (True, 2)


def test_a_server_that_opens_anew_after_its_client_aborted(agreed):
    """The client's SYN was never seen: the SYN-ACK says what its ISN is, also when the attempt opens again."""
    d = Dialogue()
    d.synack(d.b, ack=d.a.isn + 1)
    d.rst(d.a, extra="A", seq=d.a.isn + 1)
    d.syn(d.b)
    d.data(d.b, 100, seq=d.b.isn + 1, ack=d.a.isn + 1)
    (row,) = agreed(d)
    assert (row["odd_segments"], row["server_unique_bytes"], state_of(row, d.b)) == (0, 100, "ESTABLISHED")


def test_an_end_in_syn_sent_that_closes_acknowledges_first(agreed):
    """Its FIN's segment acknowledges the SYN and the FIN of the other end: it has answered a close, not begun one."""
    d = Dialogue()
    d.syn(d.a)
    d.syn(d.b)
    d.synack(d.a)
    d.fin(d.a)
    d.fin(d.b)
    d.ack(d.a)
    (row,) = agreed(d)
    assert (row["close"], row["time_wait_side"]) == ("fin_3way", "client")
    assert (state_of(row, d.a), state_of(row, d.b)) == ("TIME-WAIT", "CLOSED")


def test_a_held_syn_that_comes_again_after_the_close_opens_anew(agreed):
    """Though the server's acknowledgement of it, meanwhile, would have made it the record's own late SYN."""
    d = Dialogue()
    d.ack(d.a)
    d.syn(d.a)
    d.ack(d.b, ack=d.a.isn + 1)
    d.rst(d.b, extra="A", seq=d.b.nxt, ack=0)
    d.syn(d.a)
    rows = agreed(d)
    assert [(row["handshake"], row["syn_count"]) for row in rows] == [("not_seen", 0), ("pending", 2)]


def test_a_resent_syn_of_an_open_connection_moves_no_state(agreed):
    """The client aborted, the server opened anew and went on: the client's old SYN comes late."""
    d = Dialogue()
    d.syn(d.a)
    d.rst(d.a)
    d.synack(d.b)
    d.ack(d.a)
    d.syn(d.b)
    d.data(d.b, 0, seq=d.b.isn + 1)
    d.syn(d.a)
    (row,) = agreed(d)
    assert (row["handshake"], row["syn_count"], state_of(row, d.a)) == ("complete", 2, "CLOSED")
