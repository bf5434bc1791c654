"""What a packet carries that is a tunnel: its kind and id, and where the frame or packet inside begins."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dpkt import ip

from .link import ANY_IP, BRIDGED, IPV4, IPV6, point_to_point
from .network import Packet
from .segment import Skip, need

DEEPEST = 16  # tunnels inside one another
UDP, GRE = ip.IP_PROTO_UDP, ip.IP_PROTO_GRE
#: Protocol and outer version -> kind and what is inside.
DIRECT = {(4, 4): ("ipip", IPV4), (41, 4): ("6in4", IPV6), (4, 6): ("4in6", IPV4), (41, 6): ("6in6", IPV6)}
CHECKSUM, ROUTING, KEY, SEQUENCE, ACKNOWLEDGEMENT = 0x8000, 0x4000, 0x2000, 0x1000, 0x0080


@dataclass
class Inside:
    """An opened tunnel: ``ethertype`` begins at ``at``, up to ``end``. ``guessed``: a port alone says that it is one."""

    kind: str
    id: int | None
    ethertype: int | None
    at: int
    end: int
    guessed: bool = False


def has(packet: Packet, at: int, end: int, size: int) -> None:
    """A header of ``size`` bytes must lie before ``end``, and have been captured."""
    if at + size > end:
        raise Skip("fragment" if packet.fragment else "bad_tunnel_header")
    need(packet.data[:end], at, size)


def enter(packet: Packet) -> Inside | None:
    """The tunnel that an IP packet is; None if it is none. Raises Skip where its header is cut or wrong."""
    if packet.protocol == GRE:
        return gre(packet)
    if packet.protocol == UDP:
        try:
            return udp(packet)
        except Skip as skip:  # a header that does not fit: something else uses the port
            raise Skip("not_tcp" if str(skip).startswith("bad_") else str(skip)) from None
    if (packet.protocol, packet.version) in DIRECT:
        kind, inside = DIRECT[packet.protocol, packet.version]
        return Inside(kind, None, inside, packet.body, packet.end)
    return None


def gre(packet: Packet) -> Inside:
    """RFC 2784, RFC 2890, RFC 7637; version 1 is RFC 2637."""
    data, at, end = packet.data, packet.body, packet.end
    has(packet, at, end, 4)
    flags, protocol = struct.unpack_from("!HH", data, at)
    if flags & 7 == 1:
        return pptp(packet, flags, protocol)
    if flags & 7:
        raise Skip("bad_tunnel_header")
    if flags & ROUTING:
        raise Skip("not_tcp")
    words = {bit: bool(flags & bit) for bit in (CHECKSUM, KEY, SEQUENCE)}
    has(packet, at, end, 4 + 4 * sum(words.values()))
    key = struct.unpack_from("!I", data, at + 4 + 4 * words[CHECKSUM])[0] if words[KEY] else None
    at += 4 + 4 * sum(words.values())
    if protocol == 0x88BE and not words[SEQUENCE]:  # ERSPAN type I has no header of its own
        return Inside("erspan", None, BRIDGED, at, end)
    if protocol in (0x88BE, 0x22EB):
        return erspan(packet, at, 1 if protocol == 0x88BE else 2)
    if protocol == BRIDGED and words == {CHECKSUM: False, KEY: True, SEQUENCE: False}:
        return Inside("nvgre", key >> 8, BRIDGED, at, end)
    return Inside("gre", key, protocol or None, at, end)


def erspan(packet: Packet, at: int, version: int) -> Inside:
    """Types II (version 1) and III (version 2) of draft-foschiano-erspan."""
    size = 8 if version == 1 else 12
    has(packet, at, packet.end, size)
    first, second = struct.unpack_from("!HH", packet.data, at)
    if first >> 12 != version:
        raise Skip("bad_tunnel_header")
    inside = BRIDGED
    if version == 2:
        bits = struct.unpack_from("!H", packet.data, at + 10)[0]
        frame_type = bits >> 10 & 31
        if frame_type not in (0, 2):
            raise Skip("not_tcp")
        inside = ANY_IP if frame_type else BRIDGED
        size += 8 if bits & 1 else 0
        has(packet, at, packet.end, size)
    return Inside("erspan", second & 0x3FF, inside, at + size, packet.end)


def pptp(packet: Packet, flags: int, protocol: int) -> Inside:
    """RFC 2637 section 4.1: only segments with a sequence number carry a frame."""
    size = 8 + (4 if flags & SEQUENCE else 0) + (4 if flags & ACKNOWLEDGEMENT else 0)
    has(packet, packet.body, packet.end, size)
    length, call = struct.unpack_from("!HH", packet.data, packet.body + 4)
    if protocol != 0x880B:
        raise Skip("not_tcp")
    if not flags & KEY:
        raise Skip("bad_tunnel_header")
    if not flags & SEQUENCE or not length:
        raise Skip("not_tcp")
    inside = Inside("pptp", call, None, packet.body + size, packet.end)
    inside.ethertype, inside.at = point_to_point(packet.data, inside.at)
    return inside


def udp(packet: Packet) -> Inside | None:
    """VXLAN, GENEVE and GTP-U by their destination port. UDP's length is 0 where the card was to segment the packet."""
    data, at, end = packet.data, packet.body, packet.end
    if len(data) < at + 4:
        return None
    opener = UDP_PORTS.get(struct.unpack_from("!H", data, at + 2)[0])
    if opener is None:
        return None
    has(packet, at, end, 8)
    length = struct.unpack_from("!H", data, at + 4)[0]
    if length:
        if length < 8 or (at + length > end and not packet.fragment):
            raise Skip("not_tcp")
        end = min(end, at + length)
    inside = opener(packet, at + 8, end)
    inside.guessed = True
    return inside


def vxlan(packet: Packet, at: int, end: int) -> Inside:
    """RFC 7348: the flag of a valid VNI must be set, other reserved bits are ignored."""
    has(packet, at, end, 8)
    if not packet.data[at] & 8:
        raise Skip("not_tcp")
    return Inside("vxlan", int.from_bytes(packet.data[at + 4 : at + 7], "big"), BRIDGED, at + 8, end)


def geneve(packet: Packet, at: int, end: int) -> Inside:
    """RFC 8926."""
    has(packet, at, end, 8)
    first, protocol = struct.unpack_from("!BxH", packet.data, at)
    if first >> 6:
        raise Skip("not_tcp")
    size = 8 + (first & 63) * 4
    has(packet, at, end, size)
    return Inside("geneve", int.from_bytes(packet.data[at + 4 : at + 7], "big"), protocol or None, at + size, end)


def gtpu(packet: Packet, at: int, end: int) -> Inside:
    """3GPP TS 29.281: version 1, T-PDUs, with their extension headers."""
    data = packet.data
    has(packet, at, end, 8)
    first, message, length, tunnel = struct.unpack_from("!BBHI", data, at)
    if first >> 4 != 3 or (at + 8 + length > end and not packet.fragment) or message != 255:
        raise Skip("not_tcp")
    at, end = at + 8, min(end, at + 8 + length)
    if first & 7:
        has(packet, at, end, 4)
        following = data[at + 3] if first & 4 else 0
        at += 4
        while following:
            has(packet, at, end, 4)
            size = data[at] * 4
            if not size:
                raise Skip("not_tcp")
            has(packet, at, end, size)
            following = data[at + size - 1]
            at += size
    return Inside("gtpu", tunnel, ANY_IP, at, end)


UDP_PORTS = {4789: vxlan, 8472: vxlan, 6081: geneve, 2152: gtpu}
