"""What rows of intervals say together: numbers of a window of capture time, and of each service or client in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from synfin.schema import KEYS, OTHER
from synfin.settings import NS_PER_S
from synfin.top.columns import KEY_COLUMNS
from synfin.top.history import COUNTS, GAUGES, PEAKS, ROUND_TRIPS, History

#: Among equals of the chosen column, those with more of these come first.
_NEXT = ("syns", "connections")
#: Rows by key that end so long before those of the interval table, and before the window, are of an earlier run.
_STALE_NS = 10 * NS_PER_S


@dataclass(frozen=True)
class Figures:
    """All connections in one window. None: the rows do not say.

    Attributes
    ----------
    end_ns, span_ns, interval_ns : where the window ends, how much of it is known, and the length of an interval.
    settled_ns : up to where what has no row was empty; None: that is not known.
    now : gauges at its end.
    peak : the highest of what is told of peaks.
    rate : counts per second.
    latest : quantiles of round trips of the newest interval that has samples, of each side.
    worst : the highest of each quantile, of all intervals: that of the whole window is no higher.
    """

    end_ns: int
    span_ns: int
    interval_ns: int
    settled_ns: int | None
    now: Mapping[str, int | None]
    peak: Mapping[str, int | None]
    rate: Mapping[str, float | None]
    latest: Mapping[str, int | None]
    worst: Mapping[str, int | None]


class Line(NamedTuple):
    """One service or client: its key, and its numbers by name of a column. The address `other`: all without a line of their
    own.
    """

    key: tuple[Any, ...]
    values: Mapping[str, float | None]


class Ranking(NamedTuple):
    """The first lines of a table by key, the line of all others, and where the window of both ends: a moment earlier than the
    other where the tables' rows do not come together. None: there are none.
    """

    lines: list[Line]
    other: Line | None = None
    end_ns: int | None = None


def figures(history: History, window_ns: int, end_ns: int | None = None) -> Figures | None:
    """What the intervals of a window say; None before the first.

    Parameters
    ----------
    window_ns : its length, rounded down to whole intervals, and at least one.
    end_ns : up to here intervals that have no row were empty (the end of an interval), and the window ends no earlier;
        None: it ends with the newest row.
    """
    newest = history.end_ns
    if newest is None or history.since_ns is None:
        return None
    settled_ns, end_ns = end_ns, newest if end_ns is None else max(end_ns, newest)
    table = history.tables["intervals"]
    interval_ns = max(table["interval_ns"][-1].as_py(), 1)
    span_ns = min(max(window_ns // interval_ns, 1) * interval_ns, end_ns - history.since_ns)
    rows = _between(table, end_ns - span_ns, end_ns)
    last = rows.filter(pc.equal(rows["end"], end_ns))
    now = {name: last[name][-1].as_py() if last.num_rows else 0 for name in GAUGES}
    seconds = span_ns / NS_PER_S
    return Figures(
        end_ns, span_ns, interval_ns, settled_ns, now,
        peak={name: _or_zero(pc.max(rows[name]), rows) for name in PEAKS},
        rate={name: _per(_or_zero(pc.sum(rows[name]), rows), seconds) for name in COUNTS},
        latest=_latest(rows),
        worst={name: pc.max(rows[name]).as_py() for name in ROUND_TRIPS},
    )  # fmt: skip


def _between(rows: pa.Table, start_ns: int, end_ns: int) -> pa.Table:
    return rows.filter(pc.and_(pc.greater_equal(rows["start"], start_ns), pc.less_equal(rows["end"], end_ns)))


def _or_zero(total: pa.Scalar, rows: pa.Table) -> int | None:
    return 0 if rows.num_rows == 0 else total.as_py()


def _per(count: int | None, seconds: float) -> float | None:
    return None if count is None else count / seconds


def _latest(rows: pa.Table) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for side in ("server", "client"):
        with_samples = rows.filter(pc.is_valid(rows[f"rtt_{side}_max_ns"]))
        for name in ROUND_TRIPS:
            if name.startswith(f"rtt_{side}_"):
                found[name] = with_samples[name][-1].as_py() if with_samples.num_rows else None
    return found


def ranked(history: History, table: str, of: Figures, sort: str, count: int, *, upward: bool = False) -> Ranking:
    """Of a table by key, the first lines of a window in the order of a column, and the line of all others.

    Parameters
    ----------
    of : the window.
    sort : the name of a column; the highest first, or the lowest where `upward`. Equal ones follow by SYNs, connections
        and key; those without a value come last.
    count : how many lines.

    Notes
    -----
    A key has a row of its own in the intervals in which it was among the first of all (`--top`). Its counts are those of
    these intervals; a gauge is None where it may be in the row of the others just then.
    """
    rows = history.tables.get(table)
    if rows is None or rows.num_rows == 0:
        return Ranking([])
    key = [column.name for column in KEYS[table]]
    newest = pc.max(rows["end"]).as_py()
    end_ns = min(max(newest, of.settled_ns or newest), of.end_ns)
    span_ns = min(of.span_ns, end_ns - history.cut_ns.get(table, end_ns - of.span_ns))
    rows = _between(rows, end_ns - span_ns, end_ns)
    if rows.num_rows == 0 or of.end_ns - end_ns >= max(of.span_ns, _STALE_NS):
        return Ranking([])
    lines = _lines(rows, key, end_ns, span_ns)
    is_other = pc.equal(lines[key[0]], OTHER)
    others, lines = lines.filter(is_other), lines.filter(pc.invert(is_other))
    order = [(sort, "ascending" if upward else "descending"), *((name, "descending") for name in _NEXT if name != sort)]
    lines = lines.take(pc.sort_indices(lines, [*order, *((name, "ascending") for name in key)])[:count])
    first = [_line(row, key) for row in lines.to_pylist()]
    return Ranking(first, _line(others.to_pylist()[0], key) if others.num_rows else None, end_ns)


def _line(row: dict[str, Any], key: list[str]) -> Line:
    return Line(tuple(row[name] for name in key), {column.name: row[column.name] for column in KEY_COLUMNS})


def _lines(rows: pa.Table, key: list[str], end_ns: int, span_ns: int) -> pa.Table:
    # A row for each key of the window's rows, with KEY_COLUMNS.
    at_end = pc.equal(rows["end"], end_ns)
    with_others = pc.any(pc.and_(at_end, pc.equal(rows[key[0]], OTHER))).as_py()
    wanted: dict[str, Any] = {name: rows[name] for name in key}
    how: list[tuple[str, str]] = []
    for column in KEY_COLUMNS:
        values = reduce(pc.add, (rows[name] for name in column.of))
        if column.kind == "gauge":
            values = pc.if_else(at_end, values, None)
        wanted[column.name] = values
        how.append((column.name, "sum" if column.kind == "rate" else "max"))
    summed = pa.table(wanted).group_by(key, use_threads=False).aggregate(how)
    lines = {name: summed[name] for name in key}
    seconds = max(span_ns, 1) / NS_PER_S
    for column, (name, function) in zip(KEY_COLUMNS, how, strict=True):
        values = summed[f"{name}_{function}"]
        if column.kind == "rate":
            values = pc.divide(values.cast(pa.float64()), seconds)
        elif column.kind == "gauge" and not with_others and rows[column.of[0]].null_count == 0:
            values = pc.fill_null(values, 0)
        lines[column.name] = values
    return pa.table(lines)
