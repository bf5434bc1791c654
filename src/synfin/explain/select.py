"""Which records are to be explained: a first pass over the captures finds them, and lists those that it might be."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from synfin.output.arrow import Layout
from synfin.output.render import endpoint
from synfin.output.summary import FirstRows
from synfin.settings import Selection

if TYPE_CHECKING:
    from synfin.run import Run

#: What the first pass asks of the tracker.
COLUMNS = (
    "flow_id", "first_seen", "first_file", "first_packet", "ip_version", "client_ip", "client_port", "server_ip", "server_port",
    "handshake", "close", "end_reason", "client_packets", "server_packets",
)  # fmt: skip


def matching(batch: pa.RecordBatch, selection: Selection) -> pa.RecordBatch:
    """The rows of a batch that are asked for."""
    if selection.flow_id is not None:
        batch = batch.filter(pc.equal(batch["flow_id"], selection.flow_id))
    for side, end in (("client", selection.client), ("server", selection.server)):
        if end is not None:
            batch = batch.filter(_with_end(batch, side, *end))
    return batch


def _with_end(batch: pa.RecordBatch, side: str, address: bytes, port: int | None) -> pa.Array:
    """Which rows of a batch have this end as their `side`, ``client`` or ``server``."""
    addresses = batch[f"{side}_ip"]
    texts = [text for text in pc.unique(addresses).to_pylist() if ip_address(text).packed == address]
    mask = pc.is_in(addresses, value_set=pa.array(texts, pa.string()))
    return mask if port is None else pc.and_(mask, pc.equal(batch[f"{side}_port"], port))


@dataclass(frozen=True)
class Found:
    """The records that began first among those asked for, how many there are, and how many records there are at all."""

    rows: list[dict[str, Any]]
    matching: int
    total: int


def find(run: Run, selection: Selection | None, count: int) -> Found:
    """The first `count` records of a run that a selection means; None: of all. The run fills the flow columns COLUMNS."""
    layout, first = Layout.choose("flows", COLUMNS, "lakehouse"), FirstRows(count)
    found = total = 0
    for _, block in run.blocks():
        batch = layout.batch(block)
        total += batch.num_rows
        if selection is not None:
            batch = matching(batch, selection)
        found += batch.num_rows
        if batch.num_rows:
            first.add(batch)
    return Found(first.rows, found, total)


#: How the columns of a listing are laid out, widest first: on one line, or on several where they do not fit beside
#: one another.
_LAYOUTS = (
    (("flow", "client", "server", "handshake", "close", "packets"),),
    (("flow", "client", "server"), ("handshake", "close", "packets")),
    (("flow", "client"), ("server",), ("handshake", "close", "packets")),
)
_TITLES = _LAYOUTS[0][0]
_NUMBERS = {"flow", "packets"}


def listing(rows: list[dict[str, Any]], width: int) -> str:
    """Records as a table of at most `width` columns (72 or more) for people, with what `--flow` takes."""
    lines = [dict(zip(_TITLES, cells, strict=True)) for cells in (_TITLES, *map(_cells, rows))]
    widths = {title: max(len(line[title]) for line in lines) for title in _TITLES}
    indent = " " * (widths["flow"] + 2)

    def pad(line: dict[str, str], title: str) -> str:
        return line[title].rjust(widths[title]) if title in _NUMBERS else line[title].ljust(widths[title])

    def text(line: dict[str, str], layout: tuple[tuple[str, ...], ...]) -> str:
        parts = ["  ".join(pad(line, title) for title in titles).rstrip() for titles in layout]
        return f"\n{indent}".join(parts) + "\n"

    def fits(layout: tuple[tuple[str, ...], ...]) -> bool:
        return all(len(part) <= width for line in lines for part in text(line, layout).splitlines())

    layout = next(filter(fits, _LAYOUTS), _LAYOUTS[-1])
    return "".join(text(line, layout) for line in lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(row["flow_id"]),
        endpoint(row["client_ip"], row["client_port"]),
        endpoint(row["server_ip"], row["server_port"]),
        row["handshake"],
        row["close"] or "-",
        f"{row['client_packets'] + row['server_packets']:,}",
    )
