"""The interval table of SPEC section 5, from a plain list of everything that happened.

Events carry effective times, expiries their deadlines; rows are worked out when the input ends or its clock steps back.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from synfin.schema import INTERVALS

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


class IntervalTable:
    """Collects events and renders rows."""

    def __init__(self, length: int, duplicates: bool):
        self.length = length
        self.duplicates = duplicates  # capture duplicates are told apart
        self.rows: list[dict] = []
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

    def cut(self, clock: int, complete_until: int) -> None:
        """Write all rows up to the clock; those that end after ``complete_until`` are cut.

        At the end of input that is the clock itself; at a step of the clock, the clock less the reorder allowance.
        """
        self.changes.sort(key=lambda change: change[0])
        happened = {*self.counts, *(index for index, _ in self.samples), *(t // self.length for t, _ in self.changes)}
        marks = happened | {clock // self.length} | ({self.begin // self.length} if self.begin is not None else set())
        marks = sorted(marks)
        gauges, index, changes = Counter(self.gauges), marks[0], iter([*self.changes, (1 << 80, Counter())])
        pending = next(changes)
        while index <= clock // self.length:
            peaks: Counter[str] = Counter()
            for part in range(1, 11):
                border = index * self.length + part * self.length // 10
                while pending[0] < border:  # what happens at a border counts after it
                    gauges.update(pending[1])
                    pending = next(changes)
                if self.begin is None or border > self.begin:
                    peaks |= Counter({name: gauges[name] for name in PEAKS})
            if index in happened or any(gauges.values()):
                self.rows.append(self.row(index, (index + 1) * self.length <= complete_until, gauges, peaks))
                index += 1
            else:
                index = next((mark for mark in marks if mark > index), index + 1)
        self.gauges = gauges
        self.clear()

    def row(self, index: int, complete: bool, gauges: Counter[str], peaks: Counter[str]) -> dict:
        row = {"interval_start": index * self.length, "interval_ns": self.length, "complete": complete}
        row |= {name: gauges[name] for name in GAUGES}
        row |= {f"{name}_peak": peaks[name] for name in PEAKS}
        row |= {name: self.counts[index][name] for name in COUNTS}
        row["capture_drops"] = None
        if not self.duplicates:
            row["capture_duplicates"] = None
        for side in ("server", "client"):
            values = self.samples[index, side]
            for percent in (50, 90, 99):
                row[f"rtt_{side}_p{percent}_ns"] = quantile(values, percent)
            row[f"rtt_{side}_max_ns"] = max(values, default=None)
        return {column.name: row[column.name] for column in INTERVALS}
