"""What somebody who looks on has chosen, and what a key changes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from synfin.settings import NS_PER_S
from synfin.top.columns import KEY_COLUMNS
from synfin.top.history import History

T = TypeVar("T")

#: Lengths of the window between which a key changes.
WINDOWS_NS = (NS_PER_S, 10 * NS_PER_S, 60 * NS_PER_S, 300 * NS_PER_S)
_NAMES = [column.name for column in KEY_COLUMNS]
#: What a terminal sends for a key of which more than one byte comes, after ESC.
_SEQUENCE = re.compile(rb"\x1b(?:[\[O][0-9;]*([@-~]))?|(.)", re.DOTALL)
_ARROWS = {b"C": "right", b"D": "left"}
_KEYS = {
    "q": "quit", " ": "pause", "p": "pause", "r": "reverse", "w": "window", "\t": "table",
    "left": "left", "<": "left", "right": "right", ">": "right",
}  # fmt: skip


class Held(NamedTuple):
    """What is shown while it is paused: the rows, and where the window ends at the earliest."""

    history: History
    end_ns: int | None


@dataclass(frozen=True)
class Controls:
    """How the numbers are shown.

    Attributes
    ----------
    tables : by key, those that can be shown; `table` is shown.
    sort, upward : a column of it by name, and whether the lowest come first.
    windows : lengths of the window (ns), ascending; `window_ns` is in force.
    held : while it is paused.
    """

    tables: tuple[str, ...]
    table: str
    windows: tuple[int, ...] = WINDOWS_NS
    window_ns: int = 10 * NS_PER_S
    sort: str = "failed"
    upward: bool = False
    held: Held | None = None

    def after(self, action: str, now: Held) -> Controls:
        """What is chosen after an action, one of those that `actions` gives; `now` is what can be held."""
        if action == "pause":
            return replace(self, held=None if self.held else now)
        if action == "reverse":
            return replace(self, upward=not self.upward)
        if action == "window":
            return replace(self, window_ns=_next(self.windows, self.window_ns, 1))
        if action == "table":
            return replace(self, table=_next(self.tables, self.table, 1))
        return replace(self, sort=_next(_NAMES, self.sort, 1 if action == "right" else -1), upward=False)


def _next(values: Sequence[T], value: T, step: int) -> T:
    return values[(values.index(value) + step) % len(values)]


def actions(typed: bytes) -> Iterator[str]:
    """The actions that keys mean, from what the terminal sent for them; other keys mean none."""
    for match in _SEQUENCE.finditer(typed):
        key = _ARROWS.get(match[1], "") if match[2] is None else match[2].decode("latin-1")
        if action := _KEYS.get(key):
            yield action
