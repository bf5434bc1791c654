"""Which RST is accepted (SPEC 3.4; RFC 9293 sections 3.5.3 and 3.10.7), at every edge and across the sequence wrap.

One table per rule: a RST one below, at and one above each border. A rejected one must change nothing but its counts.
"""

from __future__ import annotations

import pytest
from tap import of, state_of

from dialogue import Dialogue, options

#: Pairs of ISNs: plain, and such that the numbers in question lie on both sides of the wrap.
ISNS = [(1000, 5000), (2**32 - 1, 2**32 - 1), (2**32 - 60, 2**32 - 110), (2**31 - 1, 2**31 - 50)]
wrapped = pytest.mark.parametrize("isns", [{"a_isn": a, "b_isn": b} for a, b in ISNS], ids=[hex(a) for a, _ in ISNS])


def verdict(row) -> bool:
    """Whether the only RST of a row was accepted; a rejected one must have left no trace but counts."""
    assert row["client_rst_count"] + row["server_rst_count"] == 1
    if row["rst_rejected"]:
        assert (row["rst_by"], row["rst_seen"], row["rst_ttl"], row["packets_after_close"]) == (None, None, None, 0)
    else:
        assert row["rst_by"] is not None
    return not row["rst_rejected"]


def check(tap, d: Dialogue, accepted: bool) -> None:
    """The last packet of the dialogue is a RST: it must be accepted, or leave both ends' states as they were."""
    before = tap.states(d, len(d.packets) - 1)
    row = tap.row(d)
    assert verdict(row) == accepted
    after = (state_of(row, d.a), state_of(row, d.b))
    if accepted:
        assert set(after) <= {"CLOSED", "LISTEN"}
    else:
        assert after == before


# ------------------------------------------------------------------------------------------ towards SYN-SENT


@wrapped
@pytest.mark.parametrize(
    ("payload", "above_isn", "accepted"),
    [
        (0, 0, False),
        (0, 1, True),
        (0, 2, False),
        (9, 0, False),
        (9, 1, True),
        (9, 5, True),
        (9, 10, True),
        (9, 11, False),
    ],
)
def test_towards_syn_sent_its_ack_must_cover_the_syn_and_no_more(tap, isns, payload, above_isn, accepted):
    d = Dialogue(**isns)
    d.syn(d.a, payload)
    d.rst(d.b, extra="A", seq=777, ack=d.a.isn + above_isn)
    check(tap, d, accepted)


@pytest.mark.parametrize("seq", [0, 5000, 5001])
def test_towards_syn_sent_a_rst_without_ack_is_rejected_whatever_its_sequence_number(tap, seq):
    d = Dialogue()
    d.syn(d.a)
    d.rst(d.b, seq=seq)
    check(tap, d, False)


def test_a_rejected_rst_leaves_the_attempt_open_and_an_accepted_one_refuses_it(tap):
    d = Dialogue()
    d.syn(d.a)
    d.rst(d.b, seq=0)
    d.rst(d.b, seq=0, extra="A", ack=d.a.isn + 1, ttl=55)
    row = tap.row(d)
    assert (row["handshake"], row["rst_rejected"], row["server_rst_count"]) == ("refused", 1, 2)
    assert (row["rst_seen"], row["rst_ttl"], row["rst_by"]) == (d.packets[2].time_ns, 55, "server")


# ------------------------------------------------------------------------------------------ in SYN-RECEIVED


@wrapped
@pytest.mark.parametrize(("offset", "accepted"), [(-1, False), (0, True), (1, True), (99, True), (100, False)])
def test_towards_syn_received_by_the_window_of_the_syn_ack(tap, isns, offset, accepted):
    """The window of a SYN-ACK is never scaled (RFC 7323 section 2.2): 100 is 100."""
    d = Dialogue(**isns)
    d.a.options = d.b.options = options(scale=7)
    d.b.window = 100
    d.syn(d.a)
    d.synack(d.b)
    d.rst(d.a, seq=d.a.isn + 1 + offset)
    check(tap, d, accepted)


# ------------------------------------------------------------------------------------------ synchronized


