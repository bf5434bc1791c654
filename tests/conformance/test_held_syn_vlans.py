"""VLAN tags of a held SYN's copies (SPEC 3.2): they go where the copies go."""

from __future__ import annotations

import pytest

from dialogue import Dialogue, write_pcap
from rows import compare, fast, order


@pytest.fixture
def rows(tmp_path):
    def run(dialogue: Dialogue) -> list[tuple[int | None, int]]:
        path = write_pcap(tmp_path / "in.pcap", dialogue.packets)
        assert compare([path]) == []
        return [(row["vlan_id"], row["vlan_variants"]) for row in sorted(fast([path])[0], key=order)]

    return run


def held(*tags: int | None, before: int | None = None, after: int | None = None) -> Dialogue:
    """A connection tagged `before`; copies of another SYN with these tags; then the connection, tagged `after`."""
    d = Dialogue(vlans=() if before is None else (before,)).handshake()
    goes_on = d.a.nxt
    for tag in tags:
        d.vlans = () if tag is None else (tag,)
        d.syn(d.a, seq=70_000)
    d.vlans = () if after is None else (after,)
    d.a.nxt = goes_on
    d.data(d.a)
    return d


@pytest.mark.parametrize(
    ("tags", "before", "after", "row"),
    [
        ((5,), None, None, (5, 1)),
        ((5, 6, 5, 7), None, None, (5, 3)),
        ((None, 6, 6), None, None, (6, 1)),
        ((5, 6), 9, None, (9, 3)),
        ((5, 6), 6, None, (6, 2)),
        ((5, 6), None, 9, (5, 3)),
        ((5,), None, 9, (5, 2)),
        ((4095 - 1, 63, 64), 0, None, (0, 4)),
    ],
)
def test_unproven(rows, tags, before, after, row):
    assert rows(held(*tags, before=before, after=after)) == [row]


def test_unproven_twice(rows):
    d = held(5, 6)
    d.vlans = (7,)
    d.syn(d.a, seq=90_000)
    d.vlans = (8,)
    d.syn(d.a, seq=90_000)
    assert rows(d) == [(5, 4)]


@pytest.mark.parametrize(("tags", "row"), [((5,), (5, 2)), ((5, 6, 6), (5, 3)), ((None, 6), (6, 2)), ((None,), (9, 1))])
def test_proven(rows, tags, row):
    d = held(*tags)
    d.vlans = (9,)
    d.synack(d.b, seq=80_000, ack=70_001)
    assert rows(d) == [(None, 0), row]
