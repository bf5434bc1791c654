"""`synfin track` with several workers against one, in alternating runs on the same captures.

How much more cores give depends on the machine and on who else uses it, so each pair is joined by as many runs with one worker
at the same time: an ideal tracker would take as long as they do, divided by their number.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench import EMPTY_PCAP, HERE, generate, measure, speed_cases


def track(capture: Path, workers: int) -> list[str | Path]:
    """The command that is measured."""
    return [sys.executable, "-m", "synfin", "track", capture, "--workers", str(workers)]


def together(capture: Path, count: int) -> float:
    """Seconds in which `count` runs with one worker end that begin at the same time."""
    begin = time.perf_counter()
    runs = [subprocess.Popen(track(capture, 1), stdout=subprocess.DEVNULL) for _ in range(count)]
    if any([run.wait() for run in runs]):
        raise RuntimeError("a run failed")
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=7, help="runs of each on every capture (7)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all packets and connections (1)")
    parser.add_argument("--folder", type=Path, default=HERE / "build/captures", help="where the captures are kept")
    parser.add_argument("--only", metavar="TEXT", default="", help="captures whose name holds this")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    empty, count = arguments.folder / "empty.pcap", arguments.workers
    empty.write_bytes(EMPTY_PCAP)
    start = statistics.median(measure(track(empty, 1)).wall for _ in range(arguments.pairs))
    print("| capture | 1 worker, wall s | faster by | could be at most | processor time | peak MB, 1 and more |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for case in (case for case in speed_cases(arguments.scale) if arguments.only in case.name):
        capture = generate(case, arguments.folder)
        measure(track(capture, 1))  # warms the page cache
        rows = []
        for _ in range(arguments.pairs):
            one, several = measure(track(capture, 1)), measure(track(capture, count))
            ideal = (together(capture, count) - start) / count
            took = one.wall - start
            rows.append(
                (one.wall, took / (several.wall - start), took / ideal, several.cpu / one.cpu, one.peak_bytes / 1e6,
                 several.peak_bytes / 1e6)
            )  # fmt: skip
        wall, faster, most, cpu, peak, more = (statistics.median(column) for column in zip(*rows, strict=True))
        print(
            f"| {case.name} | {wall:.2f} | {faster:.2f} | {most:.2f} | {cpu:.2f} | {peak:.0f}, {more:.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
