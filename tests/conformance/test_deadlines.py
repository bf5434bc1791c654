"""When a record ends by its deadline (the table of SPEC 3.2): a nanosecond before, at it, and what restarts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from dialogue import SECOND, START, Dialogue
from synfin.settings import Settings

# ------------------------------------------------------------------------------------------ into a state of the record


def unanswered(d: Dialogue) -> None:
    d.syn(d.a)


def half_open(d: Dialogue) -> None:
    d.syn(d.a)
    d.synack(d.b)


def established(d: Dialogue) -> None:
    d.handshake()


def one_fin(d: Dialogue) -> None:
    d.handshake()
    d.fin(d.a)


def half_closed(d: Dialogue) -> None:
    one_fin(d)
    d.ack(d.b)


def midstream(d: Dialogue) -> None:
    d.ack(d.a)
    d.ack(d.b)


def one_sided(d: Dialogue) -> None:
    d.ack(d.a)


def closing(d: Dialogue) -> None:
    half_closed(d)
    d.fin(d.b)


def closed(d: Dialogue) -> None:
    closing(d)
    d.ack(d.a)


def reset(d: Dialogue) -> None:
    d.handshake()
    d.rst(d.a)


def refused(d: Dialogue) -> None:
    d.syn(d.a)
    d.rst(d.b, extra="A", seq=0)


class Phase(NamedTuple):
    """A row of the table: how to get there, the setting, its default in seconds, and how such a record ends."""

    build: Callable[[Dialogue], None]
    setting: str
    seconds: int
    end_reason: str
    handshake: str


PHASES = [
    Phase(unanswered, "attempt_timeout", 75, "attempt_timeout", "unanswered"),
    Phase(half_open, "half_open_timeout", 75, "attempt_timeout", "half_open"),
    Phase(established, "idle_timeout", 7440, "idle", "complete"),
    Phase(one_fin, "idle_timeout", 7440, "idle", "complete"),
    Phase(half_closed, "idle_timeout", 7440, "idle", "complete"),
    Phase(midstream, "idle_timeout", 7440, "idle", "not_seen"),
    Phase(one_sided, "one_sided_timeout", 300, "idle", "not_seen"),
    Phase(closing, "closing_timeout", 60, "idle", "complete"),
    Phase(closed, "time_wait", 60, "fin", "complete"),
    Phase(reset, "reset_linger", 10, "rst", "complete"),
    Phase(refused, "reset_linger", 10, "rst", "refused"),
]
phases = pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.build.__name__)


#: Long intervals: two hours of silence with a live connection are 7,440 rows of a second.
COARSE = Settings(interval=600 * SECOND)


def probe(d: Dialogue, time: int) -> None:
    """A segment at an instant: neither SYN nor RST, so that it begins a record only where there is none."""
    d.send(d.a, "A", time=time)


@phases
@pytest.mark.parametrize("early", [1, 0])
def test_a_packet_belongs_a_nanosecond_before_the_deadline_and_not_at_it(tap, phase, early):
    d = Dialogue()
    phase.build(d)
    probe(d, d.now + phase.seconds * SECOND - early)
    rows = tap.rows(d, COARSE)
    assert len(rows) == 2 - early
    if not early:
        assert (rows[0]["end_reason"], rows[0]["handshake"]) == (phase.end_reason, phase.handshake)
        assert rows[0]["last_seen"] == d.now


@phases
@pytest.mark.parametrize("early", [1, 0])
def test_every_timeout_is_settable(tap, phase, early):
    """Only its own setting moves a deadline: all others are longer by far here."""
    names = {phase.setting for phase in PHASES}
    settings = Settings(**{name: (7 if name == phase.setting else 1000) * SECOND for name in names})
    d = Dialogue()
    phase.build(d)
    probe(d, d.now + 7 * SECOND - early)
    assert len(tap.rows(d, settings)) == 2 - early


@pytest.mark.parametrize("phase", [p for p in PHASES if p.seconds < 3600], ids=lambda phase: phase.build.__name__)
@pytest.mark.parametrize("early", [1, 0])
def test_the_clock_less_a_second_ends_it_too(tap, phase, early):
    """Another connection's packet moves the clock; then comes a packet that carries an old timestamp."""
    d = Dialogue()
    phase.build(d)
    other = Dialogue(a_port=50001, start=d.now + (phase.seconds + 1) * SECOND - early, step=0)
    other.syn(other.a)
    probe(d, d.now + 1)
    late = d.packets.pop()
    rows = [row for row in tap.rows([*d.packets, *other.packets, late]) if row["client_port"] != 50001]
    assert len(rows) == 2 - early


@pytest.mark.parametrize("reorder", [0, 5 * SECOND])
@pytest.mark.parametrize("early", [1, 0])
def test_the_allowance_is_the_setting(tap, reorder, early):
    d = Dialogue()
    d.syn(d.a)
    other = Dialogue(a_port=50001, start=d.now + 75 * SECOND + reorder - early, step=0)
    other.syn(other.a)
    probe(d, d.now + 1)
    late = d.packets.pop()
    rows = tap.rows([*d.packets, *other.packets, late], Settings(reorder=reorder))
    assert len([row for row in rows if row["client_port"] != 50001]) == 2 - early


# ------------------------------------------------------------------------------------------ what restarts it


def data_of_a(d):
    d.data(d.a, 10)


def ack_of_b(d):
    d.ack(d.b)


