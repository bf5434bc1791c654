"""What happened to the input: files read, skipped, broken, their gaps and overlaps, and the clock's incidents."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from synfin.errors import CaptureFormatError

GAP_NS = 1_000_000_000  # files of a rotated set follow each other within less
_NAMED = 8  # files in one warning
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(ns: int) -> str:
    """An instant as text, to the microsecond, UTC."""
    return f"{_EPOCH + timedelta(microseconds=ns // 1000):%Y-%m-%d %H:%M:%S.%f} UTC"


@dataclass
class FileReport:
    """One capture that was read.

    Parameters
    ----------
    packets : given out so far.
    first_ns, last_ns : the clock (ns since 1970) at the first and the last of them.
    clamped : timestamps before 1970 or after 2116, which were moved to that bound.
    """

    path: str
    packets: int = 0
    clamped: int = 0
    first_ns: int | None = None
    last_ns: int | None = None


@dataclass(frozen=True)
class BrokenFile:
    """A capture that breaks off.

    Parameters
    ----------
    offset : bytes from its start, after decompression, to the record that could not be read; None if it was not opened.
    kind : ``truncated`` (it ends early), ``corrupt``, ``unreadable``, or ``not a capture`` (and yet named itself).
    """

    path: str
    offset: int | None
    reason: str
    kind: str

    def __str__(self) -> str:
        where = "" if self.offset is None else f" at byte offset {self.offset}"
        return f"{self.path}: {self.kind}{where}: {self.reason}"


@dataclass(frozen=True)
class ClockIncident:
    """kind: ``outlier`` (a timestamp was replaced), ``jump`` (an hour or more ahead) or ``step`` (back)."""

    kind: str
    path: str
    packet: int
    before_ns: int
    after_ns: int

    def __str__(self) -> str:
        before, after = instant(self.before_ns), instant(self.after_ns)
        what = {
            "outlier": f"lone timestamp {before} replaced by {after}",
            "jump": f"the clock jumps from {before} to {after}",
            "step": f"the clock steps back from {before} to {after}",
        }[self.kind]
        return f"{self.path}, packet {self.packet}: {what}"


@dataclass(frozen=True)
class InterfaceIncident:
    """Something that happened to an interface, or to the clock that stamps its packets.

    Parameters
    ----------
    kind : ``down``, ``no carrier``, ``removed``, ``up``, ``made again``, ``refused`` (it was made again, and cannot be
        listened on) or ``clock set``.
    time_ns : when it was noticed, by the system's clock (ns since 1970).
    step_ns : for ``clock set``: by how much, negative for back.
    reason : for ``refused``: why.
    """

    kind: str
    interface: str
    time_ns: int
    step_ns: int = 0
    reason: str = ""

    _SAYS: ClassVar[dict[str, str]] = {
        "down": "it was set down",
        "no carrier": "it lost its carrier",
        "removed": "it was removed",
        "up": "it is up again",
        "made again": "there is a new interface of that name, and the run goes on with it",
    }

    def __str__(self) -> str:
        what = self._SAYS.get(self.kind, self.reason)
        if self.kind == "clock set":
            what = f"the system's clock was set {'back' if self.step_ns < 0 else 'ahead'} by {abs(self.step_ns) / 1e9:.3f} s"
        return f"{self.interface}, {instant(self.time_ns)}: {what}"


@dataclass(frozen=True)
class Border:
    """A gap or an overlap between two files: its length, the earlier-ending and the later-beginning file."""

    length_ns: int
    before: str
    after: str


@dataclass
class InputReport:
    """Everything about the input that a summary or an exit code needs.

    Parameters
    ----------
    strict : a truncated capture counts as a failure even where it is the only one.
    files : captures in path order (by file_id).
    skipped : (path, reason) of files in folders and globs that are no captures.
    duplicates : (path, path of the same capture).
    broken : captures that end early or are damaged, and named files that are no captures.
    left_out : captures of a rotated set that were not read, because they lie outside the window of time.
    clock_counts : outliers, jumps and steps, by name; `incidents` holds the first 256, and what happened to interfaces.
    """

    strict: bool = False
    files: list[FileReport] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    broken: list[BrokenFile] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    clock_counts: dict[str, int] = field(default_factory=lambda: {"outlier": 0, "jump": 0, "step": 0})
    incidents: list[ClockIncident | InterfaceIncident] = field(default_factory=list)

    @property
    def time_outliers(self) -> int:
        """Packets whose lone timestamp was replaced."""
        return self.clock_counts["outlier"]

    @property
    def failed(self) -> bool:
        """True when the run must end with exit code 1.

        A capture that is damaged or cannot be read, a file named beside captures that is none, one of several that
        breaks off, or, with `strict`, any that does.
        """
        several = len(self.files) + len(self.duplicates) + len(self.skipped) > 1
        return any(item.kind != "truncated" or several or self.strict for item in self.broken)

    @property
    def error(self) -> CaptureFormatError | None:
        """The first broken capture as an exception, when `failed`."""
        if not self.failed:
            return None
        severe = [item for item in self.broken if item.kind != "truncated"]
        first = (severe or self.broken)[0]
        return CaptureFormatError(str(first), first.path, first.offset)

    def _borders(self) -> tuple[list[Border], list[Border]]:
        gaps, overlaps = [], []
        spans = sorted((f.first_ns, f.last_ns, f.path) for f in self.files if f.first_ns is not None)
        end_ns, end_path = None, ""
        for first_ns, last_ns, path in spans:
            if end_ns is not None and first_ns - end_ns > GAP_NS:
                gaps.append(Border(first_ns - end_ns, end_path, path))
            elif end_ns is not None and first_ns < end_ns:
                overlaps.append(Border(min(end_ns, last_ns) - first_ns, end_path, path))
            if end_ns is None or last_ns > end_ns:
                end_ns, end_path = last_ns, path
        return gaps, overlaps

    @property
    def gaps(self) -> list[Border]:
        """Spans of more than a second that no file covers."""
        return self._borders()[0]

    @property
    def overlaps(self) -> list[Border]:
        """Files that begin before an earlier one ends."""
        return self._borders()[1]

    @property
    def warnings(self) -> list[str]:
        """Sentences for the end of a run."""
        lines = [str(item) for item in self.broken]
        lines += [f"{path}: skipped: {reason}" for path, reason in self.skipped]
        lines += [f"{path}: skipped: the same capture as {other}" for path, other in self.duplicates]
        if self.left_out:
            count = "1 file" if len(self.left_out) == 1 else f"{len(self.left_out)} files"
            named = ", ".join(self.left_out[:_NAMED]) + (" and others" if len(self.left_out) > _NAMED else "")
            lines.append(f"{count} outside the window of time, not read: {named}")
        for name, borders in zip(("gap", "overlap"), self._borders(), strict=True):
            if borders:
                worst = max(borders, key=lambda border: border.length_ns)
                count = f"1 {name}" if len(borders) == 1 else f"{len(borders)} {name}s"
                seconds = worst.length_ns / 1e9
                lines.append(f"{count} between files; the longest, {seconds:.6f} s: {worst.before} and {worst.after}")
        lines += [f"{f.path}: {f.clamped} timestamps lie outside 1970 to 2116" for f in self.files if f.clamped]
        lines += [str(item) for item in self.incidents]
        described = sum(isinstance(item, ClockIncident) for item in self.incidents)
        more = sum(self.clock_counts.values()) - described
        if more:
            lines.append(f"{more} more incidents of the clock")
        return lines
