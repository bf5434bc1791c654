"""Two tools' connections side by side: what is compared, what is equal, and every difference.

A tool may cut a pair of ends into connections in other places than synfin. Counts, and the first and last instant, are
therefore compared as sums over the pair; whatever belongs to one connection only where both begin and end with the same
packets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from synfin.verify.lives import ENDS, WHOLE, Life, Pair, by_pair


class Column(NamedTuple):
    """What is compared: its name, and each side's value by way (0, 1) or of the whole life (None)."""

    name: str
    ours: str
    theirs: str
    each_way: bool
    per_pair: bool = False  #: as a sum (or the smallest and largest instant) over the pair of ends


def same(names: str, each_way: bool, per_pair: bool = False) -> list[Column]:
    """Columns that both sides call by the column's name."""
    return [Column(name, name, name, each_way, per_pair) for name in names.split()]


TSHARK_COLUMNS = (
    *same("packets payload_bytes syn synack", each_way=True, per_pair=True),
    Column("fin", "fin_count", "fin_count", True, True),
    Column("rst", "rst_count", "rst_count", True, True),
    *same("first_seen last_seen", each_way=False, per_pair=True),
    *same("isn mss window_scale sack_permitted timestamps", each_way=True),
    Column("syn_time", "syn_first", "syn_first", False),
    Column("synack_time", "synack_first", "synack_first", False),
    Column("fin_time", "fin", "fin", True),
    Column("rst_time", "rst_seen", "rst_seen", False),
    Column("rtt_handshake", "rtt_handshake_ns", "initial_rtt", False),
    Column("wireshark_initial_rtt", "wireshark_initial_rtt_ns", "initial_rtt", False),
    Column("wireshark_completeness", "wireshark_completeness", "completeness", False),
    Column("retransmitted", "retransmitted_segments", "retransmitted", True),
    Column("out_of_order", "out_of_order_segments", "out_of_order", True),
    *same("keep_alives zero_windows duplicate_acks", each_way=True),
)

#: Beside the slow tracker, every column of an end and of the whole row is the same by definition.
SLOW_COLUMNS = (
    *(Column(name, name, name, True, name in ("packets", "payload_bytes")) for name in ENDS),
    *(Column(name, name, name, False) for name in WHOLE),
)


@dataclass
class Difference:
    """One value on which the two do not agree. ``way`` is the sender's place in ``pair``, None for both ends' value."""

    column: str
    pair: Pair
    way: int | None
    ours: Any
    theirs: Any
    mine: list[Life]
    others: list[Life]
    parts: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)  #: (class, packet numbers), see classes.py

    @property
    def explained(self) -> bool:
        return bool(self.parts) and all(name != "unexplained" for name, _ in self.parts)


@dataclass
class Joined:
    """The comparison of one capture with one tool."""

    tool: str
    mine: int = 0  #: synfin's records
    others: int = 0  #: the tool's connections
    matched: int = 0
    compared: Counter[str] = field(default_factory=Counter)
    equal: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    def add(self, other: Joined) -> None:
        """Another capture's comparison with the same tool."""
        for name in ("mine", "others", "matched"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.compared += other.compared
        self.equal += other.equal
        self.differences += other.differences


def join(tool: str, columns: tuple[Column, ...], mine: list[Life], others: list[Life]) -> Joined:
    """Compare all connections of a capture."""
    joined = Joined(tool, len(mine), len(others))
    ours, theirs = by_pair(mine), by_pair(others)
    for pair in sorted(ours.keys() | theirs.keys()):
        _join_pair(joined, columns, pair, ours.get(pair, []), theirs.get(pair, []))
    return joined


def _join_pair(joined: Joined, columns: tuple[Column, ...], pair: Pair, mine: list[Life], others: list[Life]) -> None:
    for column in columns:
        if column.per_pair:
            _compare(joined, column, pair, mine, others)
    matches, lone_mine, lone_others = match(mine, others)
    joined.matched += len(matches)
    for record, stream in matches:
        for column in columns:
            if not column.per_pair:
                _compare(joined, column, pair, [record], [stream])
    if mine and others and (lone_mine or lone_others):
        joined.differences.append(Difference("border", pair, None, len(mine), len(others), lone_mine, lone_others))


def match(mine: list[Life], others: list[Life]) -> tuple[list[tuple[Life, Life]], list[Life], list[Life]]:
    """Which of ours is which of theirs; a lone one of each is taken for the same."""
    if len(mine) == len(others) == 1:
        return [(mine[0], others[0])], [], []
    matches, left = [], list(others)
    for record in mine:
        found = next((stream for stream in left if record.same_as(stream)), None)
        if found:
            matches.append((record, found))
            left.remove(found)
    taken = {id(record) for record, _ in matches}
    return matches, [record for record in mine if id(record) not in taken], left


def _compare(joined: Joined, column: Column, pair: Pair, mine: list[Life], others: list[Life]) -> None:
    for way in (0, 1) if column.each_way else (None,):
        ours, theirs = value(column, column.ours, way, mine), value(column, column.theirs, way, others)
        if ours is Ellipsis or theirs is Ellipsis:
            continue
        joined.compared[column.name] += 1
        if ours == theirs:
            joined.equal[column.name] += 1
        else:
            joined.differences.append(Difference(column.name, pair, way, ours, theirs, mine, others))


def value(column: Column, name: str, way: int | None, lives: list[Life]) -> Any:
    """The value of one column; Ellipsis where the tool does not give it."""
    places = [life.whole if way is None else life.ways[way] for life in lives]
    if not column.per_pair:
        return places[0].get(name, ...)
    if any(name not in place for place in places):
        return ...
    together: Callable[..., Any] = {"first_seen": min, "last_seen": max}.get(name, sum)
    return together([place[name] for place in places]) if places or together is sum else None
