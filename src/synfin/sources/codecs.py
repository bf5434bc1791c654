"""Compressions: told by the first bytes, each with the decompressor of its library.

A library is loaded with the first file that needs it: most runs need none, and all of them take a while.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

HEAD_BYTES = 8
_XZ_MEMORY = 1 << 28  # xz -9 needs 65 MiB; more is asked for by mistake or in bad faith


class Codec(NamedTuple):
    """A library's decompressor: ``new()`` has ``decompress(data, max_length)`` and raises `errors`."""

    new: Callable[[], Any]
    errors: tuple[type[Exception], ...]


def _gzip() -> Codec:
    from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor, IsalError

    return Codec(lambda: IgzipDecompressor(flag=DECOMP_GZIP), (IsalError,))


def _xz() -> Codec:
    import lzma

    return Codec(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY), (lzma.LZMAError,))


def _bzip2() -> Codec:
    import bz2

    return Codec(bz2.BZ2Decompressor, (OSError, ValueError))


def _lz4() -> Codec:
    import lz4.frame

    return Codec(lz4.frame.LZ4FrameDecompressor, (RuntimeError,))


#: Name -> first bytes, and what loads the library. Zstandard has readers of its own.
CODECS: dict[str, tuple[bytes, Callable[[], Codec]]] = {
    "gzip": (b"\x1f\x8b", _gzip),
    "xz": (b"\xfd7zXZ\x00", _xz),
    "bzip2": (b"BZh", _bzip2),
    "lz4": (b"\x04\x22\x4d\x18", _lz4),
}
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def codec_of(head: bytes) -> str | None:
    """Name of the compression that a file with these first bytes has; None for none."""
    if head.startswith(ZSTD_MAGIC) or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return "zstd"  # the second: a skippable frame, with which some tools begin
    return next((name for name, (magic, _) in CODECS.items() if head.startswith(magic)), None)
