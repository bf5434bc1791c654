"""Tunnels built by hand from their specifications, around any packet: for the tests of both decoders."""

from __future__ import annotations

import struct
from typing import NamedTuple

from dialogue import ethernet, ipv4, ipv6

OUTER4, OUTER6 = ("192.0.2.1", "198.51.100.9"), ("2001:db8:a::1", "2001:db8:b::2")


class Around(NamedTuple):
    """One tunnel header: what stands before it, the header itself in hexadecimal, and what is expected of it."""

    kind: str
    id: int | None
    protocol: int  # of the outer IP header
    header: str  # behind the outer IP header, or behind UDP's
    port: int | None = None  # destination port of UDP
    frame: bool = False  # an Ethernet frame is inside, else an IP packet
    inside: int | None = None  # the only IP version inside; either where None
    outer: tuple[str, str] = OUTER4


GRE4, GRE6 = "0000 0800", "0000 86dd"
AROUND = {
    "IP in IP": Around("ipip", None, 4, "", inside=4),
    "IPv6 in IPv4": Around("6in4", None, 41, "", inside=6),
    "IPv4 in IPv6": Around("4in6", None, 4, "", inside=4, outer=OUTER6),
    "IPv6 in IPv6": Around("6in6", None, 41, "", inside=6, outer=OUTER6),
    "GRE": Around("gre", None, 47, GRE4, inside=4),
    "GRE with IPv6": Around("gre", None, 47, GRE6, inside=6),
    "GRE over IPv6": Around("gre", None, 47, GRE4, inside=4, outer=OUTER6),
    "GRE with key": Around("gre", 0xFEDCBA98, 47, "2000 0800 fedcba98", inside=4),
    "GRE with checksum": Around("gre", None, 47, "8000 0800 1234 0000", inside=4),
    "GRE with sequence": Around("gre", None, 47, "1000 0800 00000007", inside=4),
    "GRE with all three": Around("gre", 5, 47, "b000 86dd 1234 0000 00000005 00000007", inside=6),
    "GRE with MPLS": Around("gre", None, 47, "0000 8847 00010040 00020140"),
    "GRE with Ethernet": Around("gre", None, 47, "0000 6558", frame=True),
    "GRE with Ethernet, key, sequence": Around("gre", 9, 47, "3000 6558 00000009 00000001", frame=True),
    "NVGRE": Around("nvgre", 0xABCDEF, 47, "2000 6558 abcdef 77", frame=True),
    "PPTP": Around("pptp", 0x1234, 47, "3081 880b 0040 1234 00000001 00000002 ff03 0021", inside=4),
    "PPTP, compressed": Around("pptp", 7, 47, "3001 880b 0040 0007 00000001 57", inside=6),
    "ERSPAN I": Around("erspan", None, 47, "0000 88be", frame=True),
    "ERSPAN II": Around("erspan", 0x3FF, 47, "1000 88be 00000001 1064 ffff 00000007", frame=True),
    "ERSPAN III": Around("erspan", 5, 47, "1000 22eb 00000001 2064 0005 00000001 0000 0000", frame=True),
    "ERSPAN III, subheader": Around("erspan", 5, 47, "1000 22eb 00000001 2064 0005 00000001 0000 0001 1111222233334444", frame=True),
    "ERSPAN III, IP": Around("erspan", 6, 47, "1000 22eb 00000001 2064 0006 00000001 0000 0800"),
    "VXLAN": Around("vxlan", 0x123456, 17, "08000000 123456 00", port=4789, frame=True),
    "VXLAN, group policy": Around("vxlan", 1, 17, "88000064 000001 00", port=4789, frame=True),
    "VXLAN, Linux": Around("vxlan", 2, 17, "08000000 000002 00", port=8472, frame=True),
    "VXLAN over IPv6": Around("vxlan", 0xFFFFFF, 17, "08000000 ffffff 00", port=4789, frame=True, outer=OUTER6),
    "GENEVE": Around("geneve", 0x00BEEF, 17, "00006558 00beef 00", port=6081, frame=True),
    "GENEVE, options": Around("geneve", 3, 17, "02406558 000003 00 0102 80 01 deadbeef", port=6081, frame=True),
    "GENEVE, IPv6": Around("geneve", 4, 17, "000086dd 000004 00", port=6081, inside=6),
    "GTP-U": Around("gtpu", 0x80000001, 17, "30ff LLLL 80000001", port=2152),
    "GTP-U, sequence": Around("gtpu", 2, 17, "32ff LLLL 00000002 0001 00 00", port=2152),
    "GTP-U, extensions": Around("gtpu", 3, 17, "34ff LLLL 00000003 0000 00 85 01 1009 c0 02 000000000000 00", port=2152, outer=OUTER6),
}  # fmt: skip


def header_of(around: Around, body: bytes) -> bytes:
    """The tunnel's own bytes before ``body``; GTP-U's length counts what follows its first 8 bytes."""
    text = around.header.replace(" ", "")
    length = len(text) // 2 - 8 + len(body)
    head = bytes.fromhex(text.replace("LLLL", f"{length & 0xFFFF:04x}"))
    if around.port:
        head = struct.pack("!HHHH", 50_000, around.port, (8 + len(head) + len(body)) & 0xFFFF, 0) + head
    return head


def wrapped(name: str, packet: bytes) -> bytes:
    """An IP packet in a tunnel: the outer IP packet."""
    around = AROUND[name]
    body = ethernet(packet) if around.frame else packet
    body = header_of(around, body) + body
    if ":" in around.outer[0]:
        return ipv6(*around.outer, body, next_header=around.protocol)
    return ipv4(*around.outer, body, protocol=around.protocol)


def fits(name: str, version: int) -> bool:
    """Whether the tunnel takes packets of an IP version."""
    return AROUND[name].inside in (None, version)