def open_with_window(a_isn: int, b_isn: int, window: int, shift: int | None) -> Dialogue:
    """An open connection; b acknowledged 50 of a's 80 bytes and announced a window of ``window`` << shift."""
    d = Dialogue(a_isn=a_isn, b_isn=b_isn)
    if shift is not None:
        d.a.options = d.b.options = options(scale=shift)
    d.handshake()
    d.data(d.a, 50)
    d.ack(d.b, window=window)
    d.data(d.a, 30)
    return d


@wrapped
@pytest.mark.parametrize(
    ("beyond_ack", "accepted"),
    [(-1, False), (0, True), (1, False), (29, False), (30, True), (31, True), (99, True), (100, False), (101, False)],
)
def test_at_the_highest_ack_or_from_the_senders_end_to_the_windows(tap, isns, beyond_ack, accepted):
    d = open_with_window(**isns, window=100, shift=None)
    d.rst(d.a, seq=d.a.isn + 1 + 50 + beyond_ack)
    check(tap, d, accepted)


@wrapped
@pytest.mark.parametrize(("beyond_ack", "accepted"), [(799, True), (800, False)])
def test_the_window_is_scaled(tap, isns, beyond_ack, accepted):
    d = open_with_window(**isns, window=100, shift=3)
    d.rst(d.a, seq=d.a.isn + 51 + beyond_ack)
    check(tap, d, accepted)


@pytest.mark.parametrize(("beyond_ack", "accepted"), [(9, True), (10, False), (99, False)])
def test_the_last_window_counts_not_the_largest(tap, beyond_ack, accepted):
    d = Dialogue().handshake()
    d.ack(d.b, window=100)
    d.ack(d.b, window=10)
    d.rst(d.a, seq=d.a.nxt + beyond_ack)
    check(tap, d, accepted)


@pytest.mark.parametrize(("beyond_ack", "accepted"), [(-1, False), (0, True), (1, False)])
def test_a_closed_window_takes_the_exact_number_only(tap, beyond_ack, accepted):
    d = Dialogue().handshake()
    d.ack(d.b, window=0)
    d.rst(d.a, seq=d.a.nxt + beyond_ack)
    check(tap, d, accepted)


@pytest.mark.parametrize("below", [0, 40])
def test_a_sender_that_acknowledged_bytes_the_tap_missed(tap, below):
    """b acknowledged more of a than the tap saw: the exact number counts, though it lies above a's sequence end."""
    d = Dialogue().handshake()
    d.data(d.a, 40, captured=False)
    d.ack(d.b)
    d.rst(d.a, seq=d.a.nxt - below)
    check(tap, d, below == 0)


@wrapped
@pytest.mark.parametrize(("units", "accepted"), [(0, True), ((10 << 14) - 1, True), (10 << 14, False)])
def test_an_unknown_window_scale_counts_as_14(tap, isns, units, accepted):
    d = Dialogue(**isns)
    d.ack(d.a)
    d.ack(d.b, window=10)
    d.rst(d.a, seq=d.a.nxt + units)
    check(tap, d, accepted)


# ------------------------------------------------------------------------------------------ what was never seen


@pytest.mark.parametrize("seq", [0, 1, 2**31, 2**32 - 1])
def test_always_if_the_target_was_never_seen(tap, seq):
    d = Dialogue()
    d.ack(d.a)
    d.rst(d.a, seq=seq)
    check(tap, d, True)


@pytest.mark.parametrize("seq", [0, 2**31, 2**32 - 1])
def test_always_if_the_target_is_past_syn_received_and_never_sent_an_ack(tap, seq):
    d = Dialogue()
    d.send(d.b, "P", 10)
    d.rst(d.a, seq=seq)
    check(tap, d, True)


def test_the_first_packet_of_all(tap):
    d = Dialogue()
    d.rst(d.a)
    row = tap.row(d)
    assert (row["client_state"], row["server_state"], row["handshake"], row["close"]) == (
        "CLOSED",
        "CLOSED",
        "not_seen",
        "rst",
    )


def test_towards_a_listener_that_has_been_seen_none_is_accepted(tap):
    """Figure 9 without its beginning: the end in LISTEN has answered for an older connection."""
    d = Dialogue()
    d.syn(d.a)
    d.ack(d.b, seq=300, ack=100)
    d.rst(d.a, seq=100)
    check(tap, d, False)


