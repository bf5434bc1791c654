"""IP headers: addresses, fragments, extension headers, and the length that alone says how long the payload is."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dpkt import icmp, icmp6, ip

from .link import IPV4
from .segment import Skip, need

ICMP_ERRORS = {icmp.ICMP_UNREACH, icmp.ICMP_SRCQUENCH, icmp.ICMP_REDIRECT, icmp.ICMP_TIMEXCEED, icmp.ICMP_PARAMPROB}
EXTENSIONS = {0, 43, 44, 51, 60, 135, 139, 140}
LONGEST = 1 << 30  # bytes of an IP packet whose own length field does not tell


@dataclass
class Packet:
    """An IP packet: the captured bytes up to its end, and where in them its header, payload and announced end are."""

    data: bytes
    start: int
    body: int
    end: int
    version: int
    src: bytes
    dst: bytes
    ttl: int
    dont_fragment: bool | None
    protocol: int
    fragment: bool = False  # the first of several
    routed: bool = False  # a routing header names further hops

    def not_tcp(self) -> str:
        """The skip of a protocol other than TCP; an ICMP message whose type was not captured is no error as far as anyone
        can tell."""
        if self.body < len(self.data):
            kind = self.data[self.body]
            if self.version == 4 and self.protocol == ip.IP_PROTO_ICMP and kind in ICMP_ERRORS:
                return "icmp_error"
            if self.version == 6 and self.protocol == ip.IP_PROTO_ICMP6 and kind < icmp6.ICMP6_ECHO_REQUEST:
                return "icmp_error"
        return "not_tcp"


def network(data: bytes, kind: int, offset: int, on_wire: int, *, in_fragment: bool = False) -> Packet:
    """The IP packet at an offset. ``on_wire``: bytes from there on that were sent; ``in_fragment``: as the first of several
    fragments of an outer packet, so that more of this one may follow in others."""
    return (ipv4 if kind == IPV4 else ipv6)(data, offset, on_wire, in_fragment)


def ipv4(data: bytes, offset: int, on_wire: int, in_fragment: bool) -> Packet:
    """RFC 791; a total length of 0 is an offloaded segment that goes to the end of the frame."""
    need(data, offset, 20)
    first, _, total, _, fragment, ttl, protocol, _, src, dst = struct.unpack_from("!BBHHHBBH4s4s", data, offset)
    header = (first & 15) * 4
    total = total or on_wire
    if first >> 4 != 4 or header < 20 or not header <= total <= LONGEST:
        raise Skip("bad_ip_header")
    if fragment & 0x1FFF:
        raise Skip("fragment" if protocol == ip.IP_PROTO_TCP or protocol in EXTENSIONS else "not_tcp")
    continued = in_fragment and total > on_wire
    end = offset + (on_wire if continued else total)
    need(data[:end], offset, header)
    packet = Packet(
        data[:end], offset, offset + header, end, 4, src, dst, ttl, bool(fragment & 0x4000), protocol,
        fragment=continued or bool(fragment & 0x2000),
    )  # fmt: skip
    if protocol == ip.IP_PROTO_AH:
        walk_extensions(packet)
    return packet


def ipv6(data: bytes, offset: int, on_wire: int, in_fragment: bool) -> Packet:
    """RFC 8200."""
    need(data, offset, 40)
    first, length, following, hops, src, dst = struct.unpack_from("!IHBB16s16s", data, offset)
    total = length + 40 if length else jumbo_length(data, offset, following) or on_wire
    if first >> 28 != 6 or not 40 <= total <= LONGEST:
        raise Skip("bad_ip_header")
    continued = in_fragment and total > on_wire
    end = offset + (on_wire if continued else total)
    packet = Packet(data[:end], offset, offset + 40, end, 6, src, dst, hops, None, following, fragment=continued)
    walk_extensions(packet)
    return packet


def walk_extensions(packet: Packet) -> None:
    """Extension headers (RFC 8200 section 4, RFC 4302): moves the packet's protocol and body behind them."""
    while packet.protocol in EXTENSIONS:
        kind, at = packet.protocol, packet.body
        if at + 8 > packet.end:
            raise Skip("bad_ip_header")
        need(packet.data, at, 8)
        packet.protocol, length = packet.data[at], packet.data[at + 1]
        size = 8 if kind == 44 else (length + 2) * 4 if kind == 51 else (length + 1) * 8
        if kind == 44:
            bits = struct.unpack_from("!H", packet.data, at + 2)[0]
            if bits & 0xFFF8:
                known = packet.protocol == ip.IP_PROTO_TCP or packet.protocol in EXTENSIONS
                raise Skip("fragment" if known else "not_tcp")
            packet.fragment = packet.fragment or bool(bits & 1)
        if kind == 43 and packet.data[at + 3]:
            packet.routed = True
        if at + size > packet.end:
            raise Skip("bad_ip_header")
        need(packet.data, at, size)
        packet.body += size


def jumbo_length(data: bytes, offset: int, following: int) -> int | None:
    """The packet's length by a jumbo payload option that is first in a hop-by-hop header (RFC 2675)."""
    if following == 0 and data[offset + 42 : offset + 44] == b"\xc2\x04" and len(data) >= offset + 48:
        return 40 + int.from_bytes(data[offset + 44 : offset + 48], "big")
    return None
