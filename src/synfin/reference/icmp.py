"""What an ICMP or ICMPv6 error quotes of the packet that caused it (RFC 792, RFC 4443 section 3)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from dpkt import icmp, icmp6, ip

from .decode import IcmpError
from .link import IPV4, IPV6
from .network import network
from .segment import Skip, Tunnel

#: Errors that say that the packet did not arrive. A packet too big, a redirect or a source quench does not.
UNREACHABLE = {
    4: {icmp.ICMP_UNREACH, icmp.ICMP_TIMEXCEED, icmp.ICMP_PARAMPROB},
    6: {icmp6.ICMP6_DST_UNREACH, icmp6.ICMP6_TIME_EXCEEDED, icmp6.ICMP6_PARAM_PROB},
}


class Quote(NamedTuple):
    """The quoted segment's ends and sequence number; ``unreachable`` if the error says that it did not arrive."""

    src: bytes
    dst: bytes
    sport: int
    dport: int
    seq: int
    type: int
    code: int
    unreachable: bool
    vlan: int | None
    tunnel: Tunnel | None


def quote(error: IcmpError) -> Quote | None:
    """The TCP segment that an error quotes; None where its first 8 bytes are not there or not TCP."""
    packet = error.packet
    data, at, version = packet.data, packet.body, packet.version
    if len(data) < at + 8:
        return None
    kind, code = data[at : at + 2]
    try:
        about = network(data, IPV4 if version == 4 else IPV6, at + 8, len(data) - at - 8)
    except Skip:
        return None
    if about.protocol != ip.IP_PROTO_TCP or len(about.data) < about.body + 8:
        return None
    sport, dport, seq = struct.unpack_from("!HHI", data, about.body)
    too_big = version == 4 and (kind, code) == (icmp.ICMP_UNREACH, icmp.ICMP_UNREACH_NEEDFRAG)
    failed = kind in UNREACHABLE[version] and not too_big
    return Quote(about.src, about.dst, sport, dport, seq, kind, code, failed, error.vlan, error.tunnel)
