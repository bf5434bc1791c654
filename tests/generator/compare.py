"""Joins the generator's truth with what synfin makes of the capture: every row, every column.

The truth comes from the simulated ends (``benchmarks/traffic.h``), not from the packets. As a program:
``python tests/generator/compare.py --help``.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

#: Room for packet numbers below the file's number in a row's key.
_PACKETS_PER_FILE = 10**12


class Result(NamedTuple):
    """What a comparison found: how much it compared, and a line for each column or row that differs."""

    rows: int
    columns: int
    differences: int
    lines: list[str]


def load_truth(path: Path) -> pa.Table:
    """The generator's TSV: whole numbers and text, empty fields null."""
    return pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=pyarrow.csv.ConvertOptions(null_values=[""], strings_can_be_null=True),
    )


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as int64 or string: instants as nanoseconds, booleans as 0 and 1, dictionaries resolved."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.cast(pa.string())
    if pa.types.is_null(kind):
        return column
    return column.cast(pa.string() if pa.types.is_string(kind) or pa.types.is_large_string(kind) else pa.int64())


def flow_keys(table: pa.Table, names: list[str] | None) -> pa.ChunkedArray:
    """The row's first packet, with its file: `names` are the capture's files in order; None for the truth itself."""
    if names is None:
        files = table["_file"].cast(pa.int64())
    else:
        files = pc.index_in(plain(table["first_file"]), value_set=pa.array(names)).cast(pa.int64())
    return pc.add(pc.multiply(files, _PACKETS_PER_FILE), plain(table["first_packet"]))


def sort_by(table: pa.Table, keys: pa.ChunkedArray) -> pa.Table:
    return table.append_column("_key", keys).sort_by("_key")


def differences(truth: pa.Table, got: pa.Table) -> Result:
    """Compares two tables that both have the column ``_key``; columns that begin with ``_`` are not compared."""
    lines = []
    count = 0
    names = [name for name in truth.column_names if not name.startswith("_")]
    truth, got = truth.sort_by("_key"), got.sort_by("_key")
    for label, one, other in (("only in the truth", truth, got), ("only in the result", got, truth)):
        extra = one.filter(pc.invert(pc.is_in(one["_key"], value_set=other["_key"])))
        count += extra.num_rows
        lines += [f"row {label}: {row}" for row in extra.slice(0, 3).select(["_key"]).to_pylist()]
    common = pc.is_in(truth["_key"], value_set=got["_key"])
    truth, got = truth.filter(common), got.filter(pc.is_in(got["_key"], value_set=truth["_key"]))
    if truth.num_rows != got.num_rows:
        return Result(truth.num_rows, 0, count + 1, [*lines, "several rows begin with the same packet"])
    for name in names:
        wanted, found = plain(truth[name]), plain(got[name])
        if pa.types.is_null(wanted.type):  # null in every row
            wanted = wanted.cast(found.type if not pa.types.is_null(found.type) else pa.int64())
        found = found.cast(wanted.type)
        unequal = pc.or_(
            pc.xor(pc.is_null(wanted), pc.is_null(found)), pc.fill_null(pc.not_equal(wanted, found), False)
        )
        wrong = pc.sum(unequal).as_py() or 0
        if not wrong:
            continue
        count += wrong
        where = pa.table({"key": truth["_key"], "truth": wanted, "got": found}).filter(unequal).slice(0, 3)
        lines.append(f"{name}: {wrong} rows differ, such as {where.to_pylist()}")
    return Result(truth.num_rows, len(names), count, lines)


def compare_flows(truth: pa.Table, got: pa.Table, captures: list[str]) -> Result:
    """The flow table of the capture's files, in their order, against the truth."""
    return differences(sort_by(truth, flow_keys(truth, None)), sort_by(got, flow_keys(got, captures)))


