"""Files unpacked before their turn, and parts of a file side by side: the same packets, bounded memory, no thread left."""

from __future__ import annotations

import gzip
import random
import struct
import threading
import zlib

import pytest
import zstandard
from capture_files import T0, pcap, read, rows_of

from synfin.sources import ahead, captures, parts
from synfin.sources.ahead import READ_AHEAD_CHUNKS, ReadAhead
from synfin.sources.captures import CaptureInput
from synfin.sources.streams import RawFile, StreamBroken, chunks

SECOND = 10**9
CONTENT = random.Random(1).randbytes(700_000) + b"text, text, text. " * 60_000 + random.Random(2).randbytes(700_000)
CHUNK = 1 << 18  # of what was compressed, at most


@pytest.fixture(autouse=True)
def two_cores_and_no_thread_left(monkeypatch):
    monkeypatch.setattr(captures, "usable_cores", lambda: 2)
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def bgzf(data: bytes, size: int = 65280) -> bytes:
    """BGZF as its specification (SAM/BAM, section 4.1) defines it, with its end-of-file block."""
    out = []
    for piece in [*(data[at : at + size] for at in range(0, len(data), size)), b""]:
        deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
        body = deflate.compress(piece) + deflate.flush()
        out.append(struct.pack("<4sIBBH2sHH", b"\x1f\x8b\x08\x04", 0, 0, 255, 6, b"BC", 2, len(body) + 25) + body)
        out.append(struct.pack("<II", zlib.crc32(piece), len(piece)))
    return b"".join(out)


def frames(data: bytes, size: int = 300_000) -> bytes:
    """Zstandard frames with a checksum, and skippable frames between them, as pzstd writes them."""
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    return b"".join(b"\x50\x2a\x4d\x18\x04\0\0\0size" + compressor.compress(piece) for piece in pieces)


DIVISIBLE = {"bgzf": bgzf, "frames": frames}


def content_of(path, workers: int, chunk_bytes: int = 100_000) -> tuple[bytes, str | None, set[str]]:
    """The content, how it breaks, and the names of the threads that were seen."""
    out, names = bytearray(), set()
    raw = RawFile(str(path))
    try:
        for chunk in chunks(raw, chunk_bytes, workers=workers):
            assert 0 < len(chunk) <= chunk_bytes
            names |= {thread.name for thread in threading.enumerate()}
            out += chunk
    except StreamBroken as broken:
        return bytes(out), f"{broken.kind}: {broken}", names
    assert raw.bytes_read == path.stat().st_size
    return bytes(out), None, names


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize("name", DIVISIBLE)
def test_parts_make_the_whole(tmp_path, name, workers):
    path = tmp_path / "x"
    path.write_bytes(DIVISIBLE[name](CONTENT))
    data, broken, names = content_of(path, workers)
    assert data == CONTENT and broken is None
    assert any(name.startswith("synfin-unpack") for name in names)


