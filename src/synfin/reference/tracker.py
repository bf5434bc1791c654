"""The table of records: which record a packet belongs to, which have ended, and what enters the interval table."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from synfin.schema import KEYS
from synfin.settings import Settings

from .connection import Connection
from .decode import IcmpError, decode
from .duplicates import Firsts
from .icmp import Quote, quote
from .intervals import COUNTS, IntervalTable, KeyedTable
from .record import EVICTION
from .row import row
from .segment import Segment, Skip
from .time import Packet, Source, Stamped, effective, merge


class Result(NamedTuple):
    """Rows of all tables and the counts of the accounting identity; `keyed` are those by key."""

    flows: list[dict]
    intervals: list[dict]
    keyed: dict[str, list[dict]]
    skips: dict[str, int]
    packets: int
    time_outliers: int
    clock_steps: int


class Tracker:
    """Live records by key, and the heap of their deadlines (stale entries are dropped when they come up)."""

    def __init__(self, settings: Settings, matches: Callable[[Packet], bool] | None = None):
        self.settings = settings
        self.matches = matches
        self.live: dict[tuple, Connection] = {}
        self.deadlines: list[tuple[int, int, tuple]] = []
        self.intervals = IntervalTable(settings.interval)
        self.keyed = [KeyedTable(name, settings.interval, settings.top) for name in settings.tables if name in KEYS]
        self.rows: dict[str, list[dict]] = {name: [] for name in settings.tables}
        self.skips: Counter[str] = Counter()
        self.packets = self.steps = 0
        self.firsts = Firsts()

    def key(self, segment: Segment | Quote) -> tuple:
        ends = frozenset([(segment.src, segment.sport), (segment.dst, segment.dport)])
        tunnel = (segment.tunnel.kind, segment.tunnel.id) if segment.tunnel else None
        parts = {"vlan": segment.vlan, "tunnel": tunnel}
        return (ends, *(parts[name] for name in ("vlan", "tunnel") if name in self.settings.key))

    def packet(self, stamped: Stamped) -> None:
        """One packet in merged order."""
        self.packets += 1
        if stamped.outside:
            self.skips["outside_window"] += 1
            return
        self.expire(stamped.clock - self.settings.reorder)
        try:
            if self.matches and not self.matches(stamped.packet):
                raise Skip("filtered")
            packet, verify = stamped.packet, self.settings.checksum == "verify"
            segment = decode(packet.data, packet.wire_len, packet.link_type, verify=verify)
        except Skip as reason:
            self.skips[str(reason)] += 1
            if isinstance(reason, IcmpError) and (quoted := quote(reason)):
                self.quote(quoted, effective(stamped.time, stamped.clock, self.settings.reorder))
        else:
            segment.time, segment.order, segment.interface = stamped.time, self.packets, stamped.packet.interface
            segment.file, segment.number, segment.tap = stamped.file, stamped.number, stamped.tap
            if self.settings.duplicates != "keep" and self.firsts.is_copy(segment, stamped.clock):
                self.copy(segment, effective(stamped.time, stamped.clock, self.settings.reorder))
            else:
                self.segment(segment, stamped.clock)
        if stamped.step_back:
            self.step(stamped.clock, stamped.time)

    def copy(self, segment: Segment, fresh: int) -> None:
        """A capture duplicate: counted, if asked for, in the record that lives on its ends; else skipped."""
        key = self.key(segment)
        record = self.live.get(key) if self.settings.duplicates == "count" else None
        now = max(fresh, record.last_effective) if record else fresh
        if record and now >= record.deadline():
            self.end(key, "deadline", record.deadline())
            record = None
        if record is None:
            self.skips["capture_duplicate"] += 1
            return
        record.count_copy(segment)
        self.count(record, now, "packets")
        self.count(record, now, "ip_bytes", segment.ip_bytes)
        self.count(record, now, "capture_duplicates")

    def quote(self, quoted: Quote, fresh: int) -> None:
        """An ICMP error that quotes a segment: it is no packet of the record, and restarts no deadline."""
        record = self.live.get(self.key(quoted))
        if record is None:
            return
        now = max(fresh, record.last_effective)
        if now < record.deadline() and record.in_flight(quoted):
            before = record.gauges()
            record.last_effective = now
            record.take_quote(quoted)
            self.enter(record, before, now)

    def segment(self, segment: Segment, clock: int) -> None:
        key = self.key(segment)
        record = self.live.get(key)
        fresh = effective(segment.time, clock, self.settings.reorder)
        now = max(fresh, record.last_effective) if record else fresh
        if record and now >= record.deadline():
            self.end(key, "deadline", record.deadline())
            record, now = None, fresh
        resend = record is not None and record.is_resent_syn(segment)
        if record is None:
            self.make_room(clock)
        earlier = record.successor(segment) if record else []
        before: Counter[str] = Counter()
        if earlier is None:
            before = record.gauges()
        elif record:
            record.held = [] if earlier else record.held
            self.end(key, "reuse", now)
        if earlier is not None:
            now = now if earlier else fresh  # without proof, a new record has no last effective time to go on from
            self.live[key] = record = Connection((earlier or [segment])[0], self.settings)
            for held in earlier:
                held.effective = now  # the record is there from its proof on
                record.receive(held)
        segment.effective = now
        record.receive(segment)
        record.last_order = segment.order
        self.count_segment(record, segment, now, resend)
        self.enter(record, before, now)
        heapq.heappush(self.deadlines, (record.deadline(), self.packets, key))

    def count(self, record: Connection, now: int, name: str, number: int = 1) -> None:
        """Something happened to a record: it counts under the keys that the record has by now."""
        self.intervals.count(now, name, number)
        for keyed in self.keyed:
            keyed.table(keyed.key(record)).count(now, name, number)

    def count_segment(self, record: Connection, segment: Segment, now: int, resend: bool) -> None:
        """What the segment counts in its interval, whatever it is to its record."""
        self.count(record, now, "packets")
        self.count(record, now, "ip_bytes", segment.ip_bytes)
        if segment.kind in {"syn", "synack"}:
            self.count(record, now, segment.kind + "s")
        if resend:
            self.count(record, now, "syn_resends")

    def enter(self, record: Connection, before: Counter[str], now: int) -> None:
        """Enter what a segment changed: gauges, outcomes and samples."""
        delta = record.gauges()
        delta.subtract(before)
        self.intervals.change(now, delta)
        for keyed in self.keyed:
            keyed.follow(record, now)
        self.outcomes(record, now)

    def outcomes(self, record: Connection, now: int) -> None:
        for name, value in record.events:
            if name.startswith("rtt_"):
                side = name.removeprefix("rtt_")
                self.intervals.sample(now, side, value)
                for keyed in self.keyed:
                    keyed.table(keyed.key(record)).sample(now, side, value)
            elif name in COUNTS:
                self.count(record, now, name)
        record.events.clear()

    def end(self, key: tuple, reason: str, now: int) -> None:
        """A record ends; at the end of input it stays in the gauges."""
        record = self.live.pop(key)
        gauges = record.gauges()
        record.end(reason)
        self.rows["flows"].append(row(record))
        self.outcomes(record, now)
        if reason != "end_of_input":
            self.intervals.change(now, Counter({name: -number for name, number in gauges.items()}))
            for keyed in self.keyed:
                keyed.leave(record, now)

    def make_room(self, clock: int) -> None:
        """One more record is to begin: at the cap, one ends at the input clock."""
        if self.settings.max_flows is not None and len(self.live) >= self.settings.max_flows:
            key = min(self.live, key=lambda key: (EVICTION[self.live[key].phase()], self.live[key].last_order))
            self.count(self.live[key], clock, "evicted")
            self.end(key, "evicted", clock)

    def expire(self, until: int) -> None:
        """End every record whose deadline has come."""
        while self.deadlines and self.deadlines[0][0] <= until:
            deadline, _, key = heapq.heappop(self.deadlines)
            record = self.live.get(key)
            if record and record.deadline() == deadline:
                self.end(key, "deadline", deadline)

    def step(self, old: int, new: int) -> None:
        """The input clock stepped back: intervals in hand are cut, live records move with the clock."""
        self.steps += 1
        self.firsts.clear()
        self.cut(old, old - self.settings.reorder)
        self.intervals.begin = new - self.settings.reorder
        for keyed in self.keyed:
            keyed.restart(new - self.settings.reorder)
        for record in self.live.values():
            record.restarted += new - old
            record.last_effective += new - old
        self.deadlines = [(record.deadline(), -number, key) for number, (key, record) in enumerate(self.live.items())]
        heapq.heapify(self.deadlines)

    def finish(self, clock: int) -> None:
        """The end of input: the reorder allowance falls away, then what is left is written."""
        self.expire(clock)
        for key in list(self.live):
            self.end(key, "end_of_input", clock)
        self.cut(clock, clock)

    def cut(self, clock: int, complete_until: int) -> None:
        """Rows of intervals up to the clock."""
        duplicates = self.settings.duplicates != "keep"
        self.rows["intervals"] += [part.row(duplicates) for part in self.intervals.cut(clock, complete_until)]
        for keyed in self.keyed:
            self.rows[keyed.name] += keyed.cut(clock, complete_until, duplicates)


def track(
    sources: Iterable[tuple[str, Sequence[Packet]]],
    settings: Settings | None = None,
    *,
    window: tuple[int, int] | None = None,
    matches: Callable[[Packet], bool] | None = None,
) -> Result:
    """Track captures in plain Python: the rows that synfin must give.

    Parameters
    ----------
    sources : (name, packets) of each file, in path order; names become ``first_file``.
    settings : of the run; defaults if None. `max_memory` is a bound of the core's own and plays no part.
    window : packets before the first instant (ns since 1970), or from the second on, are ``outside_window``.
    matches : of the others, those for which it is not true are ``filtered``.

    Returns
    -------
    Result : ``flows``, ``intervals`` and tables by key as dictionaries by column name (instants and durations in nanoseconds,
        enumerations as their text, None for null), ``skips`` by name, and the numbers of packets, of lone time outliers
        and of backward steps of the clock.

    Notes
    -----
    Made to be read and compared with, not to be fast. Memory grows with the packets of the live records.
    """
    settings = settings or Settings()
    inputs = [Source(name, packets) for name, packets in sources]
    tracker, clock = Tracker(settings, matches), None
    for stamped in merge(inputs, window):
        tracker.packet(stamped)
        if not stamped.outside:
            clock = stamped.time if stamped.step_back else stamped.clock
    if clock is not None:
        tracker.finish(clock)
    outliers = sum(source.outliers for source in inputs)
    flows, intervals, *_ = tracker.rows.values()
    keyed = {name: rows for name, rows in tracker.rows.items() if name in KEYS}
    return Result(flows, intervals, keyed, dict(tracker.skips), tracker.packets, outliers, tracker.steps)
