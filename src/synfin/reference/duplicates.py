"""Capture duplicates (SPEC section 2): packets that the capture holds twice because the capture point saw them twice."""

from __future__ import annotations

from .decode import Segment

WINDOW = 50_000_000
MEMORY = 100_000_000  # of the input clock: the window, and as much disorder


class Firsts:
    """The packets of which copies may still come, by what copies share."""

    def __init__(self) -> None:
        self.seen: dict[bytes, tuple[Segment, int]] = {}  # in the order of arrival, with the clock then

    def is_copy(self, segment: Segment, clock: int) -> bool:
        """Is this a copy of one before it? If not, it is the one that others may be copies of."""
        while self.seen and clock - next(iter(self.seen.values()))[1] > MEMORY:
            del self.seen[next(iter(self.seen))]
        if self.copies(segment):
            return True
        self.seen.pop(segment.header, None)  # so that it goes to the end
        self.seen[segment.header] = segment, clock
        return False

    def copies(self, segment: Segment) -> bool:
        """Is the segment a copy of the remembered one that shares its headers?"""
        if segment.header not in self.seen:
            return False
        first, _ = self.seen[segment.header]
        if abs(segment.time - first.time) > WINDOW:
            return False
        return bool(segment.ident) or self.seen_at(segment) != self.seen_at(first)

    @staticmethod
    def seen_at(segment: Segment) -> tuple:
        """What differs between two looks at one packet where no IPv4 ID tells."""
        return segment.ttl, segment.vlan, segment.tap, segment.interface

    def clear(self) -> None:
        """The input clock stepped back."""
        self.seen.clear()
