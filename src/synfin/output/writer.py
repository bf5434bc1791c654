"""Files of rows: where they go, how they get their name only when complete, and what happens when that fails."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from synfin.errors import ConfigError, ExportError
from synfin.output.encoder import Encoder
from synfin.output.stored import StoredAside, StoredPath
from synfin.schema import TABLES, USUAL_TABLES
from synfin.stores import StoreError, Url, located, shown, words

if TYPE_CHECKING:
    import pyarrow as pa

    from synfin._core.block import Block
    from synfin.output.arrow import Layout

#: File ending -> format. An Arrow file is the IPC stream format, also under `.arrow`.
ENDINGS = {
    ".parquet": "parquet", ".arrow": "arrow", ".arrows": "arrow", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip
_PART = re.compile(r"part-(\d+)\.[a-z]+")


@dataclass(frozen=True)
class Target:
    """Where the rows of a run go. `folder`: `path` holds one folder per table; else `path` is one file, or None for
    standard output.
    """

    path: Path | StoredPath | None
    folder: bool
    format: str
    tables: tuple[str, ...]
    append: bool = False
    overwrite: bool = False

    @classmethod
    def parse(
        cls,
        out: str,
        *,
        format: str | None = None,
        table: str | None = None,
        tables: tuple[str, ...] = USUAL_TABLES,
        append: bool = False,
        overwrite: bool = False,
    ) -> Target:
        """The target that ``-o OUT`` and its companions mean; `tables` are those of the run.

        Raises ConfigError, and ExportError for a store that does not answer.
        """
        if append and overwrite:
            raise ConfigError("--append and --overwrite exclude each other")
        path, out = _path(out)
        ending = path.suffix.lower() if path and not out.endswith("/") else ""
        folder = path is not None and guarded(out, lambda: path.is_dir() or (not path.exists() and not ending))
        if append and not folder:
            raise ConfigError("--append adds part files to a folder; a file is always replaced")
        if path is None:
            chosen = format or "arrow"
            if sys.stdout.isatty() and chosen in ("arrow", "parquet"):
                raise ConfigError(f"{chosen} is not for a terminal; use --format csv or jsonl, or redirect the output")
        elif not folder and not format and ending not in ENDINGS:
            known = ", ".join(ENDINGS)
            raise ConfigError(
                f"the ending of {out!r} names no format; use --format, or one of {known}, or end with / for a folder"
            )
        else:
            chosen = format or ("parquet" if folder else ENDINGS[ending])
        kept = (table,) if table else tables if folder else ("flows",)
        return cls(path, folder, chosen, kept, append, overwrite)


def _path(out: str) -> tuple[Path | StoredPath | None, str]:
    # Where OUT is, and how to call it.
    if out == "-":
        return None, out
    try:
        place = located(out)
    except StoreError as error:
        raise ConfigError(f"cannot write {shown(out)}: {error}") from error
    return (StoredPath(place) if isinstance(place, Url) else Path(place)), place


class Output:
    """The files of one run, opened before anything is read, so that what cannot be written fails at once.

    Rows go to hidden files beside the final ones, encoded in a thread (`Encoder`). `commit` completes and renames them;
    `abort` removes them. A device, a pipe and standard output are written by the calling thread: they may block for ever,
    and a signal must be able to end that.

    Raises
    ------
    ConfigError : the folder holds a run's output already and the target says neither append nor overwrite.
    ExportError : something cannot be written.
    """

    def __init__(self, target: Target, layouts: dict[str, Layout]):
        from synfin.output.formats import FORMATS

        self.target = target
        self._layouts = layouts
        self._encoder: Encoder | None = None
        self._old: list[Path] = []
        self._made: list[Path] = []
        self._files: dict[str, RowFile] = {}
        try:
            for table, path in self._places().items():
                adds = target.folder and not target.overwrite and isinstance(path, Path)
                self._files[table] = RowFile(PartFile(path) if adds else path, FORMATS[target.format], layouts[table])
            if not any(file.may_block for file in self._files.values()):
                self._encoder = Encoder(self._encode)
        except BaseException:
            self.abort()
            raise

    @property
    def names(self) -> list[str]:
        """The names under which the rows appear."""
        return [file.name for file in self._files.values()]

    def write(self, table: str, block: Block) -> None:
        """Add rows to a table. What fails is told at once or by a later call: ExportError; BrokenPipeError when the reader
        of standard output is gone.
        """
        if self._encoder:
            self._encoder.put(table, block)
        else:
            self._encode(table, block)

    def _encode(self, table: str, block: Block) -> None:
        self._files[table].write(self._layouts[table].batch(block))

    def commit(self, metadata: dict[str, str]) -> None:
        """Complete all files, give them their names, and remove what `overwrite` replaces."""
        if self._encoder:
            self._encoder.finish()
        for file in self._files.values():
            file.finish(metadata)
        for file in self._files.values():
            file.rename()
        new = set(self.names)
        for path in self._old:
            if str(path) not in new:
                path.unlink(missing_ok=True)

    def abort(self) -> None:
        """Leave everything as it was before the run."""
        if self._encoder:
            self._encoder.close()
        for file in self._files.values():
            file.discard()
        for folder in reversed(self._made):
            with suppress(OSError):
                folder.rmdir()

    def _places(self) -> dict[str, Path | StoredPath | None]:
        target = self.target
        if not target.folder:
            return dict.fromkeys(target.tables, target.path)
        parts = {path: int(match[1]) for table in TABLES for path, match in _parts(target.path / table)}
        if parts and not target.append and not target.overwrite:
            raise ConfigError(
                f"{target.path} already holds the rows of a run; use --append to add to them or --overwrite to replace them"
            )
        if target.overwrite:
            self._old = list(parts)
        number = max(parts.values(), default=-1) + 1 if target.append else 0
        for folder in (target.path, *(target.path / table for table in target.tables)):
            if not folder.is_dir():
                guarded(str(folder), _make, folder)
                self._made.append(folder)
        return {table: target.path / table / f"part-{number:05d}.{target.format}" for table in target.tables}


class RowFile:
    """The rows of one table on their way into one file, which gets its name when it is complete, or to standard output.

    Parameters
    ----------
    path : the file's name; None for standard output. Or the opened file itself.
    format : makes the writer of a format (`synfin.output.formats.FORMATS`) of a pyarrow file and the layout.

    Raises
    ------
    ExportError : it cannot be written; so do all methods but `discard`.
    """

    def __init__(
        self, path: Path | StoredPath | AsideFile | None, format: Callable[[pa.NativeFile, Layout], Any], layout: Layout
    ):
        self._sink = path if isinstance(path, AsideFile) else sink(path)
        try:
            self._writer = self._guarded(format, self._sink.file, layout)
        except BaseException:
            self._sink.discard()
            raise

    @property
    def name(self) -> str:
        """The name that it gets."""
        return self._sink.name

    @property
    def may_block(self) -> bool:
        """Whether a write may take for ever: a pipe, a device."""
        return self._sink.may_block

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        self._guarded(self._writer.write, batch)

    def finish(self, metadata: dict[str, str]) -> None:
        """Complete the file: everything is on disk, still under a hidden name."""
        self._guarded(self._writer.close, metadata)
        self._guarded(self._sink.finish)

    def rename(self) -> None:
        """Give the complete file its name."""
        self._guarded(self._sink.rename)

    def discard(self) -> None:
        """Remove what has no name yet."""
        self._writer.discard()
        self._sink.discard()

    def _guarded(self, call: Any, *arguments: Any) -> Any:
        return guarded(self._sink.name, call, *arguments)


def sink(path: Path | StoredPath | None) -> Stream | AsideFile | StoredAside:
    """What takes the bytes of a file of that name; of None standard output. Raises ExportError."""
    if path is None:
        return Stream("standard output", sys.stdout.buffer)
    if isinstance(path, StoredPath):
        return guarded(str(path), StoredAside, path)
    if path.exists() and not path.is_file():  # a pipe or a device, of which a link may not tell the name (/dev/fd/63)
        return Stream(str(path), guarded(str(path), partial(path.open, "wb", 0)))
    return AsideFile(path)


def _make(folder: Path | StoredPath) -> None:
    with suppress(FileExistsError):  # another run has made it meanwhile
        folder.mkdir()


def _parts(folder: Path | StoredPath) -> list[tuple[Path, re.Match[str]]]:
    try:
        paths = sorted(folder.iterdir(), key=str)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _export_error(str(folder), error) from error
    return [(path, match) for path in paths if (match := _PART.fullmatch(path.name))]


class AsideFile:
    """A file written under a hidden name in its own folder, or in another one of the same file system."""

    may_block = False

    def __init__(self, path: Path, folder: Path | None = None):
        self.name = str(path)
        self._path = Path(os.path.realpath(path))  # through a link: what it names is replaced, not the link
        hidden = (folder or self._path.parent) / f".{self._path.name}.{os.getpid()}.tmp"
        self._aside: Path | None = hidden  # None once it has its name
        self.file = guarded(self.name, self._open)

    def _open(self) -> pa.NativeFile:
        import pyarrow as pa

        if self._path.is_file() and not os.access(self._path, os.W_OK):
            raise PermissionError(13, os.strerror(13))
        return pa.OSFile(os.fsencode(self._aside), "wb")

    def finish(self) -> None:
        """Everything on disk, still under the hidden name."""
        self.file.close()
        if self._aside:
            sync(self._aside)

    def rename(self) -> None:
        """The final name, on disk as well."""
        if self._aside:
            os.replace(self._aside, self._path)
            self._aside = None
            sync(self._path.parent)

    def discard(self) -> None:
        """Remove what was written under the hidden name."""
        with suppress(OSError):
            self.file.close()
        if self._aside:
            with suppress(OSError):
                self._aside.unlink()


class PartFile(AsideFile):
    """A numbered file of a folder to which other runs may add files at the same time: it takes the next number that none of
    them has taken.
    """

    def rename(self) -> None:
        """A final name that nobody had, on disk as well."""
        while self._aside:
            try:
                os.link(self._aside, self._path)  # which fails where there is one, unlike a rename
            except OSError:
                if self._path.exists():
                    self._number_on()
                else:  # a file system without links
                    super().rename()
            else:
                self._aside.unlink()
                self._aside = None
                sync(self._path.parent)

    def _number_on(self) -> None:
        number = int(_PART.fullmatch(self._path.name)[1]) + 1
        self._path = self._path.with_name(f"part-{number:05d}{self._path.suffix}")
        self.name = str(Path(self.name).with_name(self._path.name))


class Stream:
    """Standard output, a pipe or a device as a pyarrow file. It is written straight, and by Python: a write that waits for a
    reader is then ended by a signal.

    Parameters
    ----------
    name : what messages call it.
    stream : binary. Standard output stays open; any other is closed at the end.
    """

    may_block = True

    def __init__(self, name: str, stream: BinaryIO):
        import pyarrow as pa

        self.name = name
        self._stream = stream
        self.file = pa.PythonFile(_Pipe(stream), "w")

    def finish(self) -> None:
        """Hand everything to the reader."""
        self._stream.flush()
        self.discard()

    def rename(self) -> None:
        """Nothing to rename."""

    def discard(self) -> None:
        """Nothing to take back."""
        if self._stream is not sys.stdout.buffer:
            self._stream.close()


class _Pipe:
    """What pyarrow needs of a file, without a position asked from the system: a pipe has none."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._position = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):  # unbuffered, one call may write a part only
            done += self._stream.write(view[done:]) or 0
        self._position += done
        return done

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        """The stream stays open: Stream closes it."""


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def guarded(name: str, call: Any, *arguments: Any) -> Any:
    """Call; what the system refuses is an ExportError that says what cannot be written and why."""
    try:
        return call(*arguments)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _export_error(name, error) from error


def _export_error(name: str, error: OSError) -> ExportError:
    reason = os.strerror(error.errno).lower() if error.errno else words(error)
    advice = {2: "; create the folder first", 13: "; choose another place", 28: "; make room or choose another place"}
    return ExportError(f"cannot write {name}: {reason}{advice.get(error.errno or 0, '')}")
