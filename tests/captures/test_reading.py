"""Every capture of the folder, the hostile ones included, is read without crash or hang, and its packets add up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from corpus import ROOT, captures, everything, index, needs_captures

from rows import fast

pytestmark = needs_captures


def test_each_is_read_and_adds_up():
    paths = everything()
    assert len(paths) > 800
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("read_each.py"))],
        input="".join(f"{path}\n" for path in paths),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    results = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, (results[-1:], run.stderr[-2000:])
    assert [result["path"] for result in results] == [str(path) for path in paths]
    slow = [result["path"] for result in results if result["seconds"] > 20]
    assert slow == []
    read = {Path(result["path"]): result for result in results if "error" not in result}
    for path, result in read.items():
        assert result["packets"] == result["in_records"] + result["skipped"], path
        assert result["in_rows"] == result["in_records"], path
    for capture in captures():
        assert read[ROOT / capture["path"]]["packets"] == int(capture["packets"]), capture["path"]
    refused = {result["path"]: result["error"] for result in results if "error" in result}
    assert all(path in error for path, error in refused.items())  # an error names its file
    hostile = {str(ROOT / row["path"]) for row in index("hostile/INDEX.tsv")}
    foreign = {str(ROOT / row["path"]) for row in index() if "pcap" not in row["format"]}
    assert {path for path in refused if path not in hostile} - foreign == set()


@pytest.mark.slow
def test_the_whole_folder_as_one_set():
    """One clock over files of twenty years that step back and ahead of each other: every packet is accounted for."""
    flows, intervals, stats = fast([ROOT])
    assert stats["packets"] > 250_000
    assert stats["packets"] == stats["packets_in_records"] + sum(stats["skips"].values())
    assert stats["packets_in_records"] == sum(row["client_packets"] + row["server_packets"] for row in flows)
    assert stats["packets_in_records"] == sum(row["packets"] for row in intervals)
    assert len(flows) == stats["records"]
