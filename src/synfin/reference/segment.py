"""A TCP segment and its options, as the rest of the slow tracker sees them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR, AE = (1 << bit for bit in range(9))


class Skip(Exception):
    """The packet belongs to no record; its argument is a name of schema.SKIPS or ``link_type_N``."""


@dataclass(frozen=True)
class Tunnel:
    """The outermost tunnel: a kind of schema.ENUMS, its id if it has one, and the addresses of the outermost IP header."""

    kind: str
    id: int | None
    src: bytes
    dst: bytes


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
    tunnel: Tunnel | None = None  # the outermost
    time: int = 0
    effective: int = 0
    order: int = 0  # in the merged input
    file: str = ""
    number: int = 0
    interface: str | None = None
    whole: bool = True  # all of the payload was captured
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
        elif kind == 30 and value:  # its subtype (RFC 8684 section 3)
            found.mptcp = True
        elif kind == 34:
            found.fast_open = fast_open(value) or found.fast_open
        elif kind == 254 and value[:2] == b"\xf9\x89":
            found.fast_open = fast_open(value[2:]) or found.fast_open
    return found


def fast_open(cookie: bytes) -> str | None:
    """What a Fast Open option says: a cookie has 4 to 16 bytes, an even number (RFC 7413 section 4.1.1)."""
    if not cookie:
        return "request"
    return "cookie" if len(cookie) in range(4, 17, 2) else None
