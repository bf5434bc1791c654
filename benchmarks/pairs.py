"""This tree's `synfin track` against another's (an older commit, built), in alternating runs on the same captures.

Each pair runs both, the other first in every second pair, so that what disturbs the machine disturbs both. The ratio
is the median over the pairs of this tree's processor seconds to the other's, start-up included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path

from cases import CASES, generate, speed_cases
from measuring import HERE, measure


def seconds(source: Path, capture: Path, options: list[str]) -> float:
    """Processor seconds of one run by the package under `source`."""
    os.environ["PYTHONPATH"] = str(source)
    return measure([sys.executable, "-m", "synfin", "track", capture, *options]).cpu


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure this tree's speed as a ratio to another's.")
    parser.add_argument("other", type=Path, help="the other checkout, its modules built in place")
    parser.add_argument("--pairs", type=int, default=7, help="runs of each on every capture (7)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all packets and connections (1)")
    parser.add_argument("--folder", type=Path, default=HERE / "build/captures", help="where the captures are kept")
    parser.add_argument("--only", nargs="+", choices=CASES, default=[], help="these captures")
    parser.add_argument("--option", action="append", default=[], help="for this tree's runs alone: --duplicates=count")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    ours, theirs = HERE.parent / "src", arguments.other / "src"
    print(
        "| capture           | other, cpu s | this, cpu s | ratio | of single pairs |\n| --- | ---: | ---: | ---: | --- |"
    )
    for case in speed_cases(arguments.scale, arguments.only):
        capture = generate(case, arguments.folder)
        seconds(ours, capture, [])  # warms the page cache
        pairs = []
        for number in range(arguments.pairs):
            old = 0.0 if number % 2 else seconds(theirs, capture, [])
            new = seconds(ours, capture, arguments.option)
            pairs.append((old or seconds(theirs, capture, []), new))
        ratios = sorted(new / old for old, new in pairs)
        print(
            f"| {case.name:<17} | {statistics.median(old for old, _ in pairs):>12.2f} "
            f"| {statistics.median(new for _, new in pairs):>11.2f} | {statistics.median(ratios):>5.2f} "
            f"| {' '.join(f'{ratio:.2f}' for ratio in ratios)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
