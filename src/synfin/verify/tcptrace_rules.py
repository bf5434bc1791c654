"""What tcptrace's rules say of each packet, so that its figures can be led back to packets.

tcptrace prints sums. Its rules were found by experiment: applied to the headers that it prints, they must give its sums,
else a difference stays unexplained.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

from synfin.verify.lives import ACK, FIN, RST, SYN, End


class Header(NamedTuple):
    """One packet as tcptrace prints it; ``time`` in nanoseconds, of which it knows whole microseconds."""

    number: int
    time: int
    src: End
    dst: End
    flags: int
    seq: int
    ack: int
    length: int
    window: int


@dataclass
class Sent:
    """A stretch of sequence numbers that waits for its acknowledgement."""

    start: int
    end: int
    time: int
    syn: bool
    spoiled: bool = False  #: sent again, or acknowledged in part


@dataclass
class Sender:
    """What one end has sent. Sequence numbers are counted from the first one seen, without wrapping."""

    origin: int | None = None
    high: int = 0  #: the end of what was sent
    seen: list[tuple[int, int]] = field(default_factory=list)  #: disjoint and in order
    waiting: list[Sent] = field(default_factory=list)
    latest: int = 0  #: when the last of those that are acknowledged was sent
    samples: int = 0
    smallest: int = 0  #: round trip in nanoseconds, like the next two
    largest: int = 0
    syn_sample: int = 0
    window: int | None = None  #: the last one announced

    def place(self, number: int) -> int:
        """A sequence number as a place."""
        if self.origin is None:
            self.origin = number
        return self.high + (number - self.origin - self.high + 2**31) % 2**32 - 2**31

    def send(self, header: Header, peer_window: int | None) -> set[str]:
        """Enter a packet; returns what tcptrace counts it as."""
        size = header.length + bool(header.flags & SYN) + bool(header.flags & FIN)
        if size <= 0:
            return set()
        start = self.place(header.seq)
        if size == 1 and header.length == 1 and peer_window == 0:
            return set()  # a probe of the window
        end, before, known, inside = start + size, self.high, bool(self.seen), self._inside(start + size)
        fresh = self._add(start, end)
        for one in self.waiting:
            if one.start < end and one.end > start:
                one.time, one.spoiled = header.time, True
        bare_syn = bool(header.flags & SYN) and size == 1
        self.waiting += [Sent(low, high, header.time, bare_syn) for low, high in fresh]
        self.high = max(self.high, end)
        marks = set()
        if sum(high - low for low, high in fresh) < size or self._lapped(start, end):
            marks.add("retransmission")
        # Late is what goes in front of a stretch; a stretch whose end the segment reaches is replaced by it instead.
        if known and fresh and (inside or (fresh[-1][1] == end and fresh[-1][0] < before)):
            marks.add("out_of_order")
        return marks

    def _inside(self, place: int) -> bool:
        """Does a place lie inside a stretch seen, before its end?"""
        at = bisect_left(self.seen, place, key=lambda one: one[0]) - 1
        return at >= 0 and place < self.seen[at][1]

    def _lapped(self, start: int, end: int) -> bool:
        """Were these numbers in use one turn of the sequence space before? tcptrace remembers them still."""
        first = bisect_left(self.seen, start - 2**32 + 1, key=lambda one: one[1])
        return start >= 2**32 and first < len(self.seen) and self.seen[first][0] < end - 2**32

    def _add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Enter a stretch among those seen; returns its parts that are new."""
        first = bisect_left(self.seen, start, key=lambda one: one[1])
        last = bisect_right(self.seen, end, key=lambda one: one[0])
        fresh, at = [], start
        for low, high in self.seen[first:last]:
            if low > at:
                fresh.append((at, low))
            at = max(at, high)
        if at < end:
            fresh.append((at, end))
        touched = [(start, end), *self.seen[first:last]]
        self.seen[first:last] = [(min(low for low, _ in touched), max(high for _, high in touched))]
        return fresh

    def acknowledged(self, header: Header) -> None:
        """A round trip is measured where a stretch ends at the acknowledgement, was sent once, and nothing below it later.

        An acknowledgement inside a stretch takes its measurement away.
        """
        if self.origin is None:
            return
        ack = self.place(header.ack)
        for one in self.waiting:
            if one.end == ack and not one.spoiled and self.latest <= one.time:
                if not any(other.start < one.start and other.time > one.time for other in self.waiting):
                    self._measure(max(0, header.time - one.time), one.syn)
            elif one.start < ack < one.end:
                one.spoiled = True
        self.latest = max([self.latest, *(one.time for one in self.waiting if one.end <= ack)])
        self.waiting = [one for one in self.waiting if one.end > ack]

    def _measure(self, sample: int, of_syn: bool) -> None:
        """Enter a round trip. A smallest one of 0 counts as not set."""
        self.samples += 1
        self.smallest = sample if not self.smallest else min(self.smallest, sample)
        self.largest = max(self.largest, sample)
        if of_syn:
            self.syn_sample = sample


class Rules:
    """One connection."""

    def __init__(self, ends: tuple[End, End]):
        self.senders = {end: Sender() for end in ends}

    def take(self, header: Header) -> frozenset[str]:
        """Enter a packet; returns tcptrace's remarks on it, by tshark's names."""
        sender, peer = self.senders[header.src], self.senders[header.dst]
        marks = sender.send(header, peer.window)
        if header.flags & ACK:
            peer.acknowledged(header)
        if header.flags & (SYN | RST | ACK) == ACK:
            sender.window = header.window
            if header.window == 0:
                marks.add("zero_window")
        return frozenset(marks)
