"""What each column of the flow table costs to encode as Parquet, and what other encodings of it would.

Rows of a generated capture are held in memory, as blocks of the tracker. A figure is processor nanoseconds and bytes for
each row of a file with that column alone, the least of several runs: what disturbs the machine only adds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from cases import CASES, generate, scaled
from measuring import HERE

import synfin
from synfin.output.arrow import Layout
from synfin.output.parquet import DELTA, DICTIONARY, PLAIN, RAW, Encoding, encoding, has_statistics, writer_options
from synfin.output.parquet import ROW_GROUP_ROWS as GROUP

TRIED = {
    "plain, zstd": PLAIN,
    "dictionary, zstd": DICTIONARY,
    "dictionary": Encoding(DICTIONARY.name, False),
    "delta": DELTA,
    "delta, zstd": Encoding(DELTA.name, True),
}
NAMES = {**{how: name for name, how in TRIED.items()}, RAW: "plain"}


class Cost(NamedTuple):
    """Processor nanoseconds and bytes for each row."""

    ns: float
    size: float

    def __str__(self) -> str:
        return f"{self.ns:6.1f} {self.size:6.2f}"


def groups_of(capture: Path) -> list[pa.Table]:
    """All rows of a capture in tables of a row group each, as the tracker's blocks make them up."""
    batches = list(synfin.scan(capture, workers=1))
    step = GROUP // batches[0].num_rows
    return [pa.Table.from_batches(batches[k : k + step]) for k in range(0, len(batches), step)]


def cost(groups: list[pa.Table], options: dict[str, Any], runs: int) -> Cost:
    """What it takes to write tables as row groups of one file in memory."""
    best = float("inf")
    for _ in range(runs):
        sink = pa.BufferOutputStream()
        begin = time.process_time_ns()
        with pq.ParquetWriter(sink, groups[0].schema, **options) as writer:
            for group in groups:
                writer.write_table(group.unify_dictionaries(), row_group_size=GROUP)
        best = min(best, time.process_time_ns() - begin)
    rows = sum(group.num_rows for group in groups)
    return Cost(best / rows, sink.tell() / rows)


def print_columns(groups: list[pa.Table], layout: Layout, runs: int) -> None:
    """One line for each column, the costliest first: as it is written, and in every way that was tried."""
    lines = []
    for field, column in layout.origins.items():
        alone, chosen = [group.select([field]) for group in groups], encoding(column)
        statistics = [field] if has_statistics(column) else []
        ways = []
        for how in TRIED.values():
            if how.name == DELTA.name and column.kind not in ("int16", "int32", "int64", "instant"):
                ways.append(f"{'':>13}")
            else:
                ways.append(str(cost(alone, writer_options({field: how}, statistics), runs)))
        now = cost(alone, writer_options({field: chosen}, statistics), runs)
        lines.append((now.ns, f"| {field:<30} | {NAMES[chosen]:<16} | {now} | {' | '.join(ways)} |"))
    print("| column, ns and bytes a row     | as written                       | " + " | ".join(f"{w:>13}" for w in TRIED) + " |")
    print("| --- | --- | --- |" + " ---: |" * len(TRIED))
    for _, line in sorted(lines, reverse=True):
        print(line)
    print(f"sum: {sum(ns for ns, _ in lines):.0f} ns a row")


def settings_tried(layout: Layout) -> dict[str, dict[str, Any]]:
    """Options for all columns together: as written, and each with one thing changed."""
    chosen = {field: encoding(column) for field, column in layout.origins.items()}
    statistics = [field for field, column in layout.origins.items() if has_statistics(column)]
    now = writer_options(chosen, statistics)
    small = [
        column.name
        for column in layout.columns
        if column.kind in ("text", "int16", "int32") or column.kind.startswith("enum:")
        if column.name != "client_port" and not column.name.endswith("syn_window")
    ]
    level_3 = dict.fromkeys(now["compression_level"], 3)
    packed = {field: how._replace(zstd=True) for field, how in chosen.items()}
    loose = {field: how._replace(zstd=False) for field, how in chosen.items()}
    return {
        "as written": now,
        "statistics of all columns": now | {"write_statistics": True},
        "no statistics": now | {"write_statistics": False},
        "no page index": now | {"write_page_index": False},
        "zstd level 3": now | {"compression_level": level_3},
        "zstd for every column": writer_options(packed, statistics),
        "zstd for none": writer_options(loose, statistics),
        "lz4 instead of zstd": now | {"compression": {f: "lz4" if how.zstd else "none" for f, how in chosen.items()}, "compression_level": None},
        "data pages of version 2": now | {"data_page_version": "2.0"},
        "16,384 rows a write": now | {"write_batch_size": 16_384},
        "plain or dictionary, all zstd, all statistics": {
            "compression": "zstd", "compression_level": 1, "use_dictionary": small, "write_page_index": True,
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what each column costs to encode.")
    parser.add_argument("--scale", type=float, default=0.4, help="of the connections of slow (0.4)")
    parser.add_argument("--runs", type=int, default=5, help="of which the least counts (5)")
    parser.add_argument("--together", action="store_true", help="only all columns together, by settings")
    parser.add_argument("--folder", type=Path, default=HERE / "build/captures", help="where the captures are kept")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    layout = Layout.choose("flows")
    groups = groups_of(generate(scaled(CASES["slow"], arguments.scale), arguments.folder))
    if not arguments.together:
        print_columns(groups, layout, arguments.runs)
    print("| all columns | ns a row | bytes a row |\n| --- | ---: | ---: |")
    for name, options in settings_tried(layout).items():
        took = cost(groups, options, arguments.runs)
        print(f"| {name:<45} | {took.ns:8,.0f} | {took.size:11.1f} |", flush=True)


if __name__ == "__main__":
    main()
