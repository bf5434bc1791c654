"""Several rings as one stream: blocks are handed over as the kernel does it, by size and by timeout, on a clock of our own."""

import random
from collections import deque

import pytest
from rings import KERNEL, USER, Frame, block_of, frame_bytes, status
from test_ring import dialogues, rows_by, segment, without_place

from dialogue import MS, SECOND, START, write_pcap
from rows import fast
from synfin._core.batch import PacketBatch
from synfin.sources.ring import Ring, RingMerge

SIZE = 4096
TIMEOUT = 20 * MS
HOUR = 3600 * SECOND


class Port:
    """One ring and the kernel behind it."""

    def __init__(self, packets, slots):
        self.coming = deque(packets)
        self.memory = bytearray(slots * SIZE)
        self.slots, self.next = slots, 0
        self.open, self.used, self.until = [], 48, 0
        self.ready = deque()

    def pass_time(self, now):
        """Take packets until `now`, and hand over what is full or over its time, as far as blocks are free."""
        while self.coming and self.coming[0].time_ns <= now:
            packet = self.coming.popleft()
            self.retire(packet.time_ns)
            needed = len(frame_bytes(Frame(packet.time_ns, packet.data), False))
            if self.used + needed > SIZE:
                self.hand_over()
            if not self.open:
                self.until = packet.time_ns + TIMEOUT
            self.open.append(Frame(packet.time_ns, packet.data))
            self.used += needed
        self.retire(now)
        self.lay_in()

    def retire(self, now):
        if self.open and self.until <= now:
            self.hand_over()

    def hand_over(self):
        self.ready.append(block_of(self.open, SIZE))
        self.open, self.used = [], 48

    def lay_in(self):
        while self.ready and status(self.memory, self.next, SIZE) == KERNEL:
            self.memory[self.next * SIZE : (self.next + 1) * SIZE] = self.ready.popleft()
            self.next = (self.next + 1) % self.slots


class PortSource:
    """A source over several rings; time goes on by chance between two looks at them."""

    files: tuple = ()
    report = drops = bytes_total = None
    bytes_read = idle_clock_ns = outside = 0

    def __init__(self, parts, *, slots=4, seed=1, longest=3 * TIMEOUT):
        self.ports = [Port(part, slots) for part in parts]
        self.interfaces = tuple(f"port {which}" for which in range(len(parts)))
        self.ring = RingMerge([Ring(port.memory, SIZE, 1) for port in self.ports], TIMEOUT)
        self.chance = random.Random(seed)
        self.longest = longest
        self.now = min(part[0].time_ns for part in parts if part)
        self.last = max(part[-1].time_ns for part in parts if part)

    def fill(self, batch):
        self.ring.begin(batch)
        while True:
            over = self.now > self.last + 3 * TIMEOUT
            if self.ring.walk(batch, None if over else self.now - TIMEOUT):
                # The kernel goes on while the batch is tracked: into blocks that are free, and no other.
                for port in self.ports:
                    port.lay_in()
                return True
            if over and not any(port.ready for port in self.ports):
                self.ring.settle(batch)
                return len(batch) > 0
            self.now += self.chance.randrange(1, self.longest)
            for port in self.ports:
                port.pass_time(self.now)

    def close(self):
        self.ring.close()


def by_direction(packets):
    """What goes from the lower port to the higher one, and the rest; ends of an IPv4 header without options."""
    parts = ([], [])
    for packet in packets:
        ports = packet.data[34:36], packet.data[36:38]
        parts[ports[0] < ports[1]].append(packet)
    return parts


def by_chance(packets, count, seed):
    chance = random.Random(seed)
    parts = [[] for _ in range(count)]
    for packet in packets:
        parts[chance.randrange(count)].append(packet)
    return parts


