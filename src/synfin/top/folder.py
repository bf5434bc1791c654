"""Interval rows of an output folder, which may be growing."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synfin.errors import ConfigError
from synfin.sidecar.pruning import WRITING
from synfin.top.history import ROOM, names, plain

Rows = tuple[str, pa.Table]
#: File systems tell times in steps: a change may hide behind one that is no older than this.
_SETTLED_NS = 5_000_000_000


class _File(NamedTuple):
    # One that replaces another under its name differs in the others. In the order of the rolls' starts, or of parts' numbers.
    path: str
    inode: int
    mtime_ns: int


class _Listed(NamedTuple):
    mtime_ns: int
    files: list[_File]
    folders: list[str]


class Folder:
    """The Parquet files of a folder that `synfin live` or `synfin track` writes.

    Parameters
    ----------
    path : the folder.
    tables : those by key that are wanted beside the interval table.
    keep_ns : how much is read of what lies there, before its newest interval.

    Raises
    ------
    ConfigError : this is no such folder.

    Attributes
    ----------
    fd : what becomes readable when rows come; None: they are to be asked for.
    end_ns : where the window should end at the earliest; None: at the end of the newest row.
    notice : what is wrong; empty when nothing is.
    """

    fd = None
    end_ns = None

    def __init__(self, path: str, tables: Sequence[str], keep_ns: int):
        self.name = path
        self._path = Path(path)
        self._tables = ("intervals", *tables)
        self._keep_ns = keep_ns
        # Of what is there: all at the last look, what need not be read any more, and what could not be, with the reason.
        self._there: set[_File] = set()
        self._done: set[_File] = set()
        self._wrong: dict[_File, str] = {}
        self._listed: dict[str, _Listed] = {}
        self._begun = False
        self.notice = ""
        if not any(os.path.isdir(self._path / name) for name in ("intervals", WRITING)):
            if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK):
                raise ConfigError(f"cannot read {path}: permission denied")
            raise ConfigError(
                f"{path} holds no interval table; name the folder that `synfin live -o FOLDER` or `synfin track -o FOLDER` writes"
            )

    def take(self) -> list[Rows]:
        """New rows, by table, in the order of time.

        A file that appears while this goes on is read at the second call that finds it: the tables' files of one roll get
        their names one after another.
        """
        try:
            there = self._look()
        except OSError as error:
            self.notice = f"cannot read {error.filename}: {(error.strerror or str(error)).lower()}"
            return []
        seen, self._there = self._there, {file for files in there.values() for file in files}
        self._done &= self._there
        rows: list[Rows] = []
        since: int | None = None  # the interval table comes first, and says for the others how much is wanted
        new = {
            table: [f for f in files if f not in self._done and (not self._begun or f in seen)]
            for table, files in there.items()
        }
        for table, files in new.items():
            if not files:
                continue
            self._begun = True
            self._done.update(files)
            read = self._read(table, files, since)
            if read is not None and read.num_rows:
                since = pc.max(read["end"]).as_py() - self._keep_ns if table == "intervals" else since
                rows.append((table, read))
        self._wrong = {file: reason for file, reason in self._wrong.items() if file in self._there}
        self.notice = next(reversed(self._wrong.values()), "")
        return rows

    def close(self) -> None:
        """Nothing is open."""

    def _look(self) -> dict[str, list[_File]]:
        # What lies there by table, the newest first: names begin with date, hour and the start of the roll, or are numbered.
        # A name says nothing of what was read: the clock may have been set back, or a run have replaced the files of another.
        before, self._listed = self._listed, {}
        return {table: sorted(self._files(str(self._path / table), before), reverse=True) for table in self._tables}

    def _files(self, place: str, before: dict[str, _Listed]) -> Iterator[_File]:
        # Complete Parquet files below a folder. It is read again only where something in it came or went.
        try:
            mtime_ns = os.stat(place).st_mtime_ns
            listed = before.get(place)
            if listed is None or listed.mtime_ns != mtime_ns:
                listed = _list(place, mtime_ns)
        except (FileNotFoundError, NotADirectoryError):
            return
        if time.time_ns() - mtime_ns > _SETTLED_NS:
            self._listed[place] = listed
        yield from listed.files
        for folder in listed.folders:
            yield from self._files(folder, before)

    def _read(self, table: str, files: list[_File], since: int | None) -> pa.Table | None:
        pieces: list[pa.Table] = []
        room = ROOM
        for file in files:
            for piece in self._groups(table, file):
                pieces.append(piece)
                room -= piece.num_rows
                if since is None and table == "intervals" and piece.num_rows:
                    since = pc.max(piece["end"]).as_py() - self._keep_ns
                if room <= 0 or (since is not None and piece.num_rows and pc.min(piece["start"]).as_py() <= since):
                    return pa.concat_tables(reversed(pieces))
        return pa.concat_tables(reversed(pieces)) if pieces else None

    def _groups(self, table: str, file: _File) -> Iterator[pa.Table]:
        # The row groups of a file, the last one first.
        name = os.path.basename(file.path)
        try:
            with pq.ParquetFile(file.path) as opened:
                there = [name for name in [*names(table), "interval_start_ns"] if name in opened.schema_arrow.names]
                for number in reversed(range(opened.num_row_groups)):
                    yield plain(table, opened.read_row_group(number, there, use_threads=False))
        except FileNotFoundError:
            pass  # pruned meanwhile
        except ConfigError as error:
            self._wrong[file] = f"{name}: {error}"
        except (OSError, pa.ArrowException):
            self._wrong[file] = f"{name} could not be read"


def _list(place: str, mtime_ns: int) -> _Listed:
    listed = _Listed(mtime_ns, [], [])
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith((".", "_")):
                continue
            if entry.is_dir(follow_symlinks=False):
                listed.folders.append(entry.path)
            elif entry.name.endswith(".parquet"):
                try:
                    found = entry.stat()
                except FileNotFoundError:  # pruned meanwhile
                    continue
                if stat.S_ISREG(found.st_mode):
                    listed.files.append(_File(entry.path, found.st_ino, found.st_mtime_ns))
    return listed
