"""A set of capture files as one stream of packets, merged by time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from synfin._core.batch import PacketBatch
from synfin.errors import CaptureOpenError, NotACaptureError
from synfin.sources import merge
from synfin.sources.ahead import AHEAD_BYTES, Room, read_ahead, usable_cores
from synfin.sources.looks import ACCEPTED
from synfin.sources.parts import MAX_PART_BYTES
from synfin.sources.paths import expand, named
from synfin.sources.reader import Interfaces, Reader
from synfin.sources.report import BrokenFile, ClockIncident, FileReport, InputReport
from synfin.sources.streams import CHUNK_BYTES, STDIN, RawFile

if TYPE_CHECKING:
    from synfin.sources.survey import Entry
    from synfin.sources.window import Window

_MOST_AHEAD = 32  # files that are open before their turn
_LEAST_CHUNK_BYTES = 1 << 16
_MOST_DROPS = 1 << 62  # a sum that the tracker can hold, whatever damaged captures claim


class CaptureInput:
    """Packets of one capture or of several, merged by time.

    Parameters
    ----------
    paths : files, globs, folders, URLs of either; ``-`` is standard input.
    strict : a truncated capture counts as a failure (see InputReport.failed).
    chunk_bytes : the most bytes that are read at a time.
    window : packets outside it are counted and left out, and do not move the clock.
    ahead_bytes : memory for the content of compressed files that are unpacked before their turn.
    max_memory : bytes that the process may have, if that is bounded: an eighth of them, at most, for what is unpacked ahead.

    Raises
    ------
    CaptureOpenError : something named is not there or cannot be opened, or nothing in it is a capture.
    NotACaptureError : the only file is no capture; the message says what it looks like.

    Attributes
    ----------
    files : paths in path order; a packet's file_id is an index into it.
    interfaces : names of capture interfaces; a packet's interface_id is an index into it.
    bytes_total : bytes of the files on disk; None where a pipe is among them.
    drops : packets that captures read to their end say were lost (pcapng statistics); None where none says.

    Notes
    -----
    Memory does not depend on the size of the files: a few chunks for each file open at the moment, at most 256, and
    `ahead_bytes`, and one chunk more for each core. A single file of BGZF or of several Zstandard frames is unpacked by all
    cores; each may hold a part of at most 16 MiB (`synfin.sources.parts`) before and after it is unpacked.
    """

    idle_clock_ns = 0  # a capture never keeps anyone waiting

    def __init__(
        self,
        paths: Iterable[str | os.PathLike],
        *,
        strict: bool = False,
        chunk_bytes: int = CHUNK_BYTES,
        window: Window | None = None,
        ahead_bytes: int = AHEAD_BYTES,
        max_memory: int | None = None,
    ):
        self.files: list[str] = []
        self.interfaces = Interfaces()
        self._report = InputReport(strict)
        self._chunk_bytes = chunk_bytes
        self._window = window
        self._merger = merge.Merger(window.start_ns, window.end_ns) if window else merge.Merger()
        self._open: dict[int, Reader] = {}
        self._ahead: dict[int, Reader] = {}  # files whose turn has not come
        self._cores = usable_cores()
        if max_memory is not None:
            ahead_bytes = min(ahead_bytes, max_memory // 8)
            self._cores = max(1, min(self._cores, ahead_bytes // (2 * MAX_PART_BYTES)))
        self._room = Room(ahead_bytes)
        self._past_bytes = 0
        self.drops: int | None = None
        self._untold_drops: int | None = None  # of files without packets, which have no time: told with another file's
        self._closed = False
        self._waiting: list[tuple[int, int, Reader | None]] = []  # latest first: (first clock, file_id, reader if open)
        paths = [named(path) for path in paths]
        found = expand(paths)
        try:
            if len(found) == 1 and paths == found:
                self._open_only(found[0])
            else:
                self._open_set(found, paths)
        except BaseException:
            self.close()
            raise

    def _reader(self, path: str, file_id: int, *, waits: bool = False, workers: int = 1) -> Reader:
        # Many files at a time share the memory that one has.
        size = min(self._chunk_bytes, max(self._chunk_bytes // (len(self._open) + 1), _LEAST_CHUNK_BYTES))
        raw = RawFile(path, size)
        return Reader(raw, read_ahead(raw, size, room=self._room, waits=waits, workers=workers), file_id)

    def _open_only(self, path: str) -> None:
        reader = self._open[0] = self._reader(path, 0, workers=self._cores)
        self._accept(path)
        self.bytes_total = reader.raw.size
        has_packet = reader.first_packet(self.interfaces)
        if looks := reader.foreign():
            name = "standard input" if path == STDIN else path
            raise NotACaptureError(f"{name} is not a capture: it looks like {looks}; {ACCEPTED}", path, 0)
        self._enter(reader, has_packet)

    def _open_set(self, found: list[str], paths: list[str]) -> None:
        from synfin.sources.survey import Survey

        survey = Survey(self._report, self.interfaces, set(paths), skim=self._window is not None)
        self.bytes_total = 0
        entries: list[Entry] = []
        for path in found:
            entry = survey.look(path, len(self.files))
            if entry is None:
                continue
            self._accept(path)
            entries.append(entry)
            size = entry.size
            self.bytes_total = None if size is None or self.bytes_total is None else self.bytes_total + size
            if entry.first_ns is not None:
                self._waiting.append((entry.first_ns, len(self.files) - 1, entry.reader))
            if entry.drops is not None:
                self._untold_drops = (self._untold_drops or 0) + entry.drops
            if entry.reader is not None:
                self._open[len(self.files) - 1] = entry.reader
        if not self.files:
            reasons = [str(item) for item in self._report.broken]
            reasons += [f"{path}: {reason}" for path, reason in self._report.skipped]
            told = "; ".join(reasons[:3])
            raise CaptureOpenError(f"no capture in {', '.join(paths)} ({told}); {ACCEPTED}", paths[0])
        if self._window:
            self._leave_out(entries, self._window)
        self._waiting.sort(key=lambda item: item[:2], reverse=True)
        if not self._waiting:
            self._lose(None)
        self._announce()

    def _leave_out(self, entries: list[Entry], window: Window) -> None:
        # Drops the files that need not be read to know that they lie outside the window.
        told = [
            (path, entry.first_ns, entry.skimmed_ns)
            for path, entry in zip(self.files, entries, strict=True)
            if entry.first_ns is not None and entry.skimmed_ns is not None
        ]
        useless = {told[place][0] for place in window.leaves_out(told)}
        self._waiting = [item for item in self._waiting if self.files[item[1]] not in useless]
        self._report.left_out = [path for path in self.files if path in useless]
        if self.bytes_total is not None:
            self.bytes_total -= sum(
                entry.size or 0 for path, entry in zip(self.files, entries, strict=True) if path in useless
            )

    def _accept(self, path: str) -> None:
        self.files.append(path)
        self._report.files.append(FileReport(path))

    def _announce(self) -> None:
        # Tells the merger at which time the next file joins.
        first_ns, file_id = self._waiting[-1][:2] if self._waiting else (None, 0)
        self._merger.wait_for(first_ns, file_id)

    def _enter(self, reader: Reader, has_packet: bool) -> None:
        if not has_packet:
            self._leave(reader)
            return
        if len(self._merger) == merge.MAX_OPEN_CAPTURES:
            count = len(self._merger) + 1
            raise CaptureOpenError(
                f"{reader.raw.path}: {count} captures overlap in time, and at most {count - 1} can be read at once; "
                "merge some of them first (mergecap)", reader.raw.path,
            )  # fmt: skip
        self._merger.join(reader.capture)

    def _join_next(self) -> None:
        _, file_id, reader = self._waiting.pop()
        self._announce()
        if reader is None:
            try:
                reader = self._ahead.pop(file_id, None) or self._reader(self.files[file_id], file_id)
            except CaptureOpenError as error:
                self._report.broken.append(
                    BrokenFile(self.files[file_id], None, str(error.__cause__.strerror), "unreadable")
                )
                return
            reader.begin()
            self._open[file_id] = reader
        self._enter(reader, reader.first_packet(self.interfaces))

    def _look_ahead(self) -> None:
        # Begins with the next files while cores and memory are free, so that they are unpacked beside the one at hand.
        busy = sum(reader.unpacking for reader in (*self._open.values(), *self._ahead.values()))
        for _, file_id, reader in reversed(self._waiting[-_MOST_AHEAD:]):
            if busy >= self._cores or self._room.bytes_ahead >= self._room.size:
                break
            if reader is None and file_id not in self._ahead:
                try:
                    ahead = self._ahead[file_id] = self._reader(self.files[file_id], file_id, waits=True)
                except CaptureOpenError:
                    continue  # told when its turn comes
                busy += ahead.unpacking

    def _leave(self, reader: Reader) -> bool:
        # True when the capture has said how many packets were lost.
        self._note(reader)
        tells = self._lose(reader.capture.drops)
        if broken := reader.broken():
            self._report.broken.append(broken)
        del self._open[reader.capture.file_id]
        self._past_bytes += reader.raw.bytes_read
        reader.close()
        return tells

    def _lose(self, count: int | None) -> bool:
        lost = [some for some in (count, self._untold_drops) if some is not None]
        self._untold_drops = None
        if lost:
            self.drops = min((self.drops or 0) + sum(lost), _MOST_DROPS)
        return bool(lost)

    def _note(self, reader: Reader) -> None:
        entry = self._report.files[reader.capture.file_id]
        entry.packets = reader.capture.packets
        entry.clamped = reader.capture.clamped
        entry.first_ns, entry.last_ns = reader.capture.span_ns or (None, None)

    def fill(self, batch: PacketBatch) -> bool:
        """Replace the batch's packets by the next ones, at most 256; False when the input has ended.

        The batch is empty where a file has ended that changes `drops`.

        Raises CaptureOpenError when too many files overlap in time, ValueError after `close`.
        """
        if self._closed:
            raise ValueError("the input is closed")
        merger = self._merger
        merger.begin(batch)
        while (status := merger.run(batch)) != merge.FULL:
            if status == merge.INTERFACE:
                capture = merger.first
                capture.name_interface(self.interfaces.number(*capture.interface_name))
            elif len(batch):
                break  # what follows may change bytes that the batch borrows
            elif status == merge.BATCH:
                merger.begin(batch)  # so many packets that waited lay outside the window
            elif status == merge.NEED:
                if self._waiting:
                    self._look_ahead()
                self._open[merger.first.file_id].advance()
            elif self._waiting and status in (merge.JOIN, merge.IDLE):
                self._join_next()
            elif status == merge.IDLE:
                return False
            else:
                reader = self._open[merger.first.file_id]
                merger.leave()
                if self._leave(reader):
                    break  # `drops` is told here, between the file's last packet and the next one, whatever the batches
        return True

    @property
    def outside(self) -> int:
        """Packets so far that lay outside the window."""
        return self._merger.outside

    @property
    def bytes_read(self) -> int:
        """Bytes read from disk so far (compressed)."""
        return self._past_bytes + sum(reader.raw.bytes_read for reader in self._open.values())

    @property
    def report(self) -> InputReport:
        """What happened so far; final when `fill` has returned False."""
        for reader in self._open.values():
            self._note(reader)
        self._report.clock_counts = self._merger.clock_counts
        self._report.incidents = [
            ClockIncident(kind, self.files[file_id], packet, before_ns, after_ns)
            for kind, file_id, packet, before_ns, after_ns in self._merger.clock_events
        ]
        return self._report

    def close(self) -> None:
        """Close all files. The packets of the last batch are void afterwards."""
        self._closed = True
        for reader in (*self._open.values(), *self._ahead.values()):
            reader.close()
        self._open.clear()
        self._ahead.clear()

    def __del__(self) -> None:
        if hasattr(self, "_waiting"):
            self.close()

    def __enter__(self) -> CaptureInput:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[PacketBatch]:
        """The batches, each valid until the next one is asked for."""
        batch = PacketBatch()
        while self.fill(batch):
            yield batch
