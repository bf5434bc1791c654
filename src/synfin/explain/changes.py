"""What the rules about segments look at: what a Step changed in the record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from synfin.explain.steps import Snapshot, Step
from synfin.output.render import duration

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

Rule = Callable[[Step], str | None]
Table = tuple[tuple[str, Rule], ...]


def distance(low: int, high: int) -> int:
    """From one sequence number to another, modulo 2**32 (RFC 9293 section 3.4)."""
    return (high - low + 2**31) % 2**32 - 2**31


def end_of(step: Step) -> int:
    """The sequence number behind a segment, its FIN included."""
    return step.segment["seq"] + step.segment["payload_bytes"] + bool(step.segment["flags"] & FIN)


def own(step: Step, name: str) -> int:
    """By how much a count of the sender's rose."""
    return step.grew(f"{step.sender}_{name}")


def mine(snapshot: Snapshot | None, step: Step) -> dict[str, Any]:
    """What a snapshot holds of the sender; nothing without one."""
    return snapshot[step.sender] if snapshot else {}


def theirs(snapshot: Snapshot | None, step: Step) -> dict[str, Any]:
    """The same of the receiver."""
    return snapshot[step.receiver] if snapshot else {}


def newly(step: Step, side: str, name: str) -> bool:
    """Whether the segment set a yes-or-no fact of one end."""
    return step.after[side][name] and not (step.before and step.before[side][name])


def seconds(ns: int) -> str:
    """A duration as people read it, with its sign."""
    return duration(ns) if ns >= 0 else f"-{duration(-ns)}"
