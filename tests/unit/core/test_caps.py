"""Memory at a cap: floods of connections beyond it take no byte more."""

from __future__ import annotations

import random
import struct

import pytest

from dialogue import MS, START, Dialogue
from synfin._core.batch import PacketBatch
from synfin._core.tracker import Tracker
from synfin.errors import ConfigError
from synfin.settings import Settings

SLOT_BYTES = 8


def random_syns(count: int, seed: int, version: int = 4):
    """Frames of SYNs from random addresses and ports, a microsecond apart."""
    rnd = random.Random(seed)
    ips = {} if version == 4 else {"a_ip": "2001:db8::1", "b_ip": "2001:db8::2"}
    d = Dialogue(**ips)
    frame = bytearray(d.syn(d.a).data)
    address, ports = (26, 34) if version == 4 else (34, 54)
    for number in range(count):
        struct.pack_into("!I", frame, address, rnd.getrandbits(32))
        struct.pack_into("!H", frame, ports, rnd.getrandbits(16))
        yield bytes(frame), START + number * 1_000


def feed(tracker: Tracker, frames) -> int:
    """Track frames; returns how many rows came out."""
    batch, rows = PacketBatch(), 0

    def track() -> int:
        taken = 0
        while not tracker.feed(batch):
            tracker.names(["capture"], [])
            taken += tracker.take("flows").rows
        batch.clear()
        return taken

    for data, time_ns in frames:
        batch.append(data, time_ns)
        if len(batch) == 256:
            rows += track()
    return rows + track()


def account(tracker: Tracker, cap: int) -> dict[str, int]:
    """Bytes by part without the index, which may double once more where its probes become long."""
    memory = tracker.memory()
    assert memory.pop("index") <= 4 * SLOT_BYTES * cap
    return memory


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("cap", "syns"), [(20_000, 150_000), pytest.param(100_000, 3_000_000, marks=pytest.mark.slow)])
def test_a_flood_takes_no_byte_beyond_the_cap(version, cap, syns):
    tracker = Tracker(Settings(max_flows=cap), ["flow_id", "end_reason"])
    feed(tracker, random_syns(cap + 5_000, 1, version))
    before = account(tracker, cap)
    assert before["flows"] < (cap + 4_096) * 192 and before["ages"] < (cap + 4_096) * 8 + 1_000
    feed(tracker, ((data, time_ns + (cap + 5_000) * 1_000) for data, time_ns in random_syns(syns, 2, version)))
    assert account(tracker, cap) == before
    stats = tracker.stats()
    assert stats["live"] == cap
    # A few random SYNs may come from ends that a live record has.
    assert sum(stats["evicted"].values()) + cap == pytest.approx(syns + cap + 5_000, rel=1e-3)


def test_without_a_cap_records_take_nothing_for_it():
    tracker = Tracker(Settings())
    feed(tracker, random_syns(10_000, 1))
    assert tracker.memory()["ages"] == 0 and tracker.stats()["cap"] is None


def test_where_memory_may_not_grow_what_is_there_is_the_cap():
    """The least limit that is taken leaves room for some thousand records, far fewer than come. The limit is the process's:
    where the rest of it gives memory back, the cap may rise, but never so far."""
    with pytest.raises(ConfigError, match=r"give at least (\d+)M") as raised:
        Tracker(Settings(max_memory=1 << 20), ["flow_id"])
    limit = int(str(raised.value).split()[-1].rstrip("M")) << 20
    tracker = Tracker(Settings(max_memory=limit), ["flow_id"])
    assert tracker.stats()["cap"] is None  # it is not known yet
    feed(tracker, random_syns(60_000, 3))
    for seed in (4, 5):
        stats = tracker.stats()
        assert 4_000 < stats["cap"] < 60_000 and stats["live"] == stats["cap"]
        assert sum(tracker.memory().values()) < limit
        feed(tracker, ((data, time_ns + 60 * MS) for data, time_ns in random_syns(60_000, seed)))


def test_blocks_that_may_not_grow_end_records_too():
    """Each SYN comes twice: its copies need a block of their own. Where these run out, records go before their number is
    reached."""
    with pytest.raises(ConfigError) as raised:
        Tracker(Settings(max_memory=1 << 20), ["flow_id"])
    limit = (int(str(raised.value).split()[-1].rstrip("M")) + 4) << 20  # more records than what is over has copies for
    tracker = Tracker(Settings(max_memory=limit), ["flow_id"])
    feed(tracker, random_syns(60_000, 3))
    full = sum(tracker.memory().values())
    twice = [frame for frame in random_syns(30_000, 5) for _ in range(2)]
    feed(tracker, ((data, time_ns + 60 * MS) for data, time_ns in twice))
    stats, memory = tracker.stats(), tracker.memory()
    assert stats["syn_resends"] >= 30_000 - 100 and memory["copies"] > 0
    assert sum(memory.values()) < limit and sum(memory.values()) < 3 * full
    assert stats["live"] < stats["cap"]
    while not tracker.finish():
        tracker.names(["capture"], [])
        tracker.take("flows")
    stats = tracker.stats()
    assert stats["packets"] == stats["packets_in_records"] == 120_000


def test_a_packet_ahead_names_a_record_that_has_ended():
    """What is looked up ahead may end by the packet's own time: its IPv6 addresses are then nobody's, and its place in their
    memory is the number of a free record of either version."""
    tracker = Tracker(Settings(), ["flow_id"])
    one_sided = Dialogue(a_ip="2001:db8::1", b_ip="2001:db8::2")
    one_sided.data(one_sided.a, b"x")
    acks = [(one_sided.packets[-1].data, START + seconds * 1_000 * MS) for seconds in (0, 302)]
    feed(tracker, [acks[0], *random_syns(90_000, 1)])
    assert tracker.memory()["flows"] > 20 * 4096 * 100
    feed(tracker, [acks[1]])
    assert tracker.stats()["live"] == 1
