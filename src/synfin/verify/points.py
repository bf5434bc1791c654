"""One packet as both tools see it: what the reasons of classes.py look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from synfin.verify.join import Difference
from synfin.verify.lives import ACK, FIN, RST, SYN, Packet, end, pair_of
from synfin.verify.tools import MARKS as COLUMN_OF_MARK
from synfin.verify.witness import Seen, Step

MARKS = tuple(COLUMN_OF_MARK.values())
FLAGS = ("syn", "synack", "fin", "rst")
PACKET_COLUMNS = ("packets", "payload_bytes", "syns", *FLAGS, *MARKS)
WHOLE_COLUMNS = ("wireshark_completeness", "wireshark_initial_rtt")  #: that all packets of a stream give together
BYTE_COUNTERS = ("syns", "fin", "rst")  #: that tcptrace keeps in 8 bits
ROUND_TRIPS = ("rtt_syn", "rtt_samples", "rtt_min", "rtt_max")
_MARK_OF_COLUMN = {column: mark for mark, column in COLUMN_OF_MARK.items()}


def frame_bits(flags: int, payload: int) -> int:
    """What a frame adds to tshark's completeness, unless it is the stream's first: SYN-ACK 2, ACK 4, data 8, FIN 16, RST 32."""
    bits = {SYN | ACK: 2, ACK: 8 if payload else 4}.get(flags & (SYN | ACK), 0)
    return bits | (16 if flags & FIN and flags & ACK else 0) | (32 if flags & RST else 0)


def last_frame_bits(run: list[tuple[int, int]]) -> int:
    """What the last of a stream's frames adds, given as (flags, payload bytes). The first adds only its SYN, and with
    payload also data."""
    flags, payload = run[-1]
    if len(run) > 1:
        return frame_bits(flags, payload)
    return 0 if flags & (SYN | ACK) != SYN else 9 if payload else 1


class Point(NamedTuple):
    """A packet as both tools see it, in one column. ``shown`` is the other tool's view, ``step`` synfin's."""

    column: str
    number: int
    shown: tuple[Packet, ...]
    step: Step | None
    seen: Seen
    difference: Difference
    points: Any = ()  #: all packets of the pair, or of the way, that is compared
    by_rule: bool = False  #: for a round trip: whether the other tool's rule gives its value for its packets
    begins: tuple[bool, bool] = (False, False)  #: for a border: whether ours, theirs begins here

    @property
    def ours(self) -> int:
        """What the packet adds to the column in synfin."""
        if self.step is None:
            return 0
        if self.column == "packets":
            return 1
        if self.column == "syns":
            return int(self.raised("syn", "synack"))
        return self.step.segment.payload if self.column == "payload_bytes" else int(self.column in self.step.raised)

    @property
    def packet(self) -> Packet | None:
        return self.shown[0] if self.shown else None

    @property
    def theirs(self) -> int:
        """What it adds in the other tool."""
        return sum(_adds(packet, self.column) for packet in self.shown)

    @property
    def skip(self) -> str | None:
        """The name under which synfin skips the packet."""
        return self.seen.skipped.get(self.number)

    @property
    def mine(self) -> dict[str, Any]:
        """The row of synfin that is compared."""
        return self.difference.mine[0].whole if self.difference.mine else {}

    @property
    def described(self) -> Any:
        """The SYN or SYN-ACK that synfin's columns of this way describe."""
        way = self.difference.way
        return self.seen.described.get((self.step.record, self.difference.pair[way or 0])) if self.step else None

    @property
    def ended(self) -> str | None:
        """Why the record before this packet ended."""
        earlier = [row for row in self.seen.rows.values() if row["first_packet"] < self.number and self._same_ends(row)]
        return max(earlier, key=lambda row: row["first_packet"])["end_reason"] if earlier else None

    @property
    def last_ack(self) -> int | None:
        """The acknowledgement number in its sender's packet before this one."""
        before = [
            one.step.segment.ack
            for one in self.points
            if one.number < self.number and one.step and self._same_sender(one)
        ]
        return before[-1] if before else None

    def _same_sender(self, other: Point) -> bool:
        one, mine = other.step.segment, self.step.segment
        return (one.src, one.sport) == (mine.src, mine.sport)

    @property
    def later_record(self) -> bool:
        """Does synfin give the packet to another record than the one that began last before it?"""
        begun = [
            row["first_packet"]
            for row in self.seen.rows.values()
            if row["first_packet"] < self.number and self._same_ends(row)
        ]
        return self.step is not None and bool(begun) and max(begun) > self.step.record

    def _same_ends(self, row: dict[str, Any]) -> bool:
        ends = [end(row[f"{side}_ip"], row[f"{side}_port"]) for side in ("client", "server")]
        return pair_of(*ends) == self.difference.pair

    @property
    def kind(self) -> str | None:
        """`rst`, `syn`, `synack` or `plain` by RFC 9293's order."""
        return self.step.segment.kind if self.step else None

    @property
    def below_nxt(self) -> int | None:
        """How far the segment begins below the highest sequence number that its sender had sent before."""
        nxt = self.step.before.get("nxt") if self.step else None
        return None if nxt is None or self.step is None else _signed(nxt - self.step.segment.seq)

    @property
    def cut(self) -> bool:
        """Did the capture end inside the segment's header?"""
        return self.step is not None and self.step.captured < self.step.segment.ip_bytes - self.step.segment.payload

    def below(self, test: Callable[[Point], bool]) -> bool:
        """Does the segment begin below the end of an earlier one of its sender for which the test holds?"""
        return any(
            one.number < self.number
            and one.step is not None
            and self.step is not None
            and self._same_sender(one)
            and test(one)
            and _signed(_end(one.step.segment) - self.step.segment.seq) > 0
            for one in self.points
        )

    @property
    def outstanding(self) -> bool:
        """Had the peer sent anything above the segment's acknowledgement?"""
        nxt = self.step.before.get("peer_nxt") if self.step else None
        return nxt is not None and self.step is not None and _signed(nxt - self.step.segment.ack) > 0

    @property
    def completed(self) -> int:
        """The other tool's completeness with what the stream's last frame adds."""
        run = [(packet.flags, packet.length or 0) for point in self.points for packet in point.shown]
        return (self.difference.theirs or 0) | (last_frame_bits(run) if run else 0)

    def raised(self, *names: str) -> bool:
        return self.step is not None and bool(self.step.raised & set(names))

    def marked(self, *names: str) -> bool:
        return self.packet is not None and bool(self.packet.marks & set(names))


