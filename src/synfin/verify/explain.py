"""Each difference to the packets behind it, and each packet to the class of its reason.

A count differs because of certain packets: those that one tool counts and the other does not. Both tools' packets are
laid side by side by number, and each such packet must fall into a class (classes.py). Whatever does not is unexplained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from synfin.verify.classes import UNEXPLAINED, Class
from synfin.verify.join import TSHARK_COLUMNS, Column, Difference, match, value
from synfin.verify.lives import ACK, FIN, RST, SYN, Life, Packet, Pair, life_of, pair_of
from synfin.verify.points import (
    BYTE_COUNTERS,
    PACKET_COLUMNS,
    ROUND_TRIPS,
    WHOLE_COLUMNS,
    Point,
    initial_rtt,
    rtt_shown,
    well_formed,
)
from synfin.verify.tshark_classes import TSHARK_CLASSES
from synfin.verify.witness import Seen, Step

#: Instants and options stand in the packet that is the first of its kind: (count column, test of its flags).
_FIRST_OF: dict[str, tuple[str, Callable[[int], bool]]] = {
    "fin_time": ("fin", lambda flags: bool(flags & FIN)),
    "rst_time": ("rst", lambda flags: bool(flags & RST)),
    "syn_time": ("syn", lambda flags: flags & (SYN | ACK) == SYN),
    "synack_time": ("synack", lambda flags: flags & (SYN | ACK) == SYN | ACK),
}
_OPTIONS = ("isn", "mss", "window_scale", "sack_permitted", "timestamps")
_MOST_PACKETS = 8  #: packet numbers kept for one part


@dataclass
class Evidence:
    """One capture, packet by packet: the tool's connections with their packets, and what became of each in synfin."""

    lives: dict[str, Life]
    seen: Seen
    classes: tuple[Class, ...] = TSHARK_CLASSES
    unit: int = 1  #: nanoseconds of the tool's clock
    columns: tuple[Column, ...] = TSHARK_COLUMNS
    comparable: Callable[[list[Life]], list[Life]] = list  #: rows in the tool's units

    def packets(self, others: Iterable[Life]) -> dict[int, list[Packet]]:
        """By packet number; a frame may hold several TCP headers of one connection."""
        found: dict[int, list[Packet]] = {}
        for life in others:
            for packet in self.life(life).packets:
                found.setdefault(packet.number, []).append(packet)
        return found

    def life(self, other: Life) -> Life:
        """The same connection with its packets."""
        return other if other.packets else self.lives.get(other.name, other)

    def steps(self, pair: Pair, mine: Iterable[Life]) -> dict[int, Step]:
        records = {life.whole["first_packet"] for life in mine}
        return {number: step for number, step in self.of_pair.get(pair, {}).items() if step.record in records}

    def name(self, point: Point) -> str:
        """The first class that has the point's column and holds for it."""
        fitting = (one.name for one in self.classes if point.column in one.columns and one.holds(point))
        return next(fitting, UNEXPLAINED)

    @cached_property
    def records(self) -> dict[int, Life]:
        """The slow tracker's rows by their first packet."""
        lives = self.comparable([life_of(row) for row in self.seen.rows.values()])
        return {life.whole["first_packet"]: life for life in lives}

    def confirms(self, difference: Difference) -> bool:
        """Does the slow tracker give synfin's value? A difference that it does not confirm is a fault, whatever the reason."""
        column = next((one for one in self.columns if one.name == difference.column), None)
        if column is None:
            return True
        slow = [self.records.get(life.whole["first_packet"]) for life in difference.mine]
        if None in slow:
            return False
        return value(column, column.ours, difference.way, slow) in (difference.ours, ...)

    @cached_property
    def of_pair(self) -> dict[Pair, dict[int, Step]]:
        """Every packet by its ends and number."""
        found: dict[Pair, dict[int, Step]] = {}
        for number, step in self.seen.steps.items():
            found.setdefault(_ends(step), {})[number] = step
        return found


def _ends(step: Step) -> Pair:
    return pair_of((step.segment.src, step.segment.sport), (step.segment.dst, step.segment.dport))


