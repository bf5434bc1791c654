"""What can be set about tracking, as one typed object with defaults (durations in nanoseconds)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache

from synfin.errors import ConfigError
from synfin.schema import BY, USUAL_TABLES

NS_PER_S = 1_000_000_000
_UNITS_NS = {
    "ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": NS_PER_S, "m": 60 * NS_PER_S, "min": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S, "d": 86_400 * NS_PER_S,
}  # fmt: skip
MAX_DURATION_NS = 366 * 86_400 * NS_PER_S
MAX_FLOWS = 1 << 31
MAX_BYTES = 1 << 62
MAX_TOP = 100_000


def parse_duration(text: str) -> int:
    """Nanoseconds in a duration such as ``75s``, ``2h4m`` or ``500ms``; a bare number is seconds.

    Raises ConfigError when the text is no duration.
    """
    if re.fullmatch(r"\d+(\.\d+)?", text):
        text += "s"
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|min|s|m|h|d)", text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ConfigError(f"{text!r} is not a duration; write it like 75s, 2h4m or 500ms")
    total = 0
    for number, unit in parts:
        whole, _, fraction = number.partition(".")
        total += int(whole) * _UNITS_NS[unit]
        if fraction:
            total += int(fraction) * _UNITS_NS[unit] // 10 ** len(fraction)
    return total


def parse_size(text: str) -> int:
    """Bytes in a size such as ``512M`` or ``1.5GiB``: K, M, G and T are powers of 1024; a bare number is bytes.

    Raises ConfigError when the text is no size.
    """
    match = re.fullmatch(r"(\d{1,15})(?:\.(\d{1,9}))?(?:([KMGT])(?:i?B)?|B)?", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(f"{text!r} is not a size; write it like 512M or 2G")
    unit = 1024 ** " KMGT".index((match[3] or " ").upper())
    fraction = match[2] or ""
    return int(match[1]) * unit + int(fraction or 0) * unit // 10 ** len(fraction)


#: What to do about packets that the capture holds twice.
DUPLICATES = ("keep", "count", "drop")


@lru_cache(maxsize=1)
def default_server_ports() -> frozenset[int]:
    """The fixed list that SPEC's direction rule uses: ports below 1024 and the usual registered ones."""
    return _ports_of_file("server_ports.txt")


@lru_cache(maxsize=1)
def zeek_server_ports() -> frozenset[int]:
    """The ports that Zeek takes for a server's (its likely_server_ports): what turns a first packet round."""
    return _ports_of_file("zeek_server_ports.txt")


def _ports_of_file(name: str) -> frozenset[int]:
    # importlib.resources would cost as much as all else that settings need.
    with open(os.path.join(os.path.dirname(__file__), "data", name), encoding="ascii") as file:
        text = file.read()
    return parse_ports(",".join(line.partition("#")[0].strip() for line in text.splitlines()))


def parse_ports(text: str) -> frozenset[int]:
    """Ports of a list such as ``80,443,8000-8999``. Raises ConfigError when it is none."""
    ports: set[int] = set()
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", item)
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if low > high or high > 65535:
            raise ConfigError(f"{item!r} is not a port or a range of ports; write it like 80,443,8000-8999")
        ports.update(range(low, high + 1))
    return frozenset(ports)


