"""The output folder of a live run: when files roll, what they are called and hold, and what becomes of rows that no disk
takes.
"""

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from itertools import chain
from pathlib import Path

import duckdb
import polars
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
import pytest
from rolls import MINUTE, NOON, SECOND, Clock, Numbers, about, hidden, layouts, rows, settle, tick, tree

from synfin._core.batch import PacketBatch
from synfin._core.tracker import Tracker
from synfin.errors import ConfigError, ExportError
from synfin.output.arrow import Layout
from synfin.output.parquet import Parquet
from synfin.settings import Settings
from synfin.sidecar import rolling as module
from synfin.sidecar.rolling import Rolling
from synfin.sources.captures import CaptureInput

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
DAY = "date=2031-05-07"


@pytest.fixture
def open_folder(tmp_path):
    """Makes a Rolling in tmp_path/out, and closes it at the end."""
    made = []

    def make(*tables, clock=None, roll_ns=5 * MINUTE, metadata=lambda: {"command": "synfin live x"}, **options):
        rolling = Rolling(
            tmp_path / "out",
            layouts(*tables or ("flows",)),
            roll_ns=roll_ns,
            metadata=metadata,
            clock=clock or Clock(),
            **options,
        )
        made.append(rolling)
        return rolling

    yield make
    for rolling in made:
        rolling.close()


def test_rolls_by_time(open_folder, tmp_path):
    clock, folder = Clock(NOON + 58 * MINUTE + 3 * SECOND), tmp_path / "out"
    rolling = open_folder("flows", "intervals", clock=clock)
    blocks = [Numbers("flows", 10, seed) for seed in range(4)]
    rolling.write("flows", blocks[0])
    rolling.write("flows", blocks[1])
    tick(rolling)
    assert tree(folder) == []
    first, second = hidden(folder), f"{DAY}/hour=13/part-20310507T130000Z-00000.parquet"
    assert first == [f".writing/flows/.part-20310507T125803Z-00000.parquet.{os.getpid()}.tmp"]
    clock.now_ns = NOON + 60 * MINUTE + 1
    tick(rolling)
    assert tree(folder) == [f"flows/{DAY}/hour=12/part-20310507T125803Z-00000.parquet"]
    rolling.write("flows", blocks[2])
    rolling.write("intervals", Numbers("intervals", 2))
    settle(rolling)
    clock.now_ns += 5 * MINUTE
    rolling.write("flows", blocks[3])  # rolls without a tick
    settle(rolling)
    assert tree(folder)[1:] == [f"flows/{second}", f"intervals/{second}"]
    assert rolling.files_written == {"flows": 2, "intervals": 1}
    assert rolling.rows_written == {"flows": 30, "intervals": 2}
    rolling.close()
    files = tree(folder)
    assert files[2] == f"flows/{DAY}/hour=13/part-20310507T130500Z-00000.parquet" and hidden(folder) == []
    assert [rows(folder / file) for file in files[:3]] == [
        blocks[0].first + blocks[1].first,
        blocks[2].first,
        blocks[3].first,
    ]
    assert (rolling.error, rolling.rows_lost) == (None, {"flows": 0, "intervals": 0})


def test_rolls_by_rows(open_folder, tmp_path):
    """No file has more than was asked for, and no row is cut off."""
    rolling = open_folder(roll_rows=70)
    blocks = [Numbers("flows", count, count) for count in (30, 50, 200, 5000)]
    for block in blocks:
        rolling.write("flows", block)
    rolling.close()
    files = [rows(tmp_path / "out" / file) for file in tree(tmp_path / "out")]
    assert [len(file) for file in files[:-1]] == [70] * (len(files) - 1)
    assert list(chain(*files)) == list(chain(*(block.first for block in blocks)))


def test_rolls_when_asked_to(open_folder, tmp_path):
    clock = Clock(NOON + 1)
    rolling = open_folder(clock=clock)
    for _ in range(2):
        rolling.write("flows", Numbers("flows", 3))
        rolling.roll()
        settle(rolling)
    clock.now_ns += 7 * SECOND
    rolling.roll()
    settle(rolling)
    rolling.write("flows", Numbers("flows", 3))
    rolling.close()
    starts = [name.rpartition("part-")[2] for name in tree(tmp_path / "out")]
    assert starts == [
        "20310507T120000Z-00000.parquet",
        "20310507T120000Z-00001.parquet",
        "20310507T120007Z-00000.parquet",
    ]


