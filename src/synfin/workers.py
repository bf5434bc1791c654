"""Several trackers on one input, each in a thread of its own: what `Run` drives in place of one Tracker.

The thread that calls frames the input and gives every packet to the worker of its addresses and ports, in rounds. A round
is a stretch of the input; at its end each worker is told the input clock, whether it got packets or not. So the trackers
share nothing, and their rows are those of one tracker. Their parts of the interval table are merged (`IntervalMerge`).

Rounds are collected one after another, and within a round the workers in a fixed order, so that a number of workers gives
the same order of rows in every run. All waiting is done in queues made in C: a signal may break off the calling thread
anywhere, and no lock stays taken.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from synfin._core.merging import IntervalMerge
from synfin._core.route import Round, Router
from synfin._core.tracker import Tracker
from synfin.errors import SynfinError

if TYPE_CHECKING:
    from synfin._core.batch import PacketBatch
    from synfin._core.block import Block
    from synfin.settings import Settings

_ROUNDS = 4  # one that is filled, and three on their way
_CREDIT = 1  # blocks of rows, or of parts of intervals, that a worker may be ahead of those who take them


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
            Tracker(settings, flow_columns, interval_columns, _one_at_a_time(filter), one_of_several=True)
            for _ in range(count)
        ]
        self._router = Router(count, not self._trackers[0].headers_suffice, filter is not None)
        self._merge = IntervalMerge(count, settings.interval, interval_columns, settings.duplicates != "keep")
        self._free = [Round(count) for _ in range(_ROUNDS)]
        self._round: Round | None = None  # the one that is filled
        self._sent: deque[Round | None] = deque()  # to be collected; None is the end of the input
        self._drops: int | None = None  # that no round has told
        self._at = 0  # packets of the batch in hand that have gone to the workers
        self._blocks: deque[Block] = deque()
        self._names: tuple[list[str], list[str]] = [], []
        self._work: list[SimpleQueue] = [SimpleQueue() for _ in range(count)]
        self._told: list[SimpleQueue] = [SimpleQueue() for _ in range(count)]
        self._credit: list[SimpleQueue] = [SimpleQueue() for _ in range(count)]
        self._threads: list[threading.Thread] = []
        self._finishing = self._closed = False

    # ------------------------------------------------------------------ the calling thread

    def names(self, files: list[str], interfaces: list[str]) -> None:
        """The texts of `first_file` and `interface` by number; those of a batch must be told before it is fed."""
        self._names = files, interfaces

    def feed(self, batch: PacketBatch) -> bool:
        """Give the packets of a batch to the workers. Returns as `Tracker.feed` does."""
        while True:
            if not self._ready():
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
            if not self._ready():
                return False
            self._finishing = True
            self._send()
            self._sent.append(None)
            for queue in self._work:
                queue.put(None)
        while self._sent:
            if not self._collect():
                return False
        return True

    def take(self, table: str, force: bool = False) -> Block | None:
        """A block of finished rows, or None; a worker fills its blocks of flows before it gives them."""
        if table == "flows":
            return self._blocks.popleft() if self._blocks else None
        return self._merge.take(force)

    def close(self) -> None:
        """Stop the threads. No row comes after that."""
        self._closed = True
        for which, thread in enumerate(self._threads):
            self._work[which].put(None)
            self._credit[which].put(None)
            thread.join()

    def stats(self) -> dict[str, Any]:
        """As `Tracker.stats`. While workers are busy, counts are what they have just reached."""
        total = combined([self._router.stats(), *(tracker.stats() for tracker in self._trackers)])
        total["cap"] = None  # a cap takes one worker
        return total | self._merge.stats()

    def _start(self) -> None:
        if self._threads:
            return
        for which, credit in enumerate(self._credit):
            for _ in range(_CREDIT):
                credit.put(None)
            self._threads.append(threading.Thread(target=self._serve, args=(which,), daemon=True))
            self._threads[-1].start()

    def _ready(self) -> bool:
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
        self._start()
        if self._drops is not None:
            self._round.add_drops(self._drops)
            self._drops = None
        self._sent.append(self._round)
        for queue in self._work:
            queue.put(self._round)
        self._round = None

    def _collect(self) -> bool:
        # Waits until the oldest round has been tracked. False when finished rows must be taken before.
        while True:
            if not self._merge.settle():
                return False
            which = self._merge.waits_for()
            if which is None:
                break
            kind, what = self._told[which].get()
            if kind == "end":
                self._merge.end(which)
            elif kind == "error":
                raise what
            else:
                self._credit[which].put(None)
                if kind == "parts":
                    self._merge.add(which, what)
                else:
                    self._blocks.append(what)
                    return False
        past = self._sent.popleft()
        self._merge.next_round(past is not None and past.knows_drops)
        if past is not None:
            self._free.append(past)
        return True

    # ------------------------------------------------------------------ a worker's thread

    def _serve(self, which: int) -> None:
        tracker, told = self._trackers[which], self._told[which]
        try:
            while (round := self._work[which].get()) is not None and not self._closed:
                while not tracker.work(round, which):
                    self._hand_over(which)
                self._tell_parts(which)
                told.put(("end", None))
            while not self._closed and not tracker.finish():
                self._hand_over(which)
            self._hand_over(which, force=True)
            told.put(("end", None))
        except BaseException as error:
            told.put(("error", error))

    def _hand_over(self, which: int, force: bool = False) -> None:
        tracker = self._trackers[which]
        tracker.names(*self._names)
        if (block := tracker.take("flows", force)) is not None:
            self._tell(which, "block", block)
        self._tell_parts(which)

    def _tell_parts(self, which: int) -> None:
        if parts := self._trackers[which].take_parts():
            self._tell(which, "parts", parts)

    def _tell(self, which: int, kind: str, what: object) -> None:
        self._credit[which].get()
        if self._closed:
            raise SynfinError("the run was given up")
        self._told[which].put((kind, what))


def _one_at_a_time(filter: Callable[[int], bytes] | None) -> Callable[[int], bytes] | None:
    # Workers ask for the programs of link types; libpcap compiles one at a time. The calling thread takes no lock.
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
