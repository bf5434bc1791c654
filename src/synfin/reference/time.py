"""The clocks of SPEC section 2: each source's own, the merge of several sources, and the input clock.

Times are nanoseconds since 1970. Nothing here knows what a packet holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

HOUR = 3600 * 1_000_000_000
STEP_AFTER = 1000  # packets in a row, more than an hour behind


class Packet(NamedTuple):
    """One captured packet; ``time_ns`` is None where the format holds no instant (pcapng simple packet block)."""

    time_ns: int | None
    data: bytes
    wire_len: int
    link_type: int
    interface: str | None = None


class Stamped(NamedTuple):
    """A packet in merged order, with its judged time and the input clock (this packet included)."""

    packet: Packet
    time: int
    clock: int
    file: str
    number: int
    step_back: bool  # after this packet, the input clock goes back to its time
    outside: bool = False  # of the window
    tap: int = 0  # which of the captures that overlap


class Source:
    """One file: its packets in order and its clock, the highest timestamp read."""

    def __init__(self, name: str, packets: Sequence[Packet]):
        self.name = name
        self.packets = packets
        self.at = 0
        self.clock: int | None = None
        self.inside: int | None = None  # the clock as packets inside the window alone move it
        self.outliers = 0
        self.tap: int | None = None  # from its first packet on
        self.head: tuple[int, int | None, bool] | None = None

    def judge(self) -> tuple[int, int | None, bool]:
        """Of the next packet: its time, the source's clock after it, and whether it is a lone outlier."""
        stamp = self.packets[self.at].time_ns
        after = [packet.time_ns for packet in self.packets[self.at + 1 : self.at + 3]]
        if stamp is None:
            return self.clock or 0, self.clock, False
        if self.clock is None:
            if len(after) == 2 and all(t is not None and stamp > t + HOUR for t in after):
                return after[0], after[0], True
            return stamp, stamp, False
        if stamp <= self.clock + HOUR or not after:
            return stamp, max(stamp, self.clock), False
        if after[0] is not None and after[0] > self.clock + HOUR:
            return stamp, min(stamp, after[0]), False
        return self.clock, self.clock, True

    def peek(self) -> int:
        """The source's clock after its next packet: what the merge goes by."""
        if self.head is None:
            self.head = self.judge()
        return self.head[1] or 0

    def take(self) -> tuple[Packet, int, int]:
        """The next packet, its time and its number from 1."""
        self.peek()
        time, self.clock, lone = self.head
        self.outliers += lone
        self.head = None
        self.at += 1
        return self.packets[self.at - 1], time, self.at


def merge(sources: list[Source], window: tuple[int, int] | None = None) -> Iterator[Stamped]:
    """All packets of all sources, by their sources' clocks, ties in the order of the list.

    Those outside the window [begin, end) are merged and judged as the others, and move no input clock.
    """
    clock, behind = None, 0
    waiting = [source for source in sources if source.packets]
    while waiting:
        source = min(waiting, key=Source.peek)
        if source.tap is None:  # a file that begins when another has ended goes on as the same tap
            taken = {other.tap for other in waiting}
            source.tap = next(number for number in range(len(sources)) if number not in taken)
        packet, time, number = source.take()
        if window and not window[0] <= time < window[1]:
            yield Stamped(packet, time, clock or 0, source.name, number, False, outside=True)
            if source.at == len(source.packets):
                waiting.remove(source)
            continue
        own = min(time, source.clock or 0)
        source.inside = own if source.inside is None else max(own, source.inside)
        clock = max(source.inside, clock) if clock is not None else source.inside
        behind = behind + 1 if time < clock - HOUR else 0
        step_back = behind == STEP_AFTER
        yield Stamped(packet, time, clock, source.name, number, step_back, tap=source.tap)
        if step_back:
            clock, source.clock, source.inside, behind = time, time, time, 0
        if source.at == len(source.packets):
            waiting.remove(source)


def effective(time: int, clock: int, reorder: int, last: int | None = None) -> int:
    """A packet's effective time; ``last`` is that of its record's packet before it."""
    return max(min(time, clock), clock - reorder, *(() if last is None else (last,)))
