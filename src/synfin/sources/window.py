"""A window of capture time: which packets count, and which files of a rotated set need not be read."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from synfin.errors import ConfigError
from synfin.sources.tails import latest_ns

NS_PER_S = 1_000_000_000
#: Timestamps of captures lie below (clock.pxd).
_TIME_END_NS = 1 << 62
#: How far packets of neighbouring files may be out of order.
_DISORDER_NS = NS_PER_S
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)"
    r"([T ](?P<time>\d\d:\d\d(:\d\d([.,](?P<fraction>\d{1,9}))?)?) ?(?P<zone>Z|[+-]\d\d(:?\d\d)?)?)?",
    re.ASCII,
)


def parse_instant(value: str | int | datetime) -> int:
    """Nanoseconds since 1970 of an instant.

    Parameters
    ----------
    value : text: ISO 8601 (``2024-05-01T12:30:00.123456789+02:00``; a space for the T, seconds, fraction, time of day
        and offset may be missing; UTC without an offset) or seconds since 1970 (``1714559400.5``). A number is
        nanoseconds since 1970. A datetime without a time zone is UTC.

    Raises
    ------
    ConfigError : the value is no instant.
    """
    if isinstance(value, datetime):
        whole = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (whole - _EPOCH) // timedelta(microseconds=1) * 1000
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = str(value).strip()
    if seconds := re.fullmatch(r"(\d{1,12})(?:\.(\d{1,9}))?", text, re.ASCII):
        return int(seconds[1]) * NS_PER_S + _fraction(seconds[2])
    if match := _INSTANT.fullmatch(text):
        time, zone = (match["time"] or "00:00")[:8], match["zone"] or "Z"
        try:
            whole = datetime.fromisoformat(f"{match['date']}T{time}{zone}")
        except ValueError as error:
            raise ConfigError(f"{text!r} is not an instant: {error}") from None
        return (whole - _EPOCH) // timedelta(seconds=1) * NS_PER_S + _fraction(match["fraction"])
    raise ConfigError(
        f"{text!r} is not an instant; write it like 2024-05-01T12:30:00.25 (UTC), with +02:00, or in seconds since 1970"
    )


def _fraction(digits: str | None) -> int:
    return int((digits or "0").ljust(9, "0"))


@dataclass(frozen=True)
class Window:
    """Packets from `start_ns` on and before `end_ns` (ns since 1970), so that windows side by side share none.

    Raises ConfigError for a window that ends before it begins.
    """

    start_ns: int = 0
    end_ns: int = _TIME_END_NS

    def __post_init__(self) -> None:
        if self.start_ns >= self.end_ns:
            raise ConfigError("the window of time ends before it begins, or holds nothing")

    @classmethod
    def of(cls, start: str | int | datetime | None, end: str | int | datetime | None) -> Window | None:
        """The window that two instants (`parse_instant`) mean; None stands for no end, or with both for no window."""
        if start is None and end is None:
            return None
        first = 0 if start is None else max(parse_instant(start), 0)
        last = _TIME_END_NS if end is None else min(parse_instant(end), _TIME_END_NS)
        return cls(first, last)

    def leaves_out(self, entries: Sequence[tuple[str, int, int]]) -> set[int]:
        """Files of rotated sets that lie wholly outside the window.

        Parameters
        ----------
        entries : path; clock (ns) at the file's first packet; the clock some packets on.

        Returns
        -------
        Their places in `entries`.

        Notes
        -----
        Only files of a rotated set are left out: those in one folder whose names differ in numbers alone, and which begin
        in the order of their names, none of whose first packets lie beyond the beginning of the next. Files written side by
        side, by threads or taps, can look the same. So a file is left out for what is before the window only where its
        last packets (`synfin.sources.tails`) show that it ends where the next one begins; where they cannot be looked
        at, as in compressed files, it is read. A second is left for disorder.
        """
        found: set[int] = set()
        for series in _series(entries):
            for at, following in zip(series, [*series[1:], None], strict=True):
                path, first_ns, _ = entries[at]
                if first_ns >= self.end_ns + _DISORDER_NS or (
                    following is not None and self._is_before(path, entries[following][1] + _DISORDER_NS)
                ):
                    found.add(at)
        return found

    def _is_before(self, path: str, end_ns: int) -> bool:
        # Of a file that should end at `end_ns`.
        if end_ns > self.start_ns:
            return False
        latest = latest_ns(path)
        return latest is not None and latest <= end_ns


def _series(entries: Sequence[tuple[str, int, int]]) -> list[list[int]]:
    """Places of files in `entries`, by rotated set, each in the order of its files."""
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, (path, _, _) in enumerate(entries):
        folder, name = os.path.split(path)
        alike[folder, re.sub(r"\d+", "0", re.sub(r"^(.*\.\D+)\d+$", r"\1", name))].append(at)
    return [places for places in alike.values() if len(places) > 1 and _is_rotated([entries[at] for at in places])]


def _is_rotated(files: list[tuple[str, int, int]]) -> bool:
    return all(before[1] < after[1] and before[2] <= after[1] + _DISORDER_NS for before, after in pairwise(files))
