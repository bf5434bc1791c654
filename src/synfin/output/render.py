"""The summary and the first rows as text for a terminal of 80 columns or more."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

NS_PER_S = 1_000_000_000
WIDTH = 80
_LABEL = 15
_WARNINGS = 12
#: Control characters but the newline, marks that turn the direction of text, and what stands for bytes that are no UTF-8.
_OBEYED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """Text that may hold names of files, without what a terminal would obey, or could not be given."""
    return _OBEYED.sub("\ufffd", text)


def duration(ns: int) -> str:
    """A duration with up to three digits, rounded down: 850 ns, 12.3 µs, 4.56 ms, 7.89 s, 2m11s, 3h05m, 2d03h."""
    if ns < 1000:
        return f"{ns} ns"
    for unit, whole, limit in (("µs", 10**3, 1000), ("ms", 10**6, 1000), ("s", 10**9, 60)):
        if ns < limit * whole:
            shift = 100 if ns < 10 * whole else 10 if ns < 100 * whole else 1
            return f"{ns * shift // whole / shift:g} {unit}"
    seconds = ns // NS_PER_S
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02}s"
    if seconds < 86_400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02}m"
    return f"{seconds // 86_400}d{seconds % 86_400 // 3600:02}h"


def size(count: int) -> str:
    """Bytes in decimal units: 512 B, 12.4 MB."""
    if count < 1000:
        return f"{count} B"
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.3g} {unit}"
    return f"{count:,.0f} EB"


def instant(ns: int | None, date: bool = True) -> str:
    """An instant in UTC with microseconds, rounded down; the date as well unless told otherwise."""
    if ns is None:
        return "-"
    seconds, rest = divmod(ns, NS_PER_S)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{text if date else text[11:]}.{rest // 1000:06}"


def number(value: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def endpoint(ip: str | None, port: int | None) -> str:
    """An address and a port; brackets around IPv6 (RFC 3986 section 3.2.2)."""
    return f"[{ip}]:{port}" if ip and ":" in ip else f"{ip}:{port}"


def valid(text: str) -> str:
    """Text that UTF-8 can hold: bytes of a file's name that are no UTF-8 (surrogates in Python) become U+FFFD, as in rows."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def summary_text(summary: dict[str, Any]) -> str:
    """The summary of a run for people."""
    parts = [_head(summary), _connections(summary), _round_trips(summary["rtt"]), _worst(summary), _input(summary)]
    parts.append(_accounting(summary["accounting"]) + _capture(summary.get("capture")))
    return harmless("\n".join(line for part in parts if part for line in [*part, ""]))


def _line(label: str, text: str) -> list[str]:
    indent = " " * _LABEL
    return textwrap.wrap(text, WIDTH, initial_indent=label.ljust(_LABEL), subsequent_indent=indent, break_long_words=False)


def _counts(counts: Iterable[tuple[str, int]]) -> str:
    # The spaces inside an item must not break: they are put back after wrapping (see _listed).
    return ", ".join(f"{name}\0{count:,}" for name, count in counts if count)


def _listed(label: str, counts: Iterable[tuple[str, int]]) -> list[str]:
    text = _counts(counts)
    return [line.replace("\0", " ") for line in _line(label, text)] if text else []


def _head(s: dict[str, Any]) -> list[str]:
    speed = f" ({s['packets_per_second']:,} packets/s)" if s["packets_per_second"] else ""
    live = not s["files"]
    where = f"on {', '.join(s['interfaces'])}" if live else f"in {number(s['files'], 'file')}"
    text = f"{number(s['packets'], 'packet')} {where}, {size(s['bytes_read'])}, in {s['seconds']:.2f} s"
    lines = textwrap.wrap(text + speed, WIDTH)
    if s["first_time_ns"] is not None and s["packets"]:
        first, last = s["first_time_ns"], s["last_time_ns"]
        same_day = instant(first)[:10] == instant(last)[:10]
        lines.append(f"{instant(first)} to {instant(last, not same_day)} UTC ({duration(last - first)})")
    if s["capture_drops"] or live:
        by = "dropped by the kernel" if live else "lost while capturing, as the captures say"
        lines.append(f"{number(s['capture_drops'], 'packet')} {by}")
    if not s["complete"]:
        where = "" if s["file"] is None else s["file"] if s["offset"] is None else f"{s['file']}, byte {s['offset']:,}"
        text = f"INCOMPLETE: {s['reason']}" + (f" ({where})" if where else "")
        lines += ["", *textwrap.wrap(text, WIDTH, break_on_hyphens=False, break_long_words=False)]
    return lines


