"""The interval table of SPEC section 5, from a plain list of everything that happened.

Events carry effective times, expiries their deadlines; rows are worked out when the input ends or its clock steps back.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from synfin.schema import INTERVALS, KEYS, OTHER, TABLES

from .record import Record

GAUGES = [column.name for column in INTERVALS if column.group == "gauge" and not column.name.endswith("_peak")]
PEAKS = ("opening", "half_open", "time_wait")
COUNTS = [column.name for column in INTERVALS if column.group == "count" and column.name != "capture_drops"]


def bucket_middle(value: int) -> int:
    """Middle of the histogram bucket that holds ``value``: 1 ns wide below 128, then 64 per power of two."""
    if value < 128:
        return value
    width = 1 << (value.bit_length() - 7)
    return value // width * width + width // 2


def quantile(values: list[int], percent: int) -> int | None:
    """The nearest-rank percentile's bucket middle; None without values."""
    if not values:
        return None
    return bucket_middle(sorted(values)[(len(values) * percent + 99) // 100 - 1])


@dataclass
class Interval:
    """One interval: gauges at its end and, in order, at the ends of its slices; counts; round trips by side."""

    start: int
    length: int
    complete: bool
    gauges: Counter[str]
    course: list[Counter[str]]
    counts: Counter[str]
    samples: dict[str, list[int]]

    @classmethod
    def sum(cls, parts: Iterable[Interval]) -> Interval:
        """One interval of what several keys have of it."""
        parts = list(parts)
        first = parts[0]
        return cls(
            first.start, first.length, first.complete,
            gauges=_added(part.gauges for part in parts),
            course=[_added(slices) for slices in zip(*(part.course for part in parts), strict=True)],
            counts=_added(part.counts for part in parts),
            samples={side: [value for part in parts for value in part.samples[side]] for side in ("server", "client")},
        )  # fmt: skip

    def row(self, duplicates: bool) -> dict:
        """The columns of the interval table; `duplicates`: capture duplicates are told apart."""
        row: dict = {"interval_start": self.start, "interval_ns": self.length, "complete": self.complete}
        row |= {name: self.gauges[name] for name in GAUGES}
        row |= {f"{name}_peak": max((slice[name] for slice in self.course), default=0) for name in PEAKS}
        row |= {name: self.counts[name] for name in COUNTS}
        row["capture_drops"] = None
        if not duplicates:
            row["capture_duplicates"] = None
        for side in ("server", "client"):
            values = self.samples[side]
            for percent in (50, 90, 99):
                row[f"rtt_{side}_p{percent}_ns"] = quantile(values, percent)
            row[f"rtt_{side}_max_ns"] = max(values, default=None)
        return {column.name: row[column.name] for column in INTERVALS}


def _added(counters: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    return total


class IntervalTable:
    """Collects events and works out intervals."""

    def __init__(self, length: int):
        self.length = length
        self.gauges: Counter[str] = Counter()  # at the beginning of the clock's present run
        self.begin: int | None = None  # where the clock's present run began, if not at the first packet
        self.clear()

    def clear(self) -> None:
        self.changes: list[tuple[int, Counter[str]]] = []
        self.counts: dict[int, Counter[str]] = defaultdict(Counter)
        self.samples: dict[tuple[int, str], list[int]] = defaultdict(list)

    def count(self, time: int, name: str, number: int = 1) -> None:
        """``number`` of ``name`` happened."""
        self.counts[time // self.length][name] += number

    def sample(self, time: int, side: str, value: int) -> None:
        """A handshake RTT entered; ``side`` is ``server`` or ``client``."""
        self.samples[time // self.length, side].append(value)

    def change(self, time: int, delta: Counter[str]) -> None:
        """Gauges rise or fall."""
        if any(delta.values()):
            self.changes.append((time, delta))

    def cut(self, clock: int, complete_until: int) -> list[Interval]:
        """All intervals up to the clock in which there was anything; those that end after ``complete_until`` are cut.

        At the end of input that is the clock itself; at a step of the clock, the clock less the reorder allowance.
        """
        found: list[Interval] = []
        self.changes.sort(key=lambda change: change[0])
        happened = {*self.counts, *(index for index, _ in self.samples), *(t // self.length for t, _ in self.changes)}
        marks = happened | {clock // self.length} | ({self.begin // self.length} if self.begin is not None else set())
        marks = sorted(marks)
        gauges, index, changes = Counter(self.gauges), marks[0], iter([*self.changes, (1 << 80, Counter())])
        pending = next(changes)
        while index <= clock // self.length:
            course: list[Counter[str]] = []
            for part in range(1, 11):
                border = index * self.length + part * self.length // 10
                while pending[0] < border:  # what happens at a border counts after it
                    gauges.update(pending[1])
                    pending = next(changes)
                seen = self.begin is None or border > self.begin
                course.append(Counter({name: gauges[name] for name in PEAKS if seen}))
            if index in happened or any(gauges.values()):
                samples = {side: self.samples[index, side] for side in ("server", "client")}
                complete = (index + 1) * self.length <= complete_until
                found.append(
                    Interval(
                        index * self.length, self.length, complete, Counter(gauges), course, self.counts[index], samples
                    )
                )
                index += 1
            else:
                index = next((mark for mark in marks if mark > index), index + 1)
        self.gauges = gauges
        self.clear()
        return found


class KeyedTable:
    """The interval table for each service or client: the server's address and port, or the client's address."""

    def __init__(self, name: str, length: int, top: int):
        self.name = name
        self.length = length
        self.top = top
        self.tables: dict[tuple, IntervalTable] = {}
        self.begin: int | None = None
        self.counted: dict[int, tuple[tuple, Counter[str]]] = {}  # by the record's identity: its key and gauges

    def key(self, record: Record) -> tuple:
        """What a record counts under as it stands, in the order of keys: IP version, address, port."""
        end = record.server if self.name == "services" else record.client
        return len(end.address), end.address, end.port if self.name == "services" else 0

    def table(self, key: tuple) -> IntervalTable:
        if key not in self.tables:
            self.tables[key] = IntervalTable(self.length)
            self.tables[key].begin = self.begin
        return self.tables[key]

    def follow(self, record: Record, time: int) -> None:
        """Gauges are the record's as it stands, under the key that it has now."""
        key, gauges = self.key(record), record.gauges()
        old_key, old = self.counted.get(id(record), (key, Counter()))
        for table, sign, counter in ((self.table(old_key), -1, old), (self.table(key), 1, gauges)):
            if (key, gauges) != (old_key, old):
                table.change(time, Counter({name: sign * number for name, number in counter.items()}))
        self.counted[id(record)] = key, gauges

    def leave(self, record: Record, time: int) -> None:
        """The record ends."""
        key, gauges = self.counted.pop(id(record))
        self.table(key).change(time, Counter({name: -number for name, number in gauges.items()}))

    def restart(self, begin: int) -> None:
        """The clock goes on from here."""
        self.begin = begin
        for table in self.tables.values():
            table.begin = begin

    def cut(self, clock: int, complete_until: int, duplicates: bool) -> list[dict]:
        """Rows up to the clock, by interval and rank (`IntervalTable.cut`)."""
        by_start: dict[int, list[tuple[tuple, Interval]]] = defaultdict(list)
        for key, table in self.tables.items():
            for interval in table.cut(clock, complete_until):
                by_start[interval.start].append((key, interval))
        rows: list[dict] = []
        for _, found in sorted(by_start.items()):
            found.sort(key=lambda one: (-one[1].counts["syns"] - one[1].gauges["connections"], one[0]))
            rows += [self.named(key, interval.row(duplicates)) for key, interval in found[: self.top]]
            if others := [interval for _, interval in found[self.top :]]:
                rows.append(self.named(None, Interval.sum(others).row(duplicates)))
        return rows

    def named(self, key: tuple | None, row: dict) -> dict:
        """The row of a key; None: of all others."""
        values = (str(ipaddress.ip_address(key[1])), key[2]) if key else (OTHER, None)
        row |= {column.name: value for column, value in zip(KEYS[self.name], values, strict=False)}
        return {column.name: row[column.name] for column in TABLES[self.name]}
