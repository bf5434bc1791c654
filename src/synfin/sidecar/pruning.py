"""What lies in an output folder: what belongs to it, and what goes when it is too old or too much.

A complete file is called ``TABLE/date=YYYY-MM-DD/hour=HH/part-START-NUMBER.parquet`` (UTC of its roll's start). What is being
written lies in `WRITING`, away from the tables, since some readers take every file below a folder for one of its rows. Whatever is
called otherwise, or is no plain file, is somebody else's: it is neither counted nor touched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from synfin.schema import TABLES

#: Tables that an output folder may hold, whether or not this run writes them.
FOLDERS = (*TABLES, "interim")
#: Folder of files that are being written, with a folder for each table.
WRITING = ".writing"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_START = "%Y%m%dT%H%M%SZ"
_TABLE = re.compile(r"[a-z]+")
_DATE = re.compile(r"date=\d{4}-\d\d-\d\d")
_HOUR = re.compile(r"hour=\d\d")
_COMPLETE = re.compile(r"part-(\d{8}T\d{6}Z)-(\d+)\.parquet")
_HALF = re.compile(r"\..+\.\d+\.tmp")


class Kept(NamedTuple):
    """A complete file: in order of age."""

    start_ns: int
    number: int
    path: str
    size: int


def part_path(folder: Path, table: str, start_ns: int, number: int) -> Path:
    """Where the rows of a table lie whose roll began at `start_ns` (since 1970); `number` tells apart what began in the
    same second.
    """
    start = _EPOCH + timedelta(seconds=start_ns // 1_000_000_000)
    place = folder / table / f"date={start:%Y-%m-%d}" / f"hour={start:%H}"
    return place / f"part-{start:{_START}}-{number:05d}.parquet"


def remove_leftovers(folder: Path) -> int:
    """Remove what writers that died left half written; returns how many files. Before: nobody else writes here."""
    half = list(_half_files(folder))
    for entry in half:
        os.unlink(entry.path)
    return len(half)


def prune(folder: Path, tables: Iterable[str], *, now_ns: int, keep_ns: int | None, keep_bytes: int | None) -> int:
    """Remove complete files, the oldest first, of all tables together; returns how many.

    Parameters
    ----------
    now_ns : the time (since 1970).
    keep_ns : files go whose roll began longer ago.
    keep_bytes : files go while all, those that are being written included, take more. What is being written stays. Files of
        the future go first: the clock was ahead when they were written, and what is written now is the newest.

    Raises
    ------
    OSError : one that should go does not; the others that should have gone.
    """
    refused: OSError | None = None
    files: list[Kept] = []
    total = count = 0
    for entry in _half_files(folder):
        with suppress(FileNotFoundError):
            total += entry.stat(follow_symlinks=False).st_size
    for entry in _entries(folder, tables):
        with suppress(FileNotFoundError):  # somebody else removed it
            if kept := _complete(entry):
                files.append(kept)
                total += kept.size
    for file in sorted(files, key=lambda file: (file.start_ns <= now_ns, file)):
        is_old = keep_ns is not None and file.start_ns + keep_ns < now_ns
        is_too_much = keep_bytes is not None and total > keep_bytes
        if not (is_old or is_too_much):
            continue
        try:
            with suppress(FileNotFoundError):
                os.unlink(file.path)
                count += 1
        except OSError as error:
            refused = refused or error
            continue
        total -= file.size
        _remove_empty(Path(file.path).parent)
    if refused:
        raise refused
    return count


def _complete(entry: os.DirEntry[str]) -> Kept | None:
    match = _COMPLETE.fullmatch(entry.name)
    if match is None:
        return None
    try:
        start = datetime.strptime(match[1], _START).replace(tzinfo=UTC)
    except ValueError:  # the thirteenth month
        return None
    seconds = (start - _EPOCH) // timedelta(seconds=1)
    return Kept(seconds * 1_000_000_000, int(match[2]), entry.path, entry.stat(follow_symlinks=False).st_size)


def _remove_empty(hour: Path) -> None:
    with suppress(OSError):  # it is not empty
        hour.rmdir()
        hour.parent.rmdir()


def _entries(folder: Path, tables: Iterable[str]) -> Iterator[os.DirEntry[str]]:
    # The plain files in the folders of hours.
    for table in tables:
        for date in _folders(folder / table, _DATE):
            for hour in _folders(date, _HOUR):
                yield from (entry for entry in _listed(hour) if entry.is_file(follow_symlinks=False))


def _half_files(folder: Path) -> Iterator[os.DirEntry[str]]:
    for place in (folder / WRITING, *_folders(folder / WRITING, _TABLE)):
        for entry in _listed(place):
            if _HALF.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                yield entry


def _folders(place: Path | os.DirEntry[str], name: re.Pattern[str]) -> Iterator[os.DirEntry[str]]:
    return (entry for entry in _listed(place) if name.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False))


def _listed(place: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
