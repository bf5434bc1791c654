"""Compressed files whose parts can be unpacked beside each other: BGZF, and Zstandard in several frames.

A part is some whole blocks or frames. Whatever does not fit the pattern (a frame that is too long, damage, the end of a cut
file) is left to the reader that goes from byte to byte, which has the words for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

from synfin.sources.codecs import CODECS
from synfin.sources.zstd_frames import FrameWalk

#: The most bytes of one part, before and after it is unpacked. pzstd makes frames of 8 MiB, at its highest levels longer ones.
MAX_PART_BYTES = 1 << 24
_LEAST_PART_BYTES = 1 << 18  # smaller parts would cost more in handing over than they gain
_BLOCK_BYTES = 1 << 16  # what a block of BGZF unpacks to, at most
_PIECE_BYTES = 1 << 18


class _Odd(Exception):
    """A part that is not what it seems."""


def unpack_in_parts(raw: Any, codec: str, workers: int, chunk_bytes: int) -> Generator[bytes, None, int]:
    """The content as far as it comes in parts, in order; `workers` threads unpack them, one more waits.

    Parameters
    ----------
    raw : the file (`RawFile`), which is read from its beginning.
    codec : name of its compression.
    chunk_bytes : the most bytes of one chunk.

    Returns
    -------
    Bytes of the file up to where that is.
    """
    if codec not in _KINDS:
        return 0
    cut, unpack = _KINDS[codec]
    raw.seek(0)
    done, parts = 0, cut(raw)
    first = next(parts, None)
    second = next(parts, None) if first else None
    if not first or not second:
        return 0  # nothing to do beside each other
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(workers, "synfin-unpack")
    pending: deque[tuple[Future[list[bytes]], int]] = deque()
    try:
        for part in (first, second):
            pending.append((pool.submit(unpack, part, chunk_bytes), len(part)))
        first = second = b""
        while pending:
            while len(pending) <= workers and (part := next(parts, None)):
                pending.append((pool.submit(unpack, part, chunk_bytes), len(part)))
            unpacked, size = pending.popleft()
            try:
                content = unpacked.result()
            except _Odd:
                break
            yield from content
            done += size
    finally:
        pool.shutdown(cancel_futures=True)
    return done


def _blocks(raw: Any) -> Iterator[bytes]:
    """Whole blocks of BGZF (SAM/BAM specification, section 4.1): members of gzip that say how long they are."""
    data, start = b"", 0  # `start`: of the part at hand
    at = 0  # of the next block
    while True:
        head = data[at : at + 18]
        size = int.from_bytes(head[16:18], "little") + 1
        if len(head) < 18 or at + size > len(data):
            more = raw.read(_LEAST_PART_BYTES)
            if not more:
                break
            data, at, start = data[start:] + more, at - start, 0
            continue
        if head[:4] != b"\x1f\x8b\x08\x04" or head[10:16] != b"\x06\0BC\x02\0":
            break
        at += size
        if at - start >= _LEAST_PART_BYTES:
            yield data[start:at]
            start = at
    if at > start:
        yield data[start:at]


def _unpack_blocks(part: bytes, chunk_bytes: int) -> list[bytes]:
    codec = CODECS["gzip"][1]()
    blocks, at = [], 0
    while at < len(part):
        size = int.from_bytes(part[at + 16 : at + 18], "little") + 1
        block = codec.new()
        try:
            content = block.decompress(part[at : at + size], _BLOCK_BYTES + 1)
        except codec.errors as error:
            raise _Odd from error
        if not block.eof or block.unused_data or len(content) > _BLOCK_BYTES:
            raise _Odd
        blocks.append(content)
        at += size
    return list(_pieces(b"".join(blocks), min(_PIECE_BYTES, chunk_bytes)))


def _pieces(content: bytes, size: int) -> Iterator[bytes]:
    return (content[at : at + size] for at in range(0, len(content), size))


def _frames(raw: Any) -> Iterator[bytes]:
    """Whole frames of Zstandard."""
    data = bytearray()
    end = at = 0  # of the last whole frame; up to where the frames have been walked
    walk = FrameWalk()
    while True:
        if at == len(data):
            if at > MAX_PART_BYTES or not (more := raw.read(_LEAST_PART_BYTES)):
                break
            data += more
        at = walk.step(data, at)
        if walk.between:
            end = at
            if end >= _LEAST_PART_BYTES:
                yield bytes(data[:end])
                del data[:end]
                at -= end
                end = 0
    if end:
        yield bytes(data[:end])


def _unpack_frames(part: bytes, chunk_bytes: int) -> list[bytes]:
    import zstandard

    size = min(_PIECE_BYTES, chunk_bytes)
    chunks: list[bytes] = []
    with zstandard.ZstdDecompressor().stream_reader(part, read_across_frames=True) as reader:
        try:
            while chunk := reader.read(size):
                chunks.append(chunk)
                if len(chunks) * size > MAX_PART_BYTES:
                    raise _Odd
        except zstandard.ZstdError as error:
            raise _Odd from error
    return chunks


_KINDS: dict[str, tuple[Callable[[Any], Iterator[bytes]], Callable[[bytes, int], list[bytes]]]] = {
    "gzip": (_blocks, _unpack_blocks),
    "zstd": (_frames, _unpack_frames),
}
