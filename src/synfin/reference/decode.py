"""From the bytes of a frame to a TCP segment, or to the name under which the packet is skipped.

dpkt names the numbers; its header classes raise on packets that the snap length cut, so headers are unpacked here.
Every length comes from the IP header, never from the captured bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dpkt import ethernet, icmp, icmp6, ip, pcap, ppp

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, AE = (1 << bit for bit in range(9))

VLAN_TYPES = {ethernet.ETH_TYPE_8021Q, ethernet.ETH_TYPE_8021AD, 0x9100}
MPLS_TYPES = {ethernet.ETH_TYPE_MPLS, ethernet.ETH_TYPE_MPLS_MCAST}
PPP_TO_ETHERTYPE = {
    ppp.PPP_IP: ethernet.ETH_TYPE_IP, ppp.PPP_IP6: ethernet.ETH_TYPE_IP6,
    0x0281: ethernet.ETH_TYPE_MPLS, 0x0283: ethernet.ETH_TYPE_MPLS_MCAST,
}  # fmt: skip
BSD_FAMILIES = {2: ethernet.ETH_TYPE_IP, 24: ethernet.ETH_TYPE_IP6, 28: ethernet.ETH_TYPE_IP6, 30: ethernet.ETH_TYPE_IP6,
                10: ethernet.ETH_TYPE_IP6}  # fmt: skip
ICMP_OF = {4: ip.IP_PROTO_ICMP, 6: ip.IP_PROTO_ICMP6}
ICMP_ERRORS = {
    4: {icmp.ICMP_UNREACH, icmp.ICMP_SRCQUENCH, icmp.ICMP_REDIRECT, icmp.ICMP_TIMEXCEED, icmp.ICMP_PARAMPROB},
    6: range(icmp6.ICMP6_ECHO_REQUEST),
}
LINK_CHDLC, LINK_MPLS, LINK_PPPOE, LINK_IPV4, LINK_IPV6, LINK_PPP_PPPD, LINK_SLL2 = 104, 219, 51, 228, 229, 166, 276
LINKS_RAW, LINKS_PPP = {pcap.DLT_RAW, 14, 101}, {pcap.DLT_PPP, pcap.DLT_PPP_SERIAL, LINK_PPP_PPPD}
EXTENSIONS = {0, 43, 44, 51, 60, 135, 139, 140}
LONGEST = 1 << 30  # bytes of an IP packet whose own length field does not tell
ANY_IP = -1  # instead of an Ethernet type: the first nibble tells


class Skip(Exception):
    """The packet belongs to no record; its argument is a name of schema.SKIPS or ``link_type_N``."""


class IcmpError(Skip):
    """An ICMP error; ``at`` is where its header stands in ``data``."""

    def __init__(self, data: bytes, at: int, version: int):
        super().__init__("icmp_error")
        self.data, self.at, self.version = data, at, version
        self.vlan: int | None = None


@dataclass
class Segment:
    """One TCP segment; numbers as in the header. ``ack`` is 0 without ACK, ``vlan`` None without a tag."""

    src: bytes
    dst: bytes
    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    window: int
    payload: int
    ip_bytes: int
    ip_version: int
    ttl: int
    dont_fragment: bool | None
    vlan: int | None
    options: bytes
    time: int = 0
    effective: int = 0
    order: int = 0  # in the merged input
    file: str = ""
    number: int = 0
    interface: str | None = None
    tap: int = 0
    ident: int = 0  # IPv4 identification
    header: bytes = b""  # IP and TCP header without what differs between copies of a packet

    @property
    def kind(self) -> str:
        """``rst``, ``syn``, ``synack`` or ``plain``: RST is judged before SYN, SYN before the rest."""
        if self.flags & RST:
            return "rst"
        if self.flags & SYN:
            return "synack" if self.flags & ACK else "syn"
        return "plain"

    @property
    def has_ack(self) -> bool:
        return bool(self.flags & ACK)

    @property
    def fin(self) -> bool:
        """A FIN that counts: one on a SYN or RST does not."""
        return bool(self.flags & FIN) and self.kind == "plain"


def need(data: bytes, offset: int, count: int) -> None:
    """The next ``count`` bytes must have been captured."""
    if len(data) < offset + count:
        raise Skip("header_cut")


def decode(data: bytes, wire_len: int, link_type: int) -> Segment:
    """The TCP segment in a frame. Raises Skip with the reason where there is none."""
    ethertype, offset = link_layer(data, link_type)
    ethertype, offset, vlan = between(data, ethertype, offset)
    if ethertype == ANY_IP:
        need(data, offset, 1)
        ethertype = {4: ethernet.ETH_TYPE_IP, 6: ethernet.ETH_TYPE_IP6}.get(data[offset] >> 4)
    if ethertype not in {ethernet.ETH_TYPE_IP, ethernet.ETH_TYPE_IP6}:
        raise Skip("not_ip")
    try:
        fields = (ipv4 if ethertype == ethernet.ETH_TYPE_IP else ipv6)(data, offset, wire_len - offset)
    except IcmpError as error:
        error.vlan = vlan
        raise
    segment = tcp(data, vlan, fields)
    keep_header(segment, data[offset : fields[0] + 20], fields[0] - offset)
    return segment


def keep_header(segment: Segment, header: bytes, tcp_at: int) -> None:
    """Keep the headers without TTL (hop limit) and checksums; ``header`` ends with TCP's fixed 20 bytes."""
    changing = {tcp_at + 16, tcp_at + 17, *((8, 10, 11) if segment.ip_version == 4 else (7,))}
    segment.header = bytes(byte for at, byte in enumerate(header) if at not in changing)
    if len(segment.options) + 20 == (header[tcp_at + 12] >> 4) * 4:  # else the capture cut them
        segment.header += segment.options
    if segment.ip_version == 4:
        segment.ident = struct.unpack_from("!H", header, 4)[0]


