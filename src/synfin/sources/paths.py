"""From what a user names (files, globs, folders, ``-``) to the list of files, in path order."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable

from synfin.errors import CaptureOpenError
from synfin.sources.streams import STDIN


def path_order(path: str) -> tuple:
    """Sort key of a path: numbers in it by value, so that rotated files (``x.pcap2``, ``x.pcap10``) stay in order."""
    parts = re.split(r"(\d+)", path)
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), path


def _below(folder: str) -> Iterable[str]:
    def refuse(error: OSError) -> None:
        raise CaptureOpenError(
            f"{error.filename}: the folder cannot be read: {error.strerror}", error.filename
        ) from error

    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(where, name) for name in names if not name.startswith("."))


def _matches(pattern: str) -> Iterable[str]:
    for match in glob.glob(pattern, recursive=True):
        yield from _below(match) if os.path.isdir(match) else [match]


def _no_pipe(path: str) -> bool:
    # A pipe or device that was not named itself could block for ever.
    return os.path.isfile(path) or not os.path.exists(path)


def _found(path: str) -> list[str]:
    if path == STDIN:
        return [path]
    if os.path.isdir(path):
        found = list(filter(_no_pipe, _below(path)))
        if not found:
            raise CaptureOpenError(f"{path}: the folder holds no files", path)
        return found
    if os.path.lexists(path):
        return [path]
    if not glob.has_magic(path):
        raise CaptureOpenError(f"{path}: no such file or folder", path)
    found = list(filter(_no_pipe, _matches(path)))
    if not found:
        raise CaptureOpenError(f"{path}: nothing matches", path)
    return found


def expand(paths: Iterable[str | os.PathLike]) -> list[str]:
    """The files that ``paths`` name, each once, standard input first, then in path order.

    Folders are searched through (hidden files left out); a path with ``*``, ``?`` or ``[`` that does not exist is a
    glob. Raises CaptureOpenError for what is not there.
    """
    names = [os.fspath(path) for path in paths]
    if not names:
        raise CaptureOpenError("no capture is named")
    return sorted({name for path in names for name in _found(path)}, key=lambda name: (name != STDIN, path_order(name)))
