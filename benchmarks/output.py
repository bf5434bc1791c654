"""Rows written to Parquet: tracking alone, encoding alone, and both together, in turn on the same capture.

`track` writes nothing, `encode` encodes the same rows from memory (only that is timed), `track to Parquet` does both.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import pyarrow as pa
from cases import CASES, Case, generate, speed_cases
from measuring import EMPTY_PCAP, HERE, machine, measure


def encode(stored: Path, out: Path) -> None:
    """Encodes stored batches and prints seconds on the clock and on processors, and the rows."""
    from synfin.output.arrow import Layout
    from synfin.output.parquet import Parquet

    batches = pa.ipc.open_stream(stored.read_bytes()).read_all().to_batches()
    wall, cpu = time.perf_counter(), time.process_time()
    with pa.OSFile(str(out), "wb") as sink:
        writer = Parquet(sink, Layout.choose("flows"))
        for batch in batches:
            writer.write(batch)
        writer.close({})
    took = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps([*took, sum(batch.num_rows for batch in batches)]))


def bench(case: Case, folder: Path, runs: int, workers: int) -> None:
    """Prints medians and ranges of one case."""
    capture, empty = generate(case, folder), folder / "empty.pcap"
    empty.write_bytes(EMPTY_PCAP)
    stored, out = folder / "output.arrow", folder / "output.parquet"
    track = [sys.executable, "-m", "synfin", "track", "--workers", str(workers)]
    measure([*track, capture, "-o", stored])
    found: dict[str, list[tuple[float, float]]] = {"track": [], "encode": [], "track to Parquet": []}
    rows = 0
    for number in range(runs + 1):
        once = {}
        for name, more in (("track", []), ("track to Parquet", ["-o", out])):
            start, whole = measure([*track, empty, *more]), measure([*track, capture, *more])
            once[name] = whole.wall - start.wall, whole.cpu - start.cpu
        told = measure([sys.executable, __file__, "--encode", stored, out]).output
        *once["encode"], rows = json.loads(told)
        if number:  # the first round warms the page cache
            for name, took in once.items():
                found[name].append(tuple(took))
    print(f"| {case.name}, {rows:,} rows | wall s | from to | cpu s | from to |\n| --- | ---: | --- | ---: | --- |")
    for name, took in found.items():
        shown = (f"{statistics.median(of):.2f} | {min(of):.2f} {max(of):.2f}" for of in zip(*took, strict=True))
        print(f"| {name} | {' | '.join(shown)} |")
    alone, encoding, both = (list(zip(*took, strict=True)) for took in found.values())
    ratios = [each / max(pair) for each, *pair in zip(both[0], alone[0], encoding[0], strict=True)]
    beyond = [(each - less) / rows * 1e6 for each, less in zip(both[1], alone[1], strict=True)]
    print(f"wall, both in that of the longer one: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"us of cpu a row beyond tracking: {statistics.median(beyond):.2f} ({min(beyond):.2f} to {max(beyond):.2f})")
    print(f"us of cpu a row, encoding alone: {statistics.median(encoding[1]) / rows * 1e6:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure tracking, encoding, and both.")
    parser.add_argument("--scale", type=float, default=1.0, help="of all packets and connections (1)")
    parser.add_argument("--runs", type=int, default=5, help="rounds, after one that is not counted (5)")
    parser.add_argument("--workers", type=int, default=1, help="that track (1)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=["slow", "churn"], help="these captures (slow churn)")
    parser.add_argument("--folder", type=Path, default=HERE / "build/captures", help="where the captures are kept")
    parser.add_argument("--encode", nargs=2, type=Path, metavar=("STORED", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.encode:
        encode(*arguments.encode)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    for case in speed_cases(arguments.scale, arguments.only):
        bench(case, arguments.folder, arguments.runs, arguments.workers)


if __name__ == "__main__":
    main()