def _connections(s: dict[str, Any]) -> list[str]:
    end = s["at_end"]
    lines = _line("Connections", f"{s['connections']:,} ({size(s['ip_bytes'])} of IP)")
    lines += _listed("  opening", s["handshakes"].items())
    lines += _listed("  closing", s["closes"].items())
    lines += _listed("  first FIN by", s["closers"].items())
    lines += _evicted(s["evicted"], s["connections"], s["cap"])
    names = {"connections": "still open", "half_open": "half-open", "close_wait": "CLOSE-WAIT", "time_wait": "TIME-WAIT"}
    lines += _line("  at the end", ", ".join(f"{label} {end[name]:,}" for name, label in names.items()))
    peaks = (("half-open", s["half_open_peak"]), ("TIME-WAIT", s["time_wait_peak"]))
    reached = [f"{label} {peak['value']:,} at {instant(peak['time_ns'])}" for label, peak in peaks if peak["value"]]
    for label, text in zip(("  highest", ""), reached, strict=False):
        lines += _line(label, text)
    lines += _listed("  resent", [("SYNs", s["syn_resends"]), ("segments", s["retransmitted_segments"])])
    told = (("about segments in flight", s["icmp"]["errors"]), ("about none that was sent", s["icmp"]["rejected"]))
    lines += _listed("  ICMP errors", told)
    lines += _suspects(s["suspects"], s["accounting"]["in_records"])
    return lines


def _evicted(counts: dict[str, int], records: int, cap: int | None) -> list[str]:
    # Where open ones were evicted the result is not only cut: what they sent later begins records of its own.
    if not counts:
        return []
    total = sum(counts.values())
    kinds = _counts((name.replace("_", "-"), count) for name, count in counts.items())
    text = f"{total:,} ({total * 1000 // records / 10}\0%) at the cap of {cap:,} at once: {kinds}"
    again = "; what open ones sent later began new records" if counts.get("open") else ""
    return [line.replace("\0", " ") for line in _line("  evicted", text + again)]


def _suspects(count: int | None, packets: int) -> list[str]:
    # Some packets look like copies by chance; more than one in a hundred do not.
    if not count or count * 100 <= packets:
        return []
    share = count * 1000 // packets / 10
    return _line("  copies?", f"{count:,} ({share} %) look captured twice: --duplicates count|drop tells")


def _round_trips(rtt: dict[str, dict[str, int | None]]) -> list[str]:
    if not any(side["count"] for side in rtt.values()):
        return []
    lines = ["Handshake RTT" + "".join(f"{title:>11}" for title in ("count", "p50", "p90", "p99", "max"))]
    for side, values in rtt.items():
        if values["count"]:
            cells = [f"{values['count']:,}"] + [duration(values[q]) for q in ("p50", "p90", "p99", "max")]
            lines.append(f"  to {side:<8}" + "".join(f"{cell:>11}" for cell in cells))
    return lines


