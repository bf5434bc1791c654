"""One end of a connection: what it has sent, and what is known of its sequence numbers.

Sequence numbers of the wire are 32 bits and compared by ``diff`` (RFC 9293 section 3.4). NXT and the holes below it are
kept as unbounded integers, so that ranges of bytes are plain ranges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from .segment import Options, Segment, parse_options

MASK = 0xFFFFFFFF
MAX_HOLES = 4
REMEMBERED = 8  # copies of a SYN
UNKNOWN_SCALE = 14


def diff(a: int, b: int) -> int:
    """How far sequence number ``a`` lies above ``b``, between -2**31 and 2**31 - 1."""
    return ((a - b + 0x80000000) & MASK) - 0x80000000


class Copy(NamedTuple):
    """A SYN or SYN-ACK that the record took."""

    segment: Segment
    options: Options

    @property
    def isn(self) -> int:
        return self.segment.seq


@dataclass(eq=False)
class End:
    """One end; every count is of what this end sent."""

    address: bytes
    port: int
    state: str = "CLOSED"
    seen: bool = False
    passive: bool = False  # opened by LISTEN

    # SYNs and SYN-ACKs
    isn: int | None = None
    isn_captured: bool = False  # else implied by the peer's SYN-ACK
    sent_syn: bool = False
    sent_beyond: bool = False  # anything that is neither SYN nor SYN-ACK
    copies: list[Copy] = field(default_factory=list)
    answered: Copy | None = None
    answer_decided: bool = False
    rtt: int | None = None  # from its SYN to the answer
    rtt_quality: str = "none"

    # sequence account
    nxt: int | None = None
    holes: list[tuple[int, int]] = field(default_factory=list)
    first_seq: int | None = None
    base: int | None = None  # acknowledged bytes count from here
    acked: int = 0
    unique: int = 0

    # acknowledgements and windows that it sent
    first_ack: int | None = None
    ack_max: int | None = None
    window_last: int = 0
    window_largest: int | None = None
    window_field: int | None = None  # of its last taken segment with ACK
    odd_end: int | None = None
    unjudged: bool = False

    # FIN
    fin_seq: int | None = None
    fin_time: int | None = None
    fin_ack: int | None = None  # the acknowledgement in the segment of its first FIN
    fin_resent: bool = False
    fin_count: int = 0

    timed: tuple[int, int] | None = None  # sequence end and time of the segment being timed
    rtts: list[int] = field(default_factory=list)

    packets: int = 0
    ip_bytes: int = 0
    payload_bytes: int = 0
    pure_acks: int = 0
    retransmitted_segments: int = 0
    retransmitted_bytes: int = 0
    out_of_order_segments: int = 0
    keep_alives: int = 0
    zero_windows: int = 0
    duplicate_acks: int = 0
    rst_count: int = 0
    first_payload: int | None = None

    @property
    def syn_payload(self) -> int:
        """The payload of the first copy of its SYN or SYN-ACK; what a resent one carries counts for nothing."""
        return next((copy.segment.payload for copy in self.copies if copy.isn == self.isn), 0)

    @property
    def described(self) -> Copy | None:
        """The copy that the columns describe: the answered one, else the first."""
        return self.answered or (self.copies[0] if self.copies else None)

    def syn_acked_by(self, ack: int) -> bool:
        """Is ``ack`` exactly its ISN + 1, or that plus its SYN's payload?"""
        return self.isn is not None and ack in {(self.isn + 1) & MASK, (self.isn + 1 + self.syn_payload) & MASK}

    def has_acked(self, seq: int | None) -> bool:
        """Has this end acknowledged the peer's sequence number ``seq``?"""
        return seq is not None and self.ack_max is not None and diff(self.ack_max, seq) > 0

    def latest_options(self) -> Options | None:
        """The options of the copy that was answered, else of the latest copy with its ISN."""
        if self.answered:
            return self.answered.options
        return next((copy.options for copy in reversed(self.copies) if copy.isn == self.isn), None)

    def shift(self, peer: End) -> int:
        """Its window scale (RFC 7323 section 2.2): used only if both SYNs offered one; 14 while unknown."""
        mine, other = self.latest_options(), peer.latest_options()
        if any(options and options.window_scale is None for options in (mine, other)):
            return 0
        return min(mine.window_scale, 14) if mine else UNKNOWN_SCALE

    def take_window(self, segment: Segment, peer: End) -> None:
        """The window of a segment that the record took; SYNs' windows are never scaled."""
        self.window_last = segment.window << (self.shift(peer) if segment.kind == "plain" else 0)
        self.window_largest = max(self.window_last, self.window_largest or 0)
        if segment.has_ack:
            self.window_field = segment.window

    def adopt(self, isn: int, sequence_end: int, peer: End, late: bool = False) -> None:
        """Its SYN or SYN-ACK (or the peer's acknowledgement) says what its ISN is; the account begins there.

        An account that other segments have begun goes on if it fits, or if the SYN is late.
        """
        fits = self.isn == isn or (self.isn is None and (late or self.first_seq == (isn + 1) & MASK))
        self.isn = isn
        if not fits or self.nxt is None:
            self.nxt, self.holes = sequence_end, []
            if not late or self.base is None:
                self.base = (isn + 1) & MASK
                self.acked = diff(peer.ack_max, self.base) if peer.ack_max is not None else 0

    def take_syn(self, segment: Segment, peer: End, late: bool, decides: bool = True) -> None:
        """A copy of its SYN or SYN-ACK; ``late`` after the handshake; a mere variant does not decide its ISN."""
        resent = any(copy.isn == segment.seq for copy in self.copies)
        self.copies.append(Copy(segment, parse_options(segment.options)))
        if not decides:
            return
        self.isn_captured = True
        self.sent_syn |= segment.kind == "syn"
        self.adopt(segment.seq, (segment.seq + 1) & MASK, peer, late)
        if not (late and resent):
            self.take_window(segment, peer)
        if segment.payload and not resent:
            if not late:
                _, inside, new = self.enter(segment.seq + 1, segment.payload)
                self.unique += inside + new
            if self.first_payload is None:
                self.first_payload = segment.time

    def acknowledge(self, segment: Segment, peer: End) -> None:
        """The acknowledgement of a taken segment: raises the peer's acknowledged bytes and ends its timed segment."""
        ack = segment.ack
        peer.unjudged = False
        if self.ack_max is None:
            self.first_ack = self.ack_max = ack
            if peer.base is None:
                peer.base = ack
            peer.acked = diff(ack, peer.base)
        elif diff(ack, self.ack_max) > 0:
            peer.acked += diff(ack, self.ack_max)
            self.ack_max = ack
        if peer.timed and diff(ack, peer.timed[0]) >= 0:
            if segment.time >= peer.timed[1]:
                peer.rtts.append(segment.time - peer.timed[1])
            peer.timed = None

    def enter(self, seq: int, length: int, fin: bool = False) -> tuple[int, int, int]:
        """Enter a sequence range into the account.

        Returns how many of its bytes lie below NXT in no hole, how many in holes, and how many at or above NXT.
        """
        if self.nxt is None:
            self.nxt = seq & MASK
        if self.first_seq is None:
            self.first_seq = seq & MASK
        if self.base is None:
            self.base = seq & MASK
        start = self.nxt + diff(seq, self.nxt)
        end = start + length
        new = max(0, end - max(start, self.nxt))
        inside = sum(max(0, min(end, b) - max(start, a)) for a, b in self.holes)
        pieces = (
            [piece for a, b in self.holes for piece in ((a, min(b, start)), (max(a, end), b))] if length else self.holes
        )
        self.holes = [(a, b) for a, b in pieces if a < b]
        if start > self.nxt:
            if self.holes and self.holes[-1][1] == self.nxt:
                self.holes[-1] = (self.holes[-1][0], start)
            else:
                self.holes.append((self.nxt, start))
        self.holes = self.holes[-MAX_HOLES:]
        self.nxt = max(self.nxt, end + fin)
        return length - inside - new, inside, new

    def in_one_hole(self, seq: int, length: int) -> bool:
        """Do these bytes lie wholly inside one hole?"""
        start = self.nxt + diff(seq, self.nxt)
        return any(a <= start and start + length <= b for a, b in self.holes)
