"""Reading ahead: threads that read and unpack files before their packets are asked for, in bounded memory."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from synfin.sources.streams import CHUNK_BYTES, Buffer, RawFile, chunks

READ_AHEAD_CHUNKS = 4  # of a file that is being read
#: Memory for the content of compressed files whose turn has not come: a few files of a rotated set.
AHEAD_BYTES = 1 << 28
_MOST_WORKERS = 8  # together they unpack faster than one tracker reads
_PLAIN_BYTES = 1 << 18  # of a file that is not compressed, at a time
_INLINE_BYTES = 1 << 16  # a file of at most this size is read without a thread
_LONGEST_WAIT_S = 1.0


def usable_cores() -> int:
    """How many threads are worth starting to unpack."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


class Room:
    """The memory that files share which are read ahead of their turn.

    Nothing here takes a lock: a signal may break the main thread off at any place, and would leave the lock taken. Every
    number has one thread that writes it.
    """

    def __init__(self, size: int = AHEAD_BYTES):
        self.size = size
        self.readers: tuple[ReadAhead, ...] = ()

    @property
    def bytes_ahead(self) -> int:
        """What lies in memory of all files."""
        return sum(reader.bytes_ahead for reader in self.readers)

    def tell(self) -> None:
        """Wake the threads: there may be room."""
        for reader in self.readers:
            reader.changed.put(None)


class ReadAhead:
    """The same chunks as `chunks`, made by a thread that runs some of them ahead.

    A chunk is given back by asking for the next one.

    Parameters
    ----------
    room : shared by the files of a set.
    waits : the file's turn has not come (`begin`). Of a compressed file the thread then makes chunks as long as there is
        room. Else, and of other files, it runs READ_AHEAD_CHUNKS ahead.
    workers : see `chunks`.

    Attributes
    ----------
    finished : the thread has made its last chunk.
    changed : wakes the thread, whatever is put into it.
    """

    def __init__(
        self,
        raw: RawFile,
        chunk_bytes: int = CHUNK_BYTES,
        *,
        room: Room | None = None,
        waits: bool = False,
        workers: int = 1,
    ):
        self._raw = raw
        self._chunks = chunks(raw, chunk_bytes, READ_AHEAD_CHUNKS, workers)
        self._ready: SimpleQueue[Buffer | BaseException | None] = SimpleQueue()
        self.changed: SimpleQueue[None] = SimpleQueue()
        self._room = room or Room()
        self._room.readers += (self,)
        self._waits = waits
        self._made = self._made_bytes = 0  # written by the thread alone
        self._given = self._given_bytes = 0  # given back; written by the consumer alone
        self._held: int | None = None  # bytes of the chunk that the consumer has
        self._closed = self.finished = False
        self._may_block = raw.size is None
        self._thread = threading.Thread(target=self._run, name="synfin-read-ahead", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        item: Buffer | BaseException | None = b""
        try:
            while item is not None:
                while not self._may_go_on():
                    self.changed.get()
                if self._closed:
                    break
                item = next(self._chunks, None)
                if item is not None:
                    self._made += 1
                    self._made_bytes += len(item)
                self._ready.put(item)
        except BaseException as error:
            self._ready.put(error)
        finally:
            self.finished = True
            self._chunks.close()

    def _may_go_on(self) -> bool:
        if self._closed:
            return True
        if self._waits and self._raw.packed:
            return self._room.bytes_ahead < self._room.size
        return self._made - self._given < READ_AHEAD_CHUNKS

    @property
    def bytes_ahead(self) -> int:
        """Bytes of the chunks that were made and not given back."""
        return self._made_bytes - self._given_bytes

    def begin(self) -> None:
        """Say that the file's turn has come."""
        self._waits = False
        self.changed.put(None)

    def __iter__(self) -> ReadAhead:
        return self

    def __next__(self) -> Buffer:
        if self._held is not None:
            self._given_bytes += self._held
            self._given += 1
            self._held = None
            self._room.tell()
        item = self._wait()
        if isinstance(item, BaseException):
            self._ready.put(None)
            raise item
        if item is None:
            self._ready.put(None)
            raise StopIteration
        self._held = len(item)
        return item

    def _wait(self) -> Buffer | BaseException | None:
        # A signal that comes just before the wait begins does not end it: its handler runs when the wait does.
        while True:
            try:
                return self._ready.get(timeout=_LONGEST_WAIT_S)
            except Empty:
                continue

    def close(self) -> None:
        """Stop the thread; one that waits for a pipe ends with the process."""
        self._closed = True
        self.changed.put(None)
        self._room.readers = tuple(reader for reader in self._room.readers if reader is not self)
        self._room.tell()
        if not self._may_block and not sys.is_finalizing():
            self._thread.join()


def read_ahead(raw: RawFile, chunk_bytes: int = CHUNK_BYTES, **how: Any) -> Iterator[Buffer]:
    """The content of a file in chunks; ``how`` as for `ReadAhead`. Close it when done.

    A thread reads what must be unpacked or may keep waiting. Of a plain file the system has loaded the next bytes before
    they are asked for, and a chunk of it stays in the core's own cache, if the thread that reads it also uses it.
    """
    if raw.size is not None and raw.size <= _INLINE_BYTES:
        return chunks(raw, chunk_bytes)
    if raw.is_plain_file():
        return chunks(raw, min(chunk_bytes, _PLAIN_BYTES))
    return ReadAhead(raw, chunk_bytes, **how)