def link_layer(data: bytes, link_type: int) -> tuple[int | None, int]:
    """The Ethernet type that the link header names, and where its payload begins."""
    if link_type == pcap.DLT_EN10MB:
        return ethernet_type(data, 0)
    if link_type == LINK_CHDLC:
        need(data, 0, 4)
        return struct.unpack_from("!H", data, 2)[0], 4
    if link_type == pcap.DLT_LINUX_SLL:
        need(data, 0, 16)
        return struct.unpack_from("!H", data, 14)[0], 16
    if link_type == LINK_SLL2:
        need(data, 0, 20)
        return struct.unpack_from("!H", data, 0)[0], 20
    if link_type in LINKS_RAW:
        return ANY_IP, 0
    if link_type == LINK_IPV4:
        return ethernet.ETH_TYPE_IP, 0
    if link_type == LINK_IPV6:
        return ethernet.ETH_TYPE_IP6, 0
    if link_type in (pcap.DLT_NULL, pcap.DLT_LOOP):
        need(data, 0, 4)
        # The null header is in the byte order of the host that captured: whichever reading is a small number.
        family = int.from_bytes(data[:4], "big")
        if link_type == pcap.DLT_NULL and family > 0xFFFF:
            family = int.from_bytes(data[:4], "little")
        return BSD_FAMILIES.get(family), 4
    if link_type in LINKS_PPP:
        return point_to_point(data, 0)
    if link_type == LINK_PPPOE:
        return ethernet.ETH_TYPE_PPPoE, 0
    if link_type == LINK_MPLS:
        return ethernet.ETH_TYPE_MPLS, 0
    raise Skip(f"link_type_{link_type}")


def ethernet_type(data: bytes, offset: int) -> tuple[int | None, int]:
    """An Ethernet header; a length in place of the type may be followed by LLC and SNAP, which hold the type."""
    need(data, offset, 14)
    kind = struct.unpack_from("!H", data, offset + 12)[0]
    if kind > 1500:
        return kind, offset + 14
    need(data, offset, 17)
    if data[offset + 14 : offset + 17] != b"\xaa\xaa\x03":
        return None, offset + 14
    need(data, offset, 22)
    snap = data[offset + 17 : offset + 20] == bytes(3)
    return struct.unpack_from("!H", data, offset + 20)[0] if snap else None, offset + 22


