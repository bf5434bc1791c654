"""Tracks files in a process of its own, where a crash or a hang is a finding: the result of the file behind the last line is missing.

Run as a script, it takes paths on standard input, one a line, and prints a line of JSON for each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rows import rows_of
from synfin.errors import SynfinError
from synfin.run import Run
from synfin.settings import Settings
from synfin.sources.captures import CaptureInput


def read_each(paths: Sequence[Path]) -> dict[Path, dict]:
    """What became of each file, as ``track`` says; all of them, or an AssertionError that names the last one."""
    run = subprocess.run(
        [sys.executable, __file__],
        input="".join(f"{path}\n" for path in paths),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    found = {Path(one["path"]): one for one in map(json.loads, run.stdout.splitlines())}
    assert run.returncode == 0, (list(found)[-1:], run.stderr[-2000:])
    assert list(found) == list(paths)
    return found


def track(path: str) -> dict:
    """Packets of one file, how many are skipped, in records and in rows; its fault, and whether nothing of it was read."""
    counts = {"packets": 0, "skipped": 0, "in_records": 0, "in_rows": 0}
    begun, fault, refused = time.monotonic(), None, False
    try:
        source = CaptureInput([path])
        run = Run(source, Settings())
        for table, block in run.blocks():
            if table == "flows":
                counts["in_rows"] += sum(row["client_packets"] + row["server_packets"] for row in rows_of(block, table))
        stats = run.tracker.stats()
        counts |= {"packets": stats["packets"], "skipped": sum(stats["skips"].values())}
        counts["in_records"] = stats["packets_in_records"]
        fault = "; ".join(str(broken) for broken in source.report.broken) or None
    except SynfinError as error:
        fault, refused = str(error), True
    return {"path": path, "seconds": time.monotonic() - begun, "fault": fault, "refused": refused, **counts}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(track(line.rstrip("\n"))), flush=True)