def explain(difference: Difference, evidence: Evidence) -> None:
    """Fill the difference's parts."""
    column = difference.column
    if not evidence.confirms(difference):
        found: Parts = {}
    elif column in PACKET_COLUMNS:
        found = _by_packets(difference, evidence)
    elif column == "border":
        found = _border(difference, evidence)
    elif column in ("first_seen", "last_seen"):
        found = _extreme(difference, evidence)
    elif column in WHOLE_COLUMNS:
        points = _points(difference, evidence, column)
        found = {evidence.name(points[-1]._replace(points=points)): [points[-1].number]} if points else {}
    elif column in ROUND_TRIPS:
        found = _by_rule(difference, evidence)
    else:
        found = _by_first(difference, evidence)
    difference.parts = [(name, tuple(numbers[:_MOST_PACKETS])) for name, numbers in found.items()] or [
        (UNEXPLAINED, ())
    ]


Parts = dict[str, list[int]]


def _points(difference: Difference, evidence: Evidence, column: str) -> list[Point]:
    """Every packet of the pair (or way) as both see it."""
    packets, steps = evidence.packets(difference.others), evidence.steps(difference.pair, difference.mine)
    points = []
    for number in sorted(packets.keys() | steps.keys()):
        shown, step = packets.get(number, []), steps.get(number)
        if difference.way is not None:
            sender = difference.pair[difference.way]
            shown = [packet for packet in shown if packet.src == sender]
            step = step if step and (step.segment.src, step.segment.sport) == sender else None
        if shown or step:
            points.append(Point(column, number, tuple(shown), step, evidence.seen, difference))
    return points


def _by_packets(difference: Difference, evidence: Evidence) -> Parts:
    points = _points(difference, evidence, difference.column)
    found: Parts = {}
    if sum(point.ours for point in points) != (difference.ours or 0):
        return {}  # not the packets that the row was made from
    beyond = sum(point.theirs for point in points) - (difference.theirs or 0)
    if beyond > 0 and beyond % 256 == 0 and evidence.unit > 1 and difference.column in BYTE_COUNTERS:
        return {"byte_counter": [points[0].number]}
    if beyond:
        return {}  # not the packets that the row was made from
    for point in points:
        if point.ours != point.theirs:
            found.setdefault(evidence.name(point._replace(points=points)), []).append(point.number)
    return found


def _by_rule(difference: Difference, evidence: Evidence) -> Parts:
    """A round trip. Most reasons hold only where the tool's rule gives its value for the packets that it shows."""
    points = _points(difference, evidence, difference.column)
    if difference.way is None or not points:
        return {}
    ruled = evidence.life(difference.others[0]).ways[difference.way][difference.column]
    point = points[0]._replace(points=points, by_rule=ruled == difference.theirs)
    return {evidence.name(point): [point.number]}


def _extreme(difference: Difference, evidence: Evidence) -> Parts:
    """The first or last instant: those packets that only one of the two has, else the order of the capture."""
    points = _points(difference, evidence, "packets")
    found: Parts = {}
    instants = {packet.time for point in points for packet in point.shown}
    if evidence.unit == 1 and difference.theirs is not None and difference.theirs not in instants:
        return {}  # not an instant that the tool's packets show (tcptrace prints some of them wrong)
    for point in points:
        if point.ours != point.theirs:
            found.setdefault(evidence.name(point), []).append(point.number)
        elif (
            point.packet
            and point.step
            and point.packet.time != point.step.segment.time // evidence.unit * evidence.unit
        ):
            found.setdefault(evidence.name(point._replace(column=difference.column)), []).append(point.number)
    if not found and difference.others:
        instants = [evidence.life(life).whole[difference.column] for life in difference.others]
        if difference.ours == (min(instants) if difference.column == "first_seen" else max(instants)):
            found["file_order"] = []
    if not found and points and evidence.unit > 1:
        point = points[0]._replace(column=difference.column, points=points)
        found[evidence.name(point)] = [point.number]
    return found


