"""The account of bytes and round trips by sequence numbers (SPEC 4 "Data"), worked out by hand, also across the wrap."""

from __future__ import annotations

from math import isqrt

import pytest
from tap import of

from dialogue import MS, Dialogue

ISNS = [1000, 2**32 - 1, 2**32 - 250, 2**31 - 250]
wrapped = pytest.mark.parametrize("isn", ISNS, ids=hex)


def opened(isn: int = 1000) -> Dialogue:
    """An open connection; end a sends."""
    return Dialogue(a_isn=isn, b_isn=isn).handshake()


def accounts(tap, d: Dialogue, end=None) -> tuple[int, ...]:
    """unique bytes; retransmitted segments and bytes; out-of-order segments; missing bytes of an end (default: a)."""
    row = tap.row(d)
    names = ("unique_bytes", "retransmitted_segments", "retransmitted_bytes", "out_of_order_segments", "missing_bytes")
    return tuple(of(row, end or d.a, name) for name in names)


def at(d: Dialogue, low: int, high: int) -> None:
    """a's bytes from low to high, counted from its first one."""
    d.data(d.a, high - low, seq=d.a.isn + 1 + low)


# ------------------------------------------------------------------------------------------ holes


@wrapped
def test_bytes_in_a_hole_are_out_of_order_and_bytes_seen_are_retransmitted(tap, isn):
    d = opened(isn)
    at(d, 0, 100)
    at(d, 200, 300)  # a hole of 100
    at(d, 120, 150)  # wholly inside it
    at(d, 140, 160)  # 10 seen, 10 not
    at(d, 0, 100)
    d.ack(d.b, ack=d.a.isn + 1 + 300)
    assert accounts(tap, d) == (100 + 100 + 30 + 10, 2, 110, 1, 60)


@wrapped
def test_one_that_touches_both_edges_of_a_hole(tap, isn):
    d = opened(isn)
    at(d, 0, 100)
    at(d, 200, 300)
    at(d, 100, 200)  # the hole exactly: nothing seen is touched
    at(d, 99, 201)  # now all of it was seen
    assert accounts(tap, d) == (300, 1, 102, 1, 0)


@wrapped
def test_one_that_reaches_beyond_the_highest_end(tap, isn):
    d = opened(isn)
    at(d, 0, 100)
    at(d, 50, 150)
    assert accounts(tap, d) == (150, 1, 50, 0, 0)


@wrapped
def test_a_fifth_hole_drops_the_lowest(tap, isn):
    """Four holes are kept: with the fifth, bytes of the first count as seen; those of the second are still new."""
    d = opened(isn)
    for number in range(6):
        at(d, 20 * number, 20 * number + 10)
    at(d, 10, 20)
    at(d, 30, 40)
    assert accounts(tap, d)[:4] == (60 + 10, 1, 10, 1)


@wrapped
def test_four_holes_are_kept(tap, isn):
    d = opened(isn)
    for number in range(5):
        at(d, 20 * number, 20 * number + 10)
    for number in range(4):
        at(d, 20 * number + 10, 20 * number + 20)
    assert accounts(tap, d) == (90, 0, 0, 4, 0)


@wrapped
def test_two_holes_that_touch_are_one(tap, isn):
    """An ACK without payload from beyond the highest byte opens a hole; one from further beyond makes it longer."""
    d = opened(isn)
    for number in range(4):
        at(d, 20 * number, 20 * number + 10)
    for beyond in (90, 95):
        d.ack(d.a, seq=d.a.isn + 1 + beyond)
    at(d, 10, 20)  # the lowest of four, not of five
    assert accounts(tap, d)[:4] == (50, 0, 0, 1)


def test_a_hole_split_in_its_middle_may_be_the_fifth(tap):
    d = opened()
    for number in range(5):
        at(d, 30 * number, 30 * number + 10)
    at(d, 105 + 0, 106)  # splits the fourth: the lowest of five is dropped
    at(d, 10, 30)
    at(d, 100, 105)
    assert accounts(tap, d)[:4] == (50 + 1 + 5, 1, 20, 2)


@wrapped
def test_missing_is_what_was_acknowledged_and_not_seen(tap, isn):
    d = opened(isn)
    d.data(d.a, 1000, captured=False)
    d.data(d.a, 50)
    d.ack(d.b)
    assert accounts(tap, d) == (50, 0, 0, 0, 1000)
    d.fin(d.a)
    d.ack(d.b)
    assert accounts(tap, d) == (50, 0, 0, 0, 1000)


# ------------------------------------------------------------------------------------------ round trips


def rtt(tap, d: Dialogue) -> tuple:
    """Samples, least, mean, greatest and deviation of the far side towards b, in milliseconds where whole."""
    row = tap.row(d)
    return tuple(of(row, d.b, f"rtt_{name}") for name in ("samples", "min_ns", "mean_ns", "max_ns", "stddev_ns"))