def point_to_point(data: bytes, offset: int) -> tuple[int | None, int]:
    """PPP (RFC 1661, RFC 1662): address and control may be there, the protocol may be one byte; or Cisco HDLC."""
    need(data, offset, 2)
    if data[offset] in (0x0F, 0x8F):
        need(data, offset, 4)
        return struct.unpack_from("!H", data, offset + 2)[0], offset + 4
    if data[offset : offset + 2] == b"\xff\x03":
        offset += 2
        need(data, offset, 1)
    if data[offset] & 1:
        return PPP_TO_ETHERTYPE.get(data[offset]), offset + 1
    need(data, offset, 2)
    return PPP_TO_ETHERTYPE.get(struct.unpack_from("!H", data, offset)[0]), offset + 2


def between(data: bytes, ethertype: int | None, offset: int) -> tuple[int | None, int, int | None]:
    """Walks VLAN tags, PPPoE and MPLS in any order and depth. The VLAN ID is the outermost tag's."""
    vlan = None
    while True:
        if ethertype in VLAN_TYPES:
            need(data, offset, 4)
            tag, ethertype = struct.unpack_from("!HH", data, offset)
            vlan = tag & 0x0FFF if vlan is None else vlan
            offset += 4
        elif ethertype == ethernet.ETH_TYPE_PPPoE:
            need(data, offset, 6)
            if data[offset] != 0x11:
                raise Skip("bad_link_header")
            if data[offset + 1]:
                raise Skip("not_ip")
            ethertype, offset = point_to_point(data, offset + 6)
        elif ethertype in MPLS_TYPES:
            need(data, offset, 4)
            bottom, offset = data[offset + 2] & 1, offset + 4
            if bottom:
                need(data, offset, 1)
                ethertype = ANY_IP
                if data[offset] >> 4 == 0:  # a pseudowire's control word (RFC 4385), then Ethernet
                    ethertype, offset = ethernet_type(data, offset + 4)
        else:
            return ethertype, offset, vlan


def ipv4(data: bytes, offset: int, on_wire: int) -> tuple:
    """The IPv4 header (RFC 791); a total length of 0 is an offloaded segment that goes to the end of the frame."""
    need(data, offset, 20)
    first, _, total, _, fragment, ttl, protocol, _, src, dst = struct.unpack_from("!BBHHHBBH4s4s", data, offset)
    header = (first & 15) * 4
    total = total or on_wire
    if first >> 4 != 4 or header < 20 or not header <= total <= LONGEST:
        raise Skip("bad_ip_header")
    need(data, offset, header)
    body, end = offset + header, offset + total
    if fragment & 0x1FFF:
        raise Skip("fragment" if protocol in {ip.IP_PROTO_TCP, ip.IP_PROTO_AH} else "not_tcp")
    while protocol == ip.IP_PROTO_AH:
        protocol, body = extension(data, body, end, protocol)
    only_tcp(data, body, protocol, 4)
    return body, end, total, 4, src, dst, ttl, bool(fragment & 0x4000)


def only_tcp(data: bytes, body: int, protocol: int, version: int) -> None:
    """Skip what is not TCP; an ICMP message whose type was not captured is no error as far as anyone can tell."""
    if protocol == ICMP_OF[version] and body < len(data) and data[body] in ICMP_ERRORS[version]:
        raise IcmpError(data, body, version)
    if protocol != ip.IP_PROTO_TCP:
        raise Skip("not_tcp")