def _by_first(difference: Difference, evidence: Evidence) -> Parts:
    """A value that one packet gives: the first of its kind for the tool."""
    if difference.column in _OPTIONS and difference.way is not None:
        now = evidence.life(difference.others[0]).ways[difference.way]
        if now.get(difference.column, ...) == difference.ours:
            return {"later_copy": []}
    points = _points(difference, evidence, difference.column)
    if difference.column in _FIRST_OF:
        column, test = _FIRST_OF[difference.column]
    else:
        column, test = "", lambda flags: bool(flags & SYN)
    first = next((point for point in points if point.packet and test(point.packet.flags)), None)
    if not _as_shown(difference, points, first):
        return {}
    if first and first.step and column and first.packet and first.packet.time != first.step.segment.time:
        return {evidence.name(first): [first.number]}
    if first and column and not (first.step and column in first.step.raised):
        name = evidence.name(first._replace(column=column))
    elif first and difference.column in _OPTIONS and not (first.step and first.step.raised & {"syn", "synack"}):
        name = evidence.name(first._replace(column="synack" if first.packet and first.packet.flags & ACK else "syn"))
    else:
        name = evidence.name(
            (first or Point(difference.column, 0, (), None, evidence.seen, difference))._replace(points=points)
        )
    return {name: [first.number] if first else []}


def _as_shown(difference: Difference, points: list[Point], first: Point | None) -> bool:
    """Do the packets show the value that the tool gives? Else nothing that they show explains it."""
    if difference.column in _OPTIONS:
        return difference.theirs in _options_shown(difference.column, points, first)
    if difference.column in _FIRST_OF:
        return difference.theirs == (first.packet.time if first and first.packet else None)
    if difference.column == "rtt_handshake":
        found = initial_rtt(points)
        return difference.theirs == (found and found[0]) or (difference.theirs is None and not rtt_shown(points))
    return True


def _options_shown(column: str, points: list[Point], first: Point | None) -> set[Any]:
    """The values that an end's SYNs and SYN-ACKs hold; None and False for those that hold none.

    tcptrace shows a scale that is not used as 0, and adds up what several SYNs announce as their maximum segment size.
    """
    opening = [point for point in points if point.packet and point.packet.flags & SYN]
    held = [point.step.segment for point in opening if point.step]
    values = {_option(column, one) for one in held} | {None, False}
    values |= {0} if column == "window_scale" else set()
    values |= {sum(_option(column, one) or 0 for one in held) % 2**16} if column == "mss" else set()
    odd = [point for point in opening if not point.step or point.cut or not well_formed(point.step.segment.options)]
    return values | ({first.difference.theirs} if odd and first else set())  # a rule of its own decides on those


def _option(column: str, segment: Any) -> Any:
    """What a SYN says by an option, or its sequence number."""
    from synfin.reference.segment import parse_options

    if column == "isn":
        return segment.seq
    value = getattr(parse_options(segment.options), column)
    return value is not None if column == "timestamps" else value


def _border(difference: Difference, evidence: Evidence) -> Parts:
    """Where one of the two begins a connection and the other goes on with one."""
    others = [evidence.life(life) for life in difference.others]
    mine, others = match(difference.mine, others)[1:]
    if not mine and not others and len(difference.mine) == len(difference.others):
        return {"file_order": []}
    theirs = {life.packets[0].number for life in others if life.packets}
    ours = {life.whole["first_packet"] for life in mine}
    found: Parts = {}
    points = _points(difference, evidence, "border")
    for point in points:
        if (point.number in theirs) != (point.number in ours):
            name = evidence.name(point._replace(begins=(point.number in ours, point.number in theirs), points=points))
            found.setdefault(name, []).append(point.number)
    return found or _taken_elsewhere(points, others, evidence)


def _taken_elsewhere(points: list[Point], others: list[Life], evidence: Evidence) -> Parts:
    """Both begin with the same packets: those that one of the two gives to another of its connections."""
    first = {packet.number: life.packets[0].number for life in others for packet in life.packets}
    found: Parts = {}
    for point in points:
        if point.step and point.number in first and point.step.record != first[point.number]:
            found.setdefault(evidence.name(point._replace(points=points)), []).append(point.number)
    return found
