"""Compressed and plain content: found by content, delivered whole, and cut or damaged in every place."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import threading

import lz4.frame
import pytest
import zstandard
from capture_files import T0, pcap, read
from hypothesis import given, settings
from hypothesis import strategies as st

from synfin.sources.ahead import ReadAhead
from synfin.sources.codecs import codec_of
from synfin.sources.streams import RawFile, StreamBroken, chunks
from synfin.sources.zstd_frames import FrameWalk


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def lz4_frame(data: bytes) -> bytes:
    return lz4.frame.compress(data, content_checksum=True)


COMPRESS = {"gzip": gzip.compress, "zstd": zstd, "lz4": lz4_frame, "xz": lzma.compress, "bzip2": bz2.compress}
CONTENT = random.Random(1).randbytes(3000) + b"text, text, text. " * 2000 + random.Random(2).randbytes(200_000)


def content_of(path, chunk_bytes: int = 1 << 16) -> tuple[bytes, StreamBroken | None]:
    out, source = [], chunks(RawFile(str(path)), chunk_bytes)
    try:
        for chunk in source:
            assert 0 < len(chunk) <= chunk_bytes
            out.append(bytes(chunk))
    except StreamBroken as broken:
        return b"".join(out), broken
    return b"".join(out), None


@pytest.mark.parametrize("chunk", [1, 7, 1000, 1 << 20])
@pytest.mark.parametrize("name", COMPRESS)
def test_compressed_content_is_found_by_content(tmp_path, name, chunk):
    path = tmp_path / "misleading.txt"
    data = CONTENT[: 20_000 if chunk < 1000 else None]
    path.write_bytes(COMPRESS[name](data))
    assert codec_of(path.read_bytes()[:8]) == name
    assert content_of(path, chunk) == (data, None)


@pytest.mark.parametrize("name", COMPRESS)
def test_several_streams_in_a_row(tmp_path, name):
    path = tmp_path / "x"
    path.write_bytes(b"".join(COMPRESS[name](CONTENT[i : i + 9000]) for i in range(0, len(CONTENT), 9000)))
    assert content_of(path) == (CONTENT, None)


@pytest.mark.parametrize("name", ["gzip", "xz"])
def test_zeros_behind_compressed_data_are_padding(tmp_path, name):
    path = tmp_path / "x"
    path.write_bytes(COMPRESS[name](b"one") + bytes(200_000) + COMPRESS[name](b"two") + bytes(512))
    assert content_of(path) == (b"onetwo", None)


@pytest.mark.parametrize("name", COMPRESS)
def test_foreign_bytes_behind_compressed_data_are_reported(tmp_path, name):
    path = tmp_path / "x"
    path.write_bytes(COMPRESS[name](CONTENT) + b"and something else")
    data, broken = content_of(path)
    assert data == CONTENT and broken.kind == "corrupt"


@pytest.mark.parametrize("name", COMPRESS)
def test_cut_in_any_place_is_truncated(tmp_path, name):
    whole = COMPRESS[name](CONTENT)
    path = tmp_path / "x"
    for cut in [*range(8, 60), len(whole) // 2, *range(len(whole) - 30, len(whole))]:
        path.write_bytes(whole[:cut])
        data, broken = content_of(path)
        assert CONTENT.startswith(data) and broken is not None and broken.kind == "truncated", cut
    assert len(data) == len(CONTENT)  # only the last byte of the checksum is missing


@pytest.mark.parametrize("name", COMPRESS)
def test_damage_keeps_what_came_before(tmp_path, name):
    whole = bytearray(COMPRESS[name](CONTENT))
    path = tmp_path / "x"
    whole[-6 if name == "gzip" else len(whole) - 30_000] ^= 0x55
    path.write_bytes(whole)
    data, broken = content_of(path)
    assert broken.kind == "corrupt"
    if name == "gzip":
        assert data == CONTENT  # only the checksum is wrong
    elif name not in ("bzip2", "xz"):
        assert len(data) > 100_000 and CONTENT.startswith(data[:100_000])


def test_damage_inside_gzip_keeps_every_byte_before(tmp_path):
    whole = bytearray(gzip.compress(CONTENT))
    middle = len(whole) // 2
    whole[middle : middle + 40] = b"\xff" * 40
    path = tmp_path / "x"
    path.write_bytes(whole)
    data, broken = content_of(path, 1 << 20)
    # Random bytes are stored as they are, so the damaged place in the output is known to some bytes.
    right = next((i for i, (a, b) in enumerate(zip(data, CONTENT, strict=False)) if a != b), len(data))
    assert broken.kind == "corrupt" and right > 100_000


def test_a_bomb_is_delivered_in_bounded_chunks(tmp_path):
    path = tmp_path / "x"
    for name in ("gzip", "zstd", "lz4", "bzip2"):
        path.write_bytes(COMPRESS[name](bytes(10_000_000)))
        assert sum(len(chunk) for chunk in chunks(RawFile(str(path)), 1 << 16)) == 10_000_000
        assert max(len(chunk) for chunk in chunks(RawFile(str(path)), 1 << 16)) <= 1 << 16


@given(st.lists(st.tuples(st.binary(max_size=400), st.booleans(), st.booleans()), max_size=4), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_frame_walk_finds_every_border(frames, piece):
    out, borders = b"", {0}
    for data, checksum, sized in frames:
        compressor = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=sized)
        out += compressor.compress(data * 3) if sized else b"\x50\x2a\x4d\x18\x02\0\0\0ab" + compressor.compress(data)
        if not sized:
            borders.add(len(out) - len(compressor.compress(data)))
        borders.add(len(out))
    walk, found = FrameWalk(), set()
    for at in range(len(out) + 1):
        if walk.between:
            found.add(at)
        walk.feed(out[at : at + 1])
    assert found == borders
    walk = FrameWalk()
    for at in range(0, len(out), piece):
        walk.feed(out[at : at + piece])
    assert walk.between


@pytest.mark.parametrize("name", ["", *COMPRESS])
def test_reading_ahead_gives_the_same_bytes(tmp_path, name):
    path = tmp_path / "x"
    path.write_bytes(COMPRESS.get(name, bytes)(CONTENT * 5))
    ahead = ReadAhead(RawFile(str(path)), 50_000)
    assert b"".join(bytes(chunk) for chunk in ahead) == CONTENT * 5
    assert next(ahead, None) is None
    ahead.close()


def test_reading_ahead_passes_errors_on_and_leaves_no_thread(tmp_path):
    before = threading.active_count()
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(CONTENT * 5)[:-1])
    ahead, got = ReadAhead(RawFile(str(path)), 50_000), 0
    with pytest.raises(StreamBroken):
        for chunk in ahead:
            got += len(chunk)
    assert got == len(CONTENT) * 5
    ahead.close()
    early = ReadAhead(RawFile(str(path)), 50_000)
    next(early)
    early.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 16, 1000, 1 << 20])
@pytest.mark.parametrize("name", COMPRESS)
def test_captures_read_the_same_compressed(tmp_path, name, chunk):
    packets = [(T0 + i * 1000, bytes([i]) * i) for i in range(60)]
    plain, squeezed = tmp_path / "plain", tmp_path / "squeezed"
    plain.write_bytes(pcap(packets))
    squeezed.write_bytes(COMPRESS[name](pcap(packets)))
    rows, source = read(squeezed, chunk_bytes=chunk)
    assert rows == read(plain)[0] and len(rows) == 60
    assert source.bytes_read == source.bytes_total == squeezed.stat().st_size


@pytest.mark.parametrize("name", COMPRESS)
def test_cut_compressed_capture_names_the_offset(tmp_path, name):
    noise = random.Random(3)
    packets = [(T0 + i * 1000, noise.randbytes(1000)) for i in range(900)]
    content, path = pcap(packets), tmp_path / "x"
    squeezed = COMPRESS[name](content)
    path.write_bytes(squeezed[: len(squeezed) * 2 // 3])
    rows, source = read(path)
    (broken,) = source.report.broken
    assert broken.kind == "truncated" and name in broken.reason
    assert (broken.offset == 24 + 1016 * len(rows) and 0 < len(rows) < 900) or name == "bzip2"
    assert not source.report.failed and "truncated at byte offset" in source.report.warnings[0]
