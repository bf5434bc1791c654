"""One capture being read: chunks from below, packets above."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from synfin.sources import merge
from synfin.sources.ahead import ReadAhead
from synfin.sources.faults import FOREIGN, fault
from synfin.sources.looks import looks_like
from synfin.sources.report import BrokenFile
from synfin.sources.streams import Buffer, RawFile, StreamBroken

_HEAD_BYTES = 512


class Interfaces(list):
    """Names of the run's capture interfaces, each once."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[str, int] = {}

    def number(self, name: bytes | None, position: int) -> int:
        """Index of an interface by if_name, or by its number in its section where it has none."""
        text = (name or b"").split(b"\0")[0].decode("utf-8", "replace") or str(position)
        if text not in self._numbers:
            self._numbers[text] = len(self)
            self.append(text)
        return self._numbers[text]


class Reader:
    """One open capture.

    Parameters
    ----------
    raw : the file, for its name and its counters.
    content : its decompressed chunks.
    file_id : its place in the run's list of files.
    """

    def __init__(self, raw: RawFile, content: Iterator[Buffer], file_id: int):
        self.raw = raw
        self.capture = merge.OpenCapture(file_id)
        self._head = b""
        self._broken: StreamBroken | None = None
        self._content = content

    def advance(self) -> None:
        """Bring the next chunk, or the end."""
        self.capture.release()
        try:
            chunk = next(self._content, None)
        except StreamBroken as broken:
            self._broken = broken
            self.capture.finish(failed=True)
            return
        if chunk is None:
            self.capture.finish()
            return
        if len(self._head) < _HEAD_BYTES:
            self._head += bytes(chunk[: _HEAD_BYTES - len(self._head)])
        self.capture.feed(chunk)

    @property
    def unpacking(self) -> bool:
        """True while a thread reads on."""
        return isinstance(self._content, ReadAhead) and not self._content.finished

    def begin(self) -> None:
        """Say that the file's turn has come (`ReadAhead`)."""
        if isinstance(self._content, ReadAhead):
            self._content.begin()

    def first_packet(self, interfaces: Interfaces) -> bool:
        """Make the first packet ready. False when there is none: the capture has ended or is broken."""
        while (status := self.capture.peek()) != merge.PACKET:
            if status == merge.INTERFACE:
                self.capture.name_interface(interfaces.number(*self.capture.interface_name))
            elif status == merge.NEED:
                self.advance()
            else:
                return False
        return True

    def foreign(self) -> str | None:
        """What the file looks like if it is no capture."""
        found = fault(*self.capture.error)
        if not found or found[0] != FOREIGN:
            return None
        self.capture.release()
        with suppress(StopIteration, StreamBroken):
            while len(self._head) < _HEAD_BYTES:
                self._head += bytes(next(self._content)[:_HEAD_BYTES])
        return looks_like(self._head)

    def broken(self) -> BrokenFile | None:
        """What broke the capture."""
        found = fault(*self.capture.error)
        if found is None:
            return None
        kind, reason = (self._broken.kind, self._broken.reason) if self._broken else found
        return BrokenFile(self.raw.path, self.capture.offset, reason, kind)

    def close(self) -> None:
        self.capture.release()
        self._content.close()