SPLITS = {
    "one": lambda packets: [packets],
    "directions": by_direction,
    "one silent": lambda packets: [*by_direction(packets), []],
    "five by chance": lambda packets: by_chance(packets, 5, 1),
    "one busy, one rare": lambda packets: [
        packets[:200:50] + packets[200:],
        sorted(set(packets[:200]) - set(packets[:200:50])),
    ],
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_those_of_one_interface(tmp_path, split, seed):
    packets = dialogues()
    source = PortSource(SPLITS[split](packets), seed=seed)
    flows, intervals, stats = rows_by(source)
    file_flows, file_intervals, _ = fast([write_pcap(tmp_path / "x.pcap", packets)])
    assert stats["packets"] == source.ring.packets == len(packets)
    assert without_place(flows) == without_place(file_flows)
    assert intervals == file_intervals
    assert sum(source.ring.clock_counts.values()) == 0


def batches(source):
    """What each batch holds, read at the end of its life."""
    batch = PacketBatch()
    while source.fill(batch):
        yield batch.packets()


@pytest.mark.parametrize("split", SPLITS)
def test_order_of_time_and_bounded_hold(split):
    """Every packet in its turn, with its bytes and its interface, and none later than two timeouts after it came."""
    packets = [packet._replace(time_ns=START + i * 700_003) for i, packet in enumerate(dialogues())]
    parts = SPLITS[split](packets)
    source = PortSource(parts, slots=64, longest=2 * MS)
    seen = []
    for batch in batches(source):
        assert all(source.now - packet[1] <= 2 * TIMEOUT + 4 * MS for packet in batch)
        seen += batch
    assert [(packet[0], packet[1]) for packet in seen] == [(packet.data, packet.time_ns) for packet in sorted(packets)]
    for which, part in enumerate(parts):
        assert [(packet[1], packet[3]) for packet in seen if packet[5] == which] == [
            (p.time_ns, i + 1) for i, p in enumerate(part)
        ]


def two(first, second, *, size=SIZE):
    """Two rings of two blocks, of which the kernel has handed over one where there are frames."""
    memories = [bytearray(block_of(frames, size) if frames else size) + bytearray(size) for frames in (first, second)]
    return memories, RingMerge([Ring(memory, size, 1) for memory in memories], TIMEOUT), PacketBatch()


def frames(*times):
    return [Frame(START + time, segment(time % 1000)) for time in times]


def started():
    """Two rings whose clocks run, with nothing in them."""
    memories, ring, batch = two(frames(0, 2, 4), frames(1, 3, 5))
    ring.begin(batch)
    # The end of a block ends the batch that borrows from it.
    assert ring.walk(batch) and [packet[5] for packet in batch.packets()] == [0, 1, 0, 1, 0]
    ring.begin(batch)
    assert [status(memory, 0, SIZE) for memory in memories] == [KERNEL, USER]
    assert ring.walk(batch) and [packet[5] for packet in batch.packets()] == [1]
    ring.begin(batch)
    assert [status(memory, 0, SIZE) for memory in memories] == [KERNEL, KERNEL]
    assert not ring.walk(batch, START) and ring.held_ns is None and ring.empty == [0, 1]
    return memories, ring, batch


def lay_in(memory, block, *times):
    memory[block * SIZE : (block + 1) * SIZE] = block_of(frames(*times), SIZE)


def test_a_packet_waits_for_the_other_ring():
    memories, ring, batch = started()
    lay_in(memories[0], 1, 100, 300)
    for past in (0, 99):
        assert not ring.walk(batch, START + past) and ring.held_ns == START + 100 and ring.empty == [1]
    lay_in(memories[1], 1, 200, 400)
    assert ring.walk(batch, START + 99)
    assert [packet[1] - START for packet in batch.packets()] == [100, 200, 300]
    ring.begin(batch)
    # The last one waits again, and what it waits in is not given back.
    assert [status(memory, 1, SIZE) for memory in memories] == [KERNEL, USER]
    assert not ring.walk(batch, START + 399) and ring.held_ns == START + 400 and ring.empty == [0]
    assert ring.walk(batch, START + 400) and ring.held_ns is None
    assert [(packet[1] - START, packet[5]) for packet in batch.packets()] == [(400, 1)]
    assert status(memories[1], 1, SIZE) == USER
    ring.begin(batch)
    assert status(memories[1], 1, SIZE) == KERNEL


def test_what_is_past_does_not_wait():
    memories, ring, batch = started()
    lay_in(memories[1], 1, 100, 200, 300, 400)
    assert ring.walk(batch, START + 200)
    assert [packet[1] - START for packet in batch.packets()] == [100, 200] and ring.held_ns == START + 300


@pytest.mark.parametrize("ahead", [1000, 30 * 60 * SECOND], ids=["microsecond", "half an hour"])
def test_a_clock_that_runs_ahead_holds_nobody_longer(ahead):
    """Stamps that the driver's clock does not reach: a timeout after the first of them all of them go, once."""
    memories, ring, batch = started()
    lay_in(memories[0], 1, *(ahead + i for i in range(10)))
    assert not ring.walk(batch, START) and not ring.walk(batch, START + min(ahead - 1, TIMEOUT - 1))
    assert ring.walk(batch, START + TIMEOUT) and len(batch) == 10
    ring.begin(batch)
    lay_in(memories[0], 0, *(2 * ahead + TIMEOUT + i for i in range(10)))
    assert not ring.walk(batch, START + TIMEOUT)
    # And a clock that is set back lets them go as well.
    assert ring.walk(batch, START + TIMEOUT - 1) and len(batch) == 10


def test_silence_of_one_ring_is_no_jump():
    """While the other one goes on for hours."""
    memories, ring, batch = started()
    for step in range(1, 19):
        lay_in(memories[0], step % 2, step * HOUR // 2, step * HOUR // 2 + 1)
        assert ring.walk(batch, START + step * HOUR // 2 + 1) and len(batch) == 2
        ring.begin(batch)
    lay_in(memories[1], 1, 9 * HOUR + 5)
    assert ring.walk(batch, START + 9 * HOUR + 5)
    assert [packet[1:3] for packet in batch.packets()] == [(START + 9 * HOUR + 5,) * 2]
    assert sum(ring.clock_counts.values()) == 0


def test_first_packets_of_a_ring_wait_no_longer_than_others():
    """To judge a first packet takes two more; where they do not come, it goes when its time has passed."""
    _, ring, batch = two(frames(0, 10, 20, 30), frames(15))
    ring.begin(batch)
    assert ring.walk(batch, START + 14)
    assert [packet[1] - START for packet in batch.packets()] == [0, 10]
    ring.begin(batch)
    assert not ring.walk(batch, START + 14) and ring.held_ns == START + 20
    ring.settle(batch)
    assert len(batch) == 0
    assert ring.walk(batch, START + 15)
    assert [packet[1] - START for packet in batch.packets()] == [15]
    ring.begin(batch)
    assert ring.walk(batch) and [packet[1] - START for packet in batch.packets()] == [20, 30]


def test_outliers_are_named_with_their_interface():
    memories, ring, batch = started()
    lay_in(memories[0], 1, 100, 101)
    lay_in(memories[1], 1, 2 * HOUR, 102, 103)
    seen = []
    while ring.walk(batch, START + 103):
        seen += batch.packets()
        ring.begin(batch)
    # The outlier's time is that of its ring's clock.
    assert [(packet[5], packet[1] - START) for packet in seen] == [(1, 5), (0, 100), (0, 101), (1, 102), (1, 103)]
    assert ring.clock_events == [("outlier", 1, 4, START + 2 * HOUR, START + 5)]


def test_the_clock_steps_back_once_for_all_rings():
    size, count = 1 << 18, 1400
    late = [[Frame(START + 3 * HOUR + 2 * i + which, segment(i % 900)) for i in range(50)] for which in range(2)]
    early = [[Frame(START + 2 * i + which, segment(i % 900)) for i in range(count)] for which in range(2)]
    memories = [bytearray(block_of(part, size)) for part in late]
    ring, batch, seen = RingMerge([Ring(memory, size, 1) for memory in memories], TIMEOUT), PacketBatch(), []
    for part in (late, early):
        for memory, some in zip(memories, part, strict=True):
            memory[:] = block_of(some, size)
        ring.begin(batch)
        while ring.walk(batch):
            seen += batch.packets()
            ring.begin(batch)
    ring.settle(batch)
    seen += batch.packets()
    assert len(seen) == 2 * (50 + count) and ring.clock_counts == {"outlier": 0, "jump": 0, "step": 1}
    assert [packet[1] for packet in seen[100:]] == [START + i for i in range(2 * count)]
    stepped = next(i for i, packet in enumerate(seen) if packet[8] & 1)
    assert stepped == 1099 and all(packet[2] == packet[1] for packet in seen[stepped + 1 :])


def test_clock_over_an_idle_link():
    memories, ring, batch = started()
    ring.idle(START + 5 * SECOND)
    assert ring.clock_ns == START + 5 * SECOND
    lay_in(memories[1], 1, 7 * SECOND)
    assert ring.walk(batch, START + 7 * SECOND) and ring.clock_ns == START + 7 * SECOND


def test_one_broken_ring_stops_the_stream():
    memories, ring, batch = started()
    lay_in(memories[0], 1, 100, 200)
    lay_in(memories[1], 1, 150)
    memories[1][SIZE + 16 : SIZE + 20] = b"\xff\xff\xff\xff"
    ring.walk(batch)
    assert ring.failed == "a length in the ring is impossible"


def test_how_many_rings():
    for count in (0, 65):
        with pytest.raises(ValueError, match="between 1 and 64 rings"):
            RingMerge([Ring(bytearray(SIZE), SIZE, 1) for _ in range(count)])
    ring = RingMerge([Ring(bytearray(SIZE), SIZE, 1) for _ in range(64)])
    batch = PacketBatch()
    ring.begin(batch)
    assert not ring.walk(batch) and ring.empty == list(range(64))
    ring.close()
    with pytest.raises(ValueError, match="closed"):
        ring.begin(batch)


def test_a_ring_is_mapped_anew():
    batch = PacketBatch()
    single = Ring(bytearray(block_of(frames(1, 2, 3, 4), SIZE)), SIZE, 1)
    merge = RingMerge([single])
    merge.begin(batch)
    assert merge.walk(batch) and single.packets == 4
    merge.begin(batch)
    single.map(bytearray(block_of(frames(5, 6), SIZE) * 2), SIZE, 1)
    assert merge.walk(batch) and [packet[3] for packet in batch.packets()] == [5, 6]
