"""Ladder diagrams (SVG) of example captures: every segment with the states of both ends after it, as synfin tells them.

The states come from tracking the capture's first packet, its first two, and so on: what stands in the picture is what
the tables say.
"""

from __future__ import annotations

import struct
import tempfile
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
#: Picture below docs/images/ -> the capture that it shows.
LADDERS = {"close-4way.svg": "20-close-4way.pcap", "close-3way.svg": "22-close-3way.pcap"}

WIDTH, CLIENT_X, SERVER_X, TOP, STEP, SLOPE = 760, 220, 540, 74, 34, 12
_FLAGS = ((0x02, "SYN"), (0x01, "FIN"), (0x04, "RST"), (0x10, "ACK"))
_STYLE = (
    "text{font:13px sans-serif;fill:#1f2328}.dim{fill:#656d76}.state{font-weight:600}"
    ".line{stroke:#1f2328;stroke-width:1.2;fill:none}.life{stroke:#8c959f;stroke-width:1.2}"
)


class Rung(NamedTuple):
    """One segment: its time from the first (ms), who sent it, what it says, and the states after it."""

    time_ms: float
    from_client: bool
    label: str
    client_state: str
    server_state: str


def rungs(capture: Path) -> tuple[list[Rung], dict[str, Any]]:
    """The segments of a capture with one connection, and its row."""
    import synfin
    from synfin._core.probe import decode
    from synfin.reference import read

    ((_, packets),) = read([capture])
    segments = [
        (packet, segment) for packet in packets if isinstance(segment := decode(packet.data, packet.link_type), dict)
    ]
    row: dict[str, Any] = {}
    found = []
    with tempfile.TemporaryDirectory(prefix="synfin-ladder-") as folder:
        for count, (packet, segment) in enumerate(segments, 1):
            cut = Path(folder, "first.pcap")
            cut.write_bytes(_pcap([seen for seen, _ in segments[:count]]))
            (row,) = synfin.scan(cut).to_pylist()
            from_client = segment["src_port"] == row["client_port"]
            time_ms = (packet.time_ns - segments[0][0].time_ns) / 1e6
            found.append(Rung(time_ms, from_client, _label(segment), row["client_state"], row["server_state"]))
    return found, row


def _pcap(packets: list[Any]) -> bytes:
    head = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, packets[0].link_type)
    records = (
        struct.pack("<IIII", *divmod(packet.time_ns, 10**9), len(packet.data), packet.wire_len) + packet.data
        for packet in packets
    )
    return head + b"".join(records)


def _label(segment: dict[str, Any]) -> str:
    flags = ", ".join(name for bit, name in _FLAGS if segment["flags"] & bit)
    return f"{segment['payload_bytes']} bytes" if segment["payload_bytes"] and flags == "ACK" else flags


def ladder(capture: Path) -> str:
    """The picture of a capture as SVG text."""
    steps, row = rungs(capture)
    bottom = TOP + STEP * len(steps) + 10
    facts = _facts(row)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 34}" width="{WIDTH}" role="img">',
        f"<title>{escape(capture.name)}: {escape(facts)}</title><style>{_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{bottom + 34}" fill="#ffffff"/>',
        '<defs><marker id="head" markerWidth="9" markerHeight="7" refX="8" refY="3.5" orient="auto">'
        '<path d="M0,0 L9,3.5 L0,7 z" fill="#1f2328"/></marker></defs>',
        f'<text x="{CLIENT_X}" y="26" text-anchor="middle" class="state">client {row["client_ip"]}:{row["client_port"]}</text>',
        f'<text x="{SERVER_X}" y="26" text-anchor="middle" class="state">server {row["server_ip"]}:{row["server_port"]}</text>',
        f'<text x="16" y="46" class="dim">ms</text><text x="{CLIENT_X - 12}" y="46" text-anchor="end" class="dim">client_state</text>',
        f'<text x="{SERVER_X + 12}" y="46" class="dim">server_state</text>',
        *(f'<path class="life" d="M{x},36 V{bottom}"/>' for x in (CLIENT_X, SERVER_X)),
    ]
    before: tuple[str | None, str | None] = (None, None)
    for number, step in enumerate(steps):
        out += _rung(step, TOP + STEP * number, before)
        before = (step.client_state, step.server_state)
    out.append(
        f'<text x="{WIDTH // 2}" y="{bottom + 20}" text-anchor="middle" class="dim">{escape(facts)}</text></svg>'
    )
    return "\n".join(out) + "\n"


def _rung(step: Rung, y: int, before: tuple[str | None, str | None]) -> list[str]:
    start, end = (CLIENT_X, SERVER_X) if step.from_client else (SERVER_X, CLIENT_X)
    middle = (start + end) // 2
    lines = [
        f'<text x="16" y="{y + SLOPE}" class="dim">{step.time_ms:.2f}</text>',
        f'<path class="line" d="M{start},{y} L{end},{y + SLOPE}" marker-end="url(#head)"/>',
        f'<text x="{middle}" y="{y - 2}" text-anchor="middle">{step.label}</text>',
    ]
    if step.client_state != before[0]:
        lines.append(
            f'<text x="{CLIENT_X - 12}" y="{y + SLOPE}" text-anchor="end" class="state">{step.client_state}</text>'
        )
    if step.server_state != before[1]:
        lines.append(f'<text x="{SERVER_X + 12}" y="{y + SLOPE}" class="state">{step.server_state}</text>')
    return lines


def _facts(row: dict[str, Any]) -> str:
    facts = {name: row[name] for name in ("handshake", "close", "closer", "time_wait_side")}
    facts["rtt_server"] = f"{row['rtt_server_ns'] / 1e6:.2f} ms"
    return "  ·  ".join(f"{name} = {value}" for name, value in facts.items())
