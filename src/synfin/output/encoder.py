"""Encoding in a thread of its own: tracking goes on while blocks become bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synfin._core.block import Block

#: Blocks that wait or are being encoded at most, beside the row group that a writer holds: what the row group in hand
#: takes is hidden, and the memory that a run sets aside for its output suffices (`ROWS_ON_THEIR_WAY`, _core/tracker.pyx).
BLOCKS_AHEAD = 3
_LONGEST_WAIT_S = 1.0


class Encoder:
    """Hands blocks to `write` in a thread, one after another, in the order in which they were put.

    All waiting of the calling thread is done in queues made in C, and every field has one thread that sets it: a signal
    may break it off anywhere, and no lock stays taken.

    Parameters
    ----------
    write : called in the thread as ``write(table, block)``. What it raises is raised by the next `put` or `finish`;
        blocks put since then are dropped.
    """

    def __init__(self, write: Callable[[str, Block], None]):
        self._write = write
        self._waiting: SimpleQueue[tuple[str, Block] | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()  # as many as blocks may be put
        for _ in range(BLOCKS_AHEAD):
            self._room.put(None)
        self._failed: BaseException | None = None  # set by the thread
        self._given_up = False  # set by the caller
        self._thread: threading.Thread | None = None

    def put(self, table: str, block: Block) -> None:
        """Hand on a block; waits while BLOCKS_AHEAD are not encoded yet."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="synfin-encoder", daemon=True)
            thread.start()
            self._thread = thread
        self._wait_for_room()
        self._waiting.put((table, block))

    def finish(self) -> None:
        """Wait until all blocks are written, and end the thread."""
        for _ in range(BLOCKS_AHEAD):
            self._wait_for_room()
        self.close()

    def close(self) -> None:
        """End the thread; blocks that still wait are dropped."""
        self._given_up = True
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join()

    def _wait_for_room(self) -> None:
        # A signal that comes just before the wait begins does not end it: its handler runs when the wait does.
        while True:
            try:
                self._room.get(timeout=_LONGEST_WAIT_S)
                break
            except Empty:
                continue
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            try:
                if self._failed is None and not self._given_up:
                    self._write(*item)
            except BaseException as error:
                self._failed = error
            del item  # its memory, before there is room for another
            self._room.put(None)
