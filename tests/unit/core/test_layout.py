"""What a connection takes in memory: the hot struct's cache lines, and bytes per live connection measured."""

from __future__ import annotations

import struct

import pytest

from dialogue import START, Dialogue
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


def test_what_a_record_keeps_beside_its_sums_of_round_trips():
    sizes = layout()
    assert sizes["Facts"] - 2 * sizes["Rtt"] <= 88


def test_index_entries_do_not_straddle_cache_lines():
    assert 64 % layout()["Slot"] == 0


def connections(count: int, version: int, step_ns: int = 0):
    """Frames of connections that are open with data both ways: all their first packets, then all second ones, ...

    Packets come ``step_ns`` apart; with 0 those of one connection come as quickly as in the dialogue.
    """
    ips = {"a_ip": "10.0.0.1", "b_ip": "192.0.2.1"} if version == 4 else {"a_ip": "2001:db8::1", "b_ip": "2001:db8::2"}
    d = Dialogue(**ips).handshake()
    d.data(d.a, 100)
    d.data(d.b, 200)
    source = 14 + (12 if version == 4 else 8 + 12)  # the last 4 bytes of the address
    target = source + (4 if version == 4 else 16)
    time_ns = d.packets[0].time_ns
    for packet, place in zip(d.packets, (source, target, source, source, target), strict=True):
        frame = bytearray(packet.data)
        for number in range(count):
            struct.pack_into("!I", frame, place, 0x0A000000 + number)
            time_ns += step_ns
            yield bytes(frame), time_ns if step_ns else packet.time_ns


def tracked(frames) -> Tracker:
    """A tracker that has had all of these frames."""
    tracker, batch = Tracker(Settings()), PacketBatch()
    for data, time_ns in frames:
        batch.append(data, time_ns)
        if len(batch) == 256:
            assert tracker.feed(batch)
            batch.clear()
    assert tracker.feed(batch)
    return tracker


#: What one connection may take; the promise is 320 bytes, and 32 more over IPv6.
MOST = {4: 320, 6: 352}


@pytest.mark.parametrize("count", [125_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("version", [4, 6])
def test_bytes_per_live_connection(count, version):
    """Handshake complete, data both ways, no loss. 125,000 fill their index to the same share as a million."""
    tracker = tracked(connections(count, version))
    stats = tracker.stats()
    assert (stats["live"], stats["packets"], stats["skips"]) == (count, 5 * count, {})
    assert (stats["counts"]["completed"], stats["retransmitted_segments"]) == (count, 0)
    held = sum(tracker.memory().values()) - (blocks_in_reserve() if count < 1_000_000 else 0)
    assert held / count <= MOST[version]


def blocks_in_reserve() -> int:
    """Bytes of the rare blocks that a tracker keeps ready, however many connections there are."""
    memory = Tracker(Settings()).memory()
    return sum(size for name, size in memory.items() if name not in ("flows", "facts", "address_pairs", "index"))


@pytest.mark.parametrize("version", [4, 6])
def test_a_usual_connection_takes_none_of_the_rare_blocks(version):
    """Not even with three seconds between one packet of a connection and its next: payload after nine and twelve."""
    memory = tracked(connections(2_000, version, step_ns=1_500_000)).memory()
    ready = Tracker(Settings()).memory()
    for name in ("extras", "wides", "troubles", "copies", "copy_pairs", "helds", "vlans", "tunnels"):
        assert memory[name] == ready[name], name


def test_connections_with_payload_long_after_the_first_packet_take_a_block():
    """The test above can fail: an instant 20 minutes after the first packet does not fit the short form."""
    frames = enumerate(connections(2_000, 4))
    late = ((data, time_ns + (0 if number < 6_000 else 20 * 60 * 10**9)) for number, (data, time_ns) in frames)
    memory, ready = tracked(late).memory(), Tracker(Settings()).memory()
    assert memory["wides"] >= ready["wides"] + 1_400 * layout()["Wide"]
    assert memory["extras"] >= ready["extras"] + 1_400 * layout()["Extra"]


def test_packets_of_an_interface_are_numbered_without_end():
    """From 2^32 on, too: nobody is told their number, so that no record needs a block for it."""
    memory = []
    for first in (1, 1 << 32):
        tracker, batch = Tracker(Settings()), PacketBatch()
        for number in range(2_000):
            dialogue = Dialogue(a_port=1_000 + number)
            batch.append(dialogue.syn(dialogue.a).data, START + number, number=first + number, interface_id=0)
            if len(batch) == 200:
                assert tracker.feed(batch)
                batch.clear()
        memory.append(tracker.memory())
    assert memory[0] == memory[1]