def _worst(s: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for failure, servers in s["worst_servers"].items():
        label = failure.replace("_", "-")
        for server in servers:
            lines.append(f"  {label:<12}{server['count']:>10,}  {endpoint(server['server_ip'], server['server_port'])}")
            label = ""
        if more := s["failing_servers"][failure] - len(servers):
            lines.append(f"  {'':<12}{'...':>10}  and {number(more, 'more server')}")
    if lines and s["worst_servers_error"]:
        lines.append(f"  (very many servers: each count may be low by up to {s['worst_servers_error']:,})")
    return ["Worst servers   attempts", *lines] if lines else []


def _input(s: dict[str, Any]) -> list[str]:
    warnings = s["input"]["warnings"]
    lines = [
        line
        for warning in warnings[:_WARNINGS]
        for line in textwrap.wrap(
            warning, WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
        )  # a path stays whole, to be copied
    ]
    if len(warnings) > _WARNINGS:
        lines.append(f"and {number(len(warnings) - _WARNINGS, 'more warning')} (--json holds all)")
    return lines


def _accounting(identity: dict[str, Any]) -> list[str]:
    names = {"in_records": "in connections"}
    terms = [(name, count) for name, count in identity.items() if name not in ("packets", "holds")]
    total = " + ".join(f"{count:,}\0{names.get(name, name).replace(' ', chr(0))}" for name, count in terms)
    text = f"{identity['packets']:,} = {total}"
    if not identity["holds"]:
        text += " DOES NOT HOLD: please report this"
    return [line.replace("\0", " ") for line in _line("Packets", text)]


def _capture(capture: dict[str, Any] | None) -> list[str]:
    if capture is None:
        return []
    text = f"{capture['ring_packets']:,} = {capture['packets']:,}\0read + {capture['ring_drops']:,}\0dropped,\0ring\0full"
    if not capture["holds"]:
        text += " DOES NOT HOLD: please report this"
    lines = [line.replace("\0", " ") for line in _line("Ring", text)]
    before = {"by the interface": "interface_rx_dropped", "missed by the card": "interface_rx_missed", "by the host": "softnet_dropped"}
    if capture["interface_unseen"]:
        before["while an interface was made again"] = "interface_unseen"
    lines += _line("  lost before", ", ".join(f"{capture[name]:,} {what}" for what, name in before.items()))
    clocks = capture["timestamps"]
    return lines + _line("  stamped by", ", ".join(f"{_CLOCKS[clock]} ({name})" for name, clock in clocks.items()))


_CLOCKS = {"hardware": "the card", "software": "the system"}

#: Columns of the flow table that `first_rows` shows.
HEAD_COLUMNS = (
    "first_seen", "first_packet", "duration_ns", "client_ip", "client_port", "server_ip", "server_port", "handshake",
    "close", "closer", "client_state", "server_state", "rtt_server_ns", "client_packets", "server_packets",
)  # fmt: skip


_RTT, _PACKETS = "rtt server", "packets c/s"
_TITLES = ("first seen", "client", "server", "handshake", "close", "closer", "states", _RTT, _PACKETS, "lasted")
_NUMBERS = {_RTT, _PACKETS, "lasted"}
#: The order in which columns claim room; the first three are always shown.
_CLAIMS = ("client", "server", "handshake", "close", "closer", _RTT, _PACKETS, "first seen", "states", "lasted")


def first_rows(rows: Sequence[dict[str, Any]], width: int) -> str:
    """Rows of the flow table (HEAD_COLUMNS, instants in nanoseconds) as a table of at most `width` columns.

    What does not fit is left out, the least telling column first.
    """
    lines = [dict(zip(_TITLES, line, strict=True)) for line in (_TITLES, *map(_cells, rows))]
    widths = {title: max(len(line[title]) for line in lines) for title in _TITLES}
    shown, used = set(_CLAIMS[:3]), sum(widths[title] + 2 for title in _CLAIMS[:3])
    for title in _CLAIMS[3:]:
        if used + widths[title] <= width:
            shown.add(title)
            used += widths[title] + 2
    return "".join("  ".join(_pad(line[t], t, widths[t]) for t in _TITLES if t in shown).rstrip() + "\n" for line in lines)


def _pad(cell: str, title: str, width: int) -> str:
    return cell.rjust(width) if title in _NUMBERS else cell.ljust(width)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        instant(row["first_seen"], date=False)[:12],
        endpoint(row["client_ip"], row["client_port"]),
        endpoint(row["server_ip"], row["server_port"]),
        row["handshake"],
        row["close"] or "-",
        row["closer"] or "-",
        f"{row['client_state']}/{row['server_state']}",
        "-" if row["rtt_server_ns"] is None else duration(row["rtt_server_ns"]),
        f"{row['client_packets']}/{row['server_packets']}",
        duration(row["duration_ns"]),
    )
