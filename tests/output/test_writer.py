"""Where rows go, and that a file appears only when it is complete."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fakes import FakeBlock, sample

from synfin.errors import ConfigError, ExportError
from synfin.output.arrow import Layout
from synfin.output.writer import Output, Target

TABLES = ("flows", "intervals")


def run(target, rows=3, metadata=None):
    layouts = {table: Layout.choose(table) for table in target.tables}
    output = Output(target, layouts)
    for table in target.tables:
        output.write(table, FakeBlock(table, sample(table, rows)))
    output.commit(metadata or {})
    return output


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("out", "more", "expected"),
    [
        ("x.parquet", {}, (False, "parquet", ("flows",))),
        ("x.arrow", {"table": "intervals"}, (False, "arrow", ("intervals",))),
        ("x.arrows", {}, (False, "arrow", ("flows",))),
        ("x.CSV", {}, (False, "csv", ("flows",))),
        ("x.ndjson", {}, (False, "jsonl", ("flows",))),
        ("x.parquet", {"format": "csv"}, (False, "csv", ("flows",))),
        ("x.dat", {"format": "csv"}, (False, "csv", ("flows",))),
        ("rows", {}, (True, "parquet", TABLES)),
        ("rows", {"format": "csv", "table": "flows"}, (True, "csv", ("flows",))),
        ("run.2024/", {}, (True, "parquet", TABLES)),
        ("old.csv", {}, (True, "parquet", TABLES)),
        ("-", {}, (False, "arrow", ("flows",))),
        ("-", {"format": "jsonl"}, (False, "jsonl", ("flows",))),
    ],
)
def test_target(tmp_path, monkeypatch, out, more, expected):
    monkeypatch.chdir(tmp_path)
    Path("old.csv").mkdir()  # an existing folder is a folder, whatever its name
    target = Target.parse(out, **more)
    assert (target.folder, target.format, target.tables) == expected


@pytest.mark.parametrize(
    ("out", "more", "message"),
    [
        ("x.dat", {}, "names no format"),
        ("file", {}, "names no format"),
        ("x.csv", {"append": True}, "folder"),
        ("-", {"append": True}, "folder"),
        ("rows", {"append": True, "overwrite": True}, "exclude"),
    ],
)
def test_target_refused(tmp_path, monkeypatch, out, more, message):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(ConfigError, match=message):
        Target.parse(out, **more)


def test_file_appears_only_when_complete(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_text("old")
    target = Target.parse(str(path))
    layout = Layout.choose("flows")
    output = Output(target, {"flows": layout})
    output.write("flows", FakeBlock("flows", sample("flows")))
    assert path.read_text() == "old"
    aside = [name for name in tree(tmp_path) if name != "x.parquet"]
    assert len(aside) == 1 and aside[0].startswith(".")
    output.commit({"complete": "true"})
    assert tree(tmp_path) == ["x.parquet"]
    assert pq.read_table(path).num_rows == 3


def test_abort_leaves_everything_as_it_was(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("old")
    output = Output(Target.parse(str(path)), {"flows": Layout.choose("flows")})
    output.abort()
    assert tree(tmp_path) == ["x.csv"] and path.read_text() == "old"
    rows = tmp_path / "rows"
    Output(Target.parse(str(rows)), {table: Layout.choose(table) for table in TABLES}).abort()
    assert not rows.exists()


def test_link_is_written_through(tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "x.csv"
    link.symlink_to("real/y.csv")
    run(Target.parse(str(link)))
    assert link.is_symlink() and (tmp_path / "real/y.csv").stat().st_size > 0


def test_folder_append_and_overwrite(tmp_path):
    rows = str(tmp_path / "rows")
    run(Target.parse(rows))
    first = ["flows/part-00000.parquet", "intervals/part-00000.parquet"]
    assert tree(rows) == first
    with pytest.raises(ConfigError, match="already holds"):
        run(Target.parse(rows))
    assert tree(rows) == first
    run(Target.parse(rows, append=True), rows=5)
    assert tree(rows) == ["flows/part-00000.parquet", "flows/part-00001.parquet", "intervals/part-00000.parquet", "intervals/part-00001.parquet"]
    assert pq.read_table(f"{rows}/flows").num_rows == 8
    run(Target.parse(rows, overwrite=True, format="csv"), rows=2)
    assert tree(rows) == ["flows/part-00000.csv", "intervals/part-00000.csv"]


@pytest.mark.parametrize("links", [True, False])
def test_runs_that_add_to_a_folder_at_the_same_time(tmp_path, monkeypatch, links):
    """Each began when the others had not ended; none takes another one's name."""
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: os.stat("/no such file"))
    numbers = iter(range(1, 99))
    monkeypatch.setattr(os, "getpid", lambda: next(numbers))  # as of several processes
    rows, layouts = str(tmp_path / "rows"), {table: Layout.choose(table) for table in ("flows", "intervals")}
    outputs = [Output(Target.parse(rows, append=append), layouts) for append in (False, False, True, True)]
    for count, output in enumerate(outputs, 1):
        output.write("flows", FakeBlock("flows", sample("flows", count)))
        output.commit({})
        assert output.names == [f"{rows}/{table}/part-{count - 1:05d}.parquet" for table in layouts]
    assert pq.read_table(f"{rows}/flows").num_rows == 1 + 2 + 3 + 4 and len(tree(rows)) == 8


