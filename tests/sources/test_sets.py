"""Sets of files as one stream, and what is no capture, is there twice, breaks off or is missing."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from capture_files import HOUR, T0, enhanced, interface, pcap, read, rows_of, section

from synfin.errors import CaptureFormatError, CaptureOpenError, NotACaptureError
from synfin.sources.captures import CaptureInput
from synfin.sources.paths import expand, path_order

SECOND = 10**9


def write(path: Path, stamps, salt: int = 0) -> Path:
    path.write_bytes(pcap([(T0 + stamp, b"%d %d" % (salt, i)) for i, stamp in enumerate(stamps)]))
    return path


def test_overlapping_files_are_merged_by_time(tmp_path):
    rng = random.Random(5)
    files = []
    for i in range(30):
        begin = rng.randrange(50) * SECOND
        stamps = sorted(begin + rng.randrange(40) * SECOND // 4 for _ in range(rng.randrange(1, 60)))
        files.append((write(tmp_path / f"tap{i}.pcap", stamps, i), stamps))
    rows, source = read(tmp_path)
    naive = sorted((T0 + stamp, i, k) for i, (_, stamps) in enumerate(files) for k, stamp in enumerate(stamps, 1))
    assert [(row.time_ns, row.file_id, row.number) for row in rows] == naive
    assert source.files == [str(path) for path, _ in files]
    assert [entry.packets for entry in source.report.files] == [len(stamps) for _, stamps in files]
    assert source.bytes_read == source.bytes_total == sum(path.stat().st_size for path, _ in files)


def test_rotated_files_in_the_order_of_their_numbers(tmp_path):
    for i in range(12):
        write(tmp_path / f"x.pcap{i or ''}", [i * SECOND, (i + 1) * SECOND], i)  # each ends when the next begins
    rows, source = read(tmp_path / "x.pcap*")
    assert [row.file_id for row in rows] == [i for i in range(12) for _ in range(2)]
    assert source.report.gaps == source.report.overlaps == []
    assert path_order("a10") > path_order("a9") and path_order("a1b") > path_order("a1a")


def test_order_of_arguments_does_not_matter(tmp_path):
    paths = [write(tmp_path / f"{name}.pcap", [0, SECOND], i) for i, name in enumerate("abc")]
    assert read(*paths)[0] == read(*reversed(paths))[0] == read(tmp_path)[0]


def test_gaps_and_overlaps(tmp_path):
    write(tmp_path / "1.pcap", [0, 5 * SECOND], 1)
    write(tmp_path / "2.pcap", [5 * SECOND + SECOND, 20 * SECOND], 2)  # a second is no gap
    write(tmp_path / "3.pcap", [18 * SECOND, 19 * SECOND], 3)
    write(tmp_path / "4.pcap", [30 * SECOND, 31 * SECOND], 4)
    write(tmp_path / "5.pcap", [31 * SECOND + 3 * SECOND, 40 * SECOND], 5)
    _, source = read(tmp_path)
    report = source.report
    assert [(gap.length_ns, Path(gap.before).name, Path(gap.after).name) for gap in report.gaps] == [
        (10 * SECOND, "2.pcap", "4.pcap"),
        (3 * SECOND, "4.pcap", "5.pcap"),
    ]
    assert [(overlap.length_ns, Path(overlap.after).name) for overlap in report.overlaps] == [(SECOND, "3.pcap")]
    assert any(line.startswith("2 gaps between files; the longest, 10.000000 s") for line in report.warnings)


def test_four_hundred_files_with_one_of_each_fault(tmp_path):
    rng = random.Random(9)
    expected = {}
    for i in range(400):
        stamps = sorted(i * SECOND + rng.randrange(SECOND) for _ in range(40))
        content = pcap([(T0 + stamp, rng.randbytes(60)) for stamp in stamps])
        squeezed = gzip.compress(content)
        path = tmp_path / f"cap-{i:03}.pcap.gz"
        expected[path.name] = 40
        if i == 100:
            squeezed = squeezed[: len(squeezed) // 2]
        elif i == 200:
            squeezed = b""
        elif i == 300:
            squeezed = b"these are notes, and no capture\n"
        path.write_bytes(squeezed)
    shutil.copy(tmp_path / "cap-050.pcap.gz", tmp_path / "copy.pcap.gz")
    (tmp_path / "cap-060.pcap").write_bytes(gzip.decompress((tmp_path / "cap-060.pcap.gz").read_bytes()))
    rows, source = read(tmp_path)
    report = source.report
    (broken,) = report.broken
    assert broken.path.endswith("cap-100.pcap.gz") and broken.kind == "truncated"
    kept = report.files[[Path(entry.path).name for entry in report.files].index("cap-100.pcap.gz")].packets
    assert 0 < kept < 40 and broken.offset == 24 + 76 * kept
    assert len(rows) == 397 * 40 + kept
    assert [row.time_ns for row in rows] == sorted(row.time_ns for row in rows)
    assert {Path(path).name: reason for path, reason in report.skipped} == {
        "cap-200.pcap.gz": "not a capture: looks like an empty file",
        "cap-300.pcap.gz": "not a capture: looks like text",
    }
    doubled = {(Path(path).name, Path(original).name) for path, original in report.duplicates}
    assert doubled == {("copy.pcap.gz", "cap-050.pcap.gz"), ("cap-060.pcap.gz", "cap-060.pcap")}
    assert report.failed and isinstance(report.error, CaptureFormatError) and report.error.offset == broken.offset
    assert len(report.warnings) >= 5


def test_copies_are_compared_to_the_last_byte(tmp_path):
    packets = [(T0 + i * 1000, bytes(1000)) for i in range(500)]
    (tmp_path / "a.pcap").write_bytes(pcap(packets))
    (tmp_path / "b.pcap").write_bytes(pcap([*packets[:-1], (packets[-1][0], bytes(999) + b"x")]))
    (tmp_path / "c.pcap").write_bytes(pcap(packets[:-1]))
    os.symlink(tmp_path / "a.pcap", tmp_path / "d.pcap")
    os.link(tmp_path / "b.pcap", tmp_path / "e.pcap")
    rows, source = read(tmp_path)
    assert len(rows) == 1499
    assert [Path(path).name for path, _ in source.report.duplicates] == ["d.pcap", "e.pcap"]


def test_captures_without_packets_are_no_copies(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.pcap").write_bytes(pcap([]))
    rows, source = read(tmp_path)
    assert rows == [] and len(source.files) == 3 and source.report.warnings == []


def test_a_corrupt_file_does_not_end_the_run(tmp_path):
    good = pcap([(T0 + i, b"x") for i in range(3)])
    (tmp_path / "1.pcap").write_bytes(good + b"\xff" * 40)
    (tmp_path / "2.pcap").write_bytes(b"\xa1\xb2\xc3\xd4")
    write(tmp_path / "3.pcap", [SECOND])
    rows, source = read(tmp_path)
    assert [row.file_id for row in rows] == [0, 0, 0, 2]
    faults = sorted((Path(item.path).name, item.offset, item.kind) for item in source.report.broken)
    assert faults == [("1.pcap", len(good), "corrupt"), ("2.pcap", 0, "truncated")]
    assert source.report.failed and source.report.error.path.endswith("1.pcap")


def test_exit_rules_of_a_truncated_capture(tmp_path):
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([(T0, b"x"), (T0, b"yy")])[:-1])
    assert not read(path)[1].report.failed
    assert read(path, strict=True)[1].report.failed
    write(tmp_path / "y.pcap", [0])
    assert read(tmp_path)[1].report.failed  # one of several that breaks off


LOOKS = {
    "text": b"hello\n",
    "JSON": b' {"a": 1}',
    "HTML": b"<!DOCTYPE html><html>",
    "tar": b"name".ljust(257, b"\0") + b"ustar\0",
    "ELF": b"\x7fELF\x02\x01\x01",
    "ZIP": b"PK\x03\x04\x14\x00",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "Parquet": b"PAR1\x15\x04",
    "pcap`": b"snoop\0\0\0\0\0\0\x02",
    "empty": b"",
    "zero bytes": bytes(100),
    "unknown binary": b"\x01\x80\xff\x00" * 9,
    "gzip data": gzip.compress(gzip.compress(pcap([(T0, b"x")]))),
    "text;": gzip.compress(b"compressed words"),
}


@pytest.mark.parametrize("word", LOOKS)
def test_what_is_no_capture_says_what_it_is(tmp_path, word):
    path = tmp_path / "x.pcap"
    path.write_bytes(LOOKS[word])
    with pytest.raises(NotACaptureError, match="accepted are pcap and pcapng") as caught:
        CaptureInput([str(path)])
    assert word in str(caught.value) and str(path) in str(caught.value) and caught.value.offset == 0
    write(tmp_path / "y.pcap", [0])
    _, source = read(tmp_path)
    assert [name for name, _ in source.report.skipped] == [str(path)] and not source.report.failed
    rows, source = read(path, tmp_path / "y.pcap")
    (broken,) = source.report.broken
    assert (broken.path, broken.kind, broken.offset) == (str(path), "not a capture", 0) and word.strip(
        ";"
    ) in broken.reason
    assert len(rows) == 1 and source.report.failed and not source.report.skipped


def test_what_is_missing(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("words")
    for path in ("no.pcap", "*.pcap", "empty", "notes"):
        with pytest.raises(CaptureOpenError, match=r"no such file|nothing matches|holds no files|no capture in"):
            CaptureInput([str(tmp_path / path)])
    with pytest.raises(CaptureOpenError, match="no capture is named"):
        CaptureInput([])


def test_folders_are_searched_through_without_hidden_files(tmp_path):
    for name in ("b/c/1.pcap", "b/.2.pcap", ".b/3.pcap", "a.pcap"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, [0])
    assert expand([tmp_path]) == [str(tmp_path / "a.pcap"), str(tmp_path / "b/c/1.pcap")]
    assert expand([tmp_path / "[ab]*", tmp_path / "a.pcap"]) == expand([tmp_path])
    write(tmp_path / "[x].pcap", [0])
    assert expand([tmp_path / "[x].pcap"]) == [str(tmp_path / "[x].pcap")]


def test_links_to_folders_are_followed_and_loops_end(tmp_path):
    """Each folder once, under its own path where it lies below the one that is named."""
    top, other = tmp_path / "top", tmp_path / "other"
    for folder in (top / "z", other):
        folder.mkdir(parents=True)
        write(folder / "1.pcap", [0])
    links = {
        top / "a": top / "z",
        top / "b": other,
        top / "c": other,
        other / "loop": top,
        other / "self": other,
        top / ".d": other,
    }
    for link, target in links.items():
        link.symlink_to(target)
    assert expand([top]) == [str(top / "b/1.pcap"), str(top / "z/1.pcap")]
    assert expand([top / "b"]) == [str(top / "b/1.pcap"), str(top / "b/loop/z/1.pcap")]
    (top / "gone").symlink_to(tmp_path / "nowhere")
    assert str(top / "gone") in expand([top])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path):
    path = write(tmp_path / "x.pcap", [0])
    path.chmod(0)
    with pytest.raises(CaptureOpenError, match="Permission denied"):
        CaptureInput([str(path)])


def test_more_than_256_files_at_a_time(tmp_path):
    for i in range(257):
        write(tmp_path / f"{i}.pcap", [i, HOUR], i)
    with CaptureInput([str(tmp_path)]) as source, pytest.raises(CaptureOpenError, match="257 captures overlap"):
        rows_of(source)
    (tmp_path / "0.pcap").unlink()
    assert len(read(tmp_path)[0]) == 512


def test_a_file_that_vanishes_after_the_first_look(tmp_path):
    write(tmp_path / "1.pcap", [0])
    gone = write(tmp_path / "2.pcap", [9 * SECOND], 1)
    with CaptureInput([str(tmp_path)]) as source:
        gone.unlink()
        assert len(rows_of(source)) == 1
        (broken,) = source.report.broken
    assert broken.path == str(gone) and broken.offset is None and source.report.failed


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = write(tmp_path / "x.pcap", [i * 1000 for i in range(300_000)])
    with CaptureInput([str(path)], chunk_bytes=1 << 16) as source:
        batches = iter(source)
        next(batches)
        os.truncate(path, 1000)
        count = 256 + sum(len(batch) for batch in batches)
        assert count < 300_000 and source.report.files[0].packets == count


def test_standard_input(tmp_path, monkeypatch):
    content = pcap([(T0 + i, b"x" * i) for i in range(50)])

    def pipe_in(data):
        (tmp_path / "stdin").write_bytes(data)
        monkeypatch.setattr(sys, "stdin", open(tmp_path / "stdin"))  # noqa: SIM115

    pipe_in(gzip.compress(content))
    rows, source = read("-")
    assert len(rows) == 50 and source.files == ["-"] and source.bytes_total is None and source.bytes_read > 0
    pipe_in(b"words")
    with pytest.raises(NotACaptureError, match="standard input is not a capture"):
        CaptureInput(["-"])


def test_standard_input_from_a_slow_pipe(tmp_path):
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from capture_files import read\n"
        "print(len(read('-')[0]), flush=True)\n"
    )
    paths = [str(Path(__file__).parent), *sys.path]
    with subprocess.Popen([sys.executable, "-c", code, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        content = pcap([(T0 + i, b"x" * 100) for i in range(200)])
        for at in range(0, len(content), 999):
            child.stdin.write(content[at : at + 999])
            child.stdin.flush()
        child.stdin.close()
        assert child.stdout.read().strip() == b"200"


def test_pipes_join_a_set(tmp_path):
    write(tmp_path / "1.pcap", [0, 2 * SECOND])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = pcap([(T0 + SECOND, b"from the pipe"), (T0 + 3 * SECOND, b"again")])
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    rows, source = read(pipe, tmp_path / "1.pcap")
    writer.join()
    assert [row.file_id for row in rows] == [0, 1, 0, 1] and source.bytes_total is None


def test_a_pipe_in_a_folder_is_left_alone(tmp_path):
    write(tmp_path / "1.pcap", [0])
    os.mkfifo(tmp_path / "pipe")
    assert expand([tmp_path]) == expand([tmp_path / "*"]) == [str(tmp_path / "1.pcap")]


def test_a_closed_input_gives_nothing(tmp_path):
    source = CaptureInput([str(write(tmp_path / "1.pcap", [0]))])
    source.close()
    with pytest.raises(ValueError, match="closed"):
        next(iter(source))


def test_interfaces_of_several_files(tmp_path):
    for i, name in enumerate((b"eth0", b"eth1", b"eth0")):
        content = section() + interface(opts=[(2, name)]) + enhanced(T0 // 1000 + i, b"%d" % i)
        (tmp_path / f"{i}.pcapng").write_bytes(content)
    rows, source = read(tmp_path)
    assert [source.interfaces[row.interface_id] for row in rows] == ["eth0", "eth1", "eth0"]
    assert source.interfaces == ["eth0", "eth1"]


def test_closing_early_leaves_no_thread(tmp_path):
    before = threading.active_count()
    path = write(tmp_path / "x.pcap", [i * 1000 for i in range(100_000)])
    source = CaptureInput([str(path)], chunk_bytes=1 << 16)
    next(iter(source))
    del source
    assert threading.active_count() == before
