"""How long synfin takes to start, beside an empty Python: medians of alternating runs."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

from measuring import EMPTY_PCAP, measure

_SYNFIN = "from synfin.cli.main import main; main()"  # what the installed command runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=21)
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled once
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.pcap"
        empty.write_bytes(EMPTY_PCAP)
        commands = {
            "python -c pass": ["pass"],
            "import click": ["import click"],
            "synfin --help": [_SYNFIN, "--help"],
            "synfin track EMPTY": [_SYNFIN, "track", empty],
        }
        usages = {name: [] for name in commands}
        for run in range(arguments.runs + 1):
            for name, command in commands.items():
                usage = measure([sys.executable, "-c", *command])
                if run:  # the first one fills caches
                    usages[name].append(usage)
    base = usages["python -c pass"]
    print("| command | wall ms | cpu ms | wall ratio | cpu ratio |\n| --- | ---: | ---: | ---: | ---: |")
    for name, these in usages.items():
        cells = [f"{1000 * statistics.median(getattr(usage, kind) for usage in these):.0f}" for kind in ("wall", "cpu")]
        for kind in ("wall", "cpu"):
            ratios = (getattr(one, kind) / getattr(zero, kind) for one, zero in zip(these, base, strict=True))
            cells.append(f"{statistics.median(ratios):.2f}")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
