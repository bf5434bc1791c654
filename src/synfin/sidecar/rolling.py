"""Rows of a run without an end as Parquet files in hive-style folders, each complete under its name.

Memory is bounded, and while packets come nobody waits for the disk: what comes while `ROOM` is taken is dropped and counted.
Where a disk is full or gone, the half file is removed, its rows and those that come meanwhile are counted as lost, and about
once a second the disk is tried again. Files of other tables that are open go on as long as they can.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synfin.errors import ConfigError, ExportError
from synfin.output.arrow import compact, release_unused
from synfin.output.encoder import Encoder
from synfin.output.parquet import ROW_GROUP_ROWS, Parquet
from synfin.output.writer import AsideFile, RowFile, guarded, sync
from synfin.sidecar.pruning import FOLDERS, WRITING, part_path, prune, remove_leftovers

if TYPE_CHECKING:
    from synfin._core.block import Block
    from synfin.output.arrow import Layout

#: What may wait to be written: four full blocks of the core, or so many small ones (a second's intervals).
ROOM = 64
_UNIT_ROWS = 1024
#: Two tables may hold a row group at once (flows and interim rows): half of what a run on files takes for one.
_PARQUET = partial(Parquet, group_rows=ROW_GROUP_ROWS // 2)
#: So much must fit on a disk that had no room before rows go there again.
_TRIAL = bytes(1 << 20)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Rolling:
    """The output folder of a live run: ``TABLE/date=YYYY-MM-DD/hour=HH/part-START-NUMBER.parquet``.

    All methods are called by one thread, which waits for the disk in `close` and where it asks for that; files are written by
    another.
    What is only read may be read by any.

    Parameters
    ----------
    folder : made if it is missing; the folder above it must be there.
    layouts : by table; names of tables are names of folders.
    roll_ns : a roll ends at the multiples of this since 1970 (wall clock).
    roll_rows : a file has no more rows; None for no such bound.
    metadata : what files say of the run so far (`synfin.output.summary.file_metadata`). Called in the writing thread whenever a
        file is complete.
    keep_ns, keep_bytes : complete files go, the oldest first, once all of their rows are older, or while all files of the
        folder take more; None: they stay.
    clock : the wall clock (ns since 1970).

    Raises
    ------
    ExportError : the folder cannot be made or written. A disk that is full is no such error: it may have room later.
    ConfigError : another process writes to it.

    Attributes
    ----------
    leftovers : half files of runs that died, removed at the start.
    """

    def __init__(
        self,
        folder: Path,
        layouts: Mapping[str, Layout],
        *,
        roll_ns: int,
        roll_rows: int | None = None,
        metadata: Callable[[], dict[str, str]],
        keep_ns: int | None = None,
        keep_bytes: int | None = None,
        clock: Callable[[], int] = time.time_ns,
    ):
        self._folder = folder
        self._layouts = dict(layouts)
        self.change(roll_ns=roll_ns, roll_rows=roll_rows, keep_ns=keep_ns, keep_bytes=keep_bytes)
        self._metadata = metadata
        self._clock = clock
        self._lock: int | None = guarded(str(folder), _locked, folder)
        try:
            self.leftovers: int = guarded(str(folder), remove_leftovers, folder)
            self._disk_error = _trial_error(folder, _NO_ROOM)
        except BaseException:
            os.close(self._lock)
            raise
        self._encoder = Encoder(lambda call, *what: call(*what), ROOM)
        # Set by the caller's thread.
        self._refused = dict.fromkeys(layouts, 0)
        self._is_slow = False
        self._roll_asked = False
        self._turns = 0
        # Set by the writing thread, as is _disk_error.
        self._tables = {table: _Table(folder, layout, table) for table, layout in layouts.items()}
        self._period: int | None = None
        self._start_ns = 0
        self._turned = 0
        self._must_prune = True
        self._prune_error: str | None = None

    @property
    def _folders(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*FOLDERS, *self._layouts)))

    # ------------------------------------------------------------------ the caller's thread

    def write(self, table: str, block: Block, *, wait: bool = False) -> None:
        """Hand on rows; those that find no room are dropped and counted in `rows_lost`, or wait for it.

        They are copied out of the memory of their block. It is that of 16,384 rows whatever it holds, most blocks of a run hold
        what came in a second, and rows wait long for their row group to be whole: blocks would pile up, and the most that
        ever did would stay with the tracker, for the next ones.
        """
        batch = compact(self._layouts[table].batch(block))
        size = -(-block.rows // _UNIT_ROWS)
        if wait:
            self._encoder.put(self._add, table, batch, size=size)
        elif not self._encoder.offer(self._add, table, batch, size=size):
            self._refused[table] += block.rows
            self._is_slow = True

    def change(self, *, roll_ns: int, roll_rows: int | None, keep_ns: int | None, keep_bytes: int | None) -> None:
        """Go on with other bounds, as the constructor takes them."""
        self._roll_ns = roll_ns
        self._roll_rows = roll_rows
        self._keep = {"keep_ns": None if keep_ns is None else keep_ns + roll_ns, "keep_bytes": keep_bytes}

    def roll(self) -> None:
        """Complete all files; the next rows begin others."""
        self._roll_asked = True
        self.tick()

    def tick(self) -> None:
        """Let time pass: roll, prune, try again what failed. To be called about once a second."""
        if self._encoder.is_idle:
            self._is_slow = False
        if self._turns == self._turned and self._encoder.offer(self._turn, self._roll_asked):
            self._turns += 1
            self._roll_asked = False

    def close(self) -> None:
        """Write what waits, complete all files, and end. What fails is told by `error`."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        try:
            self._encoder.put(self._turn, True)
            self._encoder.finish()
        finally:
            self._encoder.close()
            os.close(lock)

    @property
    def has_room(self) -> bool:
        """Whether at least half of the room is free: rows that can wait, as interim rows do, are made only then. May be
        asked by any thread.
        """
        return self._encoder.free >= ROOM // 2

    @property
    def error(self) -> str | None:
        """What keeps rows from being written now; None while they are."""
        slow = f"cannot write {self._folder} fast enough: rows are dropped" if self._is_slow else None
        return self._disk_error or slow

    @property
    def prune_error(self) -> str | None:
        """What keeps old files from being removed now; None while nothing does."""
        return self._prune_error

    @property
    def rows_lost(self) -> dict[str, int]:
        """Rows that were handed on and are in no file, by table."""
        return {name: self._refused[name] + table.lost for name, table in self._tables.items()}

    @property
    def rows_written(self) -> dict[str, int]:
        """Rows in complete files of this run, by table."""
        return {name: table.written for name, table in self._tables.items()}

    @property
    def files_written(self) -> dict[str, int]:
        """Complete files of this run, by table."""
        return {name: table.files for name, table in self._tables.items()}

    # ------------------------------------------------------------------ the writing thread

    def _add(self, name: str, batch: Any) -> None:
        self._follow_clock()
        table = self._tables[name]
        while batch.num_rows:
            if self._roll_rows is not None and table.rows >= self._roll_rows:  # where it has become less
                self._complete(name)
            if self._disk_error and not table.is_open:
                table.lost += batch.num_rows
                return
            room = batch.num_rows if self._roll_rows is None else self._roll_rows - table.rows
            self._try(table, table.add, batch.slice(0, room), self._start_ns)
            batch = batch.slice(room)
            if table.rows == self._roll_rows:
                self._complete(name)

    def _turn(self, roll: bool) -> None:
        try:
            if self._disk_error:
                self._disk_error = _trial_error(self._folder)
            self._follow_clock()
            if roll:
                self._complete_all()
                self._start_ns = self._clock()
            if self._must_prune:
                self._prune()
        finally:
            self._turned += 1

    def _follow_clock(self) -> None:
        # A clock that was set, forward or back, begins another roll as well.
        now = self._clock()
        period = now // self._roll_ns
        if period != self._period:
            self._complete_all()
            self._start_ns = now if self._period is None else period * self._roll_ns
            self._period = period
            self._must_prune = True

    def _complete_all(self) -> None:
        for name in self._tables:
            self._complete(name)
        release_unused()

    def _complete(self, name: str) -> None:
        table = self._tables[name]
        if table.is_open:
            self._try(table, table.complete, self._metadata(), self._refused[name] + table.lost)
            self._must_prune = True

    def _try(self, table: _Table, call: Callable[..., None], *arguments: Any) -> None:
        # What the disk refuses costs the table's open file.
        try:
            call(*arguments)
        except ExportError as error:
            self._disk_error = str(error)
            table.give_up()

    def _prune(self) -> None:
        try:
            prune(self._folder, self._folders, now_ns=self._clock(), **self._keep)
            self._prune_error = None
            self._must_prune = False
        except OSError as error:
            self._prune_error = f"cannot remove old files in {self._folder}: {error}"