def test_asking_twice_while_the_disk_is_busy_rolls_once_more(open_folder, tmp_path, monkeypatch):
    go = _slow_disk(monkeypatch)
    rolling = open_folder()
    rolling.write("flows", Numbers("flows", 3))
    rolling.roll()
    rolling.roll()
    rolling.write("flows", Numbers("flows", 3))
    go.set()
    tick(rolling)
    assert len(tree(tmp_path / "out")) == 2


@pytest.mark.parametrize("step", [-3600, 7200])
def test_a_clock_that_is_set_begins_another_roll(open_folder, tmp_path, step):
    clock = Clock()
    rolling = open_folder(clock=clock)
    rolling.write("flows", Numbers("flows", 3))
    settle(rolling)
    clock.now_ns += step * SECOND
    tick(rolling)
    rolling.write("flows", Numbers("flows", 4))
    rolling.close()
    assert [name.rpartition("hour=")[2][:2] for name in tree(tmp_path / "out")] == sorted(
        ["12", "11" if step < 0 else "14"]
    )


def test_what_a_file_says_of_its_run(open_folder, tmp_path):
    account = {"packets": 0}
    rolling = open_folder(
        "flows", "interim", metadata=lambda: {"accounting": str(account["packets"]), "complete": "true"}
    )
    for packets in (5, 9):
        rolling.write("flows", Numbers("flows", 3))
        rolling.write("interim", Numbers("interim", 3))
        settle(rolling)
        account["packets"] = packets
        rolling.roll()
        settle(rolling)
    rolling.close()
    files = [tmp_path / "out" / file for file in tree(tmp_path / "out")]
    assert [about(path)["accounting"] for path in files] == ["5", "9", "5", "9"]
    assert [about(path)["table"] for path in files] == ["flows"] * 2 + ["interim"] * 2
    assert {about(path)["complete"] for path in files} == {"true"}
    assert all("synfin_version" in about(path) for path in files)


def test_engines_read_the_tree(open_folder, tmp_path):
    """DuckDB, Polars and pyarrow find the rows by date and hour, also while another roll is being written."""
    clock = Clock(NOON - 13 * 60 * MINUTE)
    rolling = open_folder("flows", "intervals", clock=clock)
    for hour in range(26):
        rolling.write("flows", Numbers("flows", 10 + hour, hour))
        rolling.write("intervals", Numbers("intervals", 1))
        settle(rolling)
        clock.now_ns += 60 * MINUTE
        tick(rolling)
    rolling.write("flows", Numbers("flows", 999))
    settle(rolling)
    assert len(hidden(tmp_path / "out")) == 1
    files = f"{tmp_path}/out/flows/**/*.parquet"
    by_hour = duckdb.sql(
        f"select date, hour, count(*) from read_parquet('{files}', hive_partitioning=true) group by all order by all"
    ).fetchall()
    assert len(by_hour) == 26 and sum(count for *_, count in by_hour) == sum(10 + hour for hour in range(26))
    assert [(str(date), int(hour)) for date, hour, _ in by_hour[:2]] == [("2031-05-06", 23), ("2031-05-07", 0)]
    frame = polars.scan_parquet(f"{tmp_path}/out/flows", hive_partitioning=True)
    assert (
        frame.filter((polars.col("hour") == 7) & (polars.col("date") == polars.date(2031, 5, 7))).collect().height == 18
    )
    table = pyarrow.dataset.dataset(tmp_path / "out" / "flows", partitioning="hive")
    assert table.count_rows(filter=pyarrow.dataset.field("hour") == 0) == 11 + 35


@pytest.mark.parametrize("count", [100, 10_000, 16_384])
def test_no_block_is_held(open_folder, count):
    """The memory of a block is that of a full one, whatever it holds: rows that wait are copied out of it."""
    block, rolling = Numbers("flows", count), open_folder()
    before = sys.getrefcount(block.values)
    rolling.write("flows", block)
    settle(rolling)
    held = sys.getrefcount(block.values) > before
    assert not held


