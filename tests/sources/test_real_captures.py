"""Real and hostile captures: packet counts as their index tells, bytes and times as dpkt reads them, never a crash."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import time
from pathlib import Path

import dpkt
import pytest
from capture_files import rows_of

from synfin.errors import SynfinError
from synfin.sources.captures import CaptureInput

ROOT = Path(os.environ.get("SYNFIN_CAPTURES", ""))
pytestmark = pytest.mark.skipif(
    not os.environ.get("SYNFIN_CAPTURES"), reason="the environment variable SYNFIN_CAPTURES names no folder of captures"
)
#: Other formats than pcap and pcapng.
FOREIGN = {"dualhome.iptrace", "scripts__exp__rtsp_short1_ipv6_rxcheck-ex.erf"}


def index(name: str) -> list[dict[str, str]]:
    with open(ROOT / name, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def test_packet_counts_of_the_index():
    for entry in index("INDEX.tsv"):
        path = ROOT / entry["path"]
        if path.name in FOREIGN:
            continue
        with CaptureInput([str(path)], chunk_bytes=5000) as source:
            count = sum(len(batch) for batch in source)
            assert (str(count), source.report.broken) == (entry["packets"], []), path


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_lengths_of_an_old_version_as_tshark_reads_them():
    path = ROOT / "blitz+tcptrace/input__bad_ack_code.dmp.gz"  # version 2.2, snapped to 68 bytes
    command = ["tshark", "-n", "-r", path, "-T", "fields", "-e", "frame.cap_len", "-e", "frame.len"]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    with CaptureInput([str(path)]) as source:
        ours = [number for row in rows_of(source) for number in (len(row.data), row.wire_len)]
    assert ours == list(map(int, theirs)) and any(ours[i] < ours[i + 1] for i in range(0, len(ours), 2))


def test_packets_as_dpkt_reads_them():
    compared = 0
    for entry in index("INDEX.tsv"):
        path = ROOT / entry["path"]
        if path.suffix not in (".pcap", ".pcapng", ".cap") or path.name in FOREIGN:
            continue
        with open(path, "rb") as file:
            try:
                theirs = [(float(when), data) for when, data in dpkt.pcap.UniversalReader(file)]
            except Exception:
                continue
        with CaptureInput([str(path)]) as source:
            ours = rows_of(source)
            several = len(source.interfaces) > 1  # dpkt takes the resolution of the first for all
            replaced = {incident.packet for incident in source.report.incidents if incident.kind == "outlier"}
        if len(theirs) < len(ours) == int(entry["packets"]):
            continue  # dpkt passes over simple and old packet blocks
        assert [row.data for row in ours] == [data for _, data in theirs], path
        for row, (when, _) in zip(ours, theirs, strict=True):
            if row.number not in replaced and when < 4e9 and not several:
                assert abs(row.time_ns - when * 1e9) < 1000, (path, row.number)
        compared += 1
    assert compared > 200


def test_hostile_files_end_in_time_with_an_offset_or_a_reason():
    for entry in index("hostile/INDEX.tsv"):
        path, begun = ROOT / entry["path"], time.monotonic()
        try:
            with CaptureInput([str(path)]) as source:
                rows = rows_of(source)
                broken = source.report.broken
        except SynfinError as error:
            assert str(path) in str(error)
            continue
        assert time.monotonic() - begun < 5, path
        assert all(item.offset is not None and item.reason for item in broken), path
        unsupported = "unsupported" in entry["capinfos_message"] or "isn't a capture" in entry["capinfos_message"]
        if not broken and entry["capinfos_exit"] != "0":
            assert unsupported or path.name.endswith("test007.ntar"), path  # only the latter is read by us alone
        if not broken and entry["capinfos_packets"]:
            assert str(len(rows)) == entry["capinfos_packets"], path