# ------------------------------------------------------------------------------------------ after the close


def closed() -> Dialogue:
    """Closed by a: a in TIME-WAIT, b in CLOSED."""
    return Dialogue().handshake().close()


@pytest.mark.parametrize(("offset", "accepted"), [(-1, False), (0, True), (1, True), (65534, True), (65535, False)])
def test_in_time_wait_by_the_same_test(tap, offset, accepted):
    d = closed()
    d.rst(d.b, seq=d.b.nxt + offset)
    row = tap.row(d)
    assert (not row["rst_rejected"]) == accepted
    assert row["client_state"] == ("CLOSED" if accepted else "TIME-WAIT")
    assert row["time_wait_end"] == ("reset" if accepted else None)
    assert (row["close"], row["end_reason"], row["packets_after_close"]) == ("fin_4way", "fin", 1)


@pytest.mark.parametrize(("offset", "accepted"), [(-1, False), (0, True), (65534, True), (65535, False)])
def test_in_closed_by_the_same_test(tap, offset, accepted):
    """From a towards b, which is CLOSED: the RST ends its sender's TIME-WAIT if it is accepted."""
    d = closed()
    d.rst(d.a, seq=d.a.nxt + offset)
    row = tap.row(d)
    assert (not row["rst_rejected"]) == accepted
    assert row["client_state"] == ("CLOSED" if accepted else "TIME-WAIT")


# ------------------------------------------------------------------------------------------ its effects


def test_flags_are_judged_rst_before_syn_and_fin(tap):
    d = Dialogue().handshake()
    d.send(d.a, "RSFA", seq=d.a.nxt)
    row = tap.row(d)
    assert (row["close"], row["client_rst_count"], row["client_fin_count"], row["syn_count"]) == ("rst", 1, 0, 1)


def test_it_enters_no_sequence_account_and_acknowledges_nothing(tap):
    d = Dialogue().handshake()
    d.data(d.a, 100, captured=False)
    d.ack(d.b)
    d.rst(d.b, extra="A", seq=d.b.nxt + 70_000, ack=d.a.nxt + 500)  # rejected
    d.send(d.b, "RA", 20, seq=d.b.nxt, ack=d.a.nxt + 500)
    row = tap.row(d)
    assert (row["rst_rejected"], row["server_rst_count"], row["rst_by"]) == (1, 2, "server")
    assert (of(row, d.b, "payload_bytes"), of(row, d.b, "unique_bytes"), of(row, d.b, "first_payload")) == (20, 0, None)
    assert of(row, d.a, "missing_bytes") == 100


def test_its_ack_does_not_acknowledge_a_fin(tap):
    d = Dialogue().handshake()
    d.fin(d.a)
    d.rst(d.b, extra="A", seq=d.b.nxt - 1)
    row = tap.row(d)
    assert (row["client_state"], row["rst_rejected"], row["close"]) == ("FIN-WAIT-1", 1, "fin_unanswered")


@pytest.mark.parametrize("sender", ["a", "b"])
def test_an_end_that_sends_one_goes_to_closed_not_to_time_wait(tap, sender):
    """The stated departure from figure 5's note 3."""
    d = Dialogue().handshake()
    d.rst(getattr(d, sender))
    row = tap.row(d)
    assert (row["client_state"], row["server_state"], row["time_wait_side"]) == ("CLOSED", "CLOSED", None)


@pytest.mark.parametrize(
    ("fins", "close", "reason"),
    [("", "rst", "rst"), ("a", "rst_after_fin", "rst"), ("ab", "rst_after_fin", "rst"), ("abA", "fin_4way", "fin")],
)
def test_what_it_makes_of_the_close(tap, fins, close, reason):
    """Before, after one FIN, after two of which one is not acknowledged, and after the close."""
    d = Dialogue().handshake()
    if "a" in fins:
        d.fin(d.a)
        d.ack(d.b)
    if "b" in fins:
        d.fin(d.b)
    if "A" in fins:
        d.ack(d.a)
    d.rst(d.a)
    row = tap.row(d)
    assert (row["close"], row["end_reason"], row["rst_rejected"]) == (close, reason, 0)
