"""Tracks each capture whose path comes on standard input, and prints a line of JSON for it: run by test_reading.py.

In a process of its own, because a crash or a hang there is a finding: the last line names the file before.
"""

import json
import sys
import time

from rows import fast
from synfin.errors import SynfinError

for line in sys.stdin:
    path, begun = line.rstrip("\n"), time.monotonic()
    try:
        flows, _, stats = fast([path])
        result = {
            "packets": stats["packets"],
            "skipped": sum(stats["skips"].values()),
            "in_rows": sum(row["client_packets"] + row["server_packets"] for row in flows),
            "in_records": stats["packets_in_records"],
        }
    except SynfinError as error:
        result = {"error": str(error)}
    print(json.dumps({"path": path, "seconds": time.monotonic() - begun, **result}), flush=True)
