"""What `synfin extract` must give: the packets of one record, found again by the tracker, equal to those of the input."""

from __future__ import annotations

import struct
from pathlib import Path

import rows
from dialogue import ethernet, ipv4, pcapng_block
from synfin import reference
from synfin.run import Run
from synfin.settings import Selection, Settings
from synfin.sources.captures import CaptureInput

#: Columns that tell where the record was found, which an extract need not keep.
PLACE = {"first_file", "first_packet", "interface"}


def track(path) -> tuple[list[dict], dict]:
    """The flow rows of a capture and the tracker's account."""
    flows, _, stats = rows.fast([path])
    return flows, stats


def packets(path) -> list[tuple]:
    """(timestamp, bytes, length on the wire, link type) of a capture, by the slow tracker's reader."""
    return [tuple(packet[:4]) for _, found in reference.read([path]) for packet in found]


def is_part(few: list[tuple], all_of_them: list[tuple]) -> bool:
    """Are these packets some of the others, in the same order?"""
    others = iter(all_of_them)
    return all(packet in others for packet in few)


def add_clock(path: Path, clock_ns: int) -> None:
    """Append a packet that is no TCP, so that the clock comes as far as in the whole input."""
    frame = ethernet(ipv4("192.0.2.1", "192.0.2.2", bytes(8), protocol=17))
    section = pcapng_block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    interface = pcapng_block("<", 1, struct.pack("<HHI", 1, 0, 0) + struct.pack("<HHB3xHH", 9, 1, 9, 0, 0))
    head = struct.pack("<IIIII", 0, clock_ns >> 32, clock_ns & 0xFFFFFFFF, len(frame), len(frame))
    with open(path, "ab") as file:
        file.write(section + interface + pcapng_block("<", 6, head + frame))


def differing(row: dict, again: dict) -> dict[str, tuple]:
    """The columns in which the row of the extract is another one, apart from its place.

    A record that gave way to the next one on its ends finds none in its extract: it ends otherwise.
    """
    apart = PLACE | (
        {"end_reason", "time_wait_end", "handshake"}
        if row["end_reason"] == "reuse" or row["time_wait_end"] == "reused"
        else set()
    )
    return {name: (row[name], again[name]) for name in row if name not in apart and row[name] != again[name]}


def count(path, selection: Selection) -> tuple[int, int]:
    """How many records and packets a selection takes, by the tracker alone."""
    run = Run(CaptureInput([str(path)]), Settings(), flow_columns=[], interval_columns=[], selection=selection)
    assert not list(run.blocks())
    records, places = run.tracker.selected()
    return records, len(places) // 8
