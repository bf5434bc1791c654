"""The slow tracker as tests use it: dialogues in, rows or states out."""

from __future__ import annotations

from dialogue import Dialogue
from synfin.reference import Packet, Result, track
from synfin.reference.time import Source, merge
from synfin.reference.tracker import Tracker
from synfin.settings import Settings


def packets(captured) -> list[Packet]:
    return [Packet(p.time_ns, p.data, p.wire_len or len(p.data), 1, None) for p in captured]


def result(captured, **settings) -> Result:
    """Everything that the tracker says of one capture."""
    return track([("test.pcap", packets(captured))], Settings(**settings))


def flows(d: Dialogue, **settings) -> list[dict]:
    """The flow rows, in the order of their first packets."""
    rows = result(d.packets, **settings).flows
    return sorted(rows, key=lambda row: row["first_packet"])


def flow(d: Dialogue, **settings) -> dict:
    """The only flow row."""
    (row,) = flows(d, **settings)
    return row


def states(d: Dialogue) -> list[tuple[str, str]]:
    """The states of ends a and b after each packet, of the record that then has the key."""
    tracker, seen = Tracker(Settings()), []
    for stamped in merge([Source("test.pcap", packets(d.packets))]):
        tracker.packet(stamped)
        (record,) = tracker.live.values()
        by_port = {end.port: end.state for end in (record.client, record.server)}
        seen.append((by_port[d.a.port], by_port[d.b.port]))
    return seen


def expect(row: dict, **values) -> None:
    """Compare the named columns; the message shows all that differ."""
    assert {name: row[name] for name in values} == values
