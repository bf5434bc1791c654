"""Progress on standard error while a run goes on; nothing where that is no terminal."""

from __future__ import annotations

import io
import sys
import time
from types import TracebackType
from typing import Any

_REFRESH_S = 0.25


class Progress:
    """Bytes, packets, packets per second, live connections and time left. Call `tick` as often as you like."""

    def __init__(self, enabled: bool | None = None):
        self._enabled = sys.stderr.isatty() if enabled is None else enabled
        self._bar: Any = None
        self._next = 0.0
        self._started = 0.0
        self._run: Any = None

    def load(self) -> None:
        """Load now what is else loaded with the first numbers: a live run may have no right to read it by then."""
        if self._enabled:
            from rich.console import Console

            console = Console(file=io.StringIO(), force_terminal=True)
            with self._made(console):
                pass

    def watch(self, run: Any) -> None:
        """Begin to show a run."""
        self._run = run
        self._started = time.monotonic()
        self._next = self._started + _REFRESH_S  # a short run shows nothing

    def tick(self) -> None:
        """Show the current numbers if it is time."""
        if not self._enabled or (now := time.monotonic()) < self._next:
            return
        self._next = now + _REFRESH_S
        if self._bar is None:
            self._start()
        source, stats = self._run.source, self._run.tracker.stats()
        self._bar.update(
            self._task,
            completed=source.bytes_read,
            total=source.bytes_total,
            packets=f"{stats['packets']:,}",
            speed=f"{stats['packets'] / (now - self._started):,.0f}",
            live=f"{stats['live']:,}",
        )

    def _start(self) -> None:
        from rich.console import Console

        self._bar = self._made(Console(stderr=True))
        self._bar.start()

    def _made(self, console: Any) -> Any:
        # A bar, not started yet.
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            BarColumn(bar_width=16),
            DownloadColumn(),
            TextColumn("{task.fields[packets]} packets, {task.fields[speed]}/s, {task.fields[live]} live"),
            TimeRemainingColumn(compact=True),
        )
        bar = Bar(*columns, console=console, transient=True)
        self._task = bar.add_task("", total=None, packets="0", speed="0", live="0")
        return bar

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
