"""When the last packets of a file were captured, told by its last bytes alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from struct import Struct, error, unpack_from

from synfin.stores import Url

_HEAD_BYTES = 1 << 16  # where pcapng describes its interfaces
_TAIL_BYTES = 1 << 18  # several packets of the largest size that is usual, 64 KiB
_MOST_PACKETS = 1000
_PCAP_HEADER_BYTES = 24
_PCAP_MAGICS = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}  # -> nanoseconds of a tick
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_RESOLUTION, _OFFSET = 9, 14  # options of an interface


def latest_ns(path: str) -> int | None:
    """The latest time (ns since 1970) among the last packets of a capture file.

    None where that cannot be had cheaply and for certain: compressed and stored files, files that end within a packet, rare kinds
    of pcap, pcapng with sections or interfaces that begin among packets.
    """
    if isinstance(path, Url):
        return None
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_HEAD_BYTES)
            at = max(size - _TAIL_BYTES, _PCAP_HEADER_BYTES)
            file.seek(at)
            tail = file.read(_TAIL_BYTES)
    except OSError:
        return None
    try:
        return max(_pcap_times(head, tail) or _pcapng_times(head, tail, at), default=None)
    except (error, IndexError):  # something ends before it is whole
        return None


def _pcap_times(head: bytes, tail: bytes) -> list[int]:
    for order in "<>":
        magic, *version = unpack_from(order + "IHH", head)
        if magic in _PCAP_MAGICS and version == [2, 4]:
            records = _records(tail, Struct(order + "IIII"))
            # The first ones may be bytes of a packet that happen to lead to the beginning of the next.
            return [s * 10**9 + ticks * _PCAP_MAGICS[magic] for s, ticks in records[len(records) // 2 :]]
    return []


def _records(tail: bytes, header: Struct) -> list[tuple[int, int]]:
    # The timestamps of the records, from the first place on from which lengths lead to the very end.
    passed: set[int] = set()
    for start in range(len(tail) - header.size):
        at, found = start, []
        while at + header.size < len(tail) and at not in passed:
            passed.add(at)
            seconds, ticks, length, wire_length = header.unpack_from(tail, at)
            if not 0 < length <= wire_length or ticks >= 10**9:
                break
            found.append((seconds, ticks))
            at += header.size + length
        if at == len(tail) and len(found) > 1:
            return found
    return []


def _pcapng_times(head: bytes, tail: bytes, tail_at: int) -> list[int]:
    if unpack_from("<I", head)[0] != _SECTION:
        return []
    order = "<" if unpack_from("<I", head, 8)[0] == 0x1A2B3C4D else ">"
    clocks: list[tuple[int, int]] = []  # of each interface: ticks of a second, seconds to add
    at = 0
    while (kind := unpack_from(order + "I", head, at)[0]) not in (_OLD_PACKET, _SIMPLE, _PACKET):
        length = unpack_from(order + "I", head, at + 4)[0]
        if length < 12 or (kind == _SECTION and at):
            return []
        if kind == _INTERFACE:
            clocks.append(_clock(head[at + 16 : at + length - 4], order))
        at += length
    first_packet = max(at - tail_at, 0)
    times: list[int] = []
    end = len(tail)
    while end - 12 >= first_packet and len(times) < _MOST_PACKETS:
        length = unpack_from(order + "I", tail, end - 4)[0]
        if length < 12 or length > end:
            break
        end -= length
        kind, same = unpack_from(order + "II", tail, end)
        if same != length or kind in (_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE):
            return []
        if kind == _PACKET:
            interface, high, low = unpack_from(order + "III", tail, end + 8)
            if interface >= len(clocks):
                return []
            ticks, offset = clocks[interface]
            times.append((high << 32 | low) * 10**9 // ticks + offset * 10**9)
    return times


def _clock(data: bytes, order: str) -> tuple[int, int]:
    ticks, offset = 10**6, 0
    for code, value in _options(data, order):
        if code == _RESOLUTION:
            ticks = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
        elif code == _OFFSET:
            offset = unpack_from(order + "q", value)[0]
    return ticks, offset


def _options(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        code, length = unpack_from(order + "HH", data, at)
        if not code:
            return
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
