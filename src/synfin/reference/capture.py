"""Reads whole capture files into packets: pcap by dpkt's headers, pcapng block by block.

dpkt's readers drop the length on the wire and know one section and one interface; only its header layouts are used.
Broken captures are the fast readers' matter: reading stops here at the first record that does not fit.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lz4.frame
import zstandard
from dpkt import pcap

from .time import Packet


def _unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()


def _unpack(open_packed: Callable[[io.BytesIO], Any]) -> Callable[[bytes], bytes]:
    """From what opens a packed file, a function that unpacks as much as is there of one that may be cut or corrupt."""

    def unpack(data: bytes) -> bytes:
        parts, file = [], open_packed(io.BytesIO(data))
        try:
            while part := file.read1(1 << 16):
                parts.append(part)
        except (EOFError, OSError, RuntimeError, lzma.LZMAError, zlib.error):  # the fast readers say what is wrong
            pass
        return b"".join(parts)

    return unpack


PACKERS = {
    b"\x1f\x8b": _unpack(gzip.open), b"BZh": _unpack(bz2.open), b"\xfd7zXZ": _unpack(lzma.open),
    b"\x28\xb5\x2f\xfd": _unzstd, b"\x04\x22\x4d\x18": _unpack(lz4.frame.open),
}  # fmt: skip
LATEST = (1 << 62) - 1  # ns since 1970, in the year 2116: a timestamp beyond is taken for this one
SECTION, INTERFACE, OLD_PACKET, SIMPLE, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6


def read(paths: Sequence[str | Path]) -> list[tuple[str, list[Packet]]]:
    """Sources for ``track``: (path, packets) of pcap or pcapng files, plain or packed by gzip, bzip2, xz, zstd or lz4.

    Raises ValueError for what is neither.
    """
    sources = []
    for path in paths:
        data = Path(path).read_bytes()
        for magic, unpack in PACKERS.items():
            if data.startswith(magic):
                data = unpack(data)
        packets = read_pcapng(data) if data[:4] == b"\n\r\r\n" else read_pcap(data)
        sources.append((str(path), list(packets)))
    return sources


def read_pcap(data: bytes) -> Iterator[Packet]:
    """Packets of a pcap file of either byte order and unit."""
    magic = int.from_bytes(data[:4], "big")
    if magic not in pcap.MAGIC_TO_PKT_HDR:
        raise ValueError("not a pcap or pcapng file")
    header_type = pcap.MAGIC_TO_PKT_HDR[magic]
    little = issubclass(header_type, (pcap.LEPktHdr, pcap.LEPktModHdr))
    file_header = (pcap.LEFileHdr if little else pcap.FileHdr)(data[:24])
    unit = 1 if magic in {pcap.TCPDUMP_MAGIC_NANO, pcap.PMUDPCT_MAGIC_NANO} else 1000
    at = 24
    while at + header_type.__hdr_len__ <= len(data):
        header = header_type(data[at : at + header_type.__hdr_len__])
        at += header_type.__hdr_len__
        captured, wire = header.caplen, header.len
        if (file_header.v_major, file_header.v_minor) <= (2, 3) and captured > wire:
            captured, wire = wire, captured  # old writers swapped the two, as libpcap knows
        if at + captured > len(data):
            return
        time = header.tv_sec * 1_000_000_000 + header.tv_usec * unit
        frame = data[at : at + captured]
        yield Packet(time, frame, max(wire, captured), file_header.linktype & 0xFFFF)
        at += captured


@dataclass
class Interface:
    """What an interface description block says."""

    link_type: int
    snap: int
    name: str
    ticks: int = 1_000_000  # per second
    offset_s: int = 0


def describe(body: bytes, order: str, number: int) -> Interface:
    link_type, _, snap = struct.unpack_from(order + "HHI", body)
    interface, at = Interface(link_type, snap, str(number)), 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
        if code == 0:
            break
        if code == 2 and value:
            interface.name = value.split(b"\0")[0].decode("utf-8", "replace") or interface.name
        elif code == 9 and length == 1:
            interface.ticks = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == 14 and length == 8:
            interface.offset_s = struct.unpack(order + "q", value)[0]
    return interface


def read_pcapng(data: bytes) -> Iterator[Packet]:
    """Packets of all sections of a pcapng file."""
    at, order, interfaces = 0, "<", []
    while at + 12 <= len(data):
        if data[at : at + 4] == b"\n\r\r\n":
            order, interfaces = ("<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"), []
        kind, length = struct.unpack_from(order + "II", data, at)
        if length < 12 or at + length > len(data):
            return
        body = data[at + 8 : at + length - 4]
        at += length
        if kind == INTERFACE:
            interfaces.append(describe(body, order, len(interfaces)))
        elif kind in {ENHANCED, OLD_PACKET}:
            layout = "IIIII" if kind == ENHANCED else "HxxIIII"
            number, high, low, captured, wire = struct.unpack_from(order + layout, body)
            if number >= len(interfaces) or 20 + captured > len(body):
                return
            interface = interfaces[number]
            time = (high << 32 | low) * 1_000_000_000 // interface.ticks + interface.offset_s * 1_000_000_000
            time = min(max(time, 0), LATEST)
            yield Packet(time, body[20 : 20 + captured], max(wire, captured), interface.link_type, interface.name)
        elif kind == SIMPLE and interfaces:
            wire = struct.unpack_from(order + "I", body)[0]
            frame = body[4 : 4 + min(wire, interfaces[0].snap or wire)]
            yield Packet(None, frame, wire, interfaces[0].link_type, interfaces[0].name)
