"""From the first byte of a frame, or of what a tunnel carries, to the IP header.

dpkt names the numbers; its header classes raise on packets that the snap length cut, so headers are unpacked here.
"""

from __future__ import annotations

import struct

from dpkt import ethernet, pcap, ppp

from .segment import Skip, need
from .wireless import avs, prism, radiotap, wlan

IPV4, IPV6, MPLS, PPPOE = (
    ethernet.ETH_TYPE_IP, ethernet.ETH_TYPE_IP6, ethernet.ETH_TYPE_MPLS, ethernet.ETH_TYPE_PPPoE,
)  # fmt: skip
BRIDGED = 0x6558
#: Ethernet types before another Ethernet header, and the bytes between: IEEE 802.1ah and Cisco FabricPath have some.
FRAMED = {BRIDGED: 0, 0x88E7: 4, 0x8903: 2}
VLAN_TYPES = {ethernet.ETH_TYPE_8021Q, ethernet.ETH_TYPE_8021AD, 0x9100}
MPLS_TYPES = {MPLS, ethernet.ETH_TYPE_MPLS_MCAST}
PPP_TO_ETHERTYPE = {ppp.PPP_IP: IPV4, ppp.PPP_IP6: IPV6, 0x0281: MPLS, 0x0283: MPLS}
BSD_FAMILIES = {2: IPV4} | dict.fromkeys((10, 23, 24, 26, 28, 30), IPV6)
ARCNET_TYPES = {240: (IPV4, 5), 212: (IPV4, 8), 196: (IPV6, 8)}

#: Instead of an Ethernet type: the first nibble tells which IP; an 802.2 header follows (as any IEEE 802.3 length says).
ANY_IP, LLC = -1, 0
LINKS_RAW, LINKS_PPP = {pcap.DLT_RAW, 14, 101}, {pcap.DLT_PPP, pcap.DLT_PPP_SERIAL, 104}
#: Link type -> the Ethernet type of what begins at once, or behind so many bytes.
FIXED = {228: (IPV4, 0), 229: (IPV6, 0), 51: (PPPOE, 0), 219: (MPLS, 0), **dict.fromkeys(LINKS_RAW, (ANY_IP, 0))}
#: Link type -> what leads to an IEEE 802.11 header, and on to its 802.2 header.
WIRELESS = {105: wlan, 119: prism, 127: radiotap, 163: avs}


def link_layer(data: bytes, link_type: int) -> tuple[int | None, int]:
    """The Ethernet type that the link header names (None: no IP), and where its payload begins."""
    if link_type == pcap.DLT_EN10MB:
        return ethernet_type(data, 0)
    if link_type in FIXED:
        return FIXED[link_type]
    if link_type == pcap.DLT_LINUX_SLL:
        need(data, 0, 16)
        return cooked(struct.unpack_from("!H", data, 14)[0]), 16
    if link_type == 276:  # Linux cooked v2
        need(data, 0, 20)
        return cooked(struct.unpack_from("!H", data, 0)[0]), 20
    if link_type in (pcap.DLT_NULL, pcap.DLT_LOOP):
        need(data, 0, 4)
        # The null header is in the byte order of the host that captured: whichever reading is a small number.
        family = int.from_bytes(data[:4], "big")
        if family > 0xFFFF:
            family = int.from_bytes(data[:4], "little")
        return BSD_FAMILIES.get(family), 4
    if link_type in LINKS_PPP:
        return point_to_point(data, 0)
    if link_type == 166:  # address or direction, and control
        need(data, 0, 2)
        return ppp_protocol(data, 2)
    if link_type == 204:  # direction
        need(data, 0, 1)
        return point_to_point(data, 1)
    if link_type in WIRELESS:
        return LLC, WIRELESS[link_type](data, 0)
    return rare_link(data, link_type)


def rare_link(data: bytes, link_type: int) -> tuple[int | None, int]:
    """Per-packet information, FDDI, Token Ring, ARCNET, IP over InfiniBand and Linux's netfilter log."""
    if link_type == 192:  # PPI: a length, and the link type of what follows
        need(data, 0, 8)
        size, inner = struct.unpack_from("<HI", data, 2)
        if size < 8:
            raise Skip("bad_link_header")
        need(data, 0, size)
        if inner == 192:
            return None, size
        try:
            kind, offset = link_layer(data[size:], inner)
        except Skip as skip:
            raise Skip("not_ip" if str(skip).startswith("link_type") else str(skip)) from None
        return kind, size + offset
    if link_type == 10:
        need(data, 0, 1)
        if data[0] >> 4 != 5:
            return None, 0
        need(data, 0, 13)
        return LLC, 13
    if link_type == 6:
        need(data, 0, 14)
        if data[1] >> 6 != 1:
            return None, 0
        route = 0
        if data[8] & 0x80:
            need(data, 14, 1)
            route = data[14] & 31
        need(data, 14, route)
        return LLC, 14 + route
    if link_type == 129:
        need(data, 0, 5)
        kind, size = ARCNET_TYPES.get(data[4], (None, 0))
        need(data, 0, size)
        return (None if size == 8 and data[5] else kind), size  # one of several fragments is none that we read
    if link_type == 242:
        need(data, 0, 44)
        return struct.unpack_from("!H", data, 40)[0] or None, 44
    if link_type == 239:
        return netfilter_log(data)
    raise Skip(f"link_type_{link_type}")


