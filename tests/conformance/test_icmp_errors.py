"""ICMP and ICMPv6 errors that quote a segment (SPEC 4, `unreachable`): what they change, and what they must not."""

from __future__ import annotations

import pytest
from tap import Tap

from dialogue import SECOND, Dialogue, write_pcap
from rows import compare
from synfin.settings import Settings


def six() -> Dialogue:
    return Dialogue(a_ip="2001:db8::1", b_ip="2001:db8::2")


@pytest.fixture
def track(tap: Tap, tmp_path):
    """The only row of a dialogue, checked against the slow tracker."""

    def run(dialogue: Dialogue, settings: Settings | None = None) -> dict:
        assert compare([write_pcap(tmp_path / "both.pcap", dialogue.packets)], settings) == []
        return tap.row(dialogue, settings)

    return run


def gauges(tap: Tap, name: str) -> list[int]:
    """A gauge or count of the interval table, row by row."""
    return [row[name] for row in tap.intervals]


@pytest.mark.parametrize(
    ("kind", "code", "handshake"),
    [(3, 1, "unreachable"), (3, 13, "unreachable"), (11, 0, "unreachable"), (12, 0, "unreachable"),
     (3, 4, "pending"), (4, 0, "pending"), (5, 1, "pending")],
)  # fmt: skip
def test_an_error_that_quotes_the_syn(track, tap, kind, code, handshake):
    d = Dialogue()
    d.icmp(d.syn(d.a), kind, code)
    row = track(d)
    failed = handshake == "unreachable"
    assert (row["handshake"], row["icmp_errors"], row["client_state"]) == (handshake, 1, "SYN-SENT")
    assert (row["icmp_type"], row["icmp_code"]) == ((kind, code) if failed else (None, None))
    assert tap.stats["skips"] == {"icmp_error": 1}
    assert (gauges(tap, "opening"), gauges(tap, "connections")) == (([0], [0]) if failed else ([1], [1]))
    assert gauges(tap, "unreachable") == [int(failed)] and gauges(tap, "syn_sent") == [1]


@pytest.mark.parametrize(
    ("kind", "code", "handshake"),
    [(1, 0, "unreachable"), (1, 4, "unreachable"), (3, 0, "unreachable"), (4, 1, "unreachable"), (2, 0, "pending")],
)
def test_icmpv6(track, kind, code, handshake):
    d = six()
    d.icmp(d.syn(d.a), kind, code)
    row = track(d)
    assert (row["handshake"], row["icmp_errors"]) == (handshake, 1)


def test_the_first_error_gives_type_and_code(track):
    d = Dialogue()
    syn = d.syn(d.a)
    d.icmp(syn, 5, 0)
    d.icmp(syn, 11, 0)
    d.icmp(syn, 3, 3)
    row = track(d)
    assert (row["icmp_type"], row["icmp_code"], row["icmp_errors"]) == (11, 0, 3)


def test_a_further_syn_opens_again_and_an_answer_counts_for_more(track, tap):
    d = Dialogue()
    d.icmp(d.syn(d.a))
    d.wait(2 * SECOND)
    d.syn(d.a)
    d.wait(2 * SECOND)
    row = track(d)
    assert row["handshake"] == "unreachable"
    assert gauges(tap, "opening") == [0, 0, 1] and gauges(tap, "unreachable") == [1, 0, 0]
    d.synack(d.b)
    d.ack(d.a)
    row = track(d)
    assert (row["handshake"], row["icmp_type"], row["icmp_code"]) == ("complete", 3, 1)
    assert gauges(tap, "completed")[-1] == 1


def test_a_refusal_counts_for_more(track, tap):
    d = Dialogue()
    d.icmp(d.syn(d.a))
    d.syn(d.a)
    d.rst(d.b, extra="A", seq=0)
    assert track(d)["handshake"] == "refused"
    assert sum(gauges(tap, "unreachable")) == 1 and sum(gauges(tap, "refused")) == 1


def test_an_ack_of_exactly_the_syn_is_an_answer(track, tap):
    d = Dialogue()
    d.icmp(d.syn(d.a))
    d.ack(d.b)
    track(d)
    assert gauges(tap, "opening") == [1]


@pytest.mark.parametrize(("offset", "counted"), [(-1, False), (0, True), (1, True), (2, False), (70_000, False)])
def test_a_forged_one_changes_nothing_and_is_counted(track, tap, offset, counted):
    """In flight is the SYN (ISN); ISN + 1 could be an ACK that the tap did not see."""
    d = Dialogue()
    d.syn(d.a)
    d.icmp(d.syn(d.a, seq=1000 + offset, captured=False))
    row = track(d)
    assert (row["handshake"], row["icmp_errors"]) == ("unreachable" if offset == 0 else "pending", int(counted))
    assert tap.stats["icmp"] == {"errors": int(counted), "rejected": int(not counted)}


@pytest.mark.parametrize(("offset", "counted"), [(-101, False), (-100, True), (-1, True), (0, True), (1, False)])
def test_an_open_connection_counts_what_is_in_flight(track, offset, counted):
    d = Dialogue().handshake()
    d.data(d.a, 500)
    d.ack(d.b)
    d.data(d.a, 100)
    d.icmp(d.ack(d.a, seq=d.a.nxt + offset, captured=False), 3, 4)
    row = track(d)
    assert row["icmp_errors"] == int(counted)
    assert (row["handshake"], row["icmp_type"], row["client_packets"]) == ("complete", None, 4)


def test_an_error_about_the_syn_ack(track):
    d = Dialogue()
    d.syn(d.a)
    d.icmp(d.synack(d.b))
    row = track(d)
    assert (row["handshake"], row["icmp_errors"], row["icmp_type"]) == ("pending", 1, None)


@pytest.mark.parametrize(("quoted", "counted"), [(27, 0), (28, 1), (None, 1)])
def test_eight_bytes_behind_the_ip_header_are_enough(track, quoted, counted):
    d = Dialogue()
    d.icmp(d.syn(d.a), quoted=quoted)
    assert track(d)["icmp_errors"] == counted


def test_nobody_s_segment(track, tap):
    d, other = Dialogue(), Dialogue(a_port=40001)
    d.syn(d.a)
    d.icmp(d.icmp(other.syn(other.a)))  # about no connection that was seen, and an error about an error
    assert track(d)["icmp_errors"] == 0
    assert tap.stats["skips"] == {"icmp_error": 2}


@pytest.mark.parametrize(("after", "counted"), [(75 * SECOND - 1, 1), (75 * SECOND, 0)])
def test_it_restarts_no_deadline_and_comes_too_late_at_it(track, after, counted):
    d = Dialogue()
    d.icmp(d.syn(d.a), step=after)
    d.icmp(d.packets[1], step=2 * SECOND)  # moves the clock beyond the deadline
    row = track(d)
    assert (row["handshake"], row["end_reason"]) == ("unreachable" if counted else "unanswered", "attempt_timeout")
    assert row["icmp_errors"] == counted


def test_vlans_tell_apart_where_asked(track):
    d = Dialogue(vlans=(7,))
    d.icmp(d.syn(d.a))
    assert track(d, Settings(key=("vlan",)))["handshake"] == "unreachable"
