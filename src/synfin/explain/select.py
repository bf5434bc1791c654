"""Which records are to be explained: a first pass over the captures finds them, and lists those that it might be."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from synfin.errors import ConfigError
from synfin.output.arrow import Layout
from synfin.output.summary import FirstRows

if TYPE_CHECKING:
    from synfin.run import Run

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: What the first pass asks of the tracker.
COLUMNS = (
    "flow_id", "first_seen", "first_file", "first_packet", "ip_version", "client_ip", "client_port", "server_ip", "server_port",
    "handshake", "close", "end_reason", "client_packets", "server_packets",
)  # fmt: skip


@dataclass(frozen=True)
class Endpoint:
    """An address, and a port or any port (None)."""

    address: Address
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """``10.0.0.1``, ``10.0.0.1:80``, ``2001:db8::1`` or ``[2001:db8::1]:80``. Raises ConfigError."""
        match = re.fullmatch(
            r"\[(?P<six>[^\]]+)\](?::(?P<port6>\d{1,5}))?|(?P<four>[^:]+)(?::(?P<port4>\d{1,5}))?", text
        )
        host, port = (match["six"] or match["four"], match["port6"] or match["port4"]) if match else (text, None)
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise ConfigError(f"{text!r} is no address; write 10.0.0.1, 10.0.0.1:80 or [2001:db8::1]:80") from None
        if port is not None and int(port) > 65535:
            raise ConfigError(f"{text!r}: ports end at 65535")
        return cls(address, None if port is None else int(port))

    def mask(self, batch: pa.RecordBatch, side: str) -> pa.Array:
        """Which rows of a batch have this end as their `side`, ``client`` or ``server``."""
        addresses = batch[f"{side}_ip"]
        texts = [text for text in pc.unique(addresses).to_pylist() if ipaddress.ip_address(text) == self.address]
        mask = pc.is_in(addresses, value_set=pa.array(texts, pa.string()))
        return mask if self.port is None else pc.and_(mask, pc.equal(batch[f"{side}_port"], self.port))


@dataclass(frozen=True)
class Selection:
    """What is asked for; everything that is given must hold."""

    flow_id: int | None = None
    client: Endpoint | None = None
    server: Endpoint | None = None

    def __bool__(self) -> bool:
        return any(part is not None for part in (self.flow_id, self.client, self.server))

    def of(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of a batch that are asked for."""
        if self.flow_id is not None:
            batch = batch.filter(pc.equal(batch["flow_id"], self.flow_id))
        for side, end in (("client", self.client), ("server", self.server)):
            if end is not None:
                batch = batch.filter(end.mask(batch, side))
        return batch


@dataclass(frozen=True)
class Found:
    """The records that began first among those asked for, how many there are, and how many records there are at all."""

    rows: list[dict[str, Any]]
    matching: int
    total: int


def find(run: Run, selection: Selection, count: int) -> Found:
    """The first `count` records of a run that a selection means. The run fills the flow columns COLUMNS."""
    layout, first = Layout.choose("flows", COLUMNS, "lakehouse"), FirstRows(count)
    matching = total = 0
    for _, block in run.blocks():
        batch = layout.batch(block)
        total += batch.num_rows
        batch = selection.of(batch)
        matching += batch.num_rows
        if batch.num_rows:
            first.add(batch)
    return Found(first.rows, matching, total)


def listing(rows: list[dict[str, Any]], endpoint: Callable[[str, int], str]) -> str:
    """Records as a table for people, with what `--flow` takes."""
    titles = ("flow", "client", "server", "handshake", "close", "packets")
    cells = [
        (
            str(row["flow_id"]),
            endpoint(row["client_ip"], row["client_port"]),
            endpoint(row["server_ip"], row["server_port"]),
            row["handshake"],
            row["close"] or "-",
            f"{row['client_packets'] + row['server_packets']:,}",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in (titles, *cells)) for i in range(len(titles))]
    lines = [
        "  ".join(cell.rjust(width) if i in (0, 5) else cell.ljust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in (titles, *cells)
    ]  # fmt: skip
    return "".join(line.rstrip() + "\n" for line in lines)
