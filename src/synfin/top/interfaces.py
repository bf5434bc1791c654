"""Interval rows of network interfaces, tracked by this process; nothing is written."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa

from synfin.errors import SynfinError
from synfin.output.arrow import Layout, compact
from synfin.sidecar import privileges
from synfin.sidecar.service import open_inputs
from synfin.sidecar.workers import LiveWorkers
from synfin.top.history import History, names, plain

if TYPE_CHECKING:
    from synfin._core.block import Block
    from synfin.sidecar.config import LiveConfig

#: Rows are handed over about once a second. An interval that capture time passed so long ago and that has none was empty.
_LATE_NS = 3_000_000_000


class _Closed(Exception):
    """Nobody takes rows any more."""


class Interfaces:
    """The interfaces of one tap, tracked from now on.

    The constructor opens the sockets, gives up all privileges but CAP_NET_RAW, and starts the threads.

    Parameters
    ----------
    config : where packets come from, and how they are tracked; its settings name the tables by key.
    keep_ns : how long rows wait to be taken, before the newest of them; no more wait than a `History` holds.

    Raises
    ------
    CaptureOpenError, ConfigError : as `synfin.sidecar.service.open_inputs` does.

    Attributes
    ----------
    fd, end_ns, notice : as of `synfin.top.folder.Folder`.
    """

    def __init__(self, config: LiveConfig, keep_ns: int):
        self.name = ", ".join(config.interfaces)
        if config.workers > 1:
            self.name += f" ({config.workers} workers)"
        settings = config.settings
        self._layouts = {table: Layout.choose(table, names(table)) for table in settings.tables[1:]}
        self._late_ns = settings.reorder + _LATE_NS
        self._interval_ns = settings.interval
        os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")  # as in synfin.sidecar.service
        inputs = open_inputs(config)
        try:
            privileges.drop(config.user)
            self._workers = LiveWorkers(
                inputs, settings, flow_columns=[], interval_columns=self._layouts["intervals"].names, tick=self._tick
            )
        except BaseException:
            for each in inputs:
                each.close()
            raise
        # A terminal that is stopped (Ctrl-S) takes no rows for as long as it likes.
        self._waiting = History(keep_ns)
        self._lock = threading.Lock()
        self._missing_ns: int | None = None  # rows that waited are missing before this
        self._error: BaseException | None = None
        self._closing = False
        self.fd, self._told = os.pipe()
        for end in (self.fd, self._told):
            os.set_blocking(end, False)
        self._thread = threading.Thread(target=self._pump, name="synfin-top", daemon=True)
        self._thread.start()

    def take(self) -> list[tuple[str, pa.Table]]:
        """New rows, by table, in the order of time.

        Raises
        ------
        SynfinError : a worker failed, or the input broke off.
        """
        with suppress(BlockingIOError):
            os.read(self.fd, 4096)
        with self._lock:
            waiting, self._waiting = self._waiting, History(self._waiting.keep_ns)
        self._missing_ns = max(waiting.cut_ns.values(), default=self._missing_ns)
        if self._error:
            raise self._error
        return list(waiting.tables.items())

    @property
    def end_ns(self) -> int | None:
        """Where the window should end at the earliest: what came before, and has no row, was empty."""
        clocks = [worker.published.clock_ns for worker in self._workers.workers]
        known = [clock for clock in clocks if clock is not None]
        return (min(known) - self._late_ns) // self._interval_ns * self._interval_ns if known else None

    @property
    def notice(self) -> str:
        """What is wrong; empty when nothing is."""
        wrong = [f"{name} is down" for name, up in self._workers.interface_up.items() if not up]
        if drops := self._workers.drops:
            wrong.append(f"{drops:,} packets dropped since the start")
        if self._missing_ns is not None and self._missing_ns > (self.end_ns or 0) - self._waiting.keep_ns:
            wrong.append("rows came faster than they were shown: older ones are missing")
        return "; ".join(wrong)

    def close(self) -> None:
        """End the threads, close the sockets."""
        self._closing = True
        self._workers.wake()
        self._thread.join()
        os.close(self.fd)
        os.close(self._told)

    def _pump(self) -> None:
        try:
            for table, block in self._workers.blocks():
                if table in self._layouts:
                    rows = self._plain(table, block)
                    with self._lock:
                        self._waiting = self._waiting.with_rows(table, rows)
                    self._tell()
            outcome = self._workers.outcome
            self._error = (
                outcome.error() if not outcome.complete else SynfinError("the interfaces gave no more packets")
            )
        except _Closed:
            return
        except BaseException as error:
            self._error = error
        self._tell()

    def _plain(self, table: str, block: Block) -> pa.Table:
        return plain(table, compact(self._layouts[table].batch(block)))

    def _tick(self) -> None:
        if self._closing:
            raise _Closed

    def _tell(self) -> None:
        with suppress(BlockingIOError):  # told already, and not heard yet
            os.write(self._told, b"\0")