def keep_alive(d):
    d.keep_alive(d.a)


def odd_segment(d):
    d.data(d.a, 10, seq=d.a.nxt + 2**30)


def syn_again(d):
    d.syn(d.a)


def synack_again(d):
    d.synack(d.b, ack=d.a.isn + 1)


def unacceptable_synack(d):
    d.synack(d.b, seq=d.b.isn + 9, ack=d.a.isn + 900)


def foreign_syn(d):
    """It is held; what follows goes on with the old numbers, and so proves nothing."""
    nxt = d.a.nxt
    d.syn(d.a, seq=d.a.isn + 10**6)
    d.a.nxt = nxt


def rejected_rst_of_a(d):
    d.rst(d.a, seq=d.a.nxt + 2**30)


def rejected_rst_of_b(d):
    d.rst(d.b, seq=d.b.nxt + 2**30)


def accepted_rst(d):
    d.rst(d.b)


def fin_of_a_again(d):
    d.fin(d.a, seq=d.a.nxt - 1)


def fin_of_b_again(d):
    d.fin(d.b, seq=d.b.nxt - 1)


#: What restarts the deadline, and what belongs to the record and does not.
RESTARTS = {
    unanswered: ([syn_again], [odd_segment, unacceptable_synack, rejected_rst_of_b]),
    half_open: ([syn_again, synack_again, unacceptable_synack], [odd_segment, ack_of_b, rejected_rst_of_a, rejected_rst_of_b]),
    established: ([data_of_a, ack_of_b, keep_alive, odd_segment, syn_again, foreign_syn], [rejected_rst_of_a, rejected_rst_of_b]),
    one_fin: ([ack_of_b, fin_of_a_again, odd_segment, foreign_syn], [rejected_rst_of_a, rejected_rst_of_b]),
    half_closed: ([ack_of_b, fin_of_a_again, odd_segment], [rejected_rst_of_a, rejected_rst_of_b]),
    midstream: ([data_of_a, ack_of_b], [rejected_rst_of_a, rejected_rst_of_b]),
    one_sided: ([data_of_a, odd_segment], []),
    closing: ([ack_of_b, fin_of_a_again, fin_of_b_again, odd_segment, rejected_rst_of_a, rejected_rst_of_b], []),
    closed: ([fin_of_a_again, fin_of_b_again], [ack_of_b, data_of_a, odd_segment, syn_again, accepted_rst, rejected_rst_of_a]),
    reset: ([accepted_rst, rejected_rst_of_a], [ack_of_b, data_of_a, odd_segment, syn_again]),
    refused: ([accepted_rst, rejected_rst_of_a], [odd_segment, ack_of_b]),
}  # fmt: skip
CASES = [
    (phase, packet, restarts)
    for phase in PHASES
    for restarts, packets in zip((True, False), RESTARTS[phase.build], strict=True)
    for packet in packets
]


@pytest.mark.parametrize(
    ("phase", "packet", "restarts"), CASES, ids=[f"{p.build.__name__}-{packet.__name__}" for p, packet, _ in CASES]
)
def test_restart(tap, phase, packet, restarts):
    timeout = phase.seconds * SECOND
    for end in (0, SECOND - 1, SECOND) if restarts else (0,):
        d = Dialogue(step=10**6)
        phase.build(d)
        before = d.now
        d.wait(SECOND - d.step)
        packet(d)
        assert d.now == before + SECOND
        probe(d, before + timeout + end)
        assert len(tap.rows(d, COARSE)) == (1 if restarts and end < SECOND else 2), end


def test_a_syn_opens_a_refused_attempt_again_for_75_seconds(tap):
    for late, records in ((75 * SECOND - 1, 1), (75 * SECOND, 2)):
        d = Dialogue()
        refused(d)
        d.syn(d.a)
        probe(d, d.now + late)
        assert len(tap.rows(d)) == records


def test_a_new_phase_starts_its_own_deadline_even_if_it_is_earlier(tap):
    """From 2 h 4 min after the handshake to 10 s after the RST, met by the sweep and not by a packet of the record."""
    d = Dialogue()
    reset(d)
    other = Dialogue(a_port=50001, start=d.now + 11 * SECOND, step=0)
    other.syn(other.a)
    rows = tap.rows([*d.packets, *other.packets])
    assert (tap.stats["live"], rows[0]["end_reason"]) == (0, "rst")
    assert tap.intervals[-1]["connections"] == 1


@pytest.mark.parametrize(
    ("build", "seconds", "count"), [(unanswered, 75, "unanswered"), (half_open, 75, "half_open_expired")]
)
@pytest.mark.parametrize("at", [0, 1, SECOND - 1])
def test_an_expiry_counts_at_its_deadline_and_on_a_border_after_it(tap, build, seconds, count, at):
    """The attempt ends `at` nanoseconds into its interval; until the interval before, it is in the gauge."""
    d = Dialogue(start=START + at, step=0)
    build(d)
    other = Dialogue(a_port=50001, start=START + (seconds + 3) * SECOND, step=0)
    other.ack(other.a)
    tap.rows([*d.packets, *other.packets])
    rows = {(row["interval_start"] - START) // SECOND: row for row in tap.intervals}
    gauge = "opening" if build is unanswered else "half_open"
    assert [second for second, row in rows.items() if row[count]] == [seconds]
    assert (rows[seconds - 1][gauge], rows[seconds][gauge] if seconds in rows else 0) == (1, 0)
