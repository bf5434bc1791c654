"""One run: the driver that joins a source of packets and a tracker, and hands on finished blocks of rows.

Nothing here knows Arrow, files of rows, or a terminal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from synfin.errors import CaptureFormatError, ConfigError
from synfin.settings import Selection, Settings

if TYPE_CHECKING:
    from synfin._core.batch import PacketBatch
    from synfin._core.block import Block
    from synfin.sources.report import InputReport
    from synfin.workers import Workers

MOST_WORKERS = 64
_MOST_BY_DEFAULT = 8  # what one thread that frames keeps busy (docs/performance.md, Workers)
_SMALL_BYTES = 1 << 24  # one worker is done with it before several pay


def choose_workers(asked: int | None, bytes_total: int | None, settings: Settings) -> int:
    """How many workers to track on: as many as `asked`, or None for as many as help, never more than cores.

    `bytes_total` is the size of the input, None where nobody knows. What a cap takes next depends on all connections,
    so it needs one worker. Raises ConfigError for a number out of range, and for a cap with several.
    """
    capped = settings.max_flows or settings.max_memory
    if capped and asked is not None and asked > 1:
        raise ConfigError("a cap on connections or memory (--max-flows, --max-memory) needs --workers 1")
    if capped:
        return 1
    if asked is None:
        if bytes_total is not None and bytes_total < _SMALL_BYTES:
            return 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, _MOST_BY_DEFAULT)
    if not 1 <= asked <= MOST_WORKERS:
        raise ConfigError(f"workers must be between 1 and {MOST_WORKERS}, not {asked}")
    return asked


class Source(Protocol):
    """Where packets come from: the border between the input and the tracker.

    A source (`synfin.sources.captures.CaptureInput`, `synfin.sources.live.LiveInput`) knows files, devices and their
    clocks; the tracker knows none of them. What crosses the border is a batch of packets, each with the input clock
    that it brings (`PacketRef` of types.pxd), and, where no packet comes, the clock alone. So nothing in the tracker
    tells a live run from the run of a capture, and both give the same rows.

    Attributes
    ----------
    files, interfaces : names by a packet's file_id and interface_id.
    bytes_read, bytes_total : bytes taken so far, and how many there are (None where nobody knows).
    drops : packets lost so far before the source could take them; None where it cannot know.
    outside : packets so far that the source read and left out, because they lie outside the window of time.
    idle_clock_ns : the input clock (ns since 1970) to which an empty batch stands.
    report : what was found about the input so far.
    """

    files: list[str]
    interfaces: list[str]
    drops: int | None

    @property
    def outside(self) -> int: ...
    @property
    def bytes_read(self) -> int: ...
    @property
    def bytes_total(self) -> int | None: ...
    @property
    def idle_clock_ns(self) -> int: ...
    @property
    def report(self) -> InputReport: ...

    def fill(self, batch: PacketBatch) -> bool:
        """Replace the batch's packets by the next ones; False when the input has ended.

        Their bytes belong to the source and stay as they are until the next call of `fill` or `close`: to ask for the
        next batch is to say that this one has been tracked. An empty batch means that nothing has come for a while;
        capture time has then reached `idle_clock_ns` all the same.
        """

    def close(self) -> None:
        """Let go of everything. The packets of the last batch are void afterwards."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `path` and `offset` (bytes, after decompression) name the first place where it went wrong."""

    complete: bool
    reason: str | None = None
    path: str | None = None
    offset: int | None = None

    @classmethod
    def of(cls, report: InputReport) -> Outcome:
        """What a source's report comes to, where nothing else broke the run off."""
        if not report.failed:
            return cls(True)
        damaged = [broken for broken in report.broken if broken.kind != "truncated"]
        first = (damaged or report.broken)[0]
        return cls(False, f"{first.kind}: {first.reason}", first.path, first.offset)

    def error(self) -> CaptureFormatError:
        """The same as an exception."""
        return CaptureFormatError(f"{self.place}: {self.reason}", self.path, self.offset)

    @property
    def place(self) -> str:
        """File and byte offset as people read them; empty where no file is to blame."""
        return (self.path or "") + ("" if self.offset is None else f", byte {self.offset:,}")


