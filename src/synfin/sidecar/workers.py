"""Trackers on live inputs, each with a thread of its own: a worker has a ring that it empties and a tracker that it feeds.

The kernel gives every packet to the ring of its connection's worker (sources/fanout.py), so that the trackers share nothing.
What they finish goes to the thread that calls, by one queue: blocks of rows, and parts of the interval table, which are
merged (`IntervalMerge`): a row is final when every worker's clock has passed it. A worker is never more than _CREDIT
blocks ahead of those who take them; what it cannot hand over yet stays in its tracker's block. Beyond that it waits, and its
ring fills, which the kernel counts.

All waiting is done in queues made in C: a signal may break off the calling thread anywhere, and no lock stays taken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from synfin._core.batch import PacketBatch
from synfin._core.merging import IntervalMerge
from synfin._core.tracker import Tracker
from synfin.errors import SynfinError
from synfin.run import Outcome
from synfin.sidecar.snapshot import WorkerSnapshot
from synfin.sources.losses import LiveReport
from synfin.workers import combined

if TYPE_CHECKING:
    from synfin._core.block import Block
    from synfin.settings import Settings
    from synfin.sources.live import LiveInput

_CREDIT = 6  # messages that a worker may be ahead
_AT_ONCE = 3  # messages that it has when it hands over: rows of each table, or parts of intervals
_TICK_S = 0.25  # the calling thread does not wait longer without a look at what else is due
_HAND_OVER_S = 1.0  # so often a worker tells what it has, however little
_JOIN_S = 5.0
_HOUR_NS = 3600 * 10**9


class _GivenUp(Exception):
    """The calling thread takes nothing any more."""


class Worker:
    """One ring, one tracker, one thread.

    Attributes
    ----------
    published : what it was like about a second ago; replaced as a whole.
    interim_ns : how old a connection must be to be written as it stands, and how often; None for never. May be set at
        any time.
    has_room : whether interim rows may be made now, so that they keep no others from being written. Likewise.
    """

    def __init__(
        self,
        number: int,
        source: LiveInput,
        tracker: Tracker,
        *,
        interval_tables: Sequence[str],
        several: bool,
        inbox: SimpleQueue,
    ):
        self.number = number
        self.source = source
        self.interim_ns: int | None = None
        self.has_room: Callable[[], bool] = lambda: True
        self.credit: SimpleQueue[None] = SimpleQueue()
        self.last_clock: SimpleQueue[int | None] = SimpleQueue()
        self.given_up = False
        self._tracker = tracker
        self._tables = ("flows", "interim", *(() if several else interval_tables))
        self._several = several
        self._inbox = inbox
        self._drops: int | None = None
        self._due = 0.0
        tracker.names(list(source.files), list(source.interfaces))
        self._tell_losses()
        self.published = self._snapshot()
        for _ in range(_CREDIT):
            self.credit.put(None)
        self.thread = threading.Thread(target=self._serve, name=f"synfin-worker-{number}", daemon=True)

    def _serve(self) -> None:
        try:
            self._track_input()
            clock = self._tracker.stats()["clock_ns"]
            self._inbox.put(("ended", self.number, clock))
            self._finish(self.last_clock.get())
            self._inbox.put(("done", self.number))
        except _GivenUp:
            pass
        except BaseException as error:
            self._inbox.put(("error", self.number, error))

    def _track_input(self) -> None:
        batch = PacketBatch()
        source, tracker = self.source, self._tracker
        while source.fill(batch) and not self.given_up:
            while not (tracker.feed(batch) if len(batch) else tracker.advance(source.idle_clock_ns)):
                self._hand_over(force=False)
            self._tell_losses()
            now = time.monotonic()
            if now >= self._due:
                self._due = now + _HAND_OVER_S
                self.published = self._snapshot()
                # Without credit there is no hurry: the next full block waits for it.
                if self.credit.qsize() >= _AT_ONCE:
                    self._hand_over(force=True)
            if (period_ns := self.interim_ns) is not None:
                self._write_interim(period_ns)
        self._tell_losses()

    def _finish(self, clock_ns: int | None) -> None:
        tracker = self._tracker
        while clock_ns is not None and not tracker.advance(clock_ns):
            self._hand_over(force=False)
        while not tracker.finish():
            self._hand_over(force=False)
        self._hand_over(force=True)
        self.published = self._snapshot()

    def _hand_over(self, force: bool) -> None:
        for table in self._tables:
            while (block := self._tracker.take(table, force)) is not None:
                self._tell("rows", table, block)
        if self._several and ((parts := self._tracker.take_parts()) or force):
            self._tell("parts", parts, self._tracker.interval)

    def _write_interim(self, period_ns: int) -> None:
        # Which records are due the tracker knows; it looks at some of them at a time. The last of the credit is for others.
        if self.credit.qsize() >= _AT_ONCE and self.has_room():
            self._tracker.interim(period_ns)
            if (block := self._tracker.take("interim")) is not None:
                self._tell("rows", "interim", block)

    def _tell(self, *message: object) -> None:
        self.credit.get()
        if self.given_up:
            raise _GivenUp
        kind, *what = message
        self._inbox.put((kind, self.number, *what))

    def _tell_losses(self) -> None:
        drops = self.source.drops
        if drops != self._drops:
            self._tracker.add_drops(drops - (self._drops or 0))
            self._drops = drops

    def _snapshot(self) -> WorkerSnapshot:
        return WorkerSnapshot.take(self.number, self._tracker, self.source)


class LiveWorkers:
    """All workers of a live run, with what a summary asks of a run (`synfin.run.Run`).

    Parameters
    ----------
    sources : one for each worker; they are closed by `close`.
    settings, flow_columns, interval_columns, services : as for Tracker. A cap on connections is divided among the workers.
    tick : called by `blocks` at least every quarter of a second.

    Attributes
    ----------
    interim_ns : as of Worker.
    """

    def __init__(
        self,
        sources: Sequence[LiveInput],
        settings: Settings,
        *,
        flow_columns: Sequence[str] | None = None,
        interval_columns: Sequence[str] | None = None,
        services: Sequence[tuple[str, int]] = (),
        tick: Callable[[], None] | None = None,
    ):
        self.settings = settings
        self.files: list[str] = []
        self.interfaces = list(sources[0].interfaces)
        self.bytes_total = None
        self.tick = tick
        self._wanted = dict.fromkeys((*settings.tables, "interim"), True)
        self._wanted |= {"flows": flow_columns != [], "intervals": interval_columns != []}
        tables = settings.tables[1:]  # the interval table, and what there is of it by key
        self._inbox: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        several, share = len(sources) > 1, settings
        self._merge = None
        if several:
            knows = settings.duplicates != "keep"
            self._merge = IntervalMerge(len(sources), settings.interval, interval_columns, knows, True, settings.top)
            self._merge.next_round(True)  # drops are known of a ring
            self._merged = self._merge.stats()
            if settings.max_flows is not None:
                share = replace(settings, max_flows=settings.max_flows // len(sources))
        count = len(sources)
        trackers = [Tracker(share, flow_columns, interval_columns, several=count, services=services) for _ in sources]
        self.workers = [
            Worker(number, source, tracker, interval_tables=tables, several=several, inbox=self._inbox)
            for number, (source, tracker) in enumerate(zip(sources, trackers, strict=True))
        ]
        self._reached: list[int | None] = [None] * len(sources)
        self._clocks: dict[int, int | None] = {}
        self._running = len(sources)
        self._failure: SynfinError | None = None
        self._started = self._stopped = self._closed = False

    @property
    def source(self) -> LiveWorkers:
        """Itself, for `summarize`. Kept as an attribute, it would keep all memory of the run until a search for circles."""
        return self

    tracker = source

    @property
    def interim_ns(self) -> int | None:
        """How old a connection must be to be written as it stands, and how often; None for never."""
        return self.workers[0].interim_ns

    @interim_ns.setter
    def interim_ns(self, value: int | None) -> None:
        for worker in self.workers:
            worker.interim_ns = value

    def ask_for_room(self, has_room: Callable[[], bool]) -> None:
        """Make interim rows only while `has_room()`, which every worker's thread asks."""
        for worker in self.workers:
            worker.has_room = has_room

    def start(self) -> None:
        """Start the threads. Privileges are dropped before that, since each thread has its own."""
        if not self._started:
            self._started = True
            for worker in self.workers:
                worker.thread.start()

    def blocks(self) -> Iterator[tuple[str, Block]]:
        """Finished rows as (table, block), those of one worker in the order in which they became final. To be iterated
        once.

        Raises
        ------
        SynfinError : a worker failed. All rows of the others came before, and those that it had handed over.
        """
        try:
            self.start()
            while self._running:
                try:
                    message = self._inbox.get(timeout=_TICK_S)
                except Empty:
                    message = None
                if message is not None:
                    yield from self._take(*message)
                if self.tick:
                    self.tick()
            yield from self._intervals()
            if self._failure:
                raise self._failure
        finally:
            self.close()

    def _take(self, kind: str, number: int = 0, *what: Any) -> Iterator[tuple[str, Block]]:
        if kind == "error":
            # The others end in order, and their rows come first.
            self.fail(f"worker {number}", what[0])
            self._end(number, None)
            self._done(number)
        elif kind == "rows":
            if self._wanted[what[0]]:
                yield what
        elif kind == "parts":
            yield from self._merge_parts(number, *what)
        elif kind == "ended":
            self._end(number, *what)
        elif kind == "done":
            self._done(number)
        if kind in ("rows", "parts"):
            self.workers[number].credit.put(None)

    def _merge_parts(self, number: int, parts: bytes, interval: int | None) -> Iterator[tuple[str, Block]]:
        assert self._merge is not None
        if parts:
            self._merge.add(number, parts)
        self._reached[number] = interval
        if interval is None:
            # It has had no packet, and the first will not come before what others had reached before it said so; less
            # one interval, since a packet may wait for its block.
            told = [reached for reached in self._reached if reached is not None]
            interval = min(told) - 1 if told else None
        if interval is not None:
            self._merge.reach(number, interval)
        yield from self._intervals()

    def _intervals(self) -> Iterator[tuple[str, Block]]:
        if self._merge is None:
            return
        whole = False
        while not whole:
            whole = self._merge.settle()
            for table in self.settings.tables[1:]:
                block = self._merge.take(table, True)
                if block is not None and self._wanted[table]:
                    yield table, block
        self._merged = self._merge.stats()

    def _end(self, number: int, clock_ns: int | None) -> None:
        # All end at one time, and at one clock, so that the last rows of the interval table are of the same instant.
        self._clocks[number] = clock_ns
        self.stop()
        if len(self._clocks) < len(self.workers):
            return
        latest = max((clock for clock in self._clocks.values() if clock is not None), default=None)
        for worker in self.workers:
            own = self._clocks[worker.number]
            together = own is not None and latest is not None and latest - own < _HOUR_NS  # else the clock was set back
            worker.last_clock.put(latest if together else None)

    def _done(self, number: int) -> None:
        self._running -= 1
        if self._merge:
            self._merge.end(number)

    def wake(self) -> None:
        """Let `blocks` call its tick soon. For signal handlers."""
        self._inbox.put(("wake",))

    def stop(self) -> None:
        """End the run in order: no further packet is taken. For signal handlers, too."""
        if not self._stopped:
            self._stopped = True
            for worker in self.workers:
                worker.source.stop()

    @property
    def is_ending(self) -> bool:
        """Whether no further packet is taken: rows may then wait, and no packet is lost by it."""
        return self._stopped

    def fail(self, who: str, error: Exception) -> None:
        """The run's outcome is that `who` met this error, unless another came first."""
        self._failure = self._failure or _failure(who, error)

    def close(self) -> None:
        """End the threads and close the inputs. No row comes after that."""
        if self._closed:
            return
        self._closed = self._stopped = True
        for worker in self.workers:
            worker.given_up = True
            worker.credit.put(None)
            worker.last_clock.put(None)
        for worker in self.workers:
            if worker.thread.ident is not None:
                worker.thread.join(_JOIN_S)
        self._report, self._bytes = self.report, self.bytes_read
        for worker in self.workers:
            if not worker.thread.is_alive():  # else its ring is still being read
                worker.source.close()

    def stats(self) -> dict[str, Any]:
        """As `Tracker.stats`, about a second old while the run goes on. For any thread."""
        parts = [worker.published.stats for worker in self.workers]
        if self._merge is None:
            return parts[0]
        caps = [part["cap"] for part in parts]
        total = combined([{**part, "cap": None} for part in parts])
        return total | self._merged | {"cap": None if None in caps else sum(caps)}

    @property
    def drops(self) -> int:
        """Packets that the kernel dropped so far because a ring was full."""
        return sum(worker.source.drops for worker in self.workers)

    @property
    def interface_up(self) -> dict[str, bool]:
        """Whether each interface is there and up, for every worker."""
        known = [worker.published.interface_up for worker in self.workers]
        return {name: all(up.get(name, True) for up in known) for name in self.interfaces}

    @property
    def bytes_read(self) -> int:
        """Captured bytes so far."""
        return self._bytes if self._closed and hasattr(self, "_bytes") else sum(w.source.bytes_read for w in self.workers)

    @property
    def report(self) -> LiveReport:
        """What happened on the interfaces; final when `blocks` is exhausted."""
        if self._closed and hasattr(self, "_report"):
            return self._report
        return LiveReport.together([worker.source.report for worker in self.workers])

    @property
    def outcome(self) -> Outcome:
        """How the run ended, once it has."""
        if self._failure:
            return Outcome(False, str(self._failure))
        return Outcome(True) if self._running and not self._closed else Outcome.of(self.report)


def _failure(who: str, error: Exception) -> SynfinError:
    if isinstance(error, SynfinError):
        return error
    failure = SynfinError(f"{who} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
