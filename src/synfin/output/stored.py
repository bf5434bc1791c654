"""Files of rows in a store: the part of a path that the writer needs, and a file that appears only when complete.

Stores of objects show an object when its upload is closed, but pyarrow has no call that gives an upload up: whatever is dropped is
closed, and so appears. Rows therefore go to a hidden name beside the final one and are moved at the end. S3 moves by
copying, within the store, at most 5 GiB.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from synfin.stores import FOLDER, StoreError, Url, asked, kind_of

if TYPE_CHECKING:
    import pyarrow as pa

_WITHOUT_FOLDERS = ("s3", "gcs", "abfs")  # keys that begin alike look like a folder; none need be made


class StoredPath:
    """A place in a store, with what the writer uses of `pathlib.Path`. Failures are StoreErrors."""

    def __init__(self, url: Url):
        self.url = url
        self._pure = PurePosixPath(url.path)

    def __str__(self) -> str:
        return str(self.url)

    @property
    def name(self) -> str:
        """The last part."""
        return self._pure.name

    @property
    def suffix(self) -> str:
        """The ending; none where the URL ends with a slash."""
        return "" if self.url.partition("?")[0].endswith("/") else self._pure.suffix

    def __truediv__(self, name: str) -> StoredPath:
        return StoredPath(self.url.below(f"{self.url.path}/{name}"))

    def exists(self) -> bool:
        """True for a file and a folder."""
        return kind_of(self.url) is not None

    def is_dir(self) -> bool:
        """True for a folder, or where keys begin like one."""
        return kind_of(self.url) == FOLDER

    def iterdir(self) -> list[StoredPath]:
        """What lies in the folder; nothing where there is none."""
        from pyarrow.fs import FileSelector

        infos = asked(self.url.store.get_file_info, FileSelector(self.url.path, allow_not_found=True))
        return [StoredPath(self.url.below(info.path)) for info in infos]

    @property
    def has_folders(self) -> bool:
        """True where folders must be made before files."""
        return self.url.store.type_name not in _WITHOUT_FOLDERS

    def mkdir(self) -> None:
        """Make the folder where the store has folders."""
        if self.has_folders:
            asked(self.url.store.create_dir, self.url.path, recursive=False)

    def rmdir(self) -> None:
        """Remove the folder if it is empty."""
        if self.is_dir() and not self.iterdir():
            asked(self.url.store.delete_dir, self.url.path)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""
        try:
            asked(self.url.store.delete_file, self.url.path)
        except StoreError as error:
            if not (missing_ok and isinstance(error.__cause__, FileNotFoundError)):
                raise


class StoredAside:
    """A file in a store, written under a hidden name beside the final one."""

    may_block = False

    def __init__(self, path: StoredPath):
        self.name = str(path)
        self._path = path
        # The process number tells writers on one machine apart, the rest those on several.
        hidden = path.url.beside(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
        self._aside: StoredPath | None = StoredPath(hidden)
        self._new_folders = [] if path.has_folders else _not_there(path.url)
        self.file: pa.NativeFile = asked(hidden.store.open_output_stream, hidden.path, compression=None)

    def finish(self) -> None:
        """Everything in the store, still under the hidden name."""
        asked(self.file.close)

    def rename(self) -> None:
        """The final name. Where the store cannot move it, what is complete stays under the hidden name."""
        aside, self._aside = self._aside, None
        if aside is None:
            return
        try:
            asked(self._path.url.store.move, aside.url.path, self._path.url.path)
        except StoreError as error:
            raise StoreError(f"it cannot be moved to its name: {error}; all rows are in {aside}") from error

    def discard(self) -> None:
        """Remove what was written under the hidden name."""
        with suppress(StoreError):
            asked(self.file.close)
        if self._aside:
            with suppress(StoreError):
                self._aside.unlink()
            # pyarrow leaves an empty object for the folder of what it removes.
            for folder in self._new_folders:
                with suppress(StoreError):
                    StoredPath(folder).rmdir()


def _not_there(url: Url) -> list[Url]:
    # The folders above, below the bucket, that begin no key yet; the deepest first.
    found: list[Url] = []
    for place in PurePosixPath(url.path).parents:
        folder = Url.of(str(place), url.store, str(place))
        if len(place.parts) < 2 or kind_of(folder) is not None:
            break
        found.append(folder)
    return found