@pytest.mark.parametrize("name", DIVISIBLE)
def test_damage_among_parts_is_told_as_without_them(tmp_path, name):
    path, whole = tmp_path / "x", DIVISIBLE[name](CONTENT)
    cuts = [whole[:at] for at in range(100_000, len(whole), len(whole) // 5)]
    flips = [
        whole[:at] + bytes(b ^ 0x55 for b in whole[at : at + 9]) + whole[at + 9 :] for at in (3, 400_000, 1_300_000)
    ]
    for damaged in [*cuts, *flips, whole + b"and something else", whole[:-3], bytes(300_000) + whole]:
        path.write_bytes(damaged)
        (data, broken, _), (wanted, told, _) = content_of(path, 3), content_of(path, 1)
        assert broken == told
        if name == "frames" and damaged in cuts:  # the library keeps back what is left of a block when a file ends
            assert CONTENT.startswith(data) and abs(len(data) - len(wanted)) <= 1 << 17
        else:
            assert data == wanted


@pytest.mark.parametrize("name", DIVISIBLE)
def test_what_is_no_part_goes_the_long_way(tmp_path, monkeypatch, name):
    # The second and third pieces of the file: of another kind, too long, or more than they may unpack to.
    odd = {"bgzf": [gzip.compress(CONTENT), bgzf(bytes(15_000_000), 15_000_000)], "frames": [frames(CONTENT, 10**9)]}
    monkeypatch.setattr(parts, "MAX_PART_BYTES", 1_000_000)
    path = tmp_path / "x"
    for piece in odd[name]:
        path.write_bytes(DIVISIBLE[name](CONTENT) + piece + DIVISIBLE[name](CONTENT))
        assert content_of(path, 3)[:2] == content_of(path, 1)[:2]


def test_a_part_is_bounded_before_and_after(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(
        frames(bytes(100_000_000), 25_000_000) + frames(random.Random(3).randbytes(40_000_000), 20_000_000)
    )
    pieces = []
    for cut in (parts._frames, parts._blocks):
        raw = RawFile(str(path))
        pieces += cut(raw)
        raw.close()
    assert max(map(len, pieces)) <= parts.MAX_PART_BYTES + parts._LEAST_PART_BYTES
    assert content_of(path, 2)[1] is None


def gz_set(folder, count: int = 6, *, overlap: bool = False, packets: int = 400) -> list:
    """Captures of noise that follow each other, or overlap, each of 800 kB by default."""
    noise, paths = random.Random(7), []
    for i in range(count):
        begin = i * 100 if not overlap else noise.randrange(300)
        stamps = sorted(begin * SECOND + noise.randrange(100 * SECOND) // 1000 * 1000 for _ in range(packets))
        path = folder / f"set{i}.pcap.gz"
        path.write_bytes(gzip.compress(pcap([(T0 + stamp, noise.randbytes(2000)) for stamp in stamps]), 1))
        paths.append(path)
    return paths


@pytest.mark.parametrize("overlap", [False, True])
def test_a_set_gives_the_packets_of_its_files(tmp_path, overlap):
    paths = gz_set(tmp_path, overlap=overlap)
    alone = [row for i, path in enumerate(paths) for row in _numbered(read(path)[0], i)]
    for memory in (1, 1_000_000, 1 << 28):
        rows, source = read(tmp_path, ahead_bytes=memory)
        assert [_key(row) for row in rows] == sorted(map(_key, alone), key=lambda key: key[:3])
        assert source.bytes_read == source.bytes_total


def _numbered(rows, file_id):
    for row in rows:
        object.__setattr__(row, "file_id", file_id)
    return rows


def _key(row):
    return row.time_ns, row.file_id, row.number, row.data


def test_two_files_are_unpacked_at_a_time(tmp_path, monkeypatch):
    paths, meeting = gz_set(tmp_path, 3), threading.Barrier(2)

    def met(raw, *arguments):
        # The first file does not end before the second one has begun.
        for number, chunk in enumerate(chunks(raw, *arguments)):
            if (raw.path, number) in {(str(paths[0]), 1), (str(paths[1]), 0)}:
                meeting.wait(timeout=60)
            yield chunk

    monkeypatch.setattr(ahead, "chunks", met)
    assert len(read(tmp_path)[0]) == 1200


def test_memory_for_what_waits_is_bounded(tmp_path, monkeypatch):
    gz_set(tmp_path, 3, packets=2000)
    limit, most = 600_000, 0
    with CaptureInput([str(tmp_path)], ahead_bytes=limit) as source:
        for _ in source:
            most = max(most, source._room.bytes_ahead)
            # Slowly, so that the threads come as far as they may.
            threading.Event().wait(0.005)
    # Beside the limit: what the file at hand may run ahead, and a chunk of each thread.
    assert limit // 2 < most <= limit + (READ_AHEAD_CHUNKS + 2) * CHUNK
    assert source._room.readers == ()


def test_a_plain_file_that_waits_keeps_its_chunks(tmp_path):
    # Its chunks lie in a ring: they must not be overwritten while the file waits for its turn.
    path = tmp_path / "x.pcap"
    path.write_bytes(CONTENT)
    early = ReadAhead(RawFile(str(path)), 70_000, room=ahead.Room(), waits=True)
    threading.Event().wait(0.05)
    assert early.bytes_ahead <= READ_AHEAD_CHUNKS * 70_000
    early.begin()
    assert b"".join(bytes(chunk) for chunk in early) == CONTENT
    early.close()


@pytest.mark.parametrize("kind", ["corrupt", "truncated"])
def test_a_damaged_file_in_the_middle_of_a_set(tmp_path, kind):
    paths = gz_set(tmp_path)
    whole = bytearray(paths[2].read_bytes())
    if kind == "corrupt":
        whole[400_000:400_040] = b"\xff" * 40
    else:
        del whole[400_000:]
    paths[2].write_bytes(whole)
    alone, by_itself = read(paths[2])
    rows, source = read(tmp_path)
    (broken,) = source.report.broken
    assert broken == by_itself.report.broken[0] and broken.path == str(paths[2]) and broken.kind == kind
    assert [len([row for row in rows if row.file_id == i]) for i in range(6)] == [400, 400, len(alone), 400, 400, 400]
    assert 0 < len(alone) < 400


def test_a_read_error_in_a_thread_is_told_with_its_file(tmp_path, monkeypatch):
    paths, read_on = gz_set(tmp_path), RawFile.read

    def fail(self, size):
        if self.path == str(paths[3]) and self.bytes_read > 300_000:
            raise StreamBroken("unreadable", "cannot be read on: Input/output error")
        return read_on(self, size)

    monkeypatch.setattr(RawFile, "read", fail)
    rows, source = read(tmp_path)
    (broken,) = source.report.broken
    assert (broken.path, broken.kind) == (str(paths[3]), "unreadable") and "Input/output error" in broken.reason
    assert broken.offset == 24 + 2016 * sum(row.file_id == 3 for row in rows) > 200_000
    assert {row.file_id for row in rows} == set(range(6))


def test_a_failure_of_a_thread_reaches_the_reader(tmp_path, monkeypatch):
    paths = gz_set(tmp_path, 3)

    def fail(raw, *arguments):
        yield from () if raw.path == str(paths[1]) else chunks(raw, *arguments)
        if raw.path == str(paths[1]):
            raise MemoryError("no memory for a chunk")

    monkeypatch.setattr(ahead, "chunks", fail)
    with CaptureInput([str(tmp_path)]) as source, pytest.raises(MemoryError, match="for a chunk"):
        rows_of(source)


def test_a_file_that_goes_while_it_waits(tmp_path):
    paths = gz_set(tmp_path)
    with CaptureInput([str(tmp_path)], ahead_bytes=1) as source:
        batches = iter(source)
        next(batches)
        paths[4].unlink()
        files = {row[4] for batch in batches for row in batch.packets()}
    assert files == {0, 1, 2, 3, 5}
    assert [(broken.path, broken.kind) for broken in source.report.broken] == [(str(paths[4]), "unreadable")]


@pytest.mark.parametrize("batches", [0, 1, 5])
def test_threads_end_with_the_input(tmp_path, monkeypatch, batches):
    gz_set(tmp_path)
    started, run, before = [], ReadAhead._run, set(threading.enumerate())

    def noted(reader):
        started.append(threading.current_thread())
        run(reader)

    monkeypatch.setattr(ReadAhead, "_run", noted)
    source = CaptureInput([str(tmp_path)])
    for _ in zip(range(batches), source, strict=False):
        pass
    source.close()
    assert batches == 0 or started
    assert not any(thread.is_alive() for thread in started)
    assert all(not thread.name.startswith("synfin") for thread in set(threading.enumerate()) - before)