@dataclass(frozen=True)
class Settings:
    """Settings of one run. Durations are nanoseconds of capture time.

    Parameters
    ----------
    attempt_timeout, half_open_timeout : unanswered SYN; SYN-ACK seen and handshake not complete.
    idle_timeout : established, midstream with both ends seen, or one FIN.
    one_sided_timeout : midstream, only one end seen.
    closing_timeout : both FINs seen, not both acknowledged.
    time_wait : closed, from the ACK that closed it.
    reset_linger : reset, or an attempt answered by RST.
    reorder : how late a packet may be without moving an interval or a deadline.
    interval : length of a row of the interval table.
    key : what beside the two ends tells connections apart: any of ``"vlan"`` and ``"tunnel"`` (kind and id).
    server_ports : ports that mark the server when no SYN was seen.
    checksum : ``"verify"`` skips packets whose IPv4 header or TCP checksum is wrong; ``"ignore"`` takes them.
    duplicates : ``keep`` what the capture point saw twice as it is, ``count`` the copies apart, or ``drop`` them.
    by : what tables by key are asked for: any of ``"service"`` and ``"client"``.
    top : keys of each interval that have rows of their own there; all others have one row together.
    max_flows : records that live at once at most; one more ends another (`evicted`). None: no such cap.
    max_memory : bytes of the process above which no room is made for more records at once. None: no such cap.

    Raises
    ------
    ConfigError : a value out of range.
    """

    attempt_timeout: int = 75 * NS_PER_S
    half_open_timeout: int = 75 * NS_PER_S
    idle_timeout: int = 124 * 60 * NS_PER_S
    one_sided_timeout: int = 300 * NS_PER_S
    closing_timeout: int = 60 * NS_PER_S
    time_wait: int = 60 * NS_PER_S
    reset_linger: int = 10 * NS_PER_S
    reorder: int = NS_PER_S
    interval: int = NS_PER_S
    key: tuple[str, ...] = ()
    server_ports: frozenset[int] | None = None
    checksum: str = "ignore"
    duplicates: str = "keep"
    max_flows: int | None = None
    max_memory: int | None = None
    by: tuple[str, ...] = ()
    top: int = 1000

    def __post_init__(self) -> None:
        for field in fields(self)[:9]:
            value = getattr(self, field.name)
            if not isinstance(value, int) or not 0 <= value <= MAX_DURATION_NS:
                raise ConfigError(f"{field.name} must be between 0 and {MAX_DURATION_NS} ns, not {value!r}")
            if value == 0 and field.name != "reorder":
                raise ConfigError(f"{field.name} must be longer than 0")
        if self.interval < 1_000_000 or self.interval % 10:
            raise ConfigError("interval must be at least 1ms and a multiple of 10ns (ten equal slices)")
        if self.reorder // (self.interval // 10) > 1_000_000:
            raise ConfigError("reorder is more than 100,000 intervals; make the interval longer or reorder shorter")
        if set(self.key) - {"vlan", "tunnel"}:
            raise ConfigError(f"key can hold 'vlan' and 'tunnel' only, not {', '.join(self.key)!r}")
        if unknown := set(self.by) - set(BY):
            raise ConfigError(f"tables by key are by {' or '.join(BY)}, not by {', '.join(sorted(map(str, unknown)))}")
        if self.checksum not in {"ignore", "verify"}:
            raise ConfigError(f"checksum can be 'ignore' or 'verify', not {self.checksum!r}")
        if self.duplicates not in DUPLICATES:
            raise ConfigError(f"duplicates must be one of {', '.join(DUPLICATES)}, not {self.duplicates!r}")
        for name, least, most in (("max_flows", 1, MAX_FLOWS), ("max_memory", 1, MAX_BYTES), ("top", 1, MAX_TOP)):
            value = getattr(self, name)
            if (value is not None or name == "top") and not (type(value) is int and least <= value <= most):
                raise ConfigError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
        if self.server_ports is None:
            object.__setattr__(self, "server_ports", default_server_ports())

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables of a run: the usual ones, and those by key that are asked for."""
        return (*USUAL_TABLES, *(table for by, table in BY.items() if by in self.by))


#: How a setting is read where it is given as text; others are texts themselves, or no texts.
FROM_TEXT: dict[str, Callable[[str], int]] = {
    **{field.name: parse_duration for field in fields(Settings)[:9]},
    "max_memory": parse_size,
}


def parse_end(text: str) -> tuple[bytes, int | None]:
    """Address (4 or 16 bytes) and port of an end: ``192.0.2.1``, ``192.0.2.1:443``, ``2001:db8::1``, ``[2001:db8::1]:443``.

    The port is None where none is named. Raises ConfigError when the text is no end.
    """
    from ipaddress import ip_address

    match = re.fullmatch(r"\[(?P<v6>[^\]]*)\](:(?P<port6>\d{1,5}))?|(?P<v4>[^:]*)(:(?P<port4>\d{1,5}))?|(?P<bare>.*)", text)
    try:
        if match is None:  # a line break
            raise ValueError
        address = ip_address(match["v6"] or match["v4"] or match["bare"] or "")
        port = match["port6"] or match["port4"]
        if port is not None and int(port) > 65535:
            raise ValueError
    except ValueError:
        raise ConfigError(f"{text!r} is no address or address and port; write 192.0.2.1:443 or [2001:db8::1]:443") from None
    return address.packed, None if port is None else int(port)


@dataclass(frozen=True)
class Selection:
    """Records that somebody asks for; every condition that is given must hold.

    Parameters
    ----------
    flow_id : of the record.
    client, server : address and port of that end (`parse_end`).

    Raises
    ------
    ConfigError : nothing is asked for.
    """

    flow_id: int | None = None
    client: tuple[bytes, int | None] | None = None
    server: tuple[bytes, int | None] | None = None

    def __post_init__(self) -> None:
        if self.flow_id is None and self.client is None and self.server is None:
            raise ConfigError("say which connections: --flow ID, --client IP[:PORT] or --server IP[:PORT]")
        if self.flow_id is not None and not 0 <= self.flow_id < 1 << 63:
            raise ConfigError(f"{self.flow_id} is no flow_id: they lie between 0 and 2^63 - 1")