class _Table:
    """One table's file, and what became of its rows. Used by the writing thread; others read the counts."""

    def __init__(self, folder: Path, layout: Layout, name: str):
        self._folder = folder
        self._layout = layout
        self._name = name
        self._file: RowFile | None = None
        self._path = folder  # of the file that was opened last
        self._lost_told = 0  # by earlier files
        self._start_ns = self._number = 0  # of the last file that was opened
        self.rows = 0  # of the open file
        self.written = self.files = self.lost = 0

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def add(self, batch: Any, start_ns: int) -> None:
        """Write rows, of a roll that began at `start_ns`."""
        self.rows += batch.num_rows
        if self._file is None:
            self._file = guarded(str(self._folder / self._name), self._opened, start_ns)
        self._file.write(batch)

    def complete(self, metadata: dict[str, str], lost: int) -> None:
        """Give the open file its name. `lost`: rows of the table that are in no file, since the run began."""
        about = {"complete": "true", **metadata}
        if lost > self._lost_told:
            about |= {
                "complete": "false",
                "reason": f"{lost - self._lost_told} rows before the end of this file were lost",
            }
        self._file.finish(about)
        # Pruning removes a folder that is empty, which that of the open file may be.
        guarded(self._file.name, _make_hour, self._path)
        self._file.rename()
        self._file = None
        self._lost_told = lost
        self.written += self.rows
        self.files += 1
        self.rows = 0

    def give_up(self) -> None:
        """Count the rows of the open file as lost, and remove it."""
        self.lost += self.rows
        self.rows = 0
        if self._file is not None:
            self._file.discard()
            self._file = None

    def _opened(self, start_ns: int) -> RowFile:
        if start_ns != self._start_ns:
            self._start_ns, self._number = start_ns, 0
        while (path := part_path(self._folder, self._name, start_ns, self._number)).exists():
            self._number += 1
        self._path = path
        aside = self._folder / WRITING / self._name
        _make_hour(path)
        for place in (aside.parent, aside):
            _make(place)
        return RowFile(AsideFile(path, aside), _PARQUET, self._layout)


