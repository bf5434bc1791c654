"""Every capture of the folder, the hostile ones included, is read without crash or hang, and its packets add up."""

from __future__ import annotations

import pytest

from corpus import ROOT, captures, everything, index, needs_captures
from reading import read_each
from rows import fast

pytestmark = needs_captures


def test_each_is_read_and_adds_up():
    paths = everything()
    assert len(paths) > 800
    results = read_each(paths)
    assert [path for path, result in results.items() if result["seconds"] > 20] == []
    read = {path: result for path, result in results.items() if not result["refused"]}
    for path, result in read.items():
        assert result["packets"] == result["in_records"] + result["skipped"], path
        assert result["in_rows"] == result["in_records"], path
    for capture in captures():
        assert read[ROOT / capture["path"]]["packets"] == int(capture["packets"]), capture["path"]
    refused = {str(path): result["fault"] for path, result in results.items() if result["refused"]}
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
