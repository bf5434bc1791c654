"""One connection as one tool cuts it, in a form that any two tools can be compared in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, NamedTuple

from synfin.errors import CaptureFormatError, ConfigError, NotACaptureError
from synfin.output.render import endpoint
from synfin.schema import FLOWS

End = tuple[bytes, int]  # address as bytes, port
Pair = tuple[End, End]  # the smaller end first
FIN, SYN, RST, ACK = 1, 2, 4, 16  #: bits of the TCP flags

#: Columns of an end that are looked at, by their name without `client_` or `server_`.
ENDS = (
    "packets", "payload_bytes", "fin_count", "rst_count", "isn", "mss", "window_scale", "sack_permitted", "timestamps", "fin",
    "retransmitted_segments", "retransmitted_bytes", "unique_bytes", "out_of_order_segments", "keep_alives", "zero_windows",
    "duplicate_acks", "pure_acks", "rtt_samples", "rtt_min_ns", "rtt_max_ns",
)  # fmt: skip
WHOLE = (
    "flow_id", "first_seen", "last_seen", "client_ip", "client_port", "server_ip", "server_port", "first_packet",
    "handshake", "close", "end_reason", "simultaneous_open", "split_open", "syn_first", "syn_count", "synack_first",
    "synack_count", "rst_seen", "rtt_handshake_ns", "rtt_server_ns", "rtt_client_ns", "rtt_server_quality",
    "rtt_client_quality", "odd_syns", "odd_segments", "rst_rejected", "wireshark_completeness", "wireshark_initial_rtt_ns",
)  # fmt: skip
_INSTANTS = {column.name for column in FLOWS if column.kind == "instant"}
#: What is asked of synfin: the columns above that this version has.
COLUMNS = [
    column.name for column in FLOWS
    if column.name in WHOLE or column.name.removeprefix("client_").removeprefix("server_") in ENDS
]  # fmt: skip


def end(address: str, port: int | str) -> End:
    """An end from its text, in whatever spelling. Raises ValueError for what is no address."""
    return ip_address(address).packed, int(port)


def pair_of(a: End, b: End) -> Pair:
    return (a, b) if a <= b else (b, a)


def text(one: End) -> str:
    """An end as people write it."""
    return endpoint(str(ip_address(one[0])), one[1])


class Packet(NamedTuple):
    """One TCP header as the other tool shows it. ``length`` is None where it gives none; ``marks`` are its remarks."""

    number: int
    time: int
    src: End
    dst: End
    flags: int
    length: int | None
    marks: frozenset[str]
    layers: str


@dataclass
class Life:
    """One connection.

    ``ways[0]`` are the values of what ``pair[0]`` sent, ``ways[1]`` of ``pair[1]``; ``whole`` those of both. A value
    that is missing from the dictionaries is one that the tool does not give; None is one that it gives as not seen.
    """

    pair: Pair
    name: str
    ways: tuple[dict[str, Any], dict[str, Any]] = field(default_factory=lambda: ({}, {}))
    whole: dict[str, Any] = field(default_factory=dict)
    packets: list[Packet] = field(default_factory=list)

    @property
    def first(self) -> int:
        return self.whole.get("first_seen") or 0

    def same_as(self, other: Life) -> bool:
        """Do both begin and end with the same packets, and have as many each way?"""
        return all(self.whole[name] == other.whole[name] for name in ("first_seen", "last_seen")) and all(
            mine["packets"] == theirs["packets"] for mine, theirs in zip(self.ways, other.ways, strict=True)
        )


def life_of(row: dict[str, Any]) -> Life:
    """A flow row (instants as nanoseconds) as a life."""
    client, server = end(row["client_ip"], row["client_port"]), end(row["server_ip"], row["server_port"])
    pair = pair_of(client, server)
    life = Life(pair, str(row["flow_id"]), whole=dict(row))
    client_way = pair.index(client)
    for side, way in (("client", client_way), ("server", 1 - client_way)):
        life.ways[way].update({name: row[f"{side}_{name}"] for name in ENDS if f"{side}_{name}" in row})
    # The columns count the client's SYNs and either end's SYN-ACKs, which are the server's where only one end opened.
    life.ways[client_way].update(syn=row["syn_count"])
    life.ways[1 - client_way].update(syn=0)
    if not (row["simultaneous_open"] or row["split_open"]):
        life.ways[client_way].update(synack=0)
        life.ways[1 - client_way].update(synack=row["synack_count"])
    return life


class Rows(NamedTuple):
    """synfin's rows of a capture; what was wrong with the input; whether it was read to its end."""

    lives: list[Life]
    warnings: list[str]
    complete: bool


def synfin_rows(path: str) -> Rows:
    """synfin's rows of a capture. Raises SynfinError where it cannot be opened or is none."""
    from synfin.api import scan

    lives: list[Life] = []
    rows = scan(path, columns=COLUMNS, profile="lakehouse")
    try:
        for batch in rows:
            lives += [life_of(_nanoseconds(row)) for row in batch.to_pylist()]
    except NotACaptureError:
        raise
    except CaptureFormatError:
        return Rows(lives, rows.warnings, False)
    return Rows(lives, rows.warnings, True)


def slow_rows(path: str) -> list[Life]:
    """The slow tracker's rows. Raises ConfigError where dpkt is not installed."""
    try:
        from synfin.reference import read, track
    except ImportError:
        raise ConfigError(
            "comparing needs another tool, or the slow tracker: pip install 'synfin[reference]'"
        ) from None
    return [life_of(row) for row in track(read([path])).flows]


def _nanoseconds(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the lakehouse profile with the exact nanoseconds of each instant under its own name."""
    return {name: row.get(f"{name}_ns", value) if name in _INSTANTS else value for name, value in row.items()}


def by_pair(lives: Iterable[Life]) -> dict[Pair, list[Life]]:
    found: dict[Pair, list[Life]] = {}
    for life in lives:
        found.setdefault(life.pair, []).append(life)
    for some in found.values():
        some.sort(key=lambda life: life.first)
    return found
