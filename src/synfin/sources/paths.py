"""From what a user names (files, globs, folders, URLs, ``-``) to the list of files, in path order."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable

from synfin.errors import CaptureOpenError
from synfin.sources.streams import STDIN
from synfin.stores import FILE, StoreError, Url, files_below, kind_of, located, shown


def path_order(path: str) -> tuple:
    """Sort key of a path: numbers in it by value, so that rotated files (``x.pcap2``, ``x.pcap10``) stay in order."""
    parts = re.split(r"(\d+)", path)
    return tuple(int(part) if i % 2 else part for i, part in enumerate(parts)), path


def _below(folder: str) -> Iterable[str]:
    def refuse(error: OSError) -> None:
        raise CaptureOpenError(
            f"{error.filename}: the folder cannot be read: {error.strerror}", error.filename
        ) from error

    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:  # links after all that is there itself, so that a file has its own path where it has one
        links: list[str] = []
        for top in waiting:
            for where, folders, names in os.walk(top, onerror=refuse):
                info = os.stat(where)
                if (info.st_dev, info.st_ino) in seen:
                    folders.clear()
                    continue
                seen.add((info.st_dev, info.st_ino))
                folders[:] = [name for name in folders if not name.startswith(".")]
                links += filter(os.path.islink, (os.path.join(where, name) for name in folders))
                yield from (os.path.join(where, name) for name in names if not name.startswith("."))
        waiting = sorted(links)


def _matches(pattern: str) -> Iterable[str]:
    for match in glob.glob(pattern, recursive=True):
        yield from _below(match) if os.path.isdir(match) else [match]


def _no_pipe(path: str) -> bool:
    # A pipe or device that was not named itself could block for ever.
    return os.path.isfile(path) or not os.path.exists(path)


def _stored(url: Url) -> list[str]:
    # A folder of a store is searched through as a local one is. Stores of objects have none, but keys that begin alike.
    try:
        kind = kind_of(url)
        if kind == FILE:
            return [url]
        if kind is None:
            bucket = url.path.partition("/")[0]
            gone = "/" in url.path and kind_of(Url.of(bucket, url.store, bucket)) is None
            what = f"there is no bucket or folder {bucket}" if gone else "no such file or folder"
            raise CaptureOpenError(f"{url}: {what}", url)
        found = files_below(url)
    except StoreError as error:
        raise CaptureOpenError(f"{url}: cannot be looked up: {error}", url) from error
    found = [name for name in found if not any(part.startswith(".") for part in name.path[len(url.path) :].split("/"))]
    if not found:
        raise CaptureOpenError(f"{url}: the folder holds no files", url)
    return found


def named(path: str | os.PathLike) -> str:
    """What a user names, as `expand` takes it: URLs taken apart (`synfin.stores.located`).

    Raises CaptureOpenError for a URL that cannot be used.
    """
    name = os.fspath(path)
    try:
        return located(name)
    except StoreError as error:
        raise CaptureOpenError(f"{shown(name)}: cannot be opened: {error}", shown(name)) from error


def _found(path: str) -> list[str]:
    if isinstance(path, Url):
        return _stored(path)
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

    Folders are searched through (hidden files left out; links to folders followed, each folder once), those of stores as well;
    a path with ``*``, ``?`` or ``[`` that does not exist is a glob, unless it is a URL. Raises CaptureOpenError for what is not
    there.
    """
    names = [named(path) for path in paths]
    if not names:
        raise CaptureOpenError("no capture is named")
    return sorted({name for path in names for name in _found(path)}, key=lambda name: (name != STDIN, path_order(name)))
