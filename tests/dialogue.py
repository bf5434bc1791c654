"""Writes TCP traffic for tests, so that a test reads like a trace.

A dialogue has two ends, ``a`` (usually the client) and ``b``. Each call sends one segment; sequence and acknowledgement
numbers are right unless a test gives its own, and time moves on by ``step`` before each segment::

    d = Dialogue()
    d.syn(d.a); d.synack(d.b); d.ack(d.a)
    d.data(d.a, 100); d.ack(d.b)
    d.fin(d.a); d.ack(d.b); d.fin(d.b); d.ack(d.a)
    write_pcap(path, d.packets)

Nothing here imports synfin: the frames are built from the RFCs' header layouts alone.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MS = 1_000_000
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
FLAGS = {"F": 0x01, "S": 0x02, "R": 0x04, "P": 0x08, "A": 0x10, "U": 0x20, "E": 0x40, "C": 0x80, "N": 0x100}


class Captured(NamedTuple):
    """One packet as a capture holds it: its instant, its bytes, and its length on the wire (None: all its bytes)."""

    time_ns: int
    data: bytes
    wire_len: int | None = None


@dataclass
class End:
    """One end of a dialogue. ``nxt`` is the sequence number that it sends next."""

    ip: str
    port: int
    isn: int
    window: int = 65535
    ttl: int = 64
    options: bytes = b""  # of its SYN and SYN-ACK
    nxt: int = field(init=False)

    def __post_init__(self) -> None:
        self.nxt = self.isn


def options(
    *,
    mss: int | None = None,
    scale: int | None = None,
    sack: bool = False,
    ts: tuple[int, int] | None = None,
    fast_open: bytes | None = None,
    mptcp: bytes | None = None,
    extra: bytes = b"",
) -> bytes:
    """TCP options, padded to a multiple of 4 bytes; ``fast_open=b""`` asks for a cookie, ``ts`` is (value, echo)."""
    out = b""
    if mss is not None:
        out += struct.pack("!BBH", 2, 4, mss)
    if scale is not None:
        out += struct.pack("!BBB", 3, 3, scale)
    if sack:
        out += b"\x04\x02"
    if ts is not None:
        out += struct.pack("!BBII", 8, 10, *ts)
    if fast_open is not None:
        out += bytes((34, 2 + len(fast_open))) + fast_open
    if mptcp is not None:
        out += bytes((30, 2 + len(mptcp))) + mptcp
    out += extra
    return out + b"\x01" * (-len(out) % 4)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(data) // 2 + len(data) % 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tcp(src: str, dst: str, sport: int, dport: int, *, seq: int, ack: int, flags: int, window: int = 65535,
        opts: bytes = b"", payload: bytes = b"") -> bytes:  # fmt: skip
    """A TCP segment with its checksum (RFC 9293 section 3.1); ``opts`` must be a multiple of 4 bytes long."""
    offset = (5 + len(opts) // 4) << 12
    head = struct.pack("!HHIIHHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, offset | flags, window, 0, 0)
    segment = head + opts + payload
    source, target = ipaddress.ip_address(src).packed, ipaddress.ip_address(dst).packed
    pseudo = (
        source
        + target
        + (struct.pack("!BBH", 0, 6, len(segment)) if len(source) == 4 else struct.pack("!II", len(segment), 6))
    )
    return segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]


def ipv4(src: str, dst: str, body: bytes, *, protocol: int = 6, ttl: int = 64, dont_fragment: bool = True,
         total: int | None = None, ident: int = 0, more: bool = False, offset: int = 0, opts: bytes = b"") -> bytes:  # fmt: skip
    """An IPv4 packet (RFC 791). ``offset`` counts 8 bytes; ``total`` overrides the total length (0: offloaded)."""
    length = 20 + len(opts) + len(body) if total is None else total
    fragment = (0x4000 if dont_fragment else 0) | (0x2000 if more else 0) | offset
    head = struct.pack("!BBHHHBBH4s4s", 0x45 + len(opts) // 4, 0, length & 0xFFFF, ident, fragment, ttl, protocol, 0,
                       ipaddress.IPv4Address(src).packed, ipaddress.IPv4Address(dst).packed)  # fmt: skip
    head += opts
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def ipv6(
    src: str, dst: str, body: bytes, *, next_header: int = 6, hop_limit: int = 64, length: int | None = None
) -> bytes:
    """An IPv6 packet (RFC 8200); extension headers are the beginning of ``body``."""
    return struct.pack("!IHBB16s16s", 6 << 28, len(body) if length is None else length, next_header, hop_limit,
                       ipaddress.IPv6Address(src).packed, ipaddress.IPv6Address(dst).packed) + body  # fmt: skip


def ethernet(body: bytes, *, ethertype: int | None = None, vlans: Sequence[int] = ()) -> bytes:
    """An Ethernet frame; ``vlans`` are tag control values, outermost first. The type is read off the body if not given."""
    if ethertype is None:
        ethertype = 0x86DD if body[0] >> 4 == 6 else 0x0800
    tags = b"".join(struct.pack("!HH", 0x88A8 if i < len(vlans) - 1 else 0x8100, tag) for i, tag in enumerate(vlans))
    return b"\x02\0\0\0\0\x02\x02\0\0\0\0\x01" + tags + struct.pack("!H", ethertype) + body


class Dialogue:
    """Two ends that talk, and the packets that a tap between them saw.

    Parameters
    ----------
    a_ip, a_port, a_isn, b_ip, b_port, b_isn : the ends; IPv6 when the addresses are.
    start, step : nanoseconds: the instant before the first segment, and how far each segment moves time.
    vlans : VLAN tags of each frame, outermost first.
    """

    def __init__(self, *, a_ip: str = "10.0.0.1", b_ip: str = "10.0.0.2", a_port: int = 40000, b_port: int = 80,
                 a_isn: int = 1000, b_isn: int = 5000, start: int = START, step: int = 10 * MS,
                 vlans: Sequence[int] = ()):  # fmt: skip
        self.a = End(a_ip, a_port, a_isn)
        self.b = End(b_ip, b_port, b_isn)
        self.now = start
        self.step = step
        self.vlans = tuple(vlans)
        self.packets: list[Captured] = []

    def peer(self, end: End) -> End:
        """The other end."""
        return self.b if end is self.a else self.a

    def wait(self, duration_ns: int) -> None:
        """Let time pass before the next segment, in addition to its step."""
        self.now += duration_ns

    def send(self, end: End, flags: str, payload: int | bytes = 0, *, seq: int | None = None, ack: int | None = None,
             window: int | None = None, opts: bytes | None = None, ttl: int | None = None, time: int | None = None,
             step: int | None = None, captured: bool = True, dont_fragment: bool = True) -> Captured:  # fmt: skip
        """Send one segment from ``end``; ``flags`` are letters of FSRPAUECN (N is AE, the former NS).

        ``time`` is this packet's own instant and leaves the dialogue's time alone; ``captured=False`` means that the
        tap misses it: sequence numbers move on, ``packets`` does not.
        """
        peer = self.peer(end)
        data = payload if isinstance(payload, bytes) else bytes(i % 251 for i in range(payload))
        bits = sum(FLAGS[letter] for letter in flags)
        if seq is None:
            seq = end.isn if "S" in flags else end.nxt
        if ack is None:
            ack = peer.nxt if "A" in flags else 0
        if opts is None:
            opts = end.options if "S" in flags else b""
        if time is None:
            self.now += self.step if step is None else step
            time = self.now
        last = (seq + len(data) + ("S" in flags) + ("F" in flags)) % 2**32
        if "R" not in flags and 0 < (last - end.nxt) % 2**32 < 2**31:
            end.nxt = last
        segment = tcp(end.ip, peer.ip, end.port, peer.port, seq=seq, ack=ack, flags=bits,
                      window=end.window if window is None else window, opts=opts, payload=data)  # fmt: skip
        hops = end.ttl if ttl is None else ttl
        if ":" in end.ip:
            packet = ipv6(end.ip, peer.ip, segment, hop_limit=hops)
        else:
            packet = ipv4(end.ip, peer.ip, segment, ttl=hops, dont_fragment=dont_fragment)
        frame = Captured(time, ethernet(packet, vlans=self.vlans))
        if captured:
            self.packets.append(frame)
        return frame

    def syn(self, end: End, payload: int | bytes = 0, *, extra: str = "", **how) -> Captured:
        """A SYN; ``extra`` are further flag letters (``EC`` asks for ECN)."""
        return self.send(end, "S" + extra, payload, **how)

    def synack(self, end: End, payload: int | bytes = 0, *, extra: str = "", **how) -> Captured:
        """A SYN-ACK."""
        return self.send(end, "SA" + extra, payload, **how)

    def ack(self, end: End, **how) -> Captured:
        """A pure ACK of everything that the peer has sent."""
        return self.send(end, "A", **how)

    def data(self, end: End, payload: int | bytes = 100, *, extra: str = "", **how) -> Captured:
        """A segment with payload and ACK."""
        return self.send(end, "PA" + extra, payload, **how)

    def fin(self, end: End, payload: int | bytes = 0, **how) -> Captured:
        """A FIN with ACK."""
        return self.send(end, "FA", payload, **how)

    def rst(self, end: End, *, extra: str = "", **how) -> Captured:
        """A RST at the sender's next sequence number; ``extra="A"`` for RST with ACK (as an answer to a SYN)."""
        return self.send(end, "R" + extra, **how)

    def keep_alive(self, end: End, payload: int = 0, **how) -> Captured:
        """A keep-alive probe: SEQ is one below the sender's next."""
        how.setdefault("seq", end.nxt - 1)
        return self.send(end, "A", payload, **how)

    def icmp(self, about: Captured, kind: int = 3, code: int = 1, *, quoted: int | None = None, router: str | None = None,
             step: int | None = None) -> Captured:  # fmt: skip
        """An ICMP or ICMPv6 error of a router about a packet, to its sender, quoting its first ``quoted`` bytes."""
        packet = about.data[14 + 4 * len(self.vlans) :]
        six = packet[0] >> 4 == 6
        sender = ipaddress.ip_address(packet[8:24] if six else packet[12:16])
        message = bytes((kind, code, 0, 0, 0, 0, 0, 0)) + packet[:quoted]
        if six:
            body = ipv6(router or "2001:db8::ffff", str(sender), message, next_header=58)
        else:
            body = ipv4(router or "10.0.0.254", str(sender), message, protocol=1)
        self.now += self.step if step is None else step
        frame = Captured(self.now, ethernet(body, vlans=self.vlans))
        self.packets.append(frame)
        return frame

    def handshake(self) -> Dialogue:
        """SYN, SYN-ACK and ACK, opened by ``a``."""
        self.syn(self.a)
        self.synack(self.b)
        self.ack(self.a)
        return self

    def close(self, first: End | None = None) -> Dialogue:
        """A close in four segments, begun by ``first`` (``a`` if not given)."""
        first = first or self.a
        self.fin(first)
        self.ack(self.peer(first))
        self.fin(self.peer(first))
        self.ack(first)
        return self

    def reborn(self, *, a_isn: int, b_isn: int) -> Dialogue:
        """Begin a new connection between the same ends; packets and time go on."""
        self.a.isn = self.a.nxt = a_isn
        self.b.isn = self.b.nxt = b_isn
        return self


