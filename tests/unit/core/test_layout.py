"""What a connection takes in memory: the hot struct's cache lines, and bytes per live connection measured."""

from __future__ import annotations

import struct

import pytest

from dialogue import Dialogue
from synfin._core.batch import PacketBatch
from synfin._core.probe import layout
from synfin._core.tracker import Tracker
from synfin.settings import Settings


def test_the_hot_struct_is_two_cache_lines_and_what_is_counted_stands_in_the_second():
    assert layout()["Flow"] == 2 * 64
    assert layout()["Flow.end"] == [64, 88]


def test_records_begin_on_a_cache_line():
    """Chunks are allocated on 64 bytes, and an item is a whole number of lines."""
    assert layout()["Flow"] % 64 == 0


def test_a_usual_connection_needs_no_more_than_flow_facts_and_slot():
    sizes = layout()
    assert sizes["Flow"] + sizes["Facts"] + 2 * sizes["Slot"] <= 400


def test_index_entries_do_not_straddle_cache_lines():
    assert 64 % layout()["Slot"] == 0


def connections(count: int, version: int):
    """Frames of connections that are open with data both ways: all their first packets, then all second ones, ..."""
    ips = {"a_ip": "10.0.0.1", "b_ip": "192.0.2.1"} if version == 4 else {"a_ip": "2001:db8::1", "b_ip": "2001:db8::2"}
    d = Dialogue(**ips).handshake()
    d.data(d.a, 100)
    d.data(d.b, 200)
    source = 14 + (12 if version == 4 else 8 + 12)  # the last 4 bytes of the address
    target = source + (4 if version == 4 else 16)
    for packet, place in zip(d.packets, (source, target, source, source, target), strict=True):
        frame = bytearray(packet.data)
        for number in range(count):
            struct.pack_into("!I", frame, place, 0x0A000000 + number)
            yield bytes(frame), packet.time_ns


@pytest.mark.parametrize("count", [102_000, pytest.param(165_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("version", "most"), [(4, 330), (6, 362)])
def test_bytes_per_live_connection(count, version, most):
    """Handshake complete, data both ways; with 165,000 just after the index has doubled. IPv6 may take 32 bytes more."""
    tracker, batch = Tracker(Settings()), PacketBatch()
    for data, time_ns in connections(count, version):
        batch.append(data, time_ns)
        if len(batch) == 256:
            assert tracker.feed(batch)
            batch.clear()
    assert tracker.feed(batch)
    stats = tracker.stats()
    assert (stats["live"], stats["packets"], stats["skips"]) == (count, 5 * count, {})
    assert (stats["counts"]["completed"], stats["retransmitted_segments"]) == (count, 0)
    assert sum(tracker.memory().values()) / count <= most
