"""Cuts the packets of a capture into connections where Zeek does, and says of each what Zeek's rules say.

Of Zeek's timers only those that the traces of its suite meet: 5 s after a close that is complete, 5 s after a SYN
without answer. The letters are the slow tracker's (`synfin.reference.others`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from ipaddress import ip_address

from synfin import reference
from synfin.reference.decode import decode
from synfin.reference.others import Zeek
from synfin.reference.segment import ACK, SYN, Segment, Skip

DELAY = 5 * 10**9
CLOSED = ("CLOSED", "RESET")


class ZeekConnection:
    """One of Zeek's connections: the analyser's view, and when its timers end it."""

    def __init__(self, first: Segment):
        self.zeek = Zeek(first)
        self.ends_at: int | None = None
        self.attempt_ends_at = first.time + DELAY
        self.take(first)

    def take(self, segment: Segment) -> None:
        self.zeek.take(segment)
        states = {self.zeek.orig.state, self.zeek.resp.state}
        complete = "RESET" in states or ("CLOSED" in states and states <= {"CLOSED", "INACTIVE"})
        if complete and self.ends_at is None:
            self.ends_at = segment.time + DELAY

    def is_over(self, now: int) -> bool:
        attempt = self.zeek.orig.state in ("SYN_SENT", "SYN_ACK_SENT") and self.zeek.resp.state == "INACTIVE"
        return (self.ends_at is not None and now >= self.ends_at) or (attempt and now >= self.attempt_ends_at)

    def is_reuse(self, segment: Segment) -> bool:
        """Does this packet begin another connection?"""
        orig, resp = self.zeek.orig, self.zeek.resp
        if not segment.flags & SYN:
            return False
        end = orig
        if segment.flags & ACK:
            if orig.state != "INACTIVE":
                return False
            end = resp
        if orig.state in CLOSED or resp.state in CLOSED:
            return True
        reversed_open = orig.state == "SYN_ACK_SENT" and resp.state == "INACTIVE" and segment.seq == resp.start
        return segment.seq != end.start and not (reversed_open and not segment.flags & ACK)


def cut_by_zeek(path) -> dict[frozenset, Counter]:
    """By pair of ends, how often Zeek's borders give each (conn_state, history)."""
    live: dict[frozenset, ZeekConnection] = {}
    found: dict[frozenset, Counter] = defaultdict(Counter)

    def end(ends: frozenset) -> None:
        zeek = live.pop(ends).zeek
        found[ends][zeek.conn_state(), zeek.history] += 1

    ((_, packets),) = reference.read([path])
    for packet in packets:
        try:
            segment = decode(packet.data, packet.wire_len, packet.link_type)
        except Skip:
            continue
        segment.time = packet.time_ns or 0
        ends = frozenset([(str(ip_address(segment.src)), segment.sport), (str(ip_address(segment.dst)), segment.dport)])
        if ends in live and (live[ends].is_over(segment.time) or live[ends].is_reuse(segment)):
            end(ends)
        if ends in live:
            live[ends].take(segment)
        else:
            live[ends] = ZeekConnection(segment)
    for ends in list(live):
        end(ends)
    return found