def _make_hour(path: Path) -> None:
    # The folders of table, date and hour, for a file.
    for place in (path.parents[2], path.parents[1], path.parents[0]):
        _make(place)


def _make(folder: Path) -> None:
    # With its name on disk. The output folder itself is not made again: where it is gone, its disk may be.
    if not folder.is_dir():
        folder.mkdir()
        sync(folder.parent)


def _trial_error(folder: Path, only: Container[int] | None = None) -> str | None:
    # Why a disk takes nothing now; None where it does. Raises ExportError for other reasons than `only`.
    trial = folder / WRITING / f".trial.{os.getpid()}.tmp"
    try:
        guarded(str(folder), _try_disk, trial)
    except ExportError as error:
        if only is not None and getattr(error.__cause__, "errno", None) not in only:
            raise
        return str(error)
    finally:
        with suppress(OSError):
            trial.unlink()
    return None


def _try_disk(trial: Path) -> None:
    _make(trial.parent)
    trial.write_bytes(_TRIAL)
    sync(trial)


def _locked(folder: Path) -> int:
    # The output folder, made and locked: a descriptor that holds the lock until it is closed or the process dies.
    if not folder.is_dir():
        folder.mkdir()
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ConfigError(f"another process writes to {folder}; give each its own folder") from None
    except OSError:  # a file system without locks
        pass
    return lock