def compare_intervals(truth: pa.Table, flows: pa.Table, got: pa.Table) -> Result:
    """The interval table against the truth; its RTT quantiles come from the truth's flows."""
    starts = truth["interval_start"].to_pylist()
    for side in ("server", "client"):
        for name, values in quantiles(flows, side, starts).items():
            truth = truth.append_column(name, pa.array(values, pa.int64()))
    return differences(
        truth.append_column("_key", truth["interval_start"]), got.append_column("_key", plain(got["interval_start"]))
    )


def quantiles(flows: pa.Table, side: str, starts: list[int]) -> dict[str, list[int | None]]:
    """The columns ``rtt_SIDE_*_ns`` of intervals of one second, from the clean and matched round trips."""
    samples: dict[int, list[int]] = defaultdict(list)
    names = [f"_rtt_{side}_at", f"rtt_{side}_ns", f"rtt_{side}_quality"]
    for at, rtt, quality in zip(*(flows[name].to_pylist() for name in names), strict=True):
        if quality in {"clean", "matched"}:
            samples[at // 10**9 * 10**9].append(rtt)
    columns: dict[str, list[int | None]] = {f"rtt_{side}_{q}_ns": [] for q in ("p50", "p90", "p99", "max")}
    for start in starts:
        values = sorted(samples.get(start, ()))
        for percent in (50, 90, 99):
            rank = -(-percent * len(values) // 100)  # nearest rank: the smallest with that share at or below it
            columns[f"rtt_{side}_p{percent}_ns"].append(bucket_middle(values[rank - 1]) if values else None)
        columns[f"rtt_{side}_max_ns"].append(values[-1] if values else None)
    return columns


def bucket_middle(value: int) -> int:
    """Middle of the value's histogram bucket: 1 ns wide below 128 ns, then 64 for each power of two."""
    if value < 128:
        return value
    width = 1 << (value.bit_length() - 7)
    return value // width * width + width // 2


def read_table(captures: list[Path], table: str, duplicates: str = "keep") -> pa.Table:
    """The core's rows."""
    import synfin

    return synfin.read(captures, table=table, duplicates=duplicates)


def reference_tables(captures: list[Path], duplicates: str = "keep") -> tuple[pa.Table, pa.Table]:
    """The slow tracker's flows and intervals."""
    from synfin.reference import read, track
    from synfin.schema import TABLES, default_names
    from synfin.settings import Settings

    def as_table(rows: list[dict], name: str) -> pa.Table:
        kinds = {
            column.name: pa.string() if column.kind == "text" or column.kind.startswith("enum:") else pa.int64()
            for column in TABLES[name]
            if column.name in default_names(name)
        }
        columns = {name: [row[name] for row in rows] for name in kinds}
        columns = {
            name: [int(value) if isinstance(value, bool) else value for value in values]
            for name, values in columns.items()
        }
        return pa.table({name: pa.array(values, kinds[name]) for name, values in columns.items()})

    result = track(read(captures), Settings(duplicates=duplicates))
    return as_table(result.flows, "flows"), as_table(result.intervals, "intervals")


def report(label: str, result: Result) -> None:
    print(f"{label}: {result.rows:,} rows, {result.columns} columns, {result.differences} differences")
    for line in result.lines:
        print("  " + line)


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare a generated capture's truth with synfin's tables.")
    parser.add_argument("captures", nargs="+", type=Path, help="the capture, or the files of the set in order")
    parser.add_argument("--truth", type=Path, required=True, help="the generator's --truth")
    parser.add_argument("--intervals", type=Path, help="the generator's --intervals")
    parser.add_argument("--duplicates", default="keep", help="how synfin takes them; count for the generator's --duplicates")
    arguments = parser.parse_args()
    truth = load_truth(arguments.truth)
    flows = read_table(arguments.captures, "flows", arguments.duplicates)
    found = [compare_flows(truth, flows, [str(path) for path in arguments.captures])]
    report("flows", found[0])
    if arguments.intervals:
        intervals = read_table(arguments.captures, "intervals", arguments.duplicates)
        found.append(compare_intervals(load_truth(arguments.intervals), truth, intervals))
        report("intervals", found[1])
    return 1 if any(result.differences for result in found) else 0


if __name__ == "__main__":
    sys.exit(main())