@pytest.mark.parametrize("profile", ["native", "lakehouse"])
def test_rows_of_the_core_arrive_as_they_are(tmp_path, profile):
    """All columns of real blocks, interim rows among them, taken every few packets."""
    tables = {table: Layout.choose(table, None, profile) for table in ("flows", "intervals")}
    tables["interim"] = tables["flows"].for_interim()
    rolling = Rolling(tmp_path / "out", tables, roll_ns=5 * MINUTE, roll_rows=20, metadata=dict, clock=Clock())
    expected = {table: [] for table in tables}
    source, tracker, batch = CaptureInput([str(EXAMPLES)]), Tracker(Settings()), PacketBatch()

    def take():
        tracker.names(list(source.files), list(source.interfaces))
        for table, layout in tables.items():
            while (block := tracker.take(table, True)) is not None:
                expected[table].append(layout.batch(block))
                rolling.write(table, block)
                settle(rolling)

    while source.fill(batch):
        for part in (batch.part(0, len(batch) // 2), batch.part(len(batch) // 2, len(batch))):
            assert tracker.feed(part)
            while not tracker.interim(SECOND):
                take()
            take()
    while not tracker.finish():
        take()
    take()
    source.close()
    rolling.close()
    for table, batches in expected.items():
        files = [tmp_path / "out" / name for name in tree(tmp_path / "out") if name.startswith(table)]
        found = pyarrow.concat_tables(pyarrow.parquet.ParquetFile(path).read() for path in files)
        assert found.num_rows > 50 and len(files) > 2 and len(batches) > 5
        handed = pyarrow.Table.from_batches(batches)
        for name in handed.schema.names:
            assert plain(found[name]) == plain(handed[name]), name


def plain(column) -> list:
    return (column.cast("int64") if pyarrow.types.is_timestamp(column.type) else column).to_pylist()


# ---------------------------------------------------------------------------------------------------- the start


def test_leftovers_of_dead_runs_go_and_all_else_stays(open_folder, tmp_path):
    folder = tmp_path / "out"
    name = "part-20310507T120000Z-00000.parquet"
    go = [f".writing/flows/.{name}.77.tmp", f".writing/interim/.{name}.4000000.tmp", ".writing/.trial.77.tmp"]
    stay = [
        f"flows/{DAY}/hour=12/{name}", f"flows/{DAY}/hour=12/.{name}.77.tmp", "flows/part-00000.parquet",
        "flows/.part-00000.parquet.77.tmp", f".{name}.77.tmp", "notes.txt", ".writing/flows/notes.txt",
    ]  # fmt: skip
    for path in map(folder.joinpath, go + stay):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    rolling = open_folder("intervals")  # also those of a table that is not written now
    assert rolling.leftovers == 3
    rolling.close()
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == sorted(stay)


def test_a_name_that_is_taken_is_not_taken_again(open_folder, tmp_path):
    folder = tmp_path / "out"
    place = folder / "flows" / DAY / "hour=12"
    place.mkdir(parents=True)
    (place / "part-20310507T120000Z-00000.parquet").write_text("of a run before")
    rolling = open_folder()
    rolling.write("flows", Numbers("flows", 3))
    rolling.close()
    assert sorted(path.name for path in place.iterdir()) == [f"part-20310507T120000Z-0000{n}.parquet" for n in (0, 1)]
    assert (place / "part-20310507T120000Z-00000.parquet").read_text() == "of a run before"


def test_one_process_has_the_folder(open_folder, tmp_path):
    rolling = open_folder()
    with pytest.raises(ConfigError, match=r"another process writes to .*out; give each its own folder"):
        open_folder()
    rolling.close()
    rolling.close()
    open_folder().close()


def test_a_folder_that_cannot_be_made(tmp_path):
    for folder, reason in (
        (tmp_path / "a" / "b", "create the folder first"),
        (tmp_path / "file" / "out", "not a directory"),
    ):
        (tmp_path / "file").touch()
        with pytest.raises(ExportError, match=reason):
            Rolling(folder, layouts("flows"), roll_ns=MINUTE, metadata=dict)


# ---------------------------------------------------------------------------------------------------- faults


def _slow_disk(monkeypatch) -> threading.Event:
    """Writes wait for the event."""
    go = threading.Event()

    class Slow(Parquet):
        def write(self, batch):
            assert go.wait(60)
            super().write(batch)

    monkeypatch.setattr(module, "_PARQUET", Slow)
    return go


@pytest.mark.parametrize("size", [1, 1024, 16_384])
def test_a_disk_that_is_too_slow_costs_rows_and_no_time(open_folder, tmp_path, monkeypatch, size):
    go = _slow_disk(monkeypatch)
    rolling = open_folder()
    block, count = Numbers("flows", size), 200
    began = time.monotonic()
    for _ in range(count):
        rolling.write("flows", block)
        rolling.tick()
    assert time.monotonic() - began < 30  # the disk takes nothing for a minute
    assert "fast enough" in rolling.error and not rolling.has_room
    lost = rolling.rows_lost["flows"]
    taken = count * size - lost
    assert 0 < taken <= module.ROOM * 1024
    go.set()
    tick(rolling)
    tick(rolling)
    assert rolling.error is None and rolling.has_room
    rolling.write("flows", block)
    rolling.close()
    assert rolling.rows_lost["flows"] == lost and rolling.rows_written["flows"] == taken + size
    files = [tmp_path / "out" / file for file in tree(tmp_path / "out")]
    assert sum(len(rows(path)) for path in files) == taken + size
    assert about(files[-1])["complete"] == "false" and str(lost) in about(files[-1])["reason"]


@pytest.mark.parametrize("size", [1, 1024, 16_384])
def test_rows_that_may_wait_are_all_written(open_folder, monkeypatch, size):
    """As they may once no packet comes any more."""
    go = _slow_disk(monkeypatch)
    rolling = open_folder()
    block, count = Numbers("flows", size), 200
    threading.Timer(0.3, go.set).start()
    for _ in range(count):
        rolling.write("flows", block, wait=True)
    assert go.is_set() and rolling.error is None
    rolling.close()
    assert (rolling.rows_lost, rolling.rows_written) == ({"flows": 0}, {"flows": count * size})


class Full:
    """A disk without room while `on`: what a format does in the method `where` fails, as the system says it."""

    def __init__(self, monkeypatch, where: str):
        self.on = False
        usual = getattr(Parquet, where)

        def method(*arguments):
            self.refuse()
            return usual(*arguments)

        monkeypatch.setattr(module, "_PARQUET", type("Failing", (Parquet,), {where: method}))
        monkeypatch.setattr(module, "_try_disk", lambda trial: self.refuse())

    def refuse(self):
        if self.on:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["__init__", "write", "_flush", "close"])
def test_a_full_disk_costs_its_rows_and_heals(open_folder, tmp_path, monkeypatch, where):
    """Whatever step fails: the half file is gone, each row is in a file or counted, and later ones are written again."""
    disk = Full(monkeypatch, where)
    rolling = open_folder("flows", "intervals")

    def write(times):
        for _ in range(times):
            rolling.write("flows", Numbers("flows", 100))
            settle(rolling)

    def roll():
        rolling.roll()
        settle(rolling)

    write(3)
    roll()
    write(2)
    disk.on = True
    write(1)
    roll()
    whole = 300 if where == "__init__" else 0  # that file was open
    assert rolling.rows_lost["flows"] == 300 - whole
    write(4)  # not one is tried before the disk has been
    tick(rolling)
    write(1)
    roll()
    assert "no space left on device; make room" in rolling.error
    assert hidden(tmp_path / "out") == []
    assert rolling.rows_lost["flows"] == 800 - whole
    disk.on = False
    tick(rolling)
    assert rolling.error is None
    rolling.write("intervals", Numbers("intervals", 5))
    write(2)
    roll()
    write(1)
    rolling.close()
    assert rolling.rows_lost == {"flows": 800 - whole, "intervals": 0}
    files = [path for path in tree(tmp_path / "out") if path.startswith("flows")]
    assert [len(rows(tmp_path / "out" / path)) for path in files] == [300] + [300] * (whole == 300) + [200, 100]
    assert [about(tmp_path / "out" / path)["complete"] for path in files[-3:]] == ["true", "false", "true"]
    assert about(tmp_path / "out" / files[-2])["reason"].startswith(f"{800 - whole} rows")


def test_a_full_disk_spares_the_open_files_of_other_tables(open_folder, tmp_path, monkeypatch):
    disk = Full(monkeypatch, "__init__")
    rolling = open_folder("flows", "intervals")
    rolling.write("intervals", Numbers("intervals", 5))
    settle(rolling)
    disk.on = True
    for table in ("flows", "intervals"):
        rolling.write(table, Numbers(table, 7))
    tick(rolling)
    assert rolling.error
    rolling.close()
    assert (rolling.rows_lost, rolling.rows_written) == ({"flows": 7, "intervals": 0}, {"flows": 0, "intervals": 12})


def test_a_disk_that_is_full_at_the_start(open_folder, tmp_path, monkeypatch):
    """It does not keep a run from beginning: whoever restarts a sidecar needs its numbers all the same."""
    disk = Full(monkeypatch, "__init__")
    disk.on = True
    rolling = open_folder()
    assert "no space left" in rolling.error
    rolling.write("flows", Numbers("flows", 7))
    settle(rolling)
    disk.on = False
    tick(rolling)
    rolling.write("flows", Numbers("flows", 9))
    rolling.close()
    assert (rolling.rows_lost, rolling.rows_written, rolling.error) == ({"flows": 7}, {"flows": 9}, None)


def test_a_folder_that_is_gone_for_a_while(open_folder, tmp_path):
    rolling, folder = open_folder(), tmp_path / "out"
    rolling.write("flows", Numbers("flows", 10))
    settle(rolling)
    shutil.rmtree(folder)
    rolling.roll()
    settle(rolling)
    assert "no such file or directory" in rolling.error
    for _ in range(3):
        tick(rolling)
        rolling.write("flows", Numbers("flows", 10))
        settle(rolling)
    assert rolling.rows_lost["flows"] == 40 and not folder.exists()  # its disk may be gone
    folder.mkdir()
    tick(rolling)
    rolling.write("flows", Numbers("flows", 7))
    settle(rolling)
    assert rolling.error is None
    rolling.close()
    assert [len(rows(folder / file)) for file in tree(folder)] == [7]
    assert rolling.rows_lost["flows"] == 40


def test_a_folder_of_hours_that_is_removed_is_made_again(open_folder, tmp_path):
    rolling = open_folder("flows", "intervals")
    for table in ("flows", "intervals"):
        rolling.write(table, Numbers(table, 10))
    settle(rolling)
    shutil.rmtree(tmp_path / "out" / "flows")
    rolling.roll()
    tick(rolling)
    rolling.write("flows", Numbers("flows", 7))
    rolling.close()
    assert (rolling.rows_lost, rolling.rows_written) == ({"flows": 0, "intervals": 0}, {"flows": 17, "intervals": 10})
    assert rolling.error is None


def test_an_error_of_the_program_is_no_error_of_the_disk(open_folder):
    """It reaches the caller, who ends: nothing is lost unsaid."""

    def metadata():
        raise ZeroDivisionError

    rolling = open_folder(metadata=metadata)
    before = set(threading.enumerate())
    rolling.write("flows", Numbers("flows", 3))
    rolling.roll()
    settle(rolling)
    with pytest.raises(ZeroDivisionError):
        rolling.tick()
    with pytest.raises(ZeroDivisionError):
        rolling.close()
    assert set(threading.enumerate()) <= before


FILL = """
import sys, time
from pathlib import Path
from rolls import MINUTE, Clock, Numbers, hidden, layouts, rows, settle, tick, tree
from synfin.sidecar.rolling import Rolling

folder = Path(sys.argv[1])
filler = folder / "filler"
filler.write_bytes(bytes(3 << 20))
rolling = Rolling(folder / "out", layouts("flows"), roll_ns=MINUTE, metadata=dict, clock=Clock())
handed = said = 0
for number in range(80):
    rolling.write("flows", Numbers("flows", 16384, number))
    handed += 16384
    tick(rolling)
    if rolling.error:
        said += 1
        assert "no space left on device" in rolling.error, rolling.error
        assert said > 1 or not hidden(folder), hidden(folder)
    if number == 40:
        assert said, "the disk was never full"
        filler.unlink()
    if number % 5 == 4:
        rolling.roll()
        settle(rolling)
rolling.close()
found = sum(len(rows(folder / "out" / path)) for path in tree(folder / "out"))
assert found == rolling.rows_written["flows"], (found, rolling.rows_written)
assert found + rolling.rows_lost["flows"] == handed
assert hidden(folder) == []
print(said, found, rolling.rows_lost["flows"])
"""


def test_a_real_disk_that_is_full(tmp_path):
    """A file system of 4 MiB, three quarters of it taken for a while."""
    mounted = subprocess.run(
        ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=4m none "$1" && exec "$2" -c "$3" "$1"', "sh", tmp_path, sys.executable, FILL],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "unshare: " in mounted.stderr or "mount: " in mounted.stderr:
        pytest.skip(f"no file system of one's own is allowed here: {mounted.stderr.strip()}")
    assert mounted.returncode == 0, mounted.stderr
    said, found, lost = map(int, mounted.stdout.split())
    assert said and found > 16_384 * 10 and lost > 16_384 * 10


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path, kills):
    """Every file under its name opens and is complete; what was half written is gone after the next start."""
    seed = random.randrange(1 << 30)
    done = subprocess.run(
        [sys.executable, HERE / "killed.py", tmp_path, str(kills), str(seed)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr}"
    complete, leftovers = map(int, done.stdout.split())
    assert complete and leftovers