@wrapped
def test_samples_are_exact(tap, isn):
    d = opened(isn)
    times = [3, 1_000_003, 7, 20_000_000_000, 11]
    for time in times:
        d.data(d.a, 10)
        d.ack(d.b, step=time)
    mean = sum(times) // 5
    deviation = isqrt(5 * sum(t * t for t in times) - sum(times) ** 2) // 5
    assert rtt(tap, d) == (5, 3, mean, 20_000_000_000, deviation)


@wrapped
def test_one_segment_is_timed_at_a_time_and_its_sample_ends_at_its_end(tap, isn):
    d = opened(isn)
    d.data(d.a, 10)
    first_end = d.a.nxt
    d.data(d.a, 10)
    d.ack(d.b, ack=first_end - 1, step=MS)
    d.ack(d.b, ack=first_end, step=MS)
    d.ack(d.b, step=MS)
    assert rtt(tap, d)[:2] == (1, d.step + 2 * MS)


@wrapped
@pytest.mark.parametrize("resend", [(0, 10), (5, 6), (5, 30)])
def test_karn_a_resend_drops_the_sample(tap, isn, resend):
    """Whatever lies below NXT and is sent again: an acknowledgement could mean either copy (RFC 6298 section 3)."""
    d = opened(isn)
    at(d, 0, 10)
    at(d, *resend)
    d.ack(d.b)
    assert rtt(tap, d) == (0, None, None, None, None)


def test_karn_a_resent_fin_drops_the_sample_of_the_segment_that_it_closed(tap):
    d = opened()
    d.fin(d.a, 10)
    d.fin(d.a, seq=d.a.nxt - 1)
    d.ack(d.b)
    assert rtt(tap, d)[0] == 0


def test_after_karn_the_next_new_segment_is_timed(tap):
    d = opened()
    at(d, 0, 10)
    at(d, 0, 10)
    at(d, 10, 20)
    d.ack(d.b, step=3 * MS)
    assert rtt(tap, d)[:2] == (1, 3 * MS)


def test_a_segments_end_includes_its_fin(tap):
    d = opened()
    d.fin(d.a, 10)
    d.ack(d.b, ack=d.a.nxt - 1)
    assert rtt(tap, d)[0] == 0
    d.ack(d.b, step=MS)
    assert rtt(tap, d)[:2] == (1, d.step + MS)


# ------------------------------------------------------------------------------------------ kinds of segments


@wrapped
@pytest.mark.parametrize(
    ("below", "payload", "keep_alive"), [(1, 0, True), (1, 1, True), (0, 0, False), (2, 0, False), (1, 2, False)]
)
def test_keep_alives(tap, isn, below, payload, keep_alive):
    d = opened(isn)
    d.data(d.a, 10)
    d.ack(d.b)
    d.send(d.a, "A", payload, seq=d.a.nxt - below)
    row = tap.row(d)
    assert of(row, d.a, "keep_alives") == keep_alive
    assert of(row, d.a, "retransmitted_segments") == (payload == 2)
    assert of(row, d.a, "pure_acks") == 1 + (payload == 0 and not keep_alive)


def test_one_byte_below_nxt_is_a_resend_while_nxt_is_not_acknowledged(tap):
    d = opened()
    d.data(d.a, 10)
    d.keep_alive(d.a, 1)
    row = tap.row(d)
    assert (row["client_keep_alives"], row["client_retransmitted_segments"]) == (0, 1)


@pytest.mark.parametrize(
    ("change", "duplicates"), [({}, 1), ({"window": 100}, 0), ({"seq": -1}, 0), ({"ack": -1}, 0), ({"payload": 5}, 0)]
)
def test_duplicate_acks(tap, change, duplicates):
    """RFC 5681 section 2: data outstanding, no payload, no SYN or FIN, the highest ACK, the same window."""
    d = opened()
    d.data(d.a, 10)
    d.data(d.a, 10)
    d.ack(d.b, ack=d.a.nxt - 10)
    how = {"ack": d.a.nxt - 10 + change.get("ack", 0), "window": change.get("window", 65535)}
    d.send(d.b, "A", change.get("payload", 0), seq=d.b.nxt + change.get("seq", 0), **how)
    assert tap.row(d)["server_duplicate_acks"] == duplicates


def test_no_duplicate_ack_where_nothing_is_outstanding(tap):
    d = opened()
    d.data(d.a, 10)
    d.ack(d.b)
    d.ack(d.b)
    assert tap.row(d)["server_duplicate_acks"] == 0


@pytest.mark.parametrize(("flags", "counts"), [("A", 1), ("PA", 1), ("FA", 0), ("R", 0)])
def test_zero_windows(tap, flags, counts):
    d = opened()
    d.send(d.b, flags, window=0)
    assert tap.row(d)["server_zero_windows"] == counts


def test_the_ack_that_names_another_isn_is_no_duplicate(tap):
    """It repeats the acknowledgement of an earlier segment, but nothing is outstanding in the account that begins with it."""
    d = Dialogue(b_isn=9000)
    d.synack(d.b, 100)
    d.ack(d.a, ack=5001)
    d.synack(d.b, seq=5000)
    d.ack(d.a, ack=5001)
    row = tap.row(d)
    assert (row["server_isn"], row["client_duplicate_acks"], row["client_pure_acks"]) == (5000, 0, 2)
