"""A capture in a store: read in large blocks, some of them asked for before their turn."""

from __future__ import annotations

import io
from collections import deque
from typing import TYPE_CHECKING

from synfin.stores import StoreError, Url, asked

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

#: A request asks for so many chunks, 4 MiB as a rule: the time until the first byte comes is then small beside the transfer.
CHUNKS_OF_A_BLOCK = 4
#: The first request: what a survey of many files looks at.
FIRST_BYTES = 1 << 17
#: Requests under way at once: a store gives each some 50 to 100 MB/s.
_AT_ONCE = 4


class StoredFile(io.RawIOBase):
    """An object of a store as a raw binary file.

    At most five blocks lie in memory. Nothing is asked for ahead before the first FIRST_BYTES are used up.

    Parameters
    ----------
    url : the object.
    chunk_bytes : about what will be read at a time.

    Attributes
    ----------
    size : bytes of the object.

    Raises StoreError when it cannot be opened; so do reads.
    """

    def __init__(self, url: Url, chunk_bytes: int = 1 << 20):
        super().__init__()
        self._pool: ThreadPoolExecutor | None = None
        self._file = asked(url.store.open_input_file, url.path)
        self.size: int = asked(self._file.size)
        self._block_bytes = CHUNKS_OF_A_BLOCK * chunk_bytes
        self._pending: deque[Future[bytes]] = deque()
        self._rest = memoryview(b"")  # of the block at hand
        self._asked = self._at = 0  # up to where blocks are asked for; where reading goes on

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Read at most ``len(buffer)`` bytes; 0 at the end."""
        if not self._rest:
            self._rest = memoryview(self._next_block())
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._at += count
        return count

    def _next_block(self) -> bytes:
        if not self._asked:
            self._asked = min(FIRST_BYTES, self.size)
            return self._fetch(0, self._asked)
        while len(self._pending) < _AT_ONCE and self._asked < self.size:
            size = min(self._block_bytes, self.size - self._asked)
            self._pending.append(self._threads().submit(self._fetch, self._asked, size))
            self._asked += size
        return self._pending.popleft().result() if self._pending else b""

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(_AT_ONCE, "synfin-fetch")
        return self._pool

    def _fetch(self, start: int, size: int) -> bytes:
        block = asked(self._file.read_at, size, start) if size else b""
        if len(block) != size:
            raise StoreError("it became shorter while it was read")
        return block

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read on from ``offset`` bytes after the beginning."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("a stored file is read from its beginning")
        if 0 <= offset - self._at <= len(self._rest):
            self._rest = self._rest[offset - self._at :]
        else:
            for block in self._pending:
                block.cancel()
            self._pending.clear()
            self._rest, self._asked = memoryview(b""), offset
        self._at = offset
        return offset

    def close(self) -> None:
        """Let go of everything; waits for requests that are under way."""
        if not self.closed and self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        super().close()
