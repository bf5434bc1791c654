"""Chunks of a file's content: opening, compression by content, and reading ahead in a thread."""

from __future__ import annotations

import bz2
import lzma
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import lz4.frame
import zstandard
from isal import igzip_lib

from synfin.errors import CaptureOpenError
from synfin.sources.zstd_frames import FrameWalk

STDIN = "-"
CHUNK_BYTES = 1 << 20
READ_AHEAD_CHUNKS = 4
_COMPRESSED_BYTES = 1 << 17  # of one read of a compressed file
_INLINE_BYTES = 1 << 18  # a file of at most this size is read without a thread
_XZ_MEMORY = 1 << 28  # xz -9 needs 65 MiB; more is asked for by mistake or in bad faith

Buffer = bytes | memoryview


class StreamBroken(Exception):
    """The bytes below a capture end early or are wrong; everything before was delivered.

    Parameters
    ----------
    kind : ``truncated``, ``corrupt`` or ``unreadable``.
    reason : the rest of a sentence that begins with the file's name.
    """

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class RawFile:
    """A file or standard input (``-``), read from its beginning.

    Raises CaptureOpenError when it cannot be opened.
    """

    def __init__(self, path: str):
        self.path = path
        self.bytes_read = 0
        self.last_read = 0
        self._file = None
        if path == STDIN:
            self.size = None
            # Unbuffered: what is there is read at once, and an interrupted read leaves nothing half done.
            self._file = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115
            self._readinto = self._file.readinto
            return
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by `close`)
        except OSError as error:
            raise CaptureOpenError(f"{path}: cannot be opened: {error.strerror}", path) from error
        info = os.fstat(self._file.fileno())
        #: Bytes on disk; None where that is not known (pipes, devices).
        self.size = info.st_size if stat.S_ISREG(info.st_mode) else None
        self._readinto = self._file.readinto

    def readinto(self, buffer: memoryview) -> int:
        """Read at most ``len(buffer)`` bytes; 0 at the end. Raises StreamBroken on an input error."""
        try:
            count = self._readinto(buffer) or 0
        except OSError as error:
            raise StreamBroken("unreadable", f"cannot be read on: {error.strerror}") from error
        self.bytes_read += count
        self.last_read = count
        return count

    def read(self, size: int) -> bytes:
        """Read at most ``size`` bytes; none at the end."""
        buffer = bytearray(size)
        count = self.readinto(memoryview(buffer))
        return bytes(buffer) if count == size else bytes(buffer[:count])

    def read_head(self, size: int) -> bytes:
        """Read ``size`` bytes, or what there is."""
        head = b""
        while len(head) < size and (more := self.read(size - len(head))):
            head += more
        return head

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True)
class Codec:
    """A compression: its first bytes, a decompressor with ``decompress(data, max_length)``, and its errors."""

    name: str
    magic: bytes
    new: Callable[[], object]
    errors: tuple[type[Exception], ...]


CODECS = (
    Codec("gzip", b"\x1f\x8b", lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), (igzip_lib.IsalError,)),
    Codec("xz", b"\xfd7zXZ\x00", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY), (lzma.LZMAError,)),
    Codec("bzip2", b"BZh", bz2.BZ2Decompressor, (OSError, ValueError)),
    Codec("lz4", b"\x04\x22\x4d\x18", lz4.frame.LZ4FrameDecompressor, (RuntimeError,)),
)  # fmt: skip
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
HEAD_BYTES = 8
_LONGEST_WAIT_S = 1.0


def codec_of(head: bytes) -> str | None:
    """Name of the compression that a file with these first bytes has; None for none."""
    if head.startswith(ZSTD_MAGIC) or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return "zstd"  # the second: a skippable frame, with which some tools begin
    return next((codec.name for codec in CODECS if head.startswith(codec.magic)), None)


def chunks(raw: RawFile, chunk_bytes: int = CHUNK_BYTES, buffers: int = 1) -> Iterator[Buffer]:
    """The decompressed content, in order.

    Parameters
    ----------
    raw : closed when the iterator ends or is closed.
    chunk_bytes : the most bytes of one chunk.
    buffers : how many chunks the consumer may hold at a time; the one before those is overwritten.

    Raises
    ------
    StreamBroken : after everything that could be read.
    """
    given = 0
    try:
        for chunk in _content(raw, chunk_bytes, buffers):
            given += len(chunk)
            yield chunk
    except StreamBroken as broken:
        if broken.kind == "corrupt" and raw.size is not None:
            yield from _before_damage(raw, given, chunk_bytes)
        raise
    finally:
        raw.close()


def _content(raw: RawFile, chunk_bytes: int, buffers: int) -> Iterator[Buffer]:
    head = raw.read_head(HEAD_BYTES)
    name = codec_of(head)
    if name is None:
        return _plain(raw, head, chunk_bytes, buffers)
    if name == "zstd":
        return _zstd(raw, head, chunk_bytes)
    return _members(raw, head, next(codec for codec in CODECS if codec.name == name), chunk_bytes)


class _FineFile(RawFile):
    """A file that is read byte by byte from `fine_from` on."""

    fine_from = 0

    def read(self, size: int) -> bytes:
        return super().read(size if self.bytes_read < self.fine_from else 1)


