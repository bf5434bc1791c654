"""The log of a live run: a line for each event, as text or JSON, and never so many that they are the trouble.

Events have fixed names, and their number is that of the places in the code that log. Fields say what happened; addresses
and ports of packets, and of those who ask for metrics, are not among them.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

FORMATS = ("text", "json")
#: Lines that one event may write in a window; those beyond are counted, and the count is told.
BURST = 10
WINDOW_SECONDS = 60.0

Value = str | int | float | bool | None


@dataclass
class _Window:
    level: str
    began: float
    lines: int = 0
    suppressed: int = 0


class Logs:
    """Writes events to a stream.

    Parameters
    ----------
    format : "text" (`2026-07-01T12:00:00.000Z warning ring_full drops=12`) or "json", one object a line.
    stream : where to; standard error by default.
    now : gives the instant of a line, seconds since 1970.
    monotonic : gives the clock of the windows.

    Notes
    -----
    May be called by several threads. A stream that cannot be written to loses lines and troubles nobody.
    """

    def __init__(
        self,
        format: str = "text",
        stream: TextIO | None = None,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        if format not in FORMATS:
            raise ValueError(f"a log is {' or '.join(FORMATS)}, not {format!r}")
        self._render = _json if format == "json" else _text
        self._stream = sys.stderr if stream is None else stream
        self._now, self._monotonic = now, monotonic
        self._windows: dict[str, _Window] = {}
        self._lock = threading.RLock()  # a signal's handler may log while its thread does

    def info(self, event: str, **fields: Value) -> None:
        """Something that operators may want to know."""
        self._log("info", event, fields)

    def warning(self, event: str, **fields: Value) -> None:
        """Something is lost or about to be."""
        self._log("warning", event, fields)

    def error(self, event: str, **fields: Value) -> None:
        """Something does not work."""
        self._log("error", event, fields)

    def tick(self) -> None:
        """Tell what was suppressed in windows that are over. To be called now and then."""
        self._settle(self._monotonic())

    def close(self) -> None:
        """Tell all that was suppressed. The stream stays open."""
        self._settle(float("inf"))

    def _log(self, level: str, event: str, fields: dict[str, Value]) -> None:
        with self._lock:
            clock = self._monotonic()
            self._settle(clock)
            window = self._windows.setdefault(event, _Window(level, clock))
            if window.lines >= BURST:
                window.suppressed += 1
                return
            window.lines += 1
            self._write(level, event, fields)

    def _settle(self, clock: float) -> None:
        with self._lock:
            for event, window in list(self._windows.items()):
                if clock - window.began < WINDOW_SECONDS:
                    continue
                del self._windows[event]
                if window.suppressed:
                    self._write(window.level, event, {"suppressed": window.suppressed})

    def _write(self, level: str, event: str, fields: dict[str, Value]) -> None:
        instant = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        try:
            self._stream.write(self._render(instant, level, event, fields) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: it is closed
            pass


def _json(instant: str, level: str, event: str, fields: dict[str, Value]) -> str:
    # What the line itself says comes first and cannot be replaced by a field.
    line = {"time": instant, "level": level, "event": event}
    return json.dumps(line | {name: value for name, value in fields.items() if name not in line}, default=str)


def _text(instant: str, level: str, event: str, fields: dict[str, Value]) -> str:
    return " ".join([instant, level, event, *(f"{name}={_plain(value)}" for name, value in fields.items())])


def _plain(value: Value) -> str:
    # Quoted where it would not read back as one word; control characters never reach the terminal.
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    text = str(value)
    if text and text.isascii() and text.isprintable() and not set(text) & set(' "=\\'):
        return text
    return json.dumps(text)
