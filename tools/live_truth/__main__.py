"""Hold synfin against kernels: ``python -m live_truth [--scale N] [--document FILE] [PART ...]``, with tools/ in PYTHONPATH.

Needs root, or user namespaces for the parts without tcpdump. Exit status 1 if anything differs that has no name, 3 with one line of reason where network
namespaces are not allowed. Nothing is left behind but what --document asks for: the measured tables, put into their places.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from netns import NotAllowed, become_root

from live_truth import gauges, lossy, onesided, roundtrips, tables

PARTS = {part.__name__.rpartition(".")[2]: part.report for part in (gauges, roundtrips, lossy, onesided)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="live_truth", description=__doc__.splitlines()[0].partition(":")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "--scale", type=int, default=24_000, help="connections that are open at once (default: %(default)s)"
    )
    parser.add_argument("--document", type=Path, help="put the tables into this document")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}")
    began, good = time.monotonic(), True

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {text}", file=sys.stderr, flush=True)

    try:
        become_root()
        for name in asked.parts or PARTS:
            with tempfile.TemporaryDirectory(prefix="synfin-truth-") as folder:
                text, fine = PARTS[name](Path(folder), asked.scale, say)
            print(text)
            if asked.document:
                tables.put(asked.document, name, text)
            good &= fine
    except NotAllowed as reason:
        print(f"live_truth cannot run here: {reason}")
        return 3
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
