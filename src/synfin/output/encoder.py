"""Encoding in a thread of its own: tracking goes on while blocks become bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

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
    write : called in the thread with what was put: ``write(table, block)``. What it raises is raised by the next `put`,
        `offer` or `finish`; what was put since then is dropped.
    room : how much may wait or be in hand.
    """

    def __init__(self, write: Callable[..., None], room: int = BLOCKS_AHEAD):
        self._write = write
        self._size = room
        self._waiting: SimpleQueue[tuple[int, tuple[Any, ...]] | None] = SimpleQueue()
        self._room: SimpleQueue[None] = SimpleQueue()  # as many as may be put
        for _ in range(room):
            self._room.put(None)
        self._failed: BaseException | None = None  # set by the thread
        self._given_up = False  # set by the caller
        self._thread: threading.Thread | None = None

    def put(self, *what: Any, size: int = 1) -> None:
        """Hand on a block, which takes `size` of the room; waits until so much is free."""
        self._start()
        for _ in range(size):
            self._wait_for_room()
        self._waiting.put((size, what))

    def offer(self, *what: Any, size: int = 1) -> bool:
        """Hand on what takes `size` of the room, if so much is free; never waits. Returns whether it was taken."""
        self._start()
        if self._failed is not None:
            raise self._failed
        if self.free < size:
            return False
        for _ in range(size):
            self._room.get_nowait()  # nobody else takes of it
        self._waiting.put((size, what))
        return True

    @property
    def free(self) -> int:
        """How much room is free. May be asked by any thread."""
        return self._room.qsize()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits or is in hand."""
        return self.free == self._size

    def finish(self) -> None:
        """Wait until all is written, and end the thread, also where that fails."""
        try:
            for _ in range(self._size):
                self._wait_for_room()
        finally:
            self.close()

    def close(self) -> None:
        """End the thread; what still waits is dropped."""
        self._given_up = True
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="synfin-encoder", daemon=True)
            thread.start()
            self._thread = thread

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
            size, what = item
            try:
                if self._failed is None and not self._given_up:
                    self._write(*what)
            except BaseException as error:
                self._failed = error
            del item, what  # their memory, before there is room for more
            for _ in range(size):
                self._room.put(None)
