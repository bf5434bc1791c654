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
    acked: int = 0
    unique: int = 0

    # acknowledgements and windows that it sent
    first_ack: int | None = None
    ack_max: int | None = None
    window_from: Segment | None = None  # the last taken segment that announced one
    window_largest: int | None = None
    window_field: int | None = None  # of its last taken segment with ACK
    odd_end: int | None = None
    unjudged: bool = False

    # FIN
    fin_seq: int | None = None
    fin_time: int | None = None
    fin_ack: int | None = None  # the acknowledgement in the segment of its first FIN
    fin_acked: bool = False  # by its peer
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
    capture_duplicates: int = 0
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

    def has_acked(self, seq: int | None) -> bool:
        """Has this end acknowledged the peer's sequence number ``seq``?"""
        return seq is not None and self.ack_max is not None and diff(self.ack_max, seq) > 0

    def shift(self, peer: End) -> int:
        """Its window scale (RFC 7323 section 2.2): used only if both SYNs offered one; 14 while unknown."""
        mine, other = self.described, peer.described
        if any(copy and copy.options.window_scale is None for copy in (mine, other)):
            return 0
        return min(mine.options.window_scale, 14) if mine else UNKNOWN_SCALE

    def last_window(self, peer: End) -> int:
        """The last window that it announced, by the scale as it is known now; SYNs' windows are never scaled."""
        if self.window_from is None:
            return 0
        return self.window_from.window << (self.shift(peer) if self.window_from.kind == "plain" else 0)

    def take_window(self, segment: Segment, peer: End) -> None:
        """The window of a segment that the record took: not of a SYN behind an acknowledgement."""
        if self.ack_max is not None and not segment.has_ack:
            return
        self.window_from = segment
        self.window_largest = max(self.last_window(peer), self.window_largest or 0)
        if segment.has_ack:
            self.window_field = segment.window

    def take_syn(self, segment: Segment) -> None:
        """A copy of its SYN or SYN-ACK; the first one says what its ISN is and where its stream begins.

        Where other segments came first, what lies between is a hole.
        """
        self.copies.append(Copy(segment, parse_options(segment.options)))
        self.sent_syn |= segment.kind == "syn"
        if self.isn_captured:
            return
        end = (segment.seq + 1 + segment.payload) & MASK
        if segment.payload and self.first_payload is None:
            self.first_payload = segment.time
        if self.nxt is None:
            self.nxt = end
            self.unique += segment.payload
        elif self.isn is None and diff(self.first_seq, end) >= 0:
            low, high = self.nxt + diff(end, self.nxt), self.nxt + diff(self.first_seq, self.nxt)
            self.holes = [*([(low, high)] if low < high else []), *self.holes][-MAX_HOLES:]
            self.unique += segment.payload
        elif diff(end, self.nxt) > 0:  # what came before lies below this stream
            self.unique += min(segment.payload, diff(end, self.nxt))
            self.nxt += diff(end, self.nxt)
        self.isn, self.isn_captured = segment.seq, True

    def choose(self, copy: Copy) -> None:
        """The peer acknowledged this copy; with another ISN, the account begins anew unless more was sent."""
        if copy.isn != self.isn and not self.sent_beyond:
            self.nxt = (copy.isn + 1 + copy.segment.payload) & MASK
        self.isn, self.answered = copy.isn, copy

    def acknowledge(self, segment: Segment, peer: End) -> None:
        """The acknowledgement of a taken segment: raises the peer's acknowledged bytes and ends its timed segment."""
        ack = segment.ack
        peer.unjudged = False
        if self.ack_max is None:
            self.first_ack = self.ack_max = ack
            begin = peer.first_seq if peer.isn is None else peer.isn + 1
            peer.acked = diff(ack, begin) if begin is not None else 0
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
