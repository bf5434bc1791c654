"""What goes from an output folder, in which order, and what never does."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rolls import MINUTE, NOON, Clock, Numbers, hidden, layouts, settle, tick, tree

from synfin.settings import NS_PER_S
from synfin.sidecar.pruning import FOLDERS, WRITING, part_path, prune
from synfin.sidecar.rolling import Rolling

HOUR = 60 * MINUTE
DAY = 24 * HOUR


def put(folder: Path, table: str, start_ns: int, size: int = 100, number: int = 0) -> str:
    """A complete file; returns its path below the folder."""
    path = part_path(folder, table, start_ns, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return str(path.relative_to(folder))


def test_the_path_of_a_file(tmp_path):
    start = int(datetime(2031, 5, 7, 3, 4, 5, tzinfo=UTC).timestamp()) * NS_PER_S
    path = part_path(tmp_path, "flows", start + 999_999_999, 7)
    assert str(path.relative_to(tmp_path)) == "flows/date=2031-05-07/hour=03/part-20310507T030405Z-00007.parquet"


def test_by_age(tmp_path):
    files = [put(tmp_path, table, NOON - hours * HOUR) for hours in (50, 3, 2) for table in ("flows", "interim")]
    assert prune(tmp_path, FOLDERS, now_ns=NOON, keep_ns=2 * HOUR, keep_bytes=None) == 4
    assert tree(tmp_path) == sorted(files[4:])
    assert not (tmp_path / "flows" / "date=2031-05-05").exists()  # no empty folders stay
    assert (tmp_path / "flows").is_dir()


def test_by_size_over_all_tables(tmp_path):
    """The oldest goes first, whatever its table; of one second, the lower number."""
    names = [
        put(tmp_path, "intervals", NOON - 3 * HOUR, 10),
        put(tmp_path, "flows", NOON - 2 * HOUR, 1000),
        put(tmp_path, "flows", NOON - 2 * HOUR, 1000, 1),
        put(tmp_path, "flows", NOON - 2 * HOUR, 1000, 10),
        put(tmp_path, "interim", NOON - 1 * HOUR, 500),
    ]
    for keep, left in ((3510, names), (3509, names[1:]), (2000, names[3:]), (1499, names[4:]), (0, [])):
        prune(tmp_path, FOLDERS, now_ns=NOON, keep_ns=None, keep_bytes=keep)
        assert tree(tmp_path) == sorted(left)


def test_either_bound(tmp_path):
    for hours in range(10):
        put(tmp_path, "flows", NOON - hours * HOUR)
    prune(tmp_path, FOLDERS, now_ns=NOON, keep_ns=6 * HOUR, keep_bytes=10_000)
    assert len(tree(tmp_path)) == 7
    prune(tmp_path, FOLDERS, now_ns=NOON, keep_ns=6 * HOUR, keep_bytes=350)
    assert len(tree(tmp_path)) == 3
    assert prune(tmp_path, FOLDERS, now_ns=NOON + DAY * 3000, keep_ns=None, keep_bytes=None) == 0


def test_what_is_being_written_counts_and_stays(tmp_path):
    half = tmp_path / WRITING / "flows" / ".part-20200101T000000Z-00000.parquet.77.tmp"
    half.parent.mkdir(parents=True)
    half.write_bytes(bytes(5_000))
    put(tmp_path, "flows", NOON, 1000)
    assert prune(tmp_path, FOLDERS, now_ns=NOON, keep_ns=None, keep_bytes=6_000) == 0
    assert prune(tmp_path, FOLDERS, now_ns=NOON, keep_ns=None, keep_bytes=5_999) == 1
    assert half.exists()


def test_what_is_not_ours_stays(tmp_path):
    ours = put(tmp_path, "flows", NOON - 9 * HOUR)
    place = Path(ours).parent
    link = tmp_path / "flows" / "date=2031-05-01"
    foreign = [
        *(str(place / name) for name in ("part-00000.parquet", "data.parquet", "part-20310507T030000Z-00000.csv", ".part-20310507T030000Z-00000.parquet")),
        str(place / "part-20319907T030000Z-00000.parquet"), "flows/part-20310507T030000Z-00000.parquet",
        "other/date=2031-05-07/hour=03/part-20310507T030000Z-00000.parquet", "elsewhere/hour=03/part-20310501T030000Z-00000.parquet",
        "flows/2031-05-07/hour=03/part-20310507T030000Z-00000.parquet", "flows/date=2031-05-07/03/part-20310507T030000Z-00000.parquet",
    ]  # fmt: skip
    for name in foreign:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(100))
    (tmp_path / place / "part-20310507T030000Z-00099.parquet").mkdir()  # a folder with such a name
    (tmp_path / place / "part-20310507T030000Z-00098.parquet").symlink_to(tmp_path / "elsewhere")
    link.symlink_to(tmp_path / "elsewhere")  # a folder elsewhere, which has hours
    assert prune(tmp_path, FOLDERS, now_ns=NOON, keep_ns=1, keep_bytes=0) == 1
    assert all((tmp_path / name).exists() for name in foreign) and link.is_symlink()
    assert not (tmp_path / ours).exists()


def test_a_folder_without_tables(tmp_path):
    assert prune(tmp_path / "missing", FOLDERS, now_ns=NOON, keep_ns=1, keep_bytes=1) == 0


def test_a_run_prunes_as_it_rolls(tmp_path):
    """By age, counted from the end of a roll: what is younger stays although its file began earlier."""
    clock, folder = Clock(), tmp_path / "out"
    old = put(folder, "flows", NOON - DAY)
    rolling = Rolling(
        folder, layouts("flows", "interim"), roll_ns=5 * MINUTE, metadata=dict, keep_ns=10 * MINUTE, clock=clock
    )
    tick(rolling)
    assert old not in tree(folder)
    for _ in range(10):
        rolling.write("flows", Numbers("flows", 3))
        rolling.write("interim", Numbers("interim", 3))
        settle(rolling)
        clock.now_ns += 5 * MINUTE
        tick(rolling)
    starts = [Path(name).name[:18] for name in tree(folder) if name.startswith("flows")]
    assert starts == [f"part-20310507T12{minute}" for minute in (35, 40, 45)]
    assert len(tree(folder)) == 6
    rolling.close()


def test_a_run_stays_within_its_size(tmp_path):
    clock, folder, bound = Clock(), tmp_path / "out", 400_000
    rolling = Rolling(
        folder, layouts("flows", "interim"), roll_ns=5 * MINUTE, metadata=dict, keep_bytes=bound, clock=clock
    )
    written = 0
    for number in range(40):
        for table in ("flows", "interim"):
            rolling.write(table, Numbers(table, 1000, number))
        settle(rolling)
        clock.now_ns += 5 * MINUTE
        tick(rolling)
        sizes = [os.stat(folder / name).st_size for name in tree(folder)]
        assert sum(sizes) <= bound
        written += 2
    assert rolling.files_written == {"flows": 40, "interim": 40}
    assert bound * 0.8 < sum(sizes) and len(sizes) < written
    rolling.close()
    assert hidden(folder) == []


def test_pruning_leaves_the_open_file_its_place(tmp_path):
    """All that is complete goes, and the folder of the hour with it, in which the open file gets its name later."""
    clock, folder = Clock(), tmp_path / "out"
    rolling = Rolling(folder, layouts("flows"), roll_ns=MINUTE, metadata=dict, keep_bytes=1, clock=clock)
    for number in range(3):
        rolling.write("flows", Numbers("flows", 1_000, number))
        tick(rolling)
        assert tree(folder) == []
        clock.now_ns += MINUTE
    rolling.close()
    assert (rolling.rows_lost, rolling.error) == ({"flows": 0}, None)
    assert rolling.rows_written == {"flows": 3_000}


def test_files_of_a_clock_that_was_ahead_go_first(tmp_path):
    """They are older than what is written now, and no age reaches them."""
    past = [put(tmp_path, "flows", NOON - hours * HOUR) for hours in (2, 1)]
    future = [put(tmp_path, "flows", NOON + hours * DAY) for hours in (1, 2)]
    for keep, left in ((400, past + future), (300, [*past, future[1]]), (200, past), (100, past[1:])):
        prune(tmp_path, FOLDERS, now_ns=NOON, keep_ns=DAY, keep_bytes=keep)
        assert tree(tmp_path) == sorted(left)


def test_a_file_that_cannot_be_removed_keeps_no_other(tmp_path, monkeypatch):
    names = [put(tmp_path, "flows", NOON - hours * HOUR) for hours in (5, 4, 3, 2)]
    unlink = os.unlink

    def refuse(path):
        if str(path).endswith(names[0]):
            raise PermissionError(13, "Permission denied", path)
        unlink(path)

    monkeypatch.setattr("synfin.sidecar.pruning.os.unlink", refuse)
    with pytest.raises(PermissionError):
        prune(tmp_path, FOLDERS, now_ns=NOON, keep_ns=3 * HOUR, keep_bytes=250)
    assert tree(tmp_path) == [names[0], names[3]]


def test_what_cannot_be_removed_is_said(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    put(folder, "flows", NOON - DAY)

    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    rolling = Rolling(folder, layouts("flows"), roll_ns=MINUTE, metadata=dict, keep_ns=MINUTE, clock=Clock())
    with monkeypatch.context() as patch:
        patch.setattr("synfin.sidecar.pruning.os.unlink", refuse)
        tick(rolling)
        assert "cannot remove old files" in rolling.prune_error and rolling.error is None  # rows are written all the same
        rolling.write("flows", Numbers("flows", 3))
        settle(rolling)
    tick(rolling)
    assert rolling.prune_error is None
    rolling.close()
    assert rolling.rows_written == {"flows": 3} and len(tree(folder)) == 1
