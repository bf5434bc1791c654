"""SIGINT and SIGTERM: what ends a run in order, and what breaks it off."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """SIGTERM where nothing else handles it, as KeyboardInterrupt is SIGINT: what was begun is cleaned up."""


def break_off(number: int, _frame: object) -> None:
    """A signal handler that raises KeyboardInterrupt, or Terminated for SIGTERM."""
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def stopped_by_signal(stop: Callable[[], None]) -> Iterator[list[int]]:
    """The first SIGINT or SIGTERM ends the run in order, a second one at once. Gives the list of those that came."""
    came: list[int] = []

    def act(number: int, _frame: object) -> None:
        came.append(number)
        for each in before:
            signal.signal(each, break_off)
        stop()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, act)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