def merge(*dialogues: Dialogue) -> list[Captured]:
    """The packets of several dialogues in the order of their instants."""
    return sorted((packet for d in dialogues for packet in d.packets), key=lambda packet: packet.time_ns)


def snap(packets: Iterable[Captured], length: int) -> list[Captured]:
    """The packets as a capture with this snap length holds them."""
    return [Captured(p.time_ns, p.data[:length], p.wire_len or len(p.data)) for p in packets]


def pcap_bytes(packets: Iterable[tuple], *, nanoseconds: bool = True, big_endian: bool = False, link_type: int = 1,
               snaplen: int = 262144, magic: int | None = None) -> bytes:  # fmt: skip
    """A pcap file. ``packets`` are (time_ns, data) or (time_ns, data, wire_len); microseconds cut the instants down."""
    order, unit = (">" if big_endian else "<"), (1 if nanoseconds else 1000)
    if magic is None:
        magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    out = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type)]
    for time_ns, data, *rest in packets:
        wire = rest[0] if rest and rest[0] is not None else len(data)
        seconds, fraction = divmod(time_ns, SECOND)
        out.append(struct.pack(order + "IIII", seconds & 0xFFFFFFFF, fraction // unit, len(data), wire) + data)
    return b"".join(out)


def write_pcap(path: str | Path, packets: Iterable[tuple], **how) -> Path:
    """Write ``pcap_bytes`` to ``path`` and return it."""
    path = Path(path)
    path.write_bytes(pcap_bytes(packets, **how))
    return path


def pcapng_block(order: str, kind: int, body: bytes) -> bytes:
    """One pcapng block: type, length, body padded to 4 bytes, length."""
    body += b"\0" * (-len(body) % 4)
    return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)


def pcapng_option(order: str, code: int, value: bytes) -> bytes:
    """One pcapng option, padded."""
    return struct.pack(order + "HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def pcapng_bytes(packets: Iterable[tuple], *, big_endian: bool = False, link_type: int = 1, resolution: int = 9,
                 offset_s: int = 0, interface: str | None = None, simple: bool = False) -> bytes:  # fmt: skip
    """A pcapng file with one section and one interface; ``resolution`` and ``offset_s`` become if_tsresol, if_tsoffset.

    ``simple`` writes simple packet blocks, which hold no instant. Resolutions with the top bit set are powers of two.
    """
    order = ">" if big_endian else "<"
    per_second = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    out = [pcapng_block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))]
    opts = pcapng_option(order, 9, bytes((resolution,)))
    if offset_s:
        opts += pcapng_option(order, 14, struct.pack(order + "q", offset_s))
    if interface is not None:
        opts += pcapng_option(order, 2, interface.encode())
    out.append(pcapng_block(order, 1, struct.pack(order + "HHI", link_type, 0, 0) + opts + b"\0\0\0\0"))
    for time_ns, data, *rest in packets:
        wire = rest[0] if rest and rest[0] is not None else len(data)
        if simple:
            out.append(pcapng_block(order, 3, struct.pack(order + "I", wire) + data))
            continue
        ticks = (time_ns - offset_s * SECOND) * per_second // SECOND
        head = struct.pack(order + "IIIII", 0, ticks >> 32 & 0xFFFFFFFF, ticks & 0xFFFFFFFF, len(data), wire)
        out.append(pcapng_block(order, 6, head + data))
    return b"".join(out)


def write_pcapng(path: str | Path, packets: Iterable[tuple], **how) -> Path:
    """Write ``pcapng_bytes`` to ``path`` and return it."""
    path = Path(path)
    path.write_bytes(pcapng_bytes(packets, **how))
    return path
