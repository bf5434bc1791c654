"""Rows of an output folder: what is read of it, and of one that grows."""

from __future__ import annotations

import os
import shutil

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from growing import KEYS, rolled

from synfin.errors import ConfigError
from synfin.top import folder as module
from synfin.top.figures import figures, ranked
from synfin.top.folder import Folder
from synfin.top.history import History

S = 1_000_000_000


def shown(folder, keep_ns=300 * S, window_ns=60 * S):
    """Figures and lines of all that a folder holds."""
    history = History(keep_ns)
    for table, rows in Folder(str(folder), KEYS, keep_ns).take():
        history = history.with_rows(table, rows)
    of = figures(history, window_ns)
    return of, {table: ranked(history, table, of, "syns", 100) for table in KEYS}


def test_the_profiles_say_the_same(folder, written):
    assert shown(written("--profile", "lakehouse")) == shown(folder)


def test_rolls_of_a_run_are_one(folder, tmp_path):
    """Also those that lie in other hours, and that were there before."""
    appear = rolled(folder, tmp_path / "rows", 10)
    for number in range(9):
        appear(number)
    assert shown(tmp_path / "rows") == shown(folder)


def test_a_growing_folder(folder, tmp_path):
    """New files are taken together, at the second look that finds them, and once."""
    appear = rolled(folder, tmp_path / "rows", 10)
    feed = Folder(str(tmp_path / "rows"), KEYS, 300 * S)
    assert feed.take() == []
    appear(0)
    first = dict(feed.take())
    assert set(first) == {"intervals", *KEYS} and feed.take() == []
    appear(1, "intervals")
    assert feed.take() == []
    appear(1, *KEYS)
    second = dict(feed.take())
    second |= dict(feed.take())
    assert set(second) == {"intervals", *KEYS} and feed.take() == []
    assert pc.min(second["intervals"]["start"]).as_py() >= pc.max(first["intervals"]["end"]).as_py()
    for number in range(2, 9):
        appear(number)
        feed.take()
    last = dict(feed.take())
    whole = dict(Folder(str(folder), KEYS, 300 * S).take())
    assert last["intervals"]["start"][-1] == whole["intervals"]["start"][-1]


def looked(feed):
    """What comes at the next two looks."""
    return dict(feed.take()) | dict(feed.take())


def test_a_clock_that_was_set_back(folder, tmp_path):
    """What is written after it is read, though its name stands before that of what was read."""
    appear = rolled(folder, tmp_path / "rows", 10)
    appear(5)
    feed = Folder(str(tmp_path / "rows"), KEYS, 300 * S)
    history = History(300 * S)
    for table, rows in feed.take():
        history = history.with_rows(table, rows)
    future = history.end_ns
    for number in (2, 3):
        appear(number)
    new = looked(feed)
    assert set(new) == {"intervals", *KEYS}
    starts = new["intervals"]["start"].to_pylist()
    assert starts == sorted(starts) and starts[-1] - starts[0] >= 10 * S  # both, in the order of time
    for table, rows in new.items():
        history = history.with_rows(table, rows)
    assert history.end_ns < future
    assert looked(feed) == {}


def test_files_that_replace_others_under_their_names(folder, tmp_path):
    """As `track --overwrite` leaves them."""
    rows = tmp_path / "rows"
    shutil.copytree(folder, rows)
    feed = Folder(str(rows), KEYS, 300 * S)
    assert len(feed.take()) == 3 and looked(feed) == {}
    for table in ("intervals", *KEYS):
        (path,) = (rows / table).glob("*.parquet")
        shutil.copy(path, rows / ".new")
        (rows / ".new").rename(path)
    assert set(looked(feed)) == {"intervals", *KEYS} and looked(feed) == {}


def test_a_folder_that_rests_is_not_read_again(folder, tmp_path, monkeypatch):
    """Years of rolls lie in folders in which nothing comes or goes any more; what does come there is found."""
    appear = rolled(folder, tmp_path / "rows", 10)
    appear(0)
    old = tmp_path / "rows" / "intervals" / "date=2026-11-21" / "hour=00"
    os.utime(old, (0, 0))
    read = []
    monkeypatch.setattr(module, "_list", lambda place, *how, do=module._list: read.append(place) or do(place, *how))
    feed = Folder(str(tmp_path / "rows"), KEYS, 300 * S)
    feed.take()
    feed.take()
    assert read.count(str(old)) == 1 and read.count(str(tmp_path / "rows" / "intervals")) == 2
    appear(1)
    assert set(looked(feed)) == {"intervals", *KEYS}


