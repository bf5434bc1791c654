"""Builders of small pcap and pcapng files for the tests of the sources."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from synfin.sources.captures import CaptureInput

PCAP_US, PCAP_NS, PCAP_KUZNETZOV = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
T0 = 1_700_000_000 * 10**9
HOUR = 3600 * 10**9


@dataclass(frozen=True)
class Row:
    """One packet of PacketBatch.packets(), with names."""

    data: bytes
    time_ns: int
    clock_ns: int
    number: int
    file_id: int
    interface_id: int
    link_type: int
    wire_len: int
    flags: int


def rows_of(source: CaptureInput) -> list[Row]:
    return [Row(*row) for batch in source for row in batch.packets()]


def read(*paths, **options) -> tuple[list[Row], CaptureInput]:
    """All packets of the paths and the closed input with its report."""
    with CaptureInput([str(path) for path in paths], **options) as source:
        return rows_of(source), source


def pcap(packets: Iterable[tuple], order: str = "<", magic: int = PCAP_US, link_type: int = 1, version=(2, 4)) -> bytes:
    """A pcap file of (time_ns, data) or (time_ns, data, wire_len)."""
    tick = 1 if magic == PCAP_NS else 1000
    out = [struct.pack(order + "IHHiIII", magic, *version, 0, 0, 262144, link_type)]
    for time_ns, data, *wire in packets:
        lengths = [len(data), wire[0] if wire else len(data)]
        if version < (2, 3):
            lengths.reverse()
        out.append(struct.pack(order + "IIII", time_ns // 10**9, time_ns % 10**9 // tick, *lengths))
        if magic == PCAP_KUZNETZOV:
            out.append(struct.pack(order + "iHBB", 3, 0x0800, 0, 0))
        out.append(data)
    return b"".join(out)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)


def options(items: Iterable[tuple[int, bytes]], order: str = "<") -> bytes:
    out = b"".join(struct.pack(order + "HH", code, len(v)) + v + bytes(-len(v) % 4) for code, v in items)
    return out + bytes(4) if out else b""


def section(order: str = "<", length: int = -1, version=(1, 0)) -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, *version, length), order)


def interface(order: str = "<", link_type: int = 1, snaplen: int = 0, opts: Iterable[tuple[int, bytes]] = ()) -> bytes:
    return block(1, struct.pack(order + "HHI", link_type, 0, snaplen) + options(opts, order), order)


def enhanced(stamp: int, data: bytes, number: int = 0, *, order: str = "<", wire: int | None = None, opts=()) -> bytes:
    lengths = (len(data), len(data) if wire is None else wire)
    head = struct.pack(order + "IIIII", number, stamp >> 32, stamp & 0xFFFFFFFF, *lengths)
    return block(6, head + data + bytes(-len(data) % 4) + options(opts, order), order)


def old_packet(stamp: int, data: bytes, number: int = 0, order: str = "<") -> bytes:
    head = struct.pack(order + "HHIIII", number, 7, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data))
    return block(2, head + data, order)


def simple(data: bytes, order: str = "<", wire: int | None = None) -> bytes:
    return block(3, struct.pack(order + "I", len(data) if wire is None else wire) + data, order)
