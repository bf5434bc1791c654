"""Captures of kinds that nobody recorded: the examples shuffled, cut, doubled, thinned, merged with themselves, tagged.

Whatever synfin and another tool say differently of them must fit a rule, as on any capture.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from synfin import reference
from synfin.verify import tools
from synfin.verify.run import verify

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ETHERNET = 1
pytestmark = pytest.mark.skipif(tools.version(tools.TSHARK) is None, reason="tshark is not on the PATH")


class Frame(NamedTuple):
    """One packet: microseconds since 1970, what was captured, and the length on the wire."""

    time: int
    data: bytes
    wire: int


def examples() -> list[Frame]:
    """Every Ethernet frame of the example captures, by time."""
    paths = [str(path) for path in sorted(EXAMPLES.glob("[0-9]*.pcap*"))]
    frames = [
        Frame((packet.time_ns or 0) // 1000, bytes(packet.data), packet.wire_len)
        for _, packets in reference.read(paths)
        for packet in packets
        if packet.link_type == ETHERNET
    ]
    return sorted(frames, key=lambda frame: frame.time)


def shuffled(frames: list[Frame], window: int) -> list[Frame]:
    """Neighbours in another order, each with the time of the place where it now stands."""
    chance, found = random.Random(window), list(frames)
    for at in range(0, len(found), window):
        some = found[at : at + window]
        chance.shuffle(some)
        found[at : at + window] = some
    return [frame._replace(time=place.time) for frame, place in zip(found, frames, strict=True)]


def with_itself(frames: list[Frame], later: int) -> list[Frame]:
    """Twice the same packets, the second time some microseconds later: tuples overlap."""
    return sorted([*frames, *(one._replace(time=one.time + later) for one in frames)], key=lambda one: one.time)


def without(frames: list[Frame], share: float) -> list[Frame]:
    chance = random.Random(5)
    return [frame for frame in frames if chance.random() >= share]


def snapped(frames: list[Frame], length: int) -> list[Frame]:
    return [frame._replace(data=frame.data[:length]) for frame in frames]


def tagged(frames: list[Frame]) -> list[Frame]:
    """With a VLAN tag."""
    tag = b"\x81\x00\x00\x07"
    return [one._replace(data=one.data[:12] + tag + one.data[12:], wire=one.wire + 4) for one in frames]


def stretched(frames: list[Frame], factor: int) -> list[Frame]:
    """Slower: every pause so many times as long."""
    return [one._replace(time=frames[0].time + (one.time - frames[0].time) * factor) for one in frames]


KINDS: dict[str, Callable[[list[Frame]], list[Frame]]] = {
    "as it is": list,
    "neighbours shuffled": lambda frames: shuffled(frames, 3),
    "snapped in the options": lambda frames: snapped(frames, 60),
    "snapped behind the header": lambda frames: snapped(frames, 96),
    "each packet twice": lambda frames: [one for frame in frames for one in (frame, frame)],
    "twice, 300 us apart": lambda frames: with_itself(frames, 300),
    "twice, 70 s apart": lambda frames: with_itself(frames, 70_000_000),
    "twice, 5,000 s apart": lambda frames: with_itself(frames, 5_000_000_000),
    "a quarter lost": lambda frames: without(frames, 0.25),
    "tagged": tagged,
    "slower": lambda frames: stretched(frames, 500),
    "all at once": lambda frames: [one._replace(time=frames[0].time) for one in frames],
    "before its time": lambda frames: [one._replace(time=one.time - 1_600_000_000_000_000) for one in frames],
}


def write(path: Path, frames: list[Frame]) -> None:
    out = bytearray(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, ETHERNET))
    for frame in frames:
        seconds, micros = divmod(frame.time, 10**6)
        out += struct.pack("<IIII", seconds % 2**32, micros, len(frame.data), frame.wire) + frame.data
    path.write_bytes(out)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_unexplained(tmp_path, kind):
    path = tmp_path / "made.pcap"
    write(path, KINDS[kind](examples()))
    report = verify(str(path))
    assert sum(joined.matched for joined in report.joined) > 0
    assert [(one.column, one.way, one.ours, one.theirs, one.parts) for one in report.unexplained] == []