def test_what_is_kept_of_files_goes_with_them(folder, tmp_path):
    rows = tmp_path / "rows"
    shutil.copytree(folder, rows)
    feed = Folder(str(rows), KEYS, 300 * S)
    feed.take()
    assert len(feed._done) == 3
    shutil.rmtree(rows / "services")
    feed.take()
    assert len(feed._done) == len(feed._there) == 2


def test_only_the_newest_is_read(folder, tmp_path):
    appear = rolled(folder, tmp_path / "rows", 10)
    for number in range(9):
        appear(number)
    oldest = sorted((tmp_path / "rows" / "intervals").rglob("*.parquet"))[:4]
    for path in oldest:
        path.write_bytes(b"nobody looks here")
    feed = Folder(str(tmp_path / "rows"), KEYS, 20 * S)
    rows = dict(feed.take())
    assert feed.notice == "" and rows["intervals"].num_rows >= 20
    one = tmp_path / "one" / "intervals"
    one.mkdir(parents=True)
    pq.write_table(
        pq.read_table(next((folder / "intervals").glob("*.parquet"))), one / "part-00000.parquet", row_group_size=8
    )
    read = dict(Folder(str(tmp_path / "one"), KEYS, 20 * S).take())["intervals"]
    assert 20 <= read.num_rows <= 32  # whole row groups, from the end


def test_files_that_are_no_rows(folder, tmp_path):
    """They are named, and the others are read; what is hidden or called otherwise is nobody's."""
    rows = tmp_path / "rows"
    shutil.copytree(folder, rows)
    good = shown(rows)
    (rows / "services" / "part-00009.parquet").write_bytes(b"PAR1 and no more")
    (rows / "intervals" / ".part-00009.parquet").write_bytes(b"")
    (rows / "intervals" / "notes.txt").write_text("mine")
    assert shown(rows) == good
    feed = Folder(str(rows), KEYS, 300 * S)
    feed.take()
    assert feed.notice == "part-00009.parquet could not be read"
    pq.write_table(
        pa.table({"interval_start": ["soon"], "interval_ns": [1]}), rows / "intervals" / "part-00010.parquet"
    )
    assert shown(rows) == good
    pq.write_table(pa.table({"a": [1]}), rows / "intervals" / "part-00011.parquet")
    feed = Folder(str(rows), KEYS, 300 * S)
    feed.take()
    assert "could not be read" in feed.notice or "lack the column" in feed.notice


def test_a_notice_goes_with_its_cause(folder, tmp_path, monkeypatch):
    """It stays while the file does, and while nothing can be listed."""
    rows = tmp_path / "rows"
    shutil.copytree(folder, rows)
    bad = rows / "services" / "part-00009.parquet"
    bad.write_bytes(b"PAR1 and no more")
    feed = Folder(str(rows), KEYS, 300 * S)
    for _ in range(2):
        feed.take()
        assert feed.notice == "part-00009.parquet could not be read"
    bad.unlink()
    feed.take()
    assert feed.notice == ""
    with monkeypatch.context() as patched:
        patched.setattr(
            os, "scandir", lambda place: (_ for _ in ()).throw(PermissionError(13, "Permission denied", place))
        )
        feed.take()
        assert feed.notice.startswith(f"cannot read {rows}/") and feed.notice.endswith(": permission denied")
    feed.take()
    assert feed.notice == ""


def test_what_is_gone(folder, tmp_path):
    """Files are pruned, and folders removed, while somebody looks on."""
    rows = tmp_path / "rows"
    shutil.copytree(folder, rows)
    feed = Folder(str(rows), KEYS, 300 * S)
    assert len(feed.take()) == 3
    shutil.rmtree(rows)
    assert feed.take() == [] and feed.notice == ""


def test_what_would_never_end(folder, tmp_path):
    """A pipe that is called like a file of rows, and a folder in a circle."""
    rows = tmp_path / "rows"
    shutil.copytree(folder, rows)
    good = shown(rows)
    os.mkfifo(rows / "intervals" / "part-00009.parquet")
    (rows / "intervals" / "zcircle").symlink_to(rows)
    assert shown(rows) == good


def test_no_output_folder(tmp_path):
    with pytest.raises(ConfigError, match="holds no interval table; name the folder that"):
        Folder(str(tmp_path), KEYS, S)
    (tmp_path / ".writing").mkdir()  # a live run that has just begun
    assert Folder(str(tmp_path), KEYS, S).take() == []
