"""Packets built byte by byte, and the packets of a capture file, for the tests of the decoder."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

import zstandard

ETHERNET = 1
MACS = bytes(range(2, 14))
CLIENT4, SERVER4 = bytes([192, 0, 2, 1]), bytes([198, 51, 100, 7])
CLIENT6, SERVER6 = bytes([0x20, 1, 0xD, 0xB8, *range(12)]), bytes([0x20, 1, 0xD, 0xB8, *range(20, 32)])


def tcp(payload: bytes = b"", options: bytes = b"", flags: int = 0x10, offset: int | None = None, **over: int) -> bytes:
    """A TCP segment. `options` must be a multiple of 4 bytes; `offset` (in words) overrides the data offset."""
    words = (20 + len(options)) // 4 if offset is None else offset
    head = struct.pack(
        ">HHIIHHHH",
        over.get("src_port", 40000),
        over.get("dst_port", 443),
        over.get("seq", 0x01020304),
        over.get("ack", 0x0A0B0C0D),
        words << 12 | flags,
        over.get("window", 0x1234),
        0,
        0,
    )
    return head + options + payload


def ipv4(
    body: bytes,
    protocol: int = 6,
    *,
    options: bytes = b"",
    total: int | None = None,
    fragment: int = 0x4000,
    src: bytes = CLIENT4,
    dst: bytes = SERVER4,
) -> bytes:
    """An IPv4 packet; `total` overrides the total length, `fragment` is the field of flags and offset."""
    size = 20 + len(options)
    length = size + len(body) if total is None else total
    head = struct.pack(">BBHHHBBH", 0x40 | size // 4, 0, length, 0x5555, fragment, 61, protocol, 0)
    return head + src + dst + options + body


def ipv6(
    body: bytes, next_header: int = 6, length: int | None = None, src: bytes = CLIENT6, dst: bytes = SERVER6
) -> bytes:
    """An IPv6 packet; `length` overrides the payload length."""
    head = struct.pack(">IHBB", 0x60000000, len(body) if length is None else length, next_header, 59)
    return head + src + dst + body


def ethernet(body: bytes, ethertype: int = 0x0800) -> bytes:
    return MACS + struct.pack(">H", ethertype) + body


def read_capture(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(link type, length on the wire, captured bytes) of each packet of a sound pcap or pcapng file, plain, gzip or zstd."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    elif data[:4] == b"\x28\xb5\x2f\xfd":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    if data[:4] == b"\x0a\x0d\x0d\x0a":
        yield from _pcapng(data)
    else:
        yield from _pcap(data)


def _pcap(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    magics = {0xA1B2C3D4: 16, 0xA1B23C4D: 16, 0xA1B2CD34: 24}  # record header sizes; the last is Kuznetzov's
    order = "<" if int.from_bytes(data[:4], "little") in magics else ">"
    head = magics[struct.unpack_from(order + "I", data)[0]]
    link_type = struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF
    swapped = struct.unpack_from(order + "HH", data, 4) < (2, 3)  # the two lengths stand the other way round
    at = 24
    while at + head <= len(data):
        captured, wire = struct.unpack_from(order + "II", data, at + 8)[:: -1 if swapped else 1]
        if at + head + captured > len(data):
            return
        yield link_type, max(wire, captured), data[at + head : at + head + captured]
        at += head + captured


def _pcapng(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    order, interfaces, at = "<", [], 0
    while at + 12 <= len(data):
        if data[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order, interfaces = "<" if data[at + 8] == 0x4D else ">", []
        kind, size = struct.unpack_from(order + "II", data, at)
        if size < 12:
            raise ValueError(f"block of {size} bytes at {at}")
        body = data[at + 8 : at + size - 4]
        if kind == 1:
            interfaces.append(struct.unpack_from(order + "HHI", body)[::2])
        elif kind == 3:
            wire = struct.unpack_from(order + "I", body)[0]
            captured = min(wire, len(body) - 4, interfaces[0][1] or wire)
            yield interfaces[0][0], wire, body[4 : 4 + captured]
        elif kind in (2, 6):
            captured, wire = struct.unpack_from(order + "II", body, 12)
            interface = struct.unpack_from(order + ("H" if kind == 2 else "I"), body)[0]
            yield interfaces[interface][0], max(wire, captured), body[20 : 20 + captured]
        at += size