def _adds(packet: Packet, column: str) -> int:
    """What a packet adds to a column in the other tool."""
    flags = packet.flags
    if column == "payload_bytes":
        return packet.length or 0
    if column in _MARK_OF_COLUMN:
        return int(_MARK_OF_COLUMN[column] in packet.marks)
    return int({
        "packets": True, "syns": bool(flags & SYN), "syn": flags & (SYN | ACK) == SYN, "synack": flags & (SYN | ACK) == SYN | ACK,
        "fin": bool(flags & FIN), "rst": bool(flags & RST),
    }[column])  # fmt: skip


_OPTION_SIZES = {2: 4, 3: 3, 4: 2, 8: 10}


def well_formed(options: bytes) -> bool:
    """Has every TCP option its right length, comes once, and nothing behind the end (RFC 9293 section 3.1, RFC 7323, RFC 2018)?"""
    at, kinds = 0, set()
    while at < len(options) and options[at]:
        kind = options[at]
        size = 1 if kind == 1 else options[at + 1] if at + 1 < len(options) else 0
        if kind > 1 and (
            size < 2 or at + size > len(options) or kind in kinds or _OPTION_SIZES.get(kind, size) != size
        ):
            return False
        kinds.add(kind)
        at += size
    return not any(options[at:])  # padding behind the end of the list is zero


def initial_rtt(points: Iterable[Point]) -> tuple[int, int] | None:
    """tshark's rule: from the last SYN before it to the first segment with ACK and without SYN that gives another time than
    the SYN's. The nanoseconds, and the number of that segment."""
    syn = None
    for point in points:
        for packet in point.shown:
            if packet.flags & (SYN | ACK) == SYN:
                syn = packet.time
            elif syn is not None and packet.flags & (SYN | ACK) == ACK and packet.time != syn:
                return packet.time - syn, packet.number
    return None


def rtt_shown(points: Sequence[Point]) -> bool:
    """Is there a segment that tshark prints the initial round trip beside: one with payload or a remark, header not cut?"""
    found = initial_rtt(points)
    return found is not None and any(
        point.number >= found[1]
        and not point.cut
        and point.packet is not None
        and (point.packet.length or point.packet.marks)
        for point in points
    )


def _end(segment: Any) -> int:
    """The sequence number after the segment, by its flag bits."""
    return segment.seq + segment.payload + bool(segment.flags & SYN) + bool(segment.flags & FIN)


def _signed(difference: int) -> int:
    """A difference of sequence numbers, between -2**31 and 2**31 - 1."""
    return (difference + 2**31) % 2**32 - 2**31