def _before_damage(raw: RawFile, given: int, chunk_bytes: int) -> Iterator[Buffer]:
    # Decompressors keep back what they have made when they meet an error in the same call. The damage lies in the last
    # piece that was read: up to there once more, then in calls of one byte, nothing is kept back.
    try:
        again = _FineFile(raw.path)
    except CaptureOpenError:
        return
    again.fine_from = raw.bytes_read - raw.last_read
    try:
        for chunk in _content(again, chunk_bytes, 1):
            fresh = max(len(chunk) - given, 0)
            given -= len(chunk) - fresh
            if fresh:
                yield chunk[len(chunk) - fresh :]
    except StreamBroken:
        return
    finally:
        again.close()


def _plain(raw: RawFile, head: bytes, chunk_bytes: int, buffers: int) -> Iterator[Buffer]:
    for start in range(0, len(head), chunk_bytes):
        yield head[start : start + chunk_bytes]
    size = chunk_bytes if raw.size is None else min(chunk_bytes, max(raw.size, 4096))
    ring: list[memoryview] = []
    turn = 0
    while True:
        if len(ring) < buffers:
            ring.append(memoryview(bytearray(size)))
        view = ring[turn % buffers]
        turn += 1
        count = raw.readinto(view)
        if not count:
            return
        yield view[:count]


def _members(raw: RawFile, data: bytes, codec: Codec, chunk_bytes: int) -> Iterator[Buffer]:
    # A compressed file may be several compressed streams in a row, with zeros between and behind them.
    while data:
        if not data.startswith(codec.magic):
            raise StreamBroken("corrupt", f"has bytes that are not {codec.name} behind its {codec.name} data")
        decoder = codec.new()
        while not decoder.eof:
            if not data and decoder.needs_input and not (data := raw.read(_COMPRESSED_BYTES)):
                raise StreamBroken("truncated", f"its {codec.name} data end early")
            try:
                out = decoder.decompress(data, chunk_bytes)
            except codec.errors as error:
                raise StreamBroken("corrupt", f"its {codec.name} data are damaged ({error})") from error
            data = b""
            if out:
                yield out
        data = (decoder.unused_data or b"").lstrip(b"\0")
        while len(data) < len(codec.magic) and (more := raw.read(_COMPRESSED_BYTES)):
            data = (data + more).lstrip(b"\0")


class _WalkedFile:
    """What the Zstandard reader reads from."""

    def __init__(self, raw: RawFile, head: bytes):
        self._raw = raw
        self._head = head
        self.walk = FrameWalk()

    def read(self, size: int) -> bytes:
        data, self._head = self._head or self._raw.read(size), b""
        self.walk.feed(data)
        return data


def _zstd(raw: RawFile, head: bytes, chunk_bytes: int) -> Iterator[Buffer]:
    # The library's reader takes a cut frame for a whole one, so the frames are walked beside it.
    source = _WalkedFile(raw, head)
    decoder = zstandard.ZstdDecompressor()
    with decoder.stream_reader(source, read_size=_COMPRESSED_BYTES, read_across_frames=True, closefd=False) as reader:
        while True:
            try:
                out = reader.read1(chunk_bytes)
            except zstandard.ZstdError as error:
                raise StreamBroken("corrupt", f"its zstd data are damaged ({error})") from error
            if not out:
                break
            yield out
    if not source.walk.between:
        raise StreamBroken("truncated", "its zstd data end early")


class ReadAhead:
    """The same chunks, made by a thread that runs a few of them ahead.

    A chunk is given back by asking for the next one.
    """

    def __init__(self, raw: RawFile, chunk_bytes: int = CHUNK_BYTES):
        self._chunks = chunks(raw, chunk_bytes, READ_AHEAD_CHUNKS)
        self._ready: SimpleQueue[Buffer | BaseException | None] = SimpleQueue()
        self._room = threading.Semaphore(READ_AHEAD_CHUNKS)
        self._holds = self._closed = False
        self._may_block = raw.size is None
        self._thread = threading.Thread(target=self._run, name="synfin-read-ahead", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        item: Buffer | BaseException | None = b""
        try:
            while item is not None:
                self._room.acquire()
                if self._closed:
                    break
                item = next(self._chunks, None)
                self._ready.put(item)
        except BaseException as error:
            self._ready.put(error)
        finally:
            self._chunks.close()

    def __iter__(self) -> ReadAhead:
        return self

    def __next__(self) -> Buffer:
        if self._holds:
            self._holds = False
            self._room.release()
        item = self._wait()
        if isinstance(item, BaseException):
            self._ready.put(None)
            raise item
        if item is None:
            self._ready.put(None)
            raise StopIteration
        self._holds = True
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
        self._room.release()
        if not self._may_block and not sys.is_finalizing():
            self._thread.join()


def read_ahead(raw: RawFile, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Buffer]:
    """The content of a file in chunks, by a thread unless the file is small. Close it when done."""
    if raw.size is not None and raw.size <= _INLINE_BYTES:
        return chunks(raw, chunk_bytes)
    return ReadAhead(raw, chunk_bytes)
