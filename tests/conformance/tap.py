"""What a tap makes of a dialogue: rows of the core, and both ends' states after each packet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dialogue import Captured, Dialogue, End, write_pcap
from rows import fast
from synfin.settings import Settings

Row = dict[str, Any]
CLOSED = "CLOSED"  # an end of which nothing was seen (RFC 9293 section 3.3.2: no connection state at all)


class Tap:
    """Tracks packets with the core. Every run checks the accounting identity.

    Parameters
    ----------
    folder : where the captures are written.
    """

    def __init__(self, folder: Path):
        self.path = folder / "tap.pcap"
        self.intervals: list[Row] = []  #: of the last run
        self.stats: dict[str, Any] = {}  #: of the last run

    def rows(
        self, packets: Dialogue | Sequence[Captured], settings: Settings | None = None, **source: Any
    ) -> list[Row]:
        """The flow rows in the order of their first packets."""
        if isinstance(packets, Dialogue):
            packets = packets.packets
        write_pcap(self.path, packets)
        flows, self.intervals, self.stats = fast([self.path], settings, **source)
        assert self.stats["packets"] == len(packets)
        return sorted(flows, key=lambda row: row["first_packet"])

    def row(self, packets: Dialogue | Sequence[Captured], settings: Settings | None = None, **source: Any) -> Row:
        """The row of packets that are one record."""
        rows = self.rows(packets, settings, **source)
        assert len(rows) == 1, [(row["first_packet"], row["handshake"], row["end_reason"]) for row in rows]
        return rows[0]

    def states(self, dialogue: Dialogue, count: int | None = None) -> tuple[str, str]:
        """The states of ends ``a`` and ``b`` in the latest record after the first ``count`` packets (default: all)."""
        rows = self.rows(dialogue.packets[:count])
        return (state_of(rows[-1], dialogue.a), state_of(rows[-1], dialogue.b)) if rows else (CLOSED, CLOSED)

    def steps(self, dialogue: Dialogue, every: int = 1) -> list[tuple[str, str]]:
        """The same after each packet, or after every so many."""
        return [self.states(dialogue, count) for count in range(every, len(dialogue.packets) + 1, every)]


def side_of(row: Row, end: End) -> str:
    """``client`` or ``server``: what the row takes this end to be."""
    return "client" if (row["client_ip"], row["client_port"]) == (end.ip, end.port) else "server"


def state_of(row: Row, end: End) -> str:
    """The end's state in a row."""
    return row[f"{side_of(row, end)}_state"]


def of(row: Row, end: End, column: str) -> Any:
    """A column of one end, named without its side: ``of(row, d.a, "unique_bytes")``."""
    return row[f"{side_of(row, end)}_{column}"]
