"""Expiry against a list of deadlines: which connections are live after each advance of the clock.

Timeouts from a nanosecond to a year, gaps of decades, deadlines that packets move, steps back of the clock.
"""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialogue import SECOND, START, Dialogue
from synfin._core.batch import PacketBatch
from synfin._core.tracker import Tracker
from synfin.settings import MAX_DURATION_NS, Settings

STEP_BACK = 1  # the flag of a packet after which the clock steps back
DAY = 86_400 * SECOND


@cache
def frames(port: int) -> dict[str, bytes]:
    """A SYN, its answer, and a third segment of a connection."""
    d = Dialogue(a_port=port)
    return {"syn": d.syn(d.a).data, "synack": d.synack(d.b).data, "data": d.data(d.a, 10).data}


#: The packet that brings a connection into a phase, and the phase's timeout.
PHASES = {"syn": "attempt_timeout", "synack": "half_open_timeout", "data": "idle_timeout"}
ORDER = tuple(PHASES)


class Model:
    """Connections as a dictionary of (phase, deadline)."""

    def __init__(self, setting: Settings):
        self.setting = setting
        self.tracker = Tracker(setting)
        self.clock = START
        self.live: dict[int, list] = {}  # port: phase, deadline, last effective time

    def settle(self) -> None:
        """Forget what has ended."""
        until = self.clock - self.setting.reorder
        self.live = {port: entry for port, entry in self.live.items() if entry[1] > until}

    def packet(self, port: int, what: str, time_ns: int, flags: int = 0) -> None:
        """One packet to both."""
        batch = PacketBatch()
        if not flags:
            self.clock = max(self.clock, time_ns)
        batch.append(frames(port)[what], time_ns, clock_ns=self.clock, flags=flags)
        while not self.tracker.feed(batch):
            self.take()
        self.settle()
        fresh = max(min(time_ns, self.clock), self.clock - self.setting.reorder)
        old = self.live.get(port)
        effective = max(fresh, old[2]) if old else fresh
        if old and old[1] <= effective:
            old, effective = None, fresh
        if old is None and what == "data":
            self.live[port] = ["one_sided", effective + self.setting.one_sided_timeout, effective]
        elif old is None:
            self.live[port] = [what, effective + getattr(self.setting, PHASES[what]), effective]
        else:
            self.follow(old, what, effective)
        if flags:
            by, self.clock = self.clock - time_ns, time_ns
            for entry in self.live.values():
                entry[1:] = [entry[1] - by, entry[2] - by]

    def follow(self, entry: list, what: str, effective: int) -> None:
        """A packet of a live connection: does it change the phase, and does it restart the deadline?"""
        phase = entry[0]
        entry[2] = effective
        if phase == "one_sided":  # a late SYN or SYN-ACK shows that it was opened; data is nothing new
            entry[0] = phase if what == "data" else "data"
        elif phase in ORDER:
            entry[0] = ORDER[max(ORDER.index(phase), ORDER.index(what))]
        name = PHASES.get(entry[0], "one_sided_timeout")
        restarts = {"syn": {"syn"}, "synack": {"syn", "synack"}}.get(entry[0], {"syn", "synack", "data"})
        if entry[0] != phase or what in restarts:
            entry[1] = effective + getattr(self.setting, name)

    def advance(self, clock: int) -> None:
        """Capture time goes on without a packet."""
        self.clock = max(self.clock, clock)
        while not self.tracker.advance(clock):
            self.take()
        self.settle()

    def take(self) -> None:
        """Rows are not looked at here."""
        for table in ("flows", "intervals"):
            while self.tracker.take(table) is not None:
                pass

    def check(self) -> None:
        """After an advance, exactly the connections that the list holds are live."""
        self.advance(self.clock)
        assert self.tracker.stats()["live"] == len(self.live)


#: From less than a tick of the wheel to more than a bucket of its last one.
SPANS = st.one_of(
    st.sampled_from([1, 1000, SECOND // 10, SECOND, 75 * SECOND, 7440 * SECOND, 30 * DAY, MAX_DURATION_NS]),
    st.integers(1, 300 * SECOND),
    st.integers(1, MAX_DURATION_NS),
)
TIMEOUTS = st.fixed_dictionaries(
    {name: SPANS for name in ("attempt_timeout", "half_open_timeout", "idle_timeout", "one_sided_timeout")}
)
GAPS = st.one_of(
    st.sampled_from([0, 1, SECOND // 10 - 1, SECOND // 10, SECOND, 60 * SECOND, DAY, 365 * DAY, 10_000 * DAY]),
    st.integers(0, 400 * SECOND),
    st.integers(0, 400 * DAY),
)
OPS = st.lists(
    st.tuples(st.sampled_from(["syn", "synack", "data", "advance", "late", "back"]), st.integers(1, 6), GAPS),
    max_size=30,
)
#: Long intervals, so that the silence of decades is few rows; the wheel's tick follows the interval.
INTERVALS = st.sampled_from([SECOND, 3600 * SECOND, 30 * DAY])


@given(TIMEOUTS, INTERVALS, OPS)
@settings(deadline=None, max_examples=150)
def test_live_connections_are_those_whose_deadline_has_not_come(timeouts, interval, ops):
    model = Model(Settings(**timeouts, interval=interval))
    model.packet(1, "syn", START)
    longest = 20_000 * SECOND if interval == SECOND else 10_000 * DAY
    for what, port, gap in ((what, port, min(gap, longest)) for what, port, gap in ops):
        if what == "advance":
            model.advance(model.clock + gap)
        elif what == "late":
            model.packet(port, "data", model.clock - min(gap, 3 * SECOND))
        elif what == "back":
            model.packet(port, "data", max(model.clock - gap, SECOND), STEP_BACK)
        else:
            model.packet(port, what, model.clock + gap)
        model.check()


@pytest.mark.parametrize("early", [1, 0])
@pytest.mark.parametrize("timeout", [1, 2**26, 2**27, 2**34 - 1, 2**34, 2**35, 2**42 + 5, 2**43, MAX_DURATION_NS])
def test_each_level_of_the_wheel_to_the_nanosecond(timeout, early):
    """Deadlines on both sides of what one level spans (2**26 ns a tick, 256 of them a level), reached in one advance."""
    model = Model(Settings(attempt_timeout=timeout, interval=30 * DAY))
    model.packet(1, "syn", START)
    model.advance(START + SECOND + timeout - early)
    assert model.tracker.stats()["live"] == early


def test_reached_by_many_small_advances():
    """The record moves down level by level and is met on time."""
    timeout = 2**35 + 12345
    model = Model(Settings(attempt_timeout=timeout))
    model.packet(1, "syn", START)
    for step in range(1, 64):
        model.advance(START + SECOND + timeout * step // 64)
        assert model.tracker.stats()["live"] == 1
    model.advance(START + SECOND + timeout - 1)
    assert model.tracker.stats()["live"] == 1
    model.advance(START + SECOND + timeout)
    assert model.tracker.stats()["live"] == 0
