"""Several trackers on one input, side by side: what `Run` drives in place of one Tracker.

The thread that calls frames the input and gives every packet to the tracker of its addresses and ports, in rounds. A round
is a stretch of the input; at its end each tracker is told the input clock, whether it got packets or not. So the trackers
share nothing, and their rows are those of one tracker. Their parts of the interval table are merged (`IntervalMerge`).

As many threads as workers take turns at the trackers: those made here, and the thread that calls whenever all rounds are
on their way. So no core waits for one that frames, and framing stands in no tracker's way. A tracker belongs to the thread
that holds its lock, which nobody waits for.

Rounds are collected one after another, and within a round the trackers in a fixed order, so that a number of workers gives
the same order of rows in every run, whichever thread did what. All waiting is done in queues made in C: a signal may break
off the calling thread anywhere, and nobody waits for what it held.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from synfin._core.merging import IntervalMerge
from synfin._core.route import Round, Router
from synfin._core.tracker import Tracker

if TYPE_CHECKING:
    from synfin._core.batch import PacketBatch
    from synfin._core.block import Block
    from synfin.settings import Settings

_ROUNDS = 4  # one that is filled, and three on their way
_CREDIT = 1  # blocks of rows, or of parts of intervals, that a tracker may be ahead of those who take them


class Workers:
    """Trackers that work side by side, with the methods of one.

    Parameters
    ----------
    count : how many.
    settings, flow_columns, interval_columns, filter : as for Tracker.
    """

    def __init__(
        self,
        count: int,
        settings: Settings,
        flow_columns: Sequence[str] | None = None,
        interval_columns: Sequence[str] | None = None,
        filter: Callable[[int], bytes] | None = None,
    ):
        # Whatever bounds the memory of a run is to be divided here: a worker takes a `count`-th of the connections.
        self._trackers = [
            Tracker(settings, flow_columns, interval_columns, _one_at_a_time(filter), several=count)
            for _ in range(count)
        ]
        self._router = Router(count, not self._trackers[0].headers_suffice, filter is not None)
        knows_duplicates = settings.duplicates != "keep"
        self._merge = IntervalMerge(count, settings.interval, interval_columns, knows_duplicates, top=settings.top)
        self._free = [Round(count) for _ in range(_ROUNDS)]
        self._round: Round | None = None  # the one that is filled
        self._sent: deque[Round | None] = deque()  # to be collected; None is the end of the input
        self._drops: int | None = None  # that no round has told
        self._at = 0  # packets of the batch in hand that have gone to the workers
        self._blocks: deque[Block] = deque()
        self._names: tuple[list[str], list[str]] = [], []
        # Of each tracker: rounds it has not ended, and None for the end of the input; what it has told; what it may tell.
        self._work: list[deque[Round | None]] = [deque() for _ in range(count)]
        self._told: list[SimpleQueue] = [SimpleQueue() for _ in range(count)]
        self._credit: list[SimpleQueue] = [SimpleQueue() for _ in range(count)]
        for credit in self._credit:
            for _ in range(_CREDIT):
                credit.put(None)
        self._locks = [threading.Lock() for _ in range(count)]
        self._ready: SimpleQueue = SimpleQueue()  # trackers that may have something to do; None ends a thread
        self._threads: list[threading.Thread] = []
        self._finishing = self._closed = False

    # ------------------------------------------------------------------ the calling thread

    def names(self, files: list[str], interfaces: list[str]) -> None:
        """The texts of `first_file` and `interface` by number; those of a batch must be told before it is fed."""
        self._names = files, interfaces

    def feed(self, batch: PacketBatch) -> bool:
        """Give the packets of a batch to the trackers. Returns as `Tracker.feed` does."""
        while True:
            if not self._has_round():
                return False
            self._at, over = self._router.route(batch, self._at, self._round)
            if over:
                self._send()
            if self._at == len(batch):
                self._at = 0
                return True

    def advance(self, clock_ns: int) -> bool:
        """Nothing: the clock of captures comes with their packets."""
        return True

    def add_drops(self, count: int) -> None:
        """Count packets that the capture lost; from now on the interval table says how many."""
        self._drops = (self._drops or 0) + count
        if self._round is not None:  # which ends here; else the next one says it, without packets
            self._send()

    def add_outside(self, count: int) -> None:
        """Count packets that the source read and left out."""
        self._trackers[0].add_outside(count)

    def finish(self) -> bool:
        """End the input. Returns as `Tracker.finish` does."""
        if not self._finishing:
            if not self._has_round():
                return False
            self._finishing = True
            self._send()
            self._give(None)
        while self._sent:
            if not self._collect():
                return False
        return True

    def take(self, table: str, force: bool = False) -> Block | None:
        """A block of finished rows, or None; a worker fills its blocks of flows before it gives them."""
        if table == "flows":
            return self._blocks.popleft() if self._blocks else None
        return self._merge.take(table, force)

    def close(self) -> None:
        """Stop the threads. No row comes after that."""
        self._closed = True
        for _ in self._threads:
            self._ready.put(None)
        for thread in self._threads:
            thread.join()

    def stats(self) -> dict[str, Any]:
        """As `Tracker.stats`. While workers are busy, counts are what they have just reached."""
        total = combined([self._router.stats(), *(tracker.stats() for tracker in self._trackers)])
        total["cap"] = None  # a cap takes one worker
        return total | self._merge.stats()

    def _has_round(self) -> bool:
        # Makes sure of a round that can be filled. False when finished rows must be taken before.
        while self._round is None:
            if not self._free and not self._collect():
                return False
            self._round = self._free.pop()
            self._round.clear()
            if self._drops is not None:
                self._send()
        return True

    def _send(self) -> None:
        if self._drops is not None:
            self._round.add_drops(self._drops)
            self._drops = None
        self._give(self._round)
        self._round = None

    def _give(self, round: Round | None) -> None:
        if not self._threads:
            for _ in self._trackers[1:]:
                self._threads.append(threading.Thread(target=self._serve, daemon=True))
                self._threads[-1].start()
        self._sent.append(round)
        for which, work in enumerate(self._work):
            work.append(round)
            self._ready.put(which)

    def _collect(self) -> bool:
        # Has the oldest round tracked. False when finished rows must be taken before.
        while True:
            if not self._merge.settle():
                return False
            which = self._merge.waits_for()
            if which is None:
                break
            told = self._next_of(which)
            if isinstance(told, Exception):
                raise told
            ended, block, parts = told
            if parts:
                self._merge.add(which, parts)
            if ended:
                self._merge.end(which)
            else:
                self._credit[which].put(None)
                self._ready.put(which)
            if block is not None:
                self._blocks.append(block)
                return False
        past = self._sent.popleft()
        self._merge.next_round(past is not None and past.knows_drops)
        if past is not None:
            self._free.append(past)
        return True

    def _next_of(self, which: int) -> tuple[bool, Block | None, bytes] | Exception:
        # What a tracker tells next. Until then this thread takes its turn; it waits only while another has that tracker.
        while self._told[which].empty():
            try:
                self._attend(self._ready.get_nowait())
            except Empty:
                break
        return self._told[which].get()

    # ------------------------------------------------------------------ any of the threads

    def _serve(self) -> None:
        while (which := self._ready.get()) is not None and not self._closed:
            self._attend(which)

    def _attend(self, which: int) -> None:
        # Lets a tracker end a round, unless another thread has it. Whoever has it looks for more to do when it lets go,
        # so that nothing is left that came meanwhile.
        lock, work, waits = self._locks[which], self._work[which], False
        if not lock.acquire(blocking=False):
            return
        if work:
            try:
                waits = not self._track(which, work[0])
            except Exception as error:
                self._told[which].put(error)
                return  # with the lock: nobody shall go on
            if not waits:
                work.popleft()
        lock.release()
        if work and not (waits and self._credit[which].empty()):
            self._ready.put(which)

    def _track(self, which: int, round: Round | None) -> bool:
        # False: the rows before have not been taken; the tracker will go on where it stopped.
        tracker, told = self._trackers[which], self._told[which]
        while not (tracker.finish() if round is None else tracker.work(round, which)):
            try:
                self._credit[which].get_nowait()
            except Empty:
                return False
            told.put((False, self._rows(tracker), tracker.take_parts()))
        told.put((True, self._rows(tracker, force=True) if round is None else None, tracker.take_parts()))
        return True

    def _rows(self, tracker: Tracker, force: bool = False) -> Block | None:
        tracker.names(*self._names)
        return tracker.take("flows", force)


def _one_at_a_time(filter: Callable[[int], bytes] | None) -> Callable[[int], bytes] | None:
    # Any thread may ask for the program of a link type; libpcap compiles one at a time.
    if filter is None:
        return None
    lock = threading.Lock()

    def compiled(link_type: int) -> bytes:
        with lock:
            return filter(link_type)

    return compiled


def combined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One account (`Tracker.stats`) of those of several trackers; peaks and round trips, which are no sums, are left to
    `IntervalMerge.stats`.
    """
    total = _sum(parts)
    for name, choose in (("first_time_ns", min), ("last_time_ns", max), ("clock_ns", max), ("clock_steps", max)):
        total[name] = choose((part[name] for part in parts if part.get(name) is not None), default=None)
    return total


def _sum(parts: Sequence[Any]) -> Any:
    # Of accounts with the same names: numbers are added, what is no number is left to the caller.
    if isinstance(parts[0], dict):
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: _sum([part[name] for part in parts if name in part]) for name in names}
    return sum(part for part in parts if part is not None)