def extension(data: bytes, at: int, end: int, kind: int) -> tuple[int, int]:
    """An extension header (RFC 8200 section 4, RFC 4302): the protocol that follows, and where."""
    if at + 8 > end:
        raise Skip("bad_ip_header")
    need(data, at, 8)
    size = 8 if kind == 44 else (data[at + 1] + 2) * 4 if kind == 51 else (data[at + 1] + 1) * 8
    if at + size > end:
        raise Skip("bad_ip_header")
    return data[at], at + size


def ipv6(data: bytes, offset: int, on_wire: int) -> tuple:
    """The IPv6 header and its extension headers (RFC 8200 section 4)."""
    need(data, offset, 40)
    first, length, following, hops, src, dst = struct.unpack_from("!IHBB16s16s", data, offset)
    total = length + 40 if length else jumbo_length(data, offset, following) or on_wire
    if first >> 28 != 6 or not 40 <= total <= LONGEST:
        raise Skip("bad_ip_header")
    at, end = offset + 40, offset + total
    while following in EXTENSIONS:
        kind, start = following, at
        following, at = extension(data, at, end, kind)
        if kind == 44 and struct.unpack_from("!H", data, start + 2)[0] & 0xFFF8:
            raise Skip("fragment" if following == ip.IP_PROTO_TCP or following in EXTENSIONS else "not_tcp")
    only_tcp(data, at, following, 6)
    return at, end, total, 6, src, dst, hops, None


def jumbo_length(data: bytes, offset: int, following: int) -> int | None:
    """The packet's length by a jumbo payload option that is first in a hop-by-hop header (RFC 2675)."""
    if following == 0 and data[offset + 42 : offset + 44] == b"\xc2\x04" and len(data) >= offset + 48:
        return 40 + int.from_bytes(data[offset + 44 : offset + 48], "big")
    return None


def tcp(data: bytes, vlan: int | None, fields: tuple) -> Segment:
    """The TCP header (RFC 9293 section 3.1); of cut options, what was captured."""
    at, end, total, version, src, dst, ttl, dont_fragment = fields
    if at + 20 > end:
        raise Skip("bad_tcp_header")
    need(data, at, 20)
    sport, dport, seq, ack, bits, window = struct.unpack_from("!HHIIHH", data, at)
    header = (bits >> 12) * 4
    if header < 20 or at + header > end:
        raise Skip("bad_tcp_header")
    if (src, sport) == (dst, dport):
        raise Skip("same_ends")
    flags = bits & 0x1FF
    return Segment(
        src, dst, sport, dport, seq, ack if flags & ACK else 0, flags, window, end - at - header, total, version, ttl,
        dont_fragment, vlan, data[at + 20 : at + header],
    )  # fmt: skip


@dataclass
class Options:
    """TCP options that the columns name; the last of a kind counts, as Linux reads them."""

    kinds: int = 0
    mss: int | None = None
    window_scale: int | None = None
    sack_permitted: bool = False
    timestamps: tuple[int, int] | None = None  # value, echo
    fast_open: str | None = None  # "request" or "cookie"
    mptcp: bool = False


def parse_options(data: bytes) -> Options:
    """Reads options up to the end, the end-of-list option, or one whose length is wrong or cut."""
    found, at = Options(), 0
    while at < len(data):
        kind = data[at]
        if kind > 1 and (at + 2 > len(data) or data[at + 1] < 2 or at + data[at + 1] > len(data)):
            break
        if kind <= 62:
            found.kinds |= 1 << kind
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        value = data[at + 2 : at + data[at + 1]]
        at += data[at + 1]
        if kind == 2 and len(value) == 2:
            found.mss = int.from_bytes(value, "big")
        elif kind == 3 and len(value) == 1:
            found.window_scale = value[0]
        elif kind == 4 and not value:
            found.sack_permitted = True
        elif kind == 8 and len(value) == 8:
            found.timestamps = struct.unpack("!II", value)
        elif kind == 30:
            found.mptcp = True
        elif kind == 34:
            found.fast_open = "cookie" if value else "request"
        elif kind == 254 and value[:2] == b"\xf9\x89":
            found.fast_open = "cookie" if value[2:] else "request"
    return found