def test_overwrite_that_fails_keeps_the_old_rows(tmp_path):
    rows = str(tmp_path / "rows")
    run(Target.parse(rows))
    Output(Target.parse(rows, overwrite=True), {table: Layout.choose(table) for table in TABLES}).abort()
    assert pq.read_table(f"{rows}/flows").num_rows == 3


def test_other_files_in_a_folder_are_left_alone(tmp_path):
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/notes.txt").write_text("mine")
    run(Target.parse(str(tmp_path), overwrite=True))
    assert "flows/notes.txt" in tree(tmp_path)


def test_pipes_named_by_a_link_to_a_descriptor():
    """As the shell's >(...) names them: the link leads to no path."""
    reading, writing = os.pipe()
    run(Target.parse(f"/dev/fd/{writing}", format="csv"), rows=2)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert len(pipe.read().splitlines()) == 3


@pytest.mark.parametrize("reader", [False, True])
def test_a_pipe_that_nobody_reads_is_ended_by_a_signal(tmp_path, reader):
    """Before it has a reader, and once the reader has stopped."""
    os.mkfifo(pipe := tmp_path / "pipe")
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from test_writer import Target, run
run(Target.parse("/dev/null", format="csv"))
print(flush=True)
try:
    run(Target.parse(sys.argv[2], format="csv"), rows=5_000)
except KeyboardInterrupt:
    sys.exit(77)
"""
    line = [sys.executable, "-c", code, Path(__file__).parent, pipe]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        held = os.open(pipe, os.O_RDONLY) if reader else None
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 77
    if held is not None:
        os.close(held)


def test_a_name_that_is_no_utf8(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.parquet")
    run(Target.parse(path))
    assert os.listdir(os.fsencode(tmp_path)) == [b"\xff.parquet"]


def test_missing_folder(tmp_path):
    with pytest.raises(ExportError, match=r"cannot write .*x\.csv: no such file or directory; create the folder"):
        run(Target.parse(str(tmp_path / "missing/x.csv")))
    with pytest.raises(ExportError, match="create the folder"):
        run(Target.parse(str(tmp_path / "missing/rows/")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ExportError, match="permission denied"):
        run(Target.parse(str(tmp_path / "x.csv")))


def test_special_file_is_written_straight():
    run(Target.parse("/dev/null", format="csv"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(ExportError, match="no space left on device; make room"):
        run(Target.parse("/dev/full", format="csv"), rows=5000)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("ending", ["parquet", "arrow", "csv", "jsonl"])
def test_full_disk_leaves_no_half_file(small_disk, ending):
    path = small_disk / f"x.{ending}"
    path.write_text("old")
    layout = Layout.choose("flows", ["client_ip"])
    output = Output(Target.parse(str(path)), {"flows": layout})
    with pytest.raises(ExportError, match="no space left on device"):
        for _ in range(150):
            columns = {"client_ip": [os.urandom(40).hex() for _ in range(1000)]}
            output.write("flows", FakeBlock("flows", columns))
        output.commit({})
    output.abort()
    assert tree(small_disk) == [path.name] and path.read_text() == "old"
