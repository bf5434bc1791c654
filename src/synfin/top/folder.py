"""Interval rows of an output folder, which may be growing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synfin.errors import ConfigError
from synfin.sidecar.pruning import WRITING
from synfin.top.history import ROOM, names, plain

Rows = tuple[str, pa.Table]


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
        self._newest: dict[str, str] = {}  # of each table the last file that was read
        self._seen: set[str] = set()
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
            listed = {table: list(self._new(table)) for table in self._tables}
        except OSError as error:
            self.notice = f"cannot read {error.filename}: {(error.strerror or str(error)).lower()}"
            return []
        seen, self._seen = self._seen, {path for files in listed.values() for path in files}
        if self._begun:
            listed = {table: [path for path in files if path in seen] for table, files in listed.items()}
        rows: list[Rows] = []
        since: int | None = None  # the interval table comes first, and says for the others how much is wanted
        for table, files in listed.items():
            if not files:
                continue
            self._begun, self._newest[table] = True, files[0]
            read = self._read(table, files, since)
            if read is not None and read.num_rows:
                since = pc.max(read["end"]).as_py() - self._keep_ns if table == "intervals" else since
                rows.append((table, read))
        return rows

    def close(self) -> None:
        """Nothing is open."""

    def _new(self, table: str) -> Iterator[str]:
        # The newest first: their names begin with date, hour and the start of the roll, or are numbered.
        last = self._newest.get(table, "")
        return takewhile(lambda path: path > last, _files(str(self._path / table)))

    def _read(self, table: str, files: list[str], since: int | None) -> pa.Table | None:
        pieces: list[pa.Table] = []
        room = ROOM
        for path in files:
            for piece in self._groups(table, path):
                pieces.append(piece)
                room -= piece.num_rows
                if since is None and table == "intervals" and piece.num_rows:
                    since = pc.max(piece["end"]).as_py() - self._keep_ns
                if room <= 0 or (since is not None and piece.num_rows and pc.min(piece["start"]).as_py() <= since):
                    return pa.concat_tables(reversed(pieces))
        return pa.concat_tables(reversed(pieces)) if pieces else None

    def _groups(self, table: str, path: str) -> Iterator[pa.Table]:
        # The row groups of a file, the last one first.
        try:
            with pq.ParquetFile(path) as file:
                there = [name for name in [*names(table), "interval_start_ns"] if name in file.schema_arrow.names]
                for number in reversed(range(file.num_row_groups)):
                    yield plain(table, file.read_row_group(number, there, use_threads=False))
        except FileNotFoundError:
            pass  # pruned meanwhile
        except ConfigError as error:
            self.notice = f"{os.path.basename(path)}: {error}"
        except (OSError, pa.ArrowException):
            self.notice = f"{os.path.basename(path)} could not be read"


def _files(place: str) -> Iterator[str]:
    # Complete Parquet files below a folder, in the opposite order of their names.
    try:
        with os.scandir(place) as found:
            entries = sorted(found, key=lambda entry: entry.name, reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        elif entry.name.endswith(".parquet") and entry.is_file():
            yield entry.path
