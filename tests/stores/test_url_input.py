"""Captures read from a store: the same packets as from a file, by large requests some of which run ahead."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import threading
import time

import lz4.frame
import pytest
import zstandard

from synfin.errors import CaptureOpenError
from synfin.sources import captures
from synfin.sources.captures import CaptureInput
from synfin.sources.stored import CHUNKS_OF_A_BLOCK, FIRST_BYTES, StoredFile
from synfin.sources.streams import CHUNK_BYTES, RawFile, StreamBroken, chunks
from synfin.stores import StoreError, Url

CONTENT = random.Random(1).randbytes(3_000_000)
CHUNK = 1 << 16
PACKINGS = {
    "plain": bytes, "gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress, "lz4": lz4.frame.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "frames": lambda data: b"".join(zstandard.ZstdCompressor().compress(data[at : at + 400_000]) for at in range(0, len(data), 400_000)),
}  # fmt: skip


class Recorder:
    """A store with one object that notes what is asked for."""

    def __init__(self, content: bytes = CONTENT, fails_at: int | None = None, ends_at: int | None = None):
        self.content, self.fails_at, self.ends_at = content, fails_at, ends_at
        self.asked: list[tuple[int, int]] = []
        self.most = self._now = 0
        self._lock = threading.Lock()

    def open_input_file(self, path: str) -> Recorder:
        return self

    def size(self) -> int:
        return len(self.content)

    def read_at(self, size: int, start: int) -> bytes:
        with self._lock:
            self.asked.append((start, size))
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.005)
        with self._lock:
            self._now -= 1
        if self.fails_at is not None and start + size > self.fails_at:
            raise OSError("AWS Error NETWORK_CONNECTION during GetObject operation")
        return self.content[: self.ends_at][start : start + size]

    @property
    def url(self) -> Url:
        return Url.of("fake://x", self, "x")


@pytest.fixture(autouse=True)
def no_thread_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_requests_are_large_and_run_ahead():
    store = Recorder()
    with StoredFile(store.url, CHUNK) as file:
        content = bytearray()
        while data := file.read(50_001):
            content += data
            assert sum(size for _, size in store.asked) <= len(content) + FIRST_BYTES + 5 * CHUNKS_OF_A_BLOCK * CHUNK
    assert content == CONTENT
    starts, sizes = zip(*sorted(store.asked), strict=True)
    assert sizes[0] == FIRST_BYTES and set(sizes[1:-1]) == {CHUNKS_OF_A_BLOCK * CHUNK}
    assert [start + size for start, size in zip(starts, sizes, strict=True)] == [
        *starts[1:],
        len(CONTENT),
    ]  # each byte once
    assert 2 <= store.most <= 4
    assert CHUNKS_OF_A_BLOCK * CHUNK_BYTES == 4 << 20


def test_a_look_at_the_beginning_costs_one_request():
    store = Recorder()
    with StoredFile(store.url) as file:
        assert file.read(FIRST_BYTES) == CONTENT[:FIRST_BYTES]
    assert store.asked == [(0, FIRST_BYTES)]


@pytest.mark.parametrize("size", [0, 1, FIRST_BYTES, FIRST_BYTES + 1, 1_000_000])
def test_objects_of_all_sizes(size):
    with StoredFile(Recorder(CONTENT[:size]).url, CHUNK) as file:
        assert file.readall() == CONTENT[:size] and file.size == size


def test_reading_on_from_other_places():
    dice = random.Random(2)
    with StoredFile(Recorder().url, CHUNK) as file:
        for _ in range(60):
            at, size = dice.randrange(len(CONTENT)), dice.randrange(1, 200_000)
            if dice.random() < 0.8:
                file.seek(at)
            else:
                at = file.tell() if False else file._at
            got = bytearray()
            while len(got) < size and (more := file.read(size - len(got))):
                got += more
            assert got == CONTENT[at : at + size]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"fails_at": 1_000_000}, "cannot be read on: the store cannot be reached"),
        ({"ends_at": 900_000}, "became shorter"),
    ],
)
def test_a_store_that_fails_underway(how, reason):
    raw = RawFile(Recorder(**how).url, CHUNK)
    content = bytearray()
    with pytest.raises(StreamBroken, match=reason) as broken:
        for chunk in chunks(raw, CHUNK):
            content += chunk
    assert broken.value.kind == "unreadable"
    assert len(content) >= 500_000 and CONTENT.startswith(content)


def packets_of(*paths, **how) -> list[tuple]:
    with CaptureInput(list(paths), **how) as source:
        return [(packet[0], *packet[1:]) for batch in source for packet in batch.packets()]


@pytest.fixture
def big(tmp_path):
    """A capture of some two megabytes."""
    from dialogue import write_pcap

    dice = random.Random(3)
    packets = [(10**18 + n * 10**6, bytes(12) + b"\x08\x00" + dice.randbytes(1000)) for n in range(2000)]
    return write_pcap(tmp_path / "big.pcap", packets)


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_same_packets_as_from_a_file(memory, big, monkeypatch, packing):
    monkeypatch.setattr(captures, "usable_cores", lambda: 2)
    packed = PACKINGS[packing](big.read_bytes())
    url = memory.put("caps/x.pcap.packed", packed)
    expected = packets_of(big)
    assert len(expected) == 2000
    assert packets_of(url) == packets_of(url, chunk_bytes=CHUNK) == expected
    with CaptureInput([url]) as source:
        assert source.bytes_total == len(packed) and source.files == [str(url)]


def test_damage_is_told_as_in_a_file(memory, big, tmp_path):
    damaged = bytearray(gzip.compress(big.read_bytes()))
    damaged[len(damaged) // 2] ^= 0xFF
    path = tmp_path / "x.gz"
    path.write_bytes(damaged)
    url = memory.put("x/x.gz", bytes(damaged))
    told = []
    for name in (url, path):
        with CaptureInput([name]) as source:
            count = sum(len(batch) for batch in source)
        (broken,) = source.report.broken
        told.append((count, broken.offset, broken.reason, broken.kind))
    assert told[0] == told[1] and told[0][0] > 500


def test_a_folder_is_a_set(memory, big):
    content = big.read_bytes()
    half = content[:24] + content[24 + 1000 * 1030 :]
    assert len(content) == 24 + 2000 * 1030
    memory.put("caps/day/x.pcap10", half)
    memory.put("caps/day/x.pcap2", content[: 24 + 1000 * 1030])
    memory.put("caps/day/copy.gz", gzip.compress(half))
    memory.put("caps/day/notes.txt", b"no capture")
    memory.put("caps/day/.hidden", content)
    memory.put("caps/day/.tmp/x.pcap", content)
    memory.put("caps/other.pcap", content)
    with CaptureInput([memory.url("caps/day/")]) as source:
        got = [packet[0] for batch in source for packet in batch.packets()]
        report, files = source.report, source.files
    assert got == [packet[0] for packet in packets_of(big)]
    assert [name.rpartition("/")[2] for name in files] == ["copy.gz", "x.pcap2"]
    assert report.duplicates == [("mock://caps/day/x.pcap10", "mock://caps/day/copy.gz")]
    assert [path for path, _ in report.skipped] == ["mock://caps/day/notes.txt"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("caps/none", "no such file"), ("none/x", "no bucket or folder none"), ("caps/empty", "holds no files")],
)
def test_what_is_not_there(memory, path, expected):
    memory.put("caps/x", b"")
    memory.store.create_dir("caps/empty")
    with pytest.raises(CaptureOpenError, match=f"^mock://{path}.*{expected}"):
        CaptureInput([memory.url(path)])


def test_errors_of_opening(memory):
    with pytest.raises(StoreError, match="no such file"):
        StoredFile(memory.url("none"))
    with pytest.raises(CaptureOpenError, match=r"mock://none: cannot be opened: no such file"):
        RawFile(memory.url("none"))
