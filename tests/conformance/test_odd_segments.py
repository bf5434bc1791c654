"""Segments that do not fit their target's window as the tap knows it (SPEC 3.4), at both edges and across the wrap."""

from __future__ import annotations

import pytest
from tap import of

from dialogue import Dialogue, options

ISNS = [(1000, 5000), (2**32 - 1, 2**32 - 1), (2**32 - 150, 2**32 - 60), (2**31 - 101, 2**31 - 1)]
wrapped = pytest.mark.parametrize("isns", [{"a_isn": a, "b_isn": b} for a, b in ISNS], ids=[hex(a) for a, _ in ISNS])
WINDOW = 400


def open_connection(a_isn: int = 1000, b_isn: int = 5000, shift: int | None = None) -> Dialogue:
    """Both ends announced WINDOW units at most; a sent 100 bytes, b acknowledged them with a smaller window."""
    d = Dialogue(a_isn=a_isn, b_isn=b_isn)
    if shift is not None:
        d.a.options = d.b.options = options(scale=shift)
    d.a.window = d.b.window = WINDOW
    d.handshake()
    d.ack(d.b)
    d.data(d.a, 100)
    d.ack(d.b, window=WINDOW // 4)
    return d


@wrapped
@pytest.mark.parametrize(("end", "odd"), [(-WINDOW - 1, True), (-WINDOW, False), (-WINDOW + 1, False), (-1, False)])
def test_lower_edge_is_the_segments_end_at_ack_minus_window(tap, isns, end, odd):
    d = open_connection(**isns)
    d.data(d.a, 10, seq=d.a.nxt + end - 10)
    row = tap.row(d)
    assert row["odd_segments"] == odd
    assert of(row, d.a, "retransmitted_segments") == (not odd)


@wrapped
@pytest.mark.parametrize(("start", "odd"), [(WINDOW - 1, False), (WINDOW, False), (WINDOW + 1, True)])
def test_upper_edge_is_the_segments_begin_at_ack_plus_window(tap, isns, start, odd):
    d = open_connection(**isns)
    d.data(d.a, 10, seq=d.a.nxt + start)
    row = tap.row(d)
    assert row["odd_segments"] == odd
    assert of(row, d.a, "unique_bytes") == (100 if odd else 110)


@pytest.mark.parametrize(("start", "odd"), [(WINDOW << 4, False), ((WINDOW << 4) + 1, True)])
def test_windows_are_scaled(tap, start, odd):
    d = open_connection(shift=4)
    d.data(d.a, 10, seq=d.a.nxt + start)
    assert tap.row(d)["odd_segments"] == odd


@pytest.mark.parametrize(("start", "odd"), [(1000, False), (1001, True)])
def test_the_window_of_a_syn_is_not_scaled(tap, start, odd):
    d = Dialogue()
    d.a.options = d.b.options = options(scale=4)
    d.b.window = 1000
    d.syn(d.a)
    d.synack(d.b)
    d.ack(d.a)
    d.data(d.a, 10, seq=d.a.nxt + start)
    assert tap.row(d)["odd_segments"] == odd


@pytest.mark.parametrize(("start", "odd"), [(3 << 14, False), ((3 << 14) + 1, True)])
def test_an_unknown_scale_counts_as_14(tap, start, odd):
    d = Dialogue()
    d.ack(d.a)
    d.ack(d.b, window=3)
    d.data(d.a, 10, seq=d.a.nxt + start)
    assert tap.row(d)["odd_segments"] == odd


def test_an_odd_segment_moves_no_state_and_no_account_but_counts(tap):
    d = open_connection()
    plain = tap.row(d)
    d.send(d.a, "FPA", 10, seq=d.a.nxt + 5000, ack=d.b.nxt + 300, window=0)
    row = tap.row(d)
    changed = {name for name in row if row[name] != plain[name]}
    assert changed == {
        "odd_segments",
        "last_seen",
        "duration_ns",
        "client_packets",
        "client_ip_bytes",
        "client_payload_bytes",
    }
    assert (row["odd_segments"], row["client_payload_bytes"]) == (1, 110)


def test_where_the_targets_ack_or_window_is_not_known_nothing_is_judged(tap):
    d = Dialogue()
    d.data(d.a, 10)
    d.data(d.a, 10, seq=d.a.nxt + 2**30)
    d.send(d.b, "P", 5)
    d.data(d.a, 10, seq=d.a.nxt + 2**30)
    row = tap.row(d)
    assert (row["odd_segments"], of(row, d.a, "unique_bytes")) == (0, 30)


# ------------------------------------------------------------------------------------------ loss at the tap


def odd_then(d: Dialogue, gap: int):
    """a goes on 10,000 bytes later (odd), and again with a segment that begins ``gap`` bytes after that one's end."""
    start = d.a.nxt + 10_000
    d.data(d.a, 10, seq=start)
    d.data(d.a, 10, seq=start + 10 + gap)


@wrapped
@pytest.mark.parametrize(("gap", "odd"), [(-1, 2), (0, 1), (1, 2)])
def test_one_that_begins_where_the_last_odd_one_ended_is_taken(tap, isns, gap, odd):
    d = open_connection(**isns)
    odd_then(d, gap)
    row = tap.row(d)
    assert row["odd_segments"] == odd
    assert of(row, d.a, "unique_bytes") == 100 + 10 * (2 - odd)


def test_then_nothing_is_judged_until_the_targets_next_ack(tap):
    d = open_connection()
    odd_then(d, 0)
    d.data(d.a, 10, seq=d.a.nxt + 50_000)  # not judged
    d.ack(d.b)
    d.data(d.a, 10, seq=d.a.nxt + 50_000)  # judged by the new ACK
    row = tap.row(d)
    assert (row["odd_segments"], of(row, d.a, "unique_bytes")) == (2, 120)


def test_a_segment_without_ack_lifts_nothing(tap):
    d = open_connection()
    odd_then(d, 0)
    d.send(d.b, "P", 5)
    d.data(d.a, 10, seq=d.a.nxt + 50_000)
    assert tap.row(d)["odd_segments"] == 1


# ------------------------------------------------------------------------------------------ FIN below acknowledged data


@wrapped
@pytest.mark.parametrize(("below", "odd"), [(0, False), (1, False), (2, True), (50, True)])
def test_a_fin_below_acknowledged_data(tap, isns, below, odd):
    """One below: the acknowledgement may be the FIN's own, which the tap showed first. Two below: data lies there."""
    d = open_connection(**isns)
    d.fin(d.a, seq=d.a.nxt - below)
    row = tap.row(d)
    assert (row["odd_segments"], row["client_fin_count"]) == (odd, not odd)
    assert row["client_state"] == {0: "FIN-WAIT-1", 1: "FIN-WAIT-2"}.get(below, "ESTABLISHED")


def test_a_resent_fin_is_none_though_it_lies_below_what_was_acknowledged(tap):
    d = open_connection()
    at = d.a.nxt
    d.fin(d.a)
    d.data(d.a, 20)  # data after the FIN: against the protocol, but it is acknowledged
    d.ack(d.b)
    d.fin(d.a, seq=at)
    row = tap.row(d)
    assert (row["odd_segments"], row["client_fin_count"]) == (0, 2)


# ------------------------------------------------------------------------------------------ in an attempt


@pytest.mark.parametrize(("ack", "odd"), [(0, True), (1, False), (2, True)])
@pytest.mark.parametrize("flags", ["A", "PA", "FA"])
def test_before_a_syn_ack_only_an_ack_of_exactly_the_syn_is_none(tap, flags, ack, odd):
    d = Dialogue()
    d.syn(d.a)
    d.send(d.b, flags, 5 if "P" in flags else 0, seq=d.b.isn + 1, ack=d.a.isn + ack)
    row = tap.row(d)
    assert row["odd_segments"] == odd
    assert (row["client_state"], row["server_state"], row["handshake"]) == ("SYN-SENT", "LISTEN", "pending")


@wrapped
@pytest.mark.parametrize(
    ("payload", "above", "complete"), [(0, 0, 0), (0, 1, 1), (0, 2, 0), (5, 1, 1), (5, 2, 0), (5, 6, 1), (5, 7, 0)]
)
def test_before_a_syn_ack_the_client_proves_by_going_on_exactly_there(tap, isns, payload, above, complete):
    d = Dialogue(**isns)
    d.syn(d.a, payload)
    d.send(d.a, "PA", 3, seq=d.a.isn + above, ack=4711)
    row = tap.row(d)
    assert row["handshake"] == ("complete" if complete else "pending")
    assert row["odd_segments"] == (not complete)
    assert row["client_state"] == ("ESTABLISHED" if complete else "SYN-SENT")
    assert row["server_state"] == ("ESTABLISHED" if complete else "LISTEN")