class Run:
    """One pass of a source through a tracker.

    Parameters
    ----------
    source : where packets come from; the run closes it.
    settings : how to track.
    flow_columns, interval_columns : names of the columns to fill; None for all but the optional ones, empty for no
        such table.
    filter : gives the BPF program for a link type (`synfin.sources.filter.Filter`); packets that it rejects are skipped.
    selection : records whose packets the tracker is to tell (`Tracker.selected`).
    tick : called after every batch of packets.
    workers : how many cores to track on (`synfin.workers`). With several, rows come in another order. A selection, and a
        source that waits for packets (live), have one.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        *,
        flow_columns: Sequence[str] | None = None,
        interval_columns: Sequence[str] | None = None,
        filter: Callable[[int], bytes] | None = None,
        selection: Selection | None = None,
        tick: Callable[[], None] | None = None,
        workers: int = 1,
    ):
        self.source = source
        self.settings = settings
        self.tick = tick
        self.interrupted = False
        wanted = {"flows": flow_columns, "intervals": interval_columns}
        self.tables = [table for table in settings.tables if wanted.get(table) is None or wanted[table]]
        flows, intervals = (None if columns is None else list(columns) for columns in wanted.values())
        self._workers: Workers | None = None
        if workers > 1 and selection is None:
            from synfin.workers import Workers

            self.tracker = self._workers = Workers(workers, settings, flows, intervals, filter)
        else:
            from synfin._core.tracker import Tracker

            self.tracker = Tracker(settings, flows, intervals, filter, selection)
        self._interfaces_told = -1
        self.report = source.report  #: what was found about the input so far; final once `blocks` is exhausted
        self.bytes_read = 0  #: likewise
        self._reading = self._all_read = False
        self._outside_told = 0
        self._drops_told: int | None = None
        self._tell_losses()

    def stop(self) -> None:
        """End the run as if the input ended here. Made for a signal handler: a read that blocks is broken off. Once all is
        read, there is nothing to break off.
        """
        self.interrupted = not self._all_read
        if self._reading:
            raise KeyboardInterrupt

    def blocks(self) -> Iterator[tuple[str, Block]]:
        """Finished rows as (table, block), in the order in which they became final. To be iterated once."""
        from synfin._core.batch import PacketBatch

        batch = PacketBatch()
        try:
            while not self.interrupted and self._fill(batch):
                while not self.track(batch):
                    yield from self._take(force=False)
                self._tell_losses()
                if self.tick:
                    self.tick()
            self._all_read = not self.interrupted
            self._tell_losses()
            while not self.tracker.finish():
                yield from self._take(force=False)
            yield from self._take(force=True)
        finally:
            # Closing forgets what was going on in files that are still open (after an interruption).
            self.report, self.bytes_read = self.source.report, self.source.bytes_read
            if self._workers:
                self._workers.close()
            self.source.close()

    def track(self, batch: PacketBatch) -> bool:
        """Track one batch. False when finished rows must be taken first; then the same batch goes on where it stopped."""
        return self.tracker.feed(batch) if len(batch) else self.tracker.advance(self.source.idle_clock_ns)

    def _tell_losses(self) -> None:
        # Packets that came in no batch: in the source, and before it. From the first time that the source knows of drops,
        # the interval table says how many, also where there are none.
        if (outside := self.source.outside) > self._outside_told:
            self.tracker.add_outside(outside - self._outside_told)
            self._outside_told = outside
        drops = self.source.drops
        if drops is not None and drops != self._drops_told:
            self.tracker.add_drops(drops - (self._drops_told or 0))
            self._drops_told = drops

    def _fill(self, batch: PacketBatch) -> bool:
        try:
            self._reading = True
            more = self.source.fill(batch)
            self._reading = False
            self._tell_names()
            return more
        except KeyboardInterrupt:
            self._reading = False
            if not self.interrupted:  # not from `stop`: the caller's own
                raise
            return False

    def _tell_names(self) -> None:
        # Whoever tracks these packets may finish rows of them at any time from now on.
        if len(self.source.interfaces) != self._interfaces_told:
            self.tracker.names(list(self.source.files), list(self.source.interfaces))
            self._interfaces_told = len(self.source.interfaces)

    def _take(self, force: bool) -> Iterator[tuple[str, Block]]:
        for table in self.settings.tables:
            while (block := self.tracker.take(table, force)) is not None:
                if table in self.tables:
                    yield table, block

    @property
    def outcome(self) -> Outcome:
        """How the run ended; meaningful once `blocks` is exhausted."""
        if self.interrupted:
            return Outcome(False, "interrupted")
        return Outcome.of(self.report)


def accounting(stats: dict[str, Any]) -> dict[str, int]:
    """The accounting identity of a run: `packets` is the sum of everything else."""
    skips = {name: count for name, count in stats["skips"].items() if count}
    return {"packets": stats["packets"], "in_records": stats["packets_in_records"], **skips}
