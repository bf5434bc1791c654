"""A first look at each file of a set: is it a capture, when does it begin, is it there twice?"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from synfin.errors import CaptureOpenError
from synfin.sources.ahead import read_ahead
from synfin.sources.reader import Interfaces, Reader
from synfin.sources.report import BrokenFile, InputReport
from synfin.sources.streams import Buffer, RawFile, StreamBroken, chunks
from synfin.stores import Url

_FINGERPRINT_BYTES = 1 << 16
_COMPARED_BYTES = 1 << 16


@dataclass
class Entry:
    """A capture of the set.

    Parameters
    ----------
    size : bytes on disk; None where that is not known.
    first_ns : the clock at its first packet; None if it has none.
    reader : the open capture where the file cannot be opened again (a pipe).
    skimmed_ns : the clock at the end of what was read of it; None where nobody asked.
    drops : of a capture without packets: those that it says were lost; None where it does not say.
    """

    size: int | None
    first_ns: int | None
    reader: Reader | None = None
    skimmed_ns: int | None = None
    drops: int | None = None


class _Print:
    """The content of a file on its way, with a digest of its first 64 KiB."""

    def __init__(self, content: Iterator[Buffer]):
        self._content = content
        self._left = _FINGERPRINT_BYTES
        self._digest = hashlib.blake2b(digest_size=16)

    def __iter__(self) -> _Print:
        return self

    def __next__(self) -> Buffer:
        chunk = next(self._content)
        part = chunk[: self._left]
        self._digest.update(part)
        self._left -= len(part)
        return chunk

    def digest(self) -> bytes:
        """The digest of the first 64 KiB, or of all there is."""
        try:
            while self._left:
                next(self)
        except (StopIteration, StreamBroken):
            pass
        return self._digest.digest()

    def close(self) -> None:
        self._content.close()


def _pieces(path: str) -> Iterator[bytes | str]:
    # The content in equal pieces, and how it ends: pieces of two files can be compared one by one.
    pending = b""
    content = chunks(RawFile(path), _COMPARED_BYTES)
    try:
        for chunk in content:
            pending += chunk
            while len(pending) >= _COMPARED_BYTES:
                yield pending[:_COMPARED_BYTES]
                pending = pending[_COMPARED_BYTES:]
    except StreamBroken:
        yield "broken"
    finally:
        content.close()
    yield pending


def _same_content(one: str, other: str) -> bool:
    try:
        return all(a == b for a, b in zip_longest(_pieces(one), _pieces(other)))
    except CaptureOpenError:
        return False


class Survey:
    """Looks at the files of a set one by one, in path order.

    Parameters
    ----------
    report : where files that are skipped, doubled or broken before their first packet are named.
    interfaces : the run's capture interfaces.
    named : paths that were named themselves. One of them that is no capture is a fault; in a folder or a glob it is
        left out.
    skim : also tell how far the clock comes in what is read of each file.
    """

    def __init__(self, report: InputReport, interfaces: Interfaces, named: set[str], *, skim: bool = False):
        self._skim = skim
        self._report = report
        self._interfaces = interfaces
        self._named = named
        self._by_inode: dict[tuple[int, int], str] = {}
        self._by_print: dict[bytes, list[str]] = {}

    def look(self, path: str, file_id: int) -> Entry | None:
        """The file as a member of the set, there with number ``file_id``; None if it is left out."""
        try:
            raw = RawFile(path)
        except CaptureOpenError as error:
            self._report.broken.append(BrokenFile(path, None, str(error.__cause__.strerror), "unreadable"))
            return None
        content = read_ahead(raw) if raw.size is None else _Print(chunks(raw, _FINGERPRINT_BYTES))
        reader = Reader(raw, content, file_id)
        entry = self._entry(reader, content)
        if entry is None or entry.reader is None:
            reader.close()
        return entry

    def _entry(self, reader: Reader, content: Iterator[Buffer]) -> Entry | None:
        path, size = reader.raw.path, reader.raw.size
        has_packet = reader.first_packet(self._interfaces)
        if looks := reader.foreign():
            if path in self._named:
                self._report.broken.append(BrokenFile(path, 0, f"it looks like {looks}", "not a capture"))
            else:
                self._report.skipped.append((path, f"not a capture: looks like {looks}"))
            return None
        if not has_packet:
            if broken := reader.broken():
                self._report.broken.append(broken)
            return Entry(size, None, drops=reader.capture.drops)
        if size is None:
            return Entry(None, reader.capture.head_clock_ns, reader)
        first_ns = reader.capture.head_clock_ns
        skimmed_ns = reader.capture.skim() if self._skim else None  # before more of the file is read
        if original := self._original(path, content):
            self._report.duplicates.append((path, original))
            return None
        return Entry(size, first_ns, skimmed_ns=skimmed_ns)

    def _original(self, path: str, content: _Print) -> str | None:
        # The file of the set, if any, that holds the same capture.
        inode = None
        if not isinstance(path, Url):
            info = os.stat(path)
            inode = (info.st_dev, info.st_ino)
            if inode in self._by_inode:
                return self._by_inode[inode]
        alike = self._by_print.setdefault(content.digest(), [])
        for other in alike:
            if _same_content(other, path):
                return other
        alike.append(path)
        if inode:
            self._by_inode[inode] = path
        return None
