"""The scenarios that are made from dialogues; see tools/make_scenarios.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dialogue import Captured, Dialogue

Packets = list[Captured] | dict[str, list[Captured]]


class Scenario(NamedTuple):
    """What makes the captures, why, with which settings (fields of Settings), and the rows that must come out."""

    make: Callable[[], Packets]
    why: str
    settings: dict[str, Any]
    expect: tuple[dict[str, Any], ...]


SCENARIOS: dict[str, Scenario] = {}


def scenario(*expect: dict[str, Any], **settings: Any) -> Callable:
    """Register a scenario. Each of `expect` is a row: only the columns that it names are compared."""

    def register(make: Callable[[], Packets | Dialogue]) -> Callable:
        def packets() -> Packets:
            made = make()
            return made.packets if isinstance(made, Dialogue) else made

        name = make.__name__.replace("_", "-")
        assert name not in SCENARIOS and make.__doc__, name
        SCENARIOS[name] = Scenario(packets, make.__doc__, settings, expect)
        return make

    return register
