"""Unpacks files one after another with the library that synfin uses, in its sizes, and does nothing with the content."""

from __future__ import annotations

import sys

from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor

_READ_BYTES, _CHUNK_BYTES = 3 << 16, 1 << 18


def gzip_bytes(path: str) -> int:
    """Bytes in a gzip file."""
    total, data = 0, b""
    with open(path, "rb", buffering=0) as file:
        while data := data or file.read(_READ_BYTES):
            member = IgzipDecompressor(flag=DECOMP_GZIP)
            while not member.eof:
                total += len(member.decompress(data, _CHUNK_BYTES))
                data = file.read(_READ_BYTES) if member.needs_input and not member.eof else b""
            data = member.unused_data
    return total


def zstd_bytes(path: str) -> int:
    """Bytes in a Zstandard file."""
    import zstandard

    total = 0
    with open(path, "rb", buffering=0) as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_size=_READ_BYTES, read_across_frames=True)
        while chunk := reader.read1(_CHUNK_BYTES):
            total += len(chunk)
    return total


if __name__ == "__main__":
    print(sum(map(zstd_bytes if sys.argv[1].endswith(".zst") else gzip_bytes, sys.argv[1:])))
