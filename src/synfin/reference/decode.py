"""From the bytes of a frame to a TCP segment, or to the name under which the packet is skipped.

Every length comes from the innermost IP header, never from the captured bytes.
"""

from __future__ import annotations

import struct

from dpkt import ip

from .link import link_layer, to_ip
from .network import Packet, network
from .segment import ACK, Segment, Skip, Tunnel, need
from .tunnel import DEEPEST, enter


class IcmpError(Skip):
    """An ICMP error, with the VLAN and the tunnel in which it came."""

    def __init__(self, packet: Packet, vlan: int | None, tunnel: Tunnel | None):
        super().__init__("icmp_error")
        self.packet, self.vlan, self.tunnel = packet, vlan, tunnel


def decode(data: bytes, wire_len: int, link_type: int, *, verify: bool = False) -> Segment:
    """The TCP segment in a frame. Raises Skip with the reason where there is none.

    ``verify``: a wrong checksum is a reason.
    """
    kind, offset = link_layer(data, link_type)
    kind, offset, vlan = to_ip(data, kind, offset)
    packet, tunnel = peel(network(data, kind, offset, wire_len - offset))
    if packet.protocol != ip.IP_PROTO_TCP:
        reason = packet.not_tcp()
        raise IcmpError(packet, vlan, tunnel) if reason == "icmp_error" else Skip(reason)
    segment = tcp(packet, vlan, tunnel)
    if verify and not checksums_hold(packet):
        raise Skip("bad_checksum")
    keep_header(segment, packet)
    return segment


def peel(packet: Packet) -> tuple[Packet, Tunnel | None]:
    """The innermost IP packet, and the outermost tunnel around it."""
    outermost, depth = None, 0
    while (inside := enter(packet)) is not None:
        depth += 1
        if depth > DEEPEST:
            raise Skip("tunnel_depth")
        outermost = outermost or Tunnel(inside.kind, inside.id, packet.src, packet.dst)
        data = packet.data[: inside.end]
        try:
            kind, offset, _ = to_ip(data, inside.ethertype, inside.at)
            packet = network(data, kind, offset, inside.end - offset, in_fragment=packet.fragment)
        except Skip as skip:
            wrong_guess = inside.guessed and str(skip).startswith("bad_")
            raise Skip("not_tcp" if wrong_guess or str(skip) == "not_ip" else str(skip)) from None
    return packet, outermost


def keep_header(segment: Segment, packet: Packet) -> None:
    """Keep the headers without TTL (hop limit) and checksums, to know copies of the packet."""
    header, tcp_at = packet.data[packet.start : packet.body + 20], packet.body - packet.start
    changing = {tcp_at + 16, tcp_at + 17, *((8, 10, 11) if segment.ip_version == 4 else (7,))}
    segment.header = bytes(byte for at, byte in enumerate(header) if at not in changing)
    if len(segment.options) + 20 == (header[tcp_at + 12] >> 4) * 4:  # else the capture cut them
        segment.header += segment.options
    if segment.ip_version == 4:
        segment.ident = struct.unpack_from("!H", header, 4)[0]


def tcp(packet: Packet, vlan: int | None, tunnel: Tunnel | None) -> Segment:
    """The TCP header (RFC 9293 section 3.1); of cut options, what was captured."""
    data, at, end = packet.data, packet.body, packet.end
    incomplete = "fragment" if packet.fragment else "bad_tcp_header"
    if at + 20 > end:
        raise Skip(incomplete)
    need(data, at, 20)
    sport, dport, seq, ack, bits, window = struct.unpack_from("!HHIIHH", data, at)
    header = (bits >> 12) * 4
    if header < 20 or at + header > end:
        raise Skip(incomplete if header >= 20 else "bad_tcp_header")
    if (packet.src, sport) == (packet.dst, dport):
        raise Skip("same_ends")
    flags = bits & 0x1FF
    return Segment(
        packet.src, packet.dst, sport, dport, seq, ack if flags & ACK else 0, flags, window, end - at - header,
        end - packet.start, packet.version, packet.ttl, packet.dont_fragment, vlan, data[at + 20 : at + header], tunnel,
        whole=end <= len(data),
    )  # fmt: skip


def checksums_hold(packet: Packet) -> bool:
    """The checksums (RFC 1071) of the innermost IPv4 header and of TCP; what cannot be verified counts as right."""
    header, segment = packet.data[packet.start : packet.body], packet.data[packet.body :]
    if packet.version == 4 and ones_sum(header[: (header[0] & 15) * 4]) != 0xFFFF:
        return False
    if packet.fragment or packet.routed or len(packet.data) < packet.end:
        return True
    pseudo = packet.src + packet.dst + struct.pack("!II", len(segment), ip.IP_PROTO_TCP)
    return ones_sum(pseudo + segment) == 0xFFFF


def ones_sum(data: bytes) -> int:
    """The one's complement sum of 16-bit words."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total
