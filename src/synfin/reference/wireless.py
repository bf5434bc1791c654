"""IEEE 802.11 frames and the capture headers before them: each function returns where the 802.2 header begins."""

from __future__ import annotations

import struct

from .segment import Skip, need


def wlan(data: bytes, at: int, *, padded: bool = False) -> int:
    """A data frame (IEEE 802.11-2020 section 9.3.2). ``padded``: its header is padded to 4 bytes."""
    need(data, at, 2)
    first, flags = data[at], data[at + 1]
    version, kind, subtype = first & 3, first >> 2 & 3, first >> 4
    if version:
        raise Skip("bad_link_header")
    if kind != 2 or subtype & 4:  # management, control, and data frames without data
        raise Skip("not_ip")
    if flags & 0x40:
        raise Skip("encrypted")
    quality = bool(subtype & 8)
    size = 24 + (6 if flags & 3 == 3 else 0) + (2 if quality else 0)
    need(data, at, size)
    if data[at + 22] & 15:
        raise Skip("fragment")
    if quality and data[at + size - 2] & 0x80:
        raise Skip("aggregate")
    if quality and flags & 0x80:
        size += 4
    if padded:
        size += -size % 4
    need(data, at, size)
    return at + size


def radiotap(data: bytes, at: int) -> int:
    """Words of field bits (bit 31: another follows), the fields in that order, each aligned to its size."""
    need(data, at, 8)
    version, length, present = struct.unpack_from("<BxHI", data, at)
    if version or length < 8:
        raise Skip("bad_link_header")
    need(data, at, length)
    header, fields, word = data[at : at + length], 8, present
    while word >> 31 and fields + 4 <= length:
        word = struct.unpack_from("<I", header, fields)[0]
        fields += 4
    if word >> 31:
        fields = length
    if present & 1:
        fields += -fields % 8 + 8
    flags = header[fields] if present & 2 and fields < length else 0
    return wlan(data, at + length, padded=bool(flags & 0x20))


def is_avs(data: bytes, at: int) -> bool:
    """Its first word is a magic number of 20 bits and a version."""
    return len(data) >= at + 4 and int.from_bytes(data[at : at + 4], "big") >> 12 == 0x80211


def avs(data: bytes, at: int) -> int:
    """The header of Absolute Value Systems, big-endian, with its length in the second word."""
    need(data, at, 8)
    size = int.from_bytes(data[at + 4 : at + 8], "big")
    if not is_avs(data, at) or size < 8:
        raise Skip("bad_link_header")
    need(data, at, size)
    return wlan(data, at + size)


def prism(data: bytes, at: int) -> int:
    """The Prism header has 144 bytes; drivers write AVS headers under the same link type."""
    if is_avs(data, at):
        return avs(data, at)
    need(data, at, 144)
    return wlan(data, at + 144)