def netfilter_log(data: bytes) -> tuple[int | None, int]:
    """Attributes in the capturing host's byte order, each padded to 4 bytes; the first begins with the
    Ethernet type of the packet, which is the ninth."""
    need(data, 0, 4)
    at, inside = 4, ANY_IP
    while True:
        need(data, at, 4)
        order = "<" if data[at + 3] == 0 else ">"
        size, kind = struct.unpack_from(order + "HH", data, at)
        if size < 4:
            raise Skip("bad_link_header")
        if kind == 9:
            return inside, at + 4
        if kind == 1 and size >= 6 and len(data) >= at + 6:
            inside = struct.unpack_from("!H", data, at + 4)[0] or inside
        at += (size + 3) // 4 * 4


def cooked(protocol: int) -> int | None:
    """The protocol field of a Linux cooked header: 4 stands for an 802.2 header, other small numbers for no IP."""
    return LLC if protocol == 4 else protocol if protocol >= 0x600 else None


def ethernet_type(data: bytes, offset: int) -> tuple[int | None, int]:
    need(data, offset, 14)
    return type_or_length(struct.unpack_from("!H", data, offset + 12)[0]), offset + 14


def type_or_length(field: int) -> int | None:
    return LLC if field <= 1500 else field if field >= 0x600 else None


def logical_link(data: bytes, offset: int) -> tuple[int | None, int]:
    """An 802.2 header: IP's own, or SNAP with the Ethernet type."""
    need(data, offset, 3)
    if data[offset : offset + 3] == b"\x06\x06\x03":
        return IPV4, offset + 3
    if data[offset : offset + 3] != b"\xaa\xaa\x03":
        return None, offset
    need(data, offset, 8)
    organization, kind = data[offset + 3 : offset + 6], struct.unpack_from("!H", data, offset + 6)[0]
    snap = organization in (b"\0\0\0", b"\0\0\xf8") and kind >= 0x600
    return kind if snap else None, offset + 8


def point_to_point(data: bytes, offset: int) -> tuple[int | None, int]:
    """A PPP frame (RFC 1662), with or without address and control; or Cisco HDLC."""
    need(data, offset, 2)
    if data[offset] in (0x0F, 0x8F) and data[offset + 1] == 0:
        need(data, offset, 4)
        kind = struct.unpack_from("!H", data, offset + 2)[0]
        return kind if kind >= 0x600 else None, offset + 4
    return ppp_protocol(data, offset + 2 if data[offset : offset + 2] == b"\xff\x03" else offset)


def ppp_protocol(data: bytes, offset: int) -> tuple[int | None, int]:
    """PPP's protocol field (RFC 1661), of one byte where that is odd."""
    need(data, offset, 1)
    if data[offset] & 1:
        return PPP_TO_ETHERTYPE.get(data[offset]), offset + 1
    need(data, offset, 2)
    return PPP_TO_ETHERTYPE.get(struct.unpack_from("!H", data, offset)[0]), offset + 2


def to_ip(data: bytes, kind: int | None, offset: int) -> tuple[int, int, int | None]:
    """Walks 802.2, VLAN tags, PPPoE, MPLS and bridged frames in any order and depth.

    Returns IPV4 or IPV6, where its header begins, and the outermost VLAN ID.
    """
    vlan = None
    while kind not in (IPV4, IPV6):
        if kind == ANY_IP:
            need(data, offset, 1)
            kind = {4: IPV4, 6: IPV6}.get(data[offset] >> 4)
            if kind is None:
                raise Skip("bad_ip_header")
        elif kind == LLC:
            kind, offset = logical_link(data, offset)
        elif kind in VLAN_TYPES:
            need(data, offset, 4)
            tag, field = struct.unpack_from("!HH", data, offset)
            vlan = tag & 0x0FFF if vlan is None else vlan
            kind, offset = type_or_length(field), offset + 4
        elif kind == PPPOE:
            need(data, offset, 6)
            if data[offset] != 0x11:
                raise Skip("bad_link_header")
            if data[offset + 1]:
                raise Skip("not_ip")
            kind, offset = ppp_protocol(data, offset + 6)
        elif kind in MPLS_TYPES:
            kind, offset = label(data, kind, offset)
        elif kind in FRAMED:
            kind, offset = ethernet_type(data, offset + FRAMED[kind])
        else:
            raise Skip("not_ip")
    return kind, offset, vlan


def label(data: bytes, kind: int, offset: int) -> tuple[int | None, int]:
    """One MPLS label; behind the last, the first nibble tells: IP, or a pseudowire's control word and Ethernet."""
    need(data, offset, 4)
    bottom, offset = data[offset + 2] & 1, offset + 4
    if not bottom:
        return kind, offset
    need(data, offset, 1)
    if data[offset] >> 4 == 0:
        return ethernet_type(data, offset + 4)
    return {4: IPV4, 6: IPV6}.get(data[offset] >> 4), offset
