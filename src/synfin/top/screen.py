"""The terminal: keys that are read one by one, a picture that is drawn again when something changes, and all as it was after it."""

from __future__ import annotations

import io
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

import pyarrow as pa
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from synfin.errors import SynfinError
from synfin.top.controls import Controls, Held, actions
from synfin.top.figures import Ranking, figures, ranked
from synfin.top.history import History
from synfin.top.view import Facts, frame

_LOOK_S = 1.0  # how often a folder is looked at
_DRAW_S = 0.5  # how often the numbers change: several tables' rows come each second
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: An interface is listened to for the window and so long, for rows that come late.
_ALLOWANCE_S = 5.0


class Feed(Protocol):
    """Where rows come from (`synfin.top.folder.Folder` says what each of these is)."""

    name: str
    fd: int | None

    @property
    def end_ns(self) -> int | None: ...
    @property
    def notice(self) -> str: ...
    def take(self) -> list[tuple[str, pa.Table]]: ...
    def close(self) -> None: ...


class View:
    """The rows that have come, what was chosen, and the lines that follow from both."""

    def __init__(self, feed: Feed, controls: Controls, keep_ns: int):
        self._feed = feed
        self._controls = controls
        self._history = History(keep_ns)

    def take(self) -> None:
        """Take what has come. Raises SynfinError where the input ended."""
        for table, rows in self._feed.take():
            self._history = self._history.with_rows(table, rows)

    def act(self, action: str) -> None:
        """Do what a key means."""
        self._controls = self._controls.after(action, self._now())

    @property
    def span_ns(self) -> int:
        """How much of the window is known."""
        known = figures(self._history, self._controls.window_ns, self._feed.end_ns)
        return known.span_ns if known else 0

    def lines(self, width: int, height: int, keys: bool = True) -> list[Text]:
        """What a terminal of this size shows."""
        controls = self._controls
        shown = controls.held or self._now()
        of = figures(shown.history, controls.window_ns, shown.end_ns)
        by_key = Ranking([])
        if of is not None:
            by_key = ranked(shown.history, controls.table, of, controls.sort, height, upward=controls.upward)
        facts = Facts(self._feed.name, self._feed.notice, time.time_ns())
        return frame(controls, of, by_key, facts, (width, height), keys=keys)

    def _now(self) -> Held:
        return Held(self._history, self._feed.end_ns)


def is_possible() -> bool:
    """Whether there is a terminal to draw on, and one to read keys from."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def show_once(feed: Feed, view: View, window_ns: int) -> None:
    """Print the numbers of one window: of what a folder holds, or of the time from now on.

    Raises SynfinError when there is nothing to show.
    """
    until = time.monotonic() + window_ns / 1e9 + _ALLOWANCE_S
    view.take()
    while feed.fd is not None and view.span_ns < window_ns and (left := until - time.monotonic()) > 0:
        select.select([feed.fd], [], [], left)
        view.take()
    if not view.span_ns:
        nothing = "no packets came" if feed.fd is not None else "no complete file has a row of intervals yet"
        raise SynfinError(f"{feed.name}: {feed.notice or nothing}")
    console = _console()
    for line in view.lines(console.width, console.height, keys=False):
        if console.color_system is None:
            line.rstrip()
        console.print(line)


def show(feed: Feed, view: View) -> None:
    """Draw until somebody presses q, or a signal ends it. Raises SynfinError where the input ends."""
    with _Screen() as screen:
        due = 0.0
        while not screen.ended:
            view.take()
            if (now := time.monotonic()) >= due:
                screen.draw(view.lines)
                due = now + _DRAW_S
            for action in screen.wait(feed.fd, due - now if feed.fd is not None else _LOOK_S):
                if action == "quit":
                    return
                if action != "draw":
                    view.act(action)
                due = 0.0


def _console() -> Console:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal need not know all signs
    return Console(highlight=False, soft_wrap=True)


class _Screen:
    # The terminal while it is ours: its other page, no cursor, keys without an echo.

    def __init__(self) -> None:
        self.ended = False
        self._suspended = False
        self._in = sys.stdin.fileno()
        self._console = _console()
        self._live = Live(
            console=self._console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )

    def __enter__(self) -> _Screen:
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)
        self._before = {number: signal.getsignal(number) for number in (*_ENDING, signal.SIGWINCH, signal.SIGTSTP)}
        self._fd_before = signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in self._before:
            signal.signal(number, self._act)
        self._mode = termios.tcgetattr(self._in)
        try:
            self._enter()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._woken)
        os.close(self._wake)

    def _act(self, number: int, _frame: object) -> None:
        self.ended |= number in _ENDING
        self._suspended |= number == signal.SIGTSTP

    def _enter(self) -> None:
        tty.setcbreak(self._in)
        self._live.start()

    def _leave(self) -> None:
        # A terminal that is gone needs nothing any more.
        with suppress(OSError):
            self._console.clear()  # some terminals would take what does not fit, after a new size, to the other page
            self._live.stop()
        with suppress(OSError, termios.error):
            termios.tcsetattr(self._in, termios.TCSAFLUSH, self._mode)

    def draw(self, lines: Callable[[int, int], list[Text]]) -> None:
        """Show what `lines` gives for the terminal's width and height."""
        size = os.get_terminal_size(sys.stdout.fileno())
        self._console.size = size.columns, size.lines
        self._live.update(Group(*lines(size.columns, size.lines)), refresh=True)

    def wait(self, fd: int | None, seconds: float) -> Iterator[str]:
        """Wait for rows, keys, or a signal; gives what keys mean, and `draw` after a signal."""
        wanted = [self._in, self._woken, *([] if fd is None else [fd])]
        ready, _, _ = select.select(wanted, [], [], max(seconds, 0))
        if self._woken in ready:
            with suppress(BlockingIOError):
                os.read(self._woken, 4096)
            yield "draw"
        if self._suspended:
            self._suspend()
        if self._in in ready:
            typed = os.read(self._in, 4096)
            self.ended |= not typed
            yield from actions(typed)

    def _suspend(self) -> None:
        # Ctrl-Z: the terminal is the shell's until it says to go on.
        self._suspended = False
        self._leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._act)
        self._enter()
