"""Tracks each capture whose path comes on standard input, and prints a line of JSON for it: run by test_agreement_hostile.py."""

import json
import sys
import time

from synfin.errors import SynfinError
from synfin.run import Run
from synfin.settings import Settings
from synfin.sources.captures import CaptureInput

for line in sys.stdin:
    path, begun = line.rstrip("\n"), time.monotonic()
    fault, packets, records, skipped = None, 0, 0, 0
    try:
        source = CaptureInput([path])
        run = Run(source, Settings())
        for _ in run.blocks():
            pass
        stats = run.tracker.stats()
        packets, records, skipped = stats["packets"], stats["packets_in_records"], sum(stats["skips"].values())
        fault = "; ".join(str(broken) for broken in source.report.broken) or None
    except SynfinError as error:
        fault = str(error)
    result = {"packets": packets, "in_records": records, "skipped": skipped, "fault": fault}
    print(json.dumps({"path": path, "seconds": time.monotonic() - begun, **result}), flush=True)
