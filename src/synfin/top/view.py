"""Numbers as lines of a terminal: of any size, of fixed widths, and of nothing that the rows could have brought but numbers
and addresses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from rich.text import Text

from synfin.schema import BY, OTHER
from synfin.settings import NS_PER_S
from synfin.top.columns import KEY_COLUMNS, Column
from synfin.top.controls import Controls
from synfin.top.figures import Figures, Line, Ranking

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 86_400
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{1,45}")
_NONE = "-"
_LEAST_KEY, _MOST_KEY = 21, 47  # 255.255.255.255:65535, and [IPv6]:65535
_CELL = 7  # a number of six characters, and a space before it
_HEAD, _BAD, _FAINT, _CHOSEN = "bold on grey23", "bold red", "dim", "reverse"
_GAP = 3

_STATES = (
    ("SYN-SENT", "syn_sent"), ("SYN-RECEIVED", "syn_received"), ("ESTABLISHED", "established"),
    ("FIN-WAIT-1", "fin_wait_1"), ("FIN-WAIT-2", "fin_wait_2"), ("CLOSE-WAIT", "close_wait"), ("CLOSING", "closing"),
    ("LAST-ACK", "last_ack"), ("TIME-WAIT", "time_wait"),
)  # fmt: skip
_CONNECTIONS = (
    ("connections", ""), ("opening", "opening_peak"), ("half_open", "half_open_peak"), ("half_closed", ""), ("midstream", "")
)  # fmt: skip
_RATES = (
    ("packets", "packets"), ("bytes", "ip_bytes"), ("SYNs", "syns"), ("new", "completed"), ("dropped", "capture_drops"),
    ("refused", "refused"), ("no answer", "unanswered"), ("resets", "closed_rst"), ("SYN resends", "syn_resends"),
    ("data resends", "retransmitted_segments"),
)  # fmt: skip
_ALARMING = {"dropped", "refused", "no answer", "resets"}


class Facts(NamedTuple):
    """What is told beside the numbers: where they come from, what is wrong, and the time (ns since 1970)."""

    name: str
    notice: str
    now_ns: int


# ---------------------------------------------------------------------- numbers


def short(value: float, units: Sequence[str]) -> str:
    """Three digits and a unit; the first unit is that of the value, each other a thousand times the one before."""
    power = 0
    while value >= 999.5 and power < len(units) - 1:
        value /= 1000
        power += 1
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}{units[power]}"


def count(value: float | None, width: int = 6) -> str:
    """A whole number, all of its digits where they fit."""
    if value is None:
        return _NONE
    whole = f"{round(value):,}"
    return whole if len(whole) <= width else short(value, ("", "k", "M", "G", "T", "P", "E"))


def rate(value: float | None, width: int = 6) -> str:
    """A count per second."""
    if value is None or value == 0 or value >= 9.95:
        return count(value, width)
    return "<0.01" if value < 0.005 else f"{value:.2f}" if value < 0.1 else f"{value:.1f}"


def duration(ns: float | None) -> str:
    """A round trip."""
    return _NONE if ns is None else short(ns, ("ns", "µs", "ms", "s")) if ns >= 1000 else f"{ns:.0f}ns"


def age(seconds: int) -> str:
    """How old something is, in the greatest unit of which two have passed."""
    for unit, size in (("d", _DAY_S), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def instant(ns: int, now_ns: int) -> str:
    """Time of day, UTC; with its date where that is not today's."""
    at, now = (_EPOCH + timedelta(seconds=value // NS_PER_S) for value in (ns, now_ns))
    return f"{at:%H:%M:%S} UTC" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def end(key: tuple) -> str:
    """Address and port, or an address."""
    address, *port = key
    if address == OTHER:
        return f"{OTHER}: all others"
    if not _ADDRESS.fullmatch(address):
        return "?"
    if not port:
        return address
    return f"[{address}]:{port[0]}" if ":" in address else f"{address}:{port[0]}"


def cropped(text: str, width: int) -> str:
    """So much of a text as fits: its beginning and its end."""
    if len(text) <= width:
        return text
    tail = max(width - 1, 0) * 2 // 3
    return f"{text[: max(width - 1 - tail, 0)]}…{text[len(text) - tail :]}"[:width]


# ---------------------------------------------------------------------- panels of six lines


def _number(text: str, width: int, bad: bool = False) -> Text:
    style = _FAINT if text in ("0", _NONE) else _BAD if bad else "bold"
    return Text(text.rjust(width), style)


def _connections(of: Figures) -> list[Text]:
    lines = [Text(f"{'CONNECTIONS':11}{'now':>8}{'peak':>8}", _HEAD)]
    for name, peak in _CONNECTIONS:
        line = Text(f"{name.replace('_', '-'):11}").append_text(_number(count(of.now[name], 7), 8))
        line.append_text(_number(count(of.peak[peak], 7), 8) if peak else Text(" " * 8))
        lines.append(line)
    return lines


def _states(of: Figures) -> list[Text]:
    cells = [(label, count(of.now[name], 7)) for label, name in _STATES]
    cells.append(("   peak", count(of.peak["time_wait_peak"], 7)))
    return [Text(f"{'ENDS BY STATE':41}", _HEAD), *_pairs(cells, 12, 8, 10, 8)]


def _rates(of: Figures) -> list[Text]:
    cells = [(label, rate(_rate(of, name), 7)) for label, name in _RATES]
    return [Text(f"{'PER SECOND':38}", _HEAD), *_pairs(cells, 7, 8, 12, 8)]


def _rate(of: Figures, name: str) -> float | None:
    if name != "unanswered":
        return of.rate[name]
    parts = of.rate["unanswered"], of.rate["half_open_expired"]
    return None if None in parts else sum(parts)


def _pairs(cells: list[tuple[str, str]], left: int, left_number: int, right: int, right_number: int) -> list[Text]:
    # Two columns of labels and numbers, downwards.
    lines: list[Text] = []
    for (label, value), (other, its) in zip(cells[:5], cells[5:], strict=True):
        line = Text(f"{label:{left}}").append_text(_number(value, left_number, label in _ALARMING))
        line.append(f"{'':{_GAP}}{other:{right}}").append_text(_number(its, right_number, other in _ALARMING))
        lines.append(line)
    return lines


def _round_trips(of: Figures) -> list[Text]:
    lines = [
        Text(f"{'RTT':4}{'newest interval':>16}{'worst interval':>16}", _HEAD),
        Text(f"{'':4}" + f"{'server':>8}{'client':>8}" * 2, _HEAD),
    ]
    for quantile in ("p50", "p90", "p99", "max"):
        line = Text(f"{quantile:4}")
        for values in (of.latest, of.worst):
            for side in ("server", "client"):
                line.append_text(_number(duration(values[f"rtt_{side}_{quantile}_ns"]), 8))
        lines.append(line)
    return lines


def _beside(panels: Sequence[list[Text]], width: int) -> list[Text]:
    # As many beside each other as fit, then the next ones below.
    lines: list[Text] = []
    row: list[list[Text]] = []
    for panel in [*panels, None]:
        if row and (panel is None or sum(len(each[0]) + _GAP for each in [*row, panel]) - _GAP > width):
            for parts in zip(*row, strict=True):
                line = Text(" " * _GAP, parts[0].style if parts[0].style == _HEAD else "").join(parts)
                lines.append(_filled(line, width))
            row = []
        if panel is not None:
            row.append(panel)
    return lines


def _filled(line: Text, width: int) -> Text:
    # A heading goes on to the right edge.
    if line.style == _HEAD or any(span.style == _HEAD for span in line.spans):
        line.append(" " * max(width - len(line), 0), _HEAD)
    return line


# ---------------------------------------------------------------------- services or clients


def shown_columns(width: int, sort: str) -> list[Column]:
    """The columns that fit beside the key; the one that is sorted by is among them."""
    room = max((width - _LEAST_KEY) // _CELL, 1)
    first = sorted(KEY_COLUMNS, key=lambda column: (column.name != sort, column.rank))[:room]
    return [column for column in KEY_COLUMNS if column in first]


def _heads(controls: Controls, columns: list[Column], key_width: int, late: str) -> list[Text]:
    said = (f"{controls.table.upper()}{late}", f"by {controls.sort}{', lowest' if controls.upward else ''}")
    lines: list[Text] = []
    for at in (0, 1):
        line = Text(f"{cropped(said[at], key_width):{key_width}}", _HEAD)
        for column in columns:
            line.append(" ", _HEAD).append(
                f"{column.heads[at]:>6}", f"{_HEAD} {_CHOSEN}" if column.name == controls.sort else _HEAD
            )
        lines.append(line)
    return lines


def _value(column: Column, value: float | None) -> str:
    return {"gauge": count, "rate": rate, "time": duration}[column.kind](value)


def _row(line: Line, columns: list[Column], key_width: int) -> Text:
    key = f"{cropped(end(line.key), key_width):{key_width}}"
    text = Text().append(key, _FAINT if line.key[0] == OTHER else None)
    for column in columns:
        cell = _value(column, line.values[column.name])
        text.append(" ").append_text(
            _number(cell, _CELL - 1, column.name in ("failed", "refused", "unanswered", "resets"))
        )
    return text


def _table(controls: Controls, of: Figures, by_key: Ranking, width: int, room: int) -> list[Text]:
    lines, other, end_ns = by_key
    columns = shown_columns(width, controls.sort)
    key_width = min(max(width - _CELL * len(columns), 0), _MOST_KEY)
    rows = [_row(line, columns, key_width) for line in lines[: room - 2 - bool(other)]]
    if other:
        rows.append(_row(other, columns, key_width))
    if not rows:
        by = next(by for by, table in BY.items() if table == controls.table)
        rows = [Text(f"no rows by {by} in this window (--by {by} makes them)", _FAINT)]
    late = "" if end_ns in (None, of.end_ns) else f" at {_EPOCH + timedelta(seconds=end_ns // NS_PER_S):%H:%M:%S}"
    return [*(_filled(head, width) for head in _heads(controls, columns, key_width, late)), *rows]


# ---------------------------------------------------------------------- the whole


def _title(controls: Controls, of: Figures | None, facts: Facts, width: int) -> Text:
    right = Text("no rows yet")
    if of is not None:
        seconds = int((facts.now_ns - of.end_ns) / NS_PER_S)
        how = "old" if seconds >= 0 else "in the future"  # a clock was set back, or is another host's
        said = f"{instant(of.end_ns, facts.now_ns)}, {age(abs(seconds))} {how}"
        right = Text(f"{said}  last {_span(of.span_ns)}")
    if controls.held:
        right.append("  ").append(" PAUSED ", _CHOSEN)
    room = max(width - len(right) - 13, 0)
    return Text.assemble(("synfin top", "bold cyan"), f" {cropped(_harmless(facts.name), room):{room}}  ", right)


def _harmless(text: str) -> str:
    # Names of files may hold what a terminal would obey.
    return "".join(char if char.isprintable() else "?" for char in text)


def _span(ns: int) -> str:
    return f"{ns / NS_PER_S:g} s" if ns < 120 * NS_PER_S else f"{ns / NS_PER_S / 60:g} min"


_HELP = ("q quit", "space pause", "←→ sort", "r reverse", "w window", "tab services/clients")


def frame(
    controls: Controls,
    of: Figures | None,
    by_key: Ranking,
    facts: Facts,
    size: tuple[int, int],
    *,
    keys: bool = True,
) -> list[Text]:
    """The lines of a terminal, at most as many, and as long, as its height and width are.

    Parameters
    ----------
    of, by_key : what `figures` and `ranked` give.
    size : width and height in characters.
    keys : say in the last line what keys do.
    """
    width, height = size
    shown = [_title(controls, of, facts, width)]
    if facts.notice:
        shown.append(Text(_harmless(facts.notice), _BAD))
    foot = [Text("  ".join(_HELP if len(controls.tables) > 1 else _HELP[:-1]), _FAINT)] if keys else []
    if of is None:
        shown += [Text(), Text("waiting for the first interval", _FAINT)]
    else:
        shown += _beside([_connections(of), _states(of), _rates(of), _round_trips(of)], width)
        room = height - len(shown) - len(foot)
        if room > 2:
            shown += _table(controls, of, by_key, width, room)
    shown = shown[: max(height - len(foot), 0)]
    if keys:
        shown += [Text()] * (height - len(shown) - 1)
    for line in (shown := [*shown, *foot][:height]):
        line.truncate(width)
    return shown
