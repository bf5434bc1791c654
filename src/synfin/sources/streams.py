"""Chunks of a file's content: opening, compression by content, and what came before damage."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress

from synfin.errors import CaptureOpenError
from synfin.sources.codecs import CODECS, HEAD_BYTES, codec_of
from synfin.sources.parts import unpack_in_parts
from synfin.sources.zstd_frames import FrameWalk
from synfin.stores import Url

STDIN = "-"
CHUNK_BYTES = 1 << 20
#: The most bytes of one chunk out of a compressed file: the libraries enlarge their output step by step, and copying it
#: costs more than asking again.
_UNPACKED_BYTES = 1 << 18
_LOAD_BYTES = 1 << 22
_PACKED_BYTES = 3 << 16  # of one read of it: also where nothing gets smaller, this becomes one chunk

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
    """A file, standard input (``-``) or what a `Url` names, read from its beginning.

    `chunk_bytes` is about what will be read at a time.

    Raises CaptureOpenError when it cannot be opened.
    """

    def __init__(self, path: str, chunk_bytes: int = CHUNK_BYTES):
        self.path = path
        self.bytes_read = 0
        self.last_read = 0
        #: True once the content turned out to be compressed.
        self.packed = False
        self._file = None
        self._told: int | None = None  # up to where `load_ahead` has asked
        if path == STDIN:
            self.size = None
            # Unbuffered: what is there is read at once, and an interrupted read leaves nothing half done.
            self._file = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115
            self._readinto = self._file.readinto
            return
        try:
            #: Bytes on disk or in the store; None where that is not known (pipes, devices).
            self._file, self.size = _opened(path, chunk_bytes)
        except OSError as error:
            raise CaptureOpenError(f"{path}: cannot be opened: {error.strerror}", path) from error
        self._readinto = self._file.readinto
        if self.size is not None and not isinstance(path, Url) and hasattr(os, "posix_fadvise"):
            self._told = 0

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
        try:
            data = self._file.read(size) or b""
        except OSError as error:
            raise StreamBroken("unreadable", f"cannot be read on: {error.strerror}") from error
        self.bytes_read += len(data)
        self.last_read = len(data)
        return data

    def is_plain_file(self) -> bool:
        """True for a file of this system that is not compressed."""
        if self.size is None or isinstance(self.path, Url):
            return False
        try:
            return codec_of(os.pread(self._file.fileno(), HEAD_BYTES, 0)) is None
        except OSError:
            return False

    def load_ahead(self) -> None:
        """Have the system load what comes next from the disk, without waiting for it."""
        if self._told is not None and self.bytes_read + _LOAD_BYTES > self._told:
            with suppress(OSError):
                os.posix_fadvise(self._file.fileno(), self._told, _LOAD_BYTES, os.POSIX_FADV_WILLNEED)
            self._told += _LOAD_BYTES

    def seek(self, offset: int) -> None:
        """Read on from a place before; only where `size` is known."""
        self._file.seek(offset)
        self.bytes_read = offset

    def read_head(self, size: int) -> bytes:
        """Read ``size`` bytes, or what there is."""
        head = b""
        while len(head) < size and (more := self.read(size - len(head))):
            head += more
        return head

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _opened(path: str, chunk_bytes: int) -> tuple[io.RawIOBase, int | None]:
    if isinstance(path, Url):
        from synfin.sources.stored import StoredFile

        stored = StoredFile(path, chunk_bytes)
        return stored, stored.size
    file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by `RawFile.close`)
    info = os.fstat(file.fileno())
    return file, info.st_size if stat.S_ISREG(info.st_mode) else None


def chunks(raw: RawFile, chunk_bytes: int = CHUNK_BYTES, buffers: int = 1, workers: int = 1) -> Iterator[Buffer]:
    """The decompressed content, in order.

    Parameters
    ----------
    raw : closed when the iterator ends or is closed.
    chunk_bytes : the most bytes of one chunk.
    buffers : how many chunks of a file that is not compressed the consumer may hold at a time; the one before those is
        overwritten.
    workers : threads for what can be unpacked beside each other; 1 for none.

    Raises
    ------
    StreamBroken : after everything that could be read.
    """
    given = 0
    try:
        for chunk in _content(raw, chunk_bytes, buffers, workers):
            given += len(chunk)
            yield chunk
    except StreamBroken as broken:
        if broken.kind == "corrupt" and raw.size is not None:
            yield from _before_damage(raw, given, chunk_bytes)
        raise
    finally:
        raw.close()


def _content(raw: RawFile, chunk_bytes: int, buffers: int = 1, workers: int = 1) -> Iterator[Buffer]:
    head = raw.read_head(HEAD_BYTES)
    name = codec_of(head)
    if name is None:
        return _plain(raw, head, chunk_bytes, buffers)
    raw.packed = True
    return _unpacked(raw, head, name, min(chunk_bytes, _UNPACKED_BYTES), workers)


def _unpacked(raw: RawFile, head: bytes, name: str, chunk_bytes: int, workers: int) -> Iterator[Buffer]:
    if workers > 1 and raw.size is not None:
        at = yield from unpack_in_parts(raw, name, workers, chunk_bytes)
        raw.seek(at)
        head = raw.read_head(HEAD_BYTES)
    yield from _zstd(raw, head, chunk_bytes) if name == "zstd" else _members(raw, head, name, chunk_bytes)


class _FineFile(RawFile):
    """A file that is read byte by byte from `fine_from` on."""

    fine_from = 0

    def read(self, size: int) -> bytes:
        return super().read(min(size, max(self.fine_from - self.bytes_read, 1)))


def _before_damage(raw: RawFile, given: int, chunk_bytes: int) -> Iterator[Buffer]:
    # Decompressors keep back what they have made when they meet an error in the same call. The damage lies in the last
    # piece that was read: up to there once more, then in calls of one byte, nothing is kept back.
    try:
        again = _FineFile(raw.path)
    except CaptureOpenError:
        return
    again.fine_from = raw.bytes_read - raw.last_read
    try:
        for chunk in _content(again, chunk_bytes):
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
        raw.load_ahead()
        count = raw.readinto(view)
        if not count:
            return
        yield view[:count]


def _members(raw: RawFile, data: bytes, name: str, chunk_bytes: int) -> Iterator[Buffer]:
    # A compressed file may be several compressed streams in a row, with zeros between and behind them.
    magic, load = CODECS[name]
    codec = load()
    while data:
        if not data.startswith(magic):
            raise StreamBroken("corrupt", f"has bytes that are not {name} behind its {name} data")
        decoder = codec.new()
        while not decoder.eof:
            if not data and decoder.needs_input and not (data := raw.read(_PACKED_BYTES)):
                raise StreamBroken("truncated", f"its {name} data end early")
            try:
                out = decoder.decompress(data, chunk_bytes)
            except codec.errors as error:
                raise StreamBroken("corrupt", f"its {name} data are damaged ({error})") from error
            data = b""
            if out:
                yield out
        data = (decoder.unused_data or b"").lstrip(b"\0")
        while len(data) < len(magic) and (more := raw.read(_PACKED_BYTES)):
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
    import zstandard

    source = _WalkedFile(raw, head)
    decoder = zstandard.ZstdDecompressor()
    with decoder.stream_reader(source, read_size=_PACKED_BYTES, read_across_frames=True, closefd=False) as reader:
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
