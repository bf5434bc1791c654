"""The newest rows of the interval table and of those by key, in memory that is bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from synfin.errors import ConfigError
from synfin.schema import INTERVALS, KEYS
from synfin.top.columns import KEY_COLUMNS

#: Rows of one table that are kept: of more keys than this leaves room for, the window becomes shorter.
ROOM = 500_000
_FAR_NS = 1 << 62  # before 1823, after 2116
_MANY_CHUNKS = 64  # beyond so many, small pieces become one


def _named(*groups: str) -> tuple[str, ...]:
    return tuple(column.name for column in INTERVALS if column.group in groups)


GAUGES = tuple(name for name in _named("gauge") if not name.endswith("_peak"))
PEAKS = tuple(name for name in _named("gauge") if name.endswith("_peak"))
COUNTS = tuple(name for name in _named("count") if name not in ("synacks", "capture_duplicates"))
ROUND_TRIPS = _named("rtt")


def numbers(table: str) -> tuple[str, ...]:
    """The numbers of a table that are needed, by column."""
    if table in KEYS:
        return tuple(dict.fromkeys(name for column in KEY_COLUMNS for name in column.of))
    return ("interval_ns", *GAUGES, *PEAKS, *COUNTS, *ROUND_TRIPS)


def names(table: str) -> list[str]:
    """The columns of a table that are needed."""
    return list(dict.fromkeys(("interval_start", "interval_ns", *_key(table), *numbers(table))))


def _key(table: str) -> tuple[str, ...]:
    return tuple(column.name for column in KEYS.get(table, ()))


def plain(table: str, rows: pa.Table | pa.RecordBatch) -> pa.Table:
    """Rows of a table of either profile with plain numbers and texts: `start` and `end` of the interval (ns since 1970),
    `numbers`, which are null where they were not written, and the columns of the key.

    Raises
    ------
    ConfigError : the columns that say which interval, or whose, are not there.
    pyarrow.ArrowInvalid : a value that is no such number.
    """
    there = set(rows.schema.names)
    key = _key(table)
    if missing := [name for name in ("interval_start", "interval_ns", *key) if name not in there]:
        raise ConfigError(f"the rows lack the column {missing[0]}")
    exact = "interval_start_ns" if "interval_start_ns" in there else "interval_start"
    start = rows.column(exact)
    if pa.types.is_timestamp(start.type):
        start = start.cast(pa.timestamp("ns", start.type.tz))
    start, length = start.cast(pa.int64()), rows.column("interval_ns").cast(pa.int64())
    columns = {"start": start, "end": pc.add_checked(start, length)}
    _check_times(start, length, columns["end"])
    for name in numbers(table):
        columns[name] = rows.column(name).cast(pa.int64()) if name in there else pa.nulls(rows.num_rows, pa.int64())
    for name in key:
        columns[name] = rows.column(name).cast(pa.int64() if name == "server_port" else pa.string())
    return pa.table(columns)


def _check_times(start: pa.Array, length: pa.Array, end: pa.Array) -> None:
    # Files may come from anybody; what is computed from these three must be in range.
    if end.null_count:
        raise pa.ArrowInvalid("an interval without a time")
    if len(end) and not (
        pc.min(start).as_py() > -_FAR_NS and pc.max(end).as_py() < _FAR_NS and pc.min(length).as_py() > 0
    ):
        raise pa.ArrowInvalid("an interval at no time of this world")


@dataclass(frozen=True)
class History:
    """Rows of the tables in the order in which they came; never changed, so that who holds one sees it as it was.

    Attributes
    ----------
    tables : rows by table, as `plain` makes them.
    since_ns : the start of the first interval of all that came; None before that.
    cut_ns : of tables that had more than `ROOM` rows, since when they are whole.
    keep_ns : how long rows are kept, before the newest end of an interval.
    """

    keep_ns: int
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    since_ns: int | None = None
    cut_ns: Mapping[str, int] = field(default_factory=dict)

    def with_rows(self, table: str, rows: pa.Table) -> History:
        """These rows, and newer ones of one table.

        Where the clock was set back, intervals repeat: rows of before that are at or past the first of the new ones go.
        """
        if rows.num_rows == 0:
            return self
        first = pc.min(rows["start"]).as_py()
        rows = _after_last_step(rows)
        if (old := self.tables.get(table)) is not None and old.num_rows:
            if pc.max(old["start"]).as_py() > (begin := rows["start"][0].as_py()):
                old = old.filter(pc.less(old["start"], begin))
            rows = pa.concat_tables([old, rows])
        since = first if self.since_ns is None else min(self.since_ns, first)
        cut = dict(self.cut_ns)
        if rows.num_rows > ROOM:
            cut[table] = rows["end"][-ROOM - 1].as_py()
            rows = rows.slice(rows.num_rows - ROOM)
            rows = rows.filter(pc.greater_equal(rows["start"], cut[table]))  # whole intervals
        return History(self.keep_ns, {**self.tables, table: _newest(rows, self.keep_ns)}, since, cut)

    @property
    def end_ns(self) -> int | None:
        """The end of the newest interval; None where there is none."""
        rows = self.tables.get("intervals")
        return pc.max(rows["end"]).as_py() if rows is not None and rows.num_rows else None


def _after_last_step(rows: pa.Table) -> pa.Table:
    # A step back inside the rows: what came before it and repeats goes.
    start = rows["start"].combine_chunks()
    back = pc.indices_nonzero(pc.less(start[1:], start[:-1]))
    if len(back) == 0:
        return rows
    at = back[-1].as_py() + 1
    before, after = rows.slice(0, at), rows.slice(at)
    return pa.concat_tables([before.filter(pc.less(before["start"], after["start"][0])), after])


def _newest(rows: pa.Table, keep_ns: int) -> pa.Table:
    if rows.num_rows == 0:  # one interval alone has more than there is room for
        return rows
    newest = pc.max(rows["end"]).as_py()
    rows = rows.slice(pc.sum(pc.less(rows["start"], newest - keep_ns)).as_py())
    return rows.combine_chunks() if rows["start"].num_chunks > _MANY_CHUNKS else rows
