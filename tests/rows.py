"""Rows of the core and of the slow tracker in one form, to compare them: dictionaries with nanoseconds as int."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

from synfin import schema
from synfin._core.tracker import Tracker
from synfin.run import Run
from synfin.settings import Settings

_FORMATS = {"instant": "q", "int64": "q", "int32": "i", "int16": "h", "text": "i"}


def _bits(data: bytes, count: int) -> list[bool]:
    return [bool(data[i >> 3] >> (i & 7) & 1) for i in range(count)]


def rows_of(block, table: str) -> list[dict]:
    """The rows of a block of column buffers."""
    columns = {}
    for column in schema.TABLES[table]:
        if column.name not in block.names:
            continue
        valid, values = (bytes(part) for part in block.buffers(column.name))
        if column.kind == "bool":
            numbers = _bits(values, block.rows)
        else:
            numbers = memoryview(values).cast(_FORMATS.get(column.kind, "b")).tolist()
        texts = None
        if column.kind.startswith("enum:"):
            texts = schema.ENUMS[column.kind.removeprefix("enum:")]
        elif column.kind == "text":
            length, offsets, data = block.dictionary(column.name)
            starts = memoryview(bytes(offsets)).cast("i").tolist()
            texts = [bytes(data)[starts[i] : starts[i + 1]].decode() for i in range(length)]
        columns[column.name] = [
            (texts[number] if texts is not None else number) if known else None
            for number, known in zip(numbers, _bits(valid, block.rows), strict=True)
        ]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def fast(
    paths, settings: Settings | None = None, columns=None, workers: int = 1, **source
) -> tuple[list[dict], list[dict], dict]:
    """Flow rows (of the default columns, or of these), interval rows and the tracker's account of captures, by the core.

    The accounting identity must hold.
    """
    from synfin.sources.captures import CaptureInput

    opened = CaptureInput([str(path) for path in paths], **source)
    run = Run(opened, settings or Settings(), flow_columns=columns, workers=workers)
    tables: dict[str, list[dict]] = {"flows": [], "intervals": []}
    for table, block in run.blocks():
        tables[table] += rows_of(block, table)
    flows, stats = tables["flows"], run.tracker.stats()
    skipped = sum(stats["skips"].values())
    assert stats["packets"] == stats["packets_in_records"] + skipped, "accounting identity"
    if columns is None or {"client_packets", "server_packets"} <= set(columns):
        assert stats["packets_in_records"] == sum(row["client_packets"] + row["server_packets"] for row in flows)
    return flows, tables["intervals"], stats


def by_key(
    paths, settings: Settings, workers: int = 1, most_keys: int | None = None, **source
) -> dict[str, list[dict]]:
    """Rows of the interval table, and of what there is of it by key, by the core; none of connections."""
    from synfin.sources.captures import CaptureInput

    opened = CaptureInput([str(path) for path in paths], **source)
    run = Run(opened, settings, flow_columns=[], workers=workers)
    if most_keys is not None:
        run.tracker = Tracker(settings, [], most_keys=most_keys)
    tables: dict[str, list[dict]] = {table: [] for table in settings.tables[1:]}
    for table, block in run.blocks():
        tables[table] += rows_of(block, table)
    for row in tables["intervals"]:
        row["capture_drops"] = None  # told by the source; no key has any
    return tables


def slow(paths, settings: Settings | None = None) -> tuple[list[dict], list[dict], object]:
    """The same by the slow tracker."""
    from synfin import reference

    result = reference.track(reference.read([str(path) for path in paths]), settings or Settings())
    return result.flows, result.intervals, result


def figures_by_service(paths, settings: Settings | None = None) -> dict[tuple[str, int], Counter]:
    """By the slow tracker, of each service (address, port): its gauges at the end, and what was counted of it."""
    _, intervals, result = slow(paths, replace(settings or Settings(), by=("service",), top=100_000))
    found: dict[tuple[str, int], Counter] = defaultdict(Counter)
    for row in result.keyed["services"]:
        figures = found[row["server_ip"], row["server_port"]]
        for column in schema.INTERVALS:
            if column.group == "count" and column.name != "capture_drops":
                figures[column.name] += row[column.name] or 0
            elif column.group == "gauge" and not column.name.endswith("_peak"):
                figures[column.name] = row[column.name] if row["interval_start"] == intervals[-1]["interval_start"] else 0
    return found


def order(row: dict) -> tuple:
    return (row["first_packet"] or 0, row["first_file"] or "", row["flow_id"])


def differences(name: str, ours: list[dict], theirs: list[dict], key) -> list[str]:
    """One line for each row or value that only one of the two has."""
    lines = []
    if len(ours) != len(theirs):
        lines.append(f"{name}: {len(ours)} rows by the core, {len(theirs)} by the slow tracker")
    for a, b in zip(sorted(ours, key=key), sorted(theirs, key=key), strict=False):
        for column in a:
            if a[column] != b[column]:
                lines.append(
                    f"{name} {key(a)}: {column} is {a[column]!r} by the core, {b[column]!r} by the slow tracker"
                )
    return lines


def compare(paths, settings: Settings | None = None, **source) -> list[str]:
    """Every difference between the core and the slow tracker on captures, with the optional columns and without."""
    flows, intervals, stats = fast(paths, settings, **source)
    full_flows, full_intervals, _ = fast(paths, settings, [column.name for column in schema.FLOWS], **source)
    slow_flows, slow_intervals, result = slow(paths, settings)
    for row in intervals + full_intervals:
        row["capture_drops"] = None  # told by the source, of which the slow tracker knows nothing: tests/sources
    lines = differences("flow", flows, slow_flows, order)
    lines += differences("flow with optional columns", full_flows, slow_flows, order)
    if intervals != full_intervals:
        lines.append("interval: optional columns of the flow table change the interval table")
    lines += differences("interval", intervals, slow_intervals, lambda row: row["interval_start"])
    if stats["packets"] != result.packets or stats["skips"] != {k: v for k, v in result.skips.items() if v}:
        lines.append(f"skips: {stats['packets']} {stats['skips']} by the core, {result.packets} {result.skips}")
    return lines
