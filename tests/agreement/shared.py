"""What the shared folder holds for the comparison: captures, tshark's streams, Zeek's rows, and our rows of a capture."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from corpus import ROOT, captures
from rows import fast
from synfin import schema
from synfin._core.probe import decode
from synfin.sources.captures import CaptureInput

EVERY = [column.name for column in schema.FLOWS]


def captures_with_streams() -> Iterator[tuple[Path, list[dict[str, str]]]]:
    """Every capture that tshark's rows are there for, with its streams of real segments."""
    for capture in captures():
        reference = ROOT / "ref" / f"{capture['sha256']}.tsv.gz"
        if reference.exists():
            with gzip.open(reference, "rt", encoding="utf-8") as file:
                lines = (line for line in file if not line.startswith("#"))
                streams = [row for row in csv.DictReader(lines, delimiter="\t") if row["layer"] == "seg"]
            yield ROOT / capture["path"], streams


def zeek_traces() -> Iterator[tuple[Path, list[dict[str, str]]]]:
    """Zeek's own traces, each with the TCP rows of the conn.log that its suite expects."""
    for expected in sorted((ROOT / "zeek-expected").glob("*.conn.tsv")):
        with open(expected, newline="", encoding="utf-8") as file:
            next(file)
            yield (
                expected.with_name(expected.name.removesuffix(".conn.tsv")),
                list(csv.DictReader(file, delimiter="\t")),
            )


def flow_rows(path: Path) -> list[dict]:
    """Our flow rows of a capture, in the order of their first packets, with every column."""
    return sorted(fast([path], columns=EVERY)[0], key=lambda row: row["first_packet"])


def packets_of(path: Path) -> Iterator[tuple[frozenset, int, int]]:
    """Ends, flags and payload bytes of every segment of a capture, in input order."""
    with CaptureInput([str(path)]) as source:
        for batch in source:
            for data, *_, link_type, wire_len, _ in batch.packets():
                segment = decode(data, link_type, wire_len)
                if isinstance(segment, str):
                    continue
                size = 4 if segment["ip_version"] == 4 else 16
                ends = frozenset(
                    (str(ip_address(segment[address][:size])), segment[port])
                    for address, port in (("src", "src_port"), ("dst", "dst_port"))
                )
                yield ends, segment["flags"], segment["payload_bytes"]
