"""The walk over a ring whose blocks are written by hand: no kernel and no privilege needed."""

import random

import pytest
from rings import (
    BLOCK_HEADER,
    DATA,
    FRAME_HEADER,
    KERNEL,
    USER,
    Frame,
    RingSource,
    block_bytes,
    block_of,
    frame_bytes,
    status,
    walker,
)

from dialogue import SECOND, START, Dialogue, ethernet, ipv4, merge, options, tcp, write_pcap
from rows import fast, rows_of
from synfin._core.batch import PacketBatch
from synfin.run import Run
from synfin.settings import Settings

SIZE = 4096
#: What only a file knows, or only an interface.
PLACE = ("first_file", "first_packet", "interface")


def rows_by(source):
    run = Run(source, Settings())
    tables = {"flows": [], "intervals": []}
    for table, block in run.blocks():
        tables[table] += rows_of(block, table)
    return tables["flows"], tables["intervals"], run.tracker.stats()


def without_place(rows):
    return sorted(({k: v for k, v in row.items() if k not in PLACE} for row in rows), key=lambda row: row["flow_id"])


def dialogues():
    made = []
    for number in range(40):
        d = Dialogue(a_port=40_000 + number, start=START + number * 7_000_000)
        d.a.options = d.b.options = options(mss=1460, scale=7, sack=True)
        d.handshake()
        for _ in range(number % 5):
            d.data(d.a, 300)
            d.data(d.b, 900)
        if number % 4 == 0:
            d.rst(d.b)
        elif number % 4 < 3:
            d.close(d.a if number % 4 == 1 else d.b)
        made.append(d)
    return merge(*made)


def in_blocks(packets, chance):
    """Blocks of chance lengths, as timer and size retire them."""
    blocks, frames, used = [], [], 48
    for packet in packets:
        needed = len(frame_bytes(Frame(packet.time_ns, packet.data), False))
        if frames and (used + needed > SIZE or chance.random() < 0.2):
            blocks.append(block_of(frames, SIZE))
            frames, used = [], 48
        frames.append(Frame(packet.time_ns, packet.data))
        used += needed
    return [*blocks, block_of(frames, SIZE)]


@pytest.mark.parametrize("slots", [2, 3, 64])
def test_rows_are_those_of_a_file(tmp_path, slots):
    packets = dialogues()
    flows, intervals, stats = rows_by(RingSource(in_blocks(packets, random.Random(slots)), SIZE, slots=slots))
    file_flows, file_intervals, file_stats = fast([write_pcap(tmp_path / "x.pcap", packets)])
    assert len(flows) == 40 and stats["packets"] == file_stats["packets"] == len(packets)
    assert without_place(flows) == without_place(file_flows)
    assert intervals == file_intervals
    assert {row["interface"] for row in flows} == {"fake"}
    assert {row["first_file"] for row in flows} == {row["first_packet"] for row in flows} == {None}


@pytest.mark.parametrize("where", ["first", "middle", "twice"])
def test_odd_stamps_are_judged_as_in_a_file(tmp_path, where):
    """Lone stamps, two of them, and a step back by more than a thousand packets, over borders of blocks and batches."""
    packets = dialogues()
    late = [packet._replace(time_ns=packet.time_ns + 2 * 3600 * SECOND) for packet in packets]
    if where == "first":
        packets[0] = late[0]
    elif where == "middle":
        for at in (50, 90, 91, 120, 122, 124, 126, 128):
            packets[at] = late[at]
    else:
        packets = [*late[:40], *(packets * 6)]
    source = RingSource(in_blocks(packets, random.Random(1)), SIZE)
    flows, intervals, _ = rows_by(source)
    file_flows, file_intervals, _ = fast([write_pcap(tmp_path / "x.pcap", packets)])
    assert without_place(flows) == without_place(file_flows)
    assert intervals == file_intervals
    expected = {"first": {"outlier": 1, "jump": 0, "step": 0}, "twice": {"outlier": 0, "jump": 0, "step": 1}}
    if where in expected:
        assert source.ring.clock_counts == expected[where]
    assert len(source.ring.clock_events) == sum(source.ring.clock_counts.values()) > 0


def segment(number=0, **how):
    return ethernet(ipv4("10.0.0.1", "10.0.0.2", tcp("10.0.0.1", "10.0.0.2", 1000 + number, 80, seq=1, ack=0, flags=2, **how)))


def test_block_goes_back_only_when_tracked():
    frames = [Frame(START + i, segment(i)) for i in range(30)]
    memory = bytearray(block_of(frames[:15], SIZE) + block_of(frames[15:], SIZE))
    ring, batch = walker(memory, SIZE, 1), PacketBatch()
    ring.begin(batch)
    assert ring.walk(batch) and len(batch) == 15
    assert [packet[0] for packet in batch.packets()] == [frame.data for frame in frames[:15]]
    assert status(memory, 0, SIZE) == USER
    ring.begin(batch)
    assert (len(batch), status(memory, 0, SIZE), status(memory, 1, SIZE)) == (0, KERNEL, USER)
    assert ring.walk(batch) and len(batch) == 15
    ring.begin(batch)
    assert status(memory, 1, SIZE) == KERNEL and not ring.walk(batch)
    assert (ring.packets, ring.blocks_given_back) == (30, 2)


def test_block_longer_than_a_batch():
    size = 1 << 16
    frames = [Frame(START + i, segment(i)) for i in range(300)]
    memory = bytearray(block_of(frames, size))
    ring, batch = walker(memory, size, 1), PacketBatch()
    got = []
    for owner in (USER, USER, KERNEL):
        ring.begin(batch)
        assert status(memory, 0, size) == owner
        ring.walk(batch)
        got += [(packet[1], packet[3]) for packet in batch.packets()]
    assert got == [(START + i, i + 1) for i in range(300)]


def test_first_packet_waits_and_settles():
    memory = bytearray(block_of([Frame(START, segment())], SIZE))
    ring, batch = walker(memory, SIZE, 1), PacketBatch()
    ring.begin(batch)
    assert not ring.walk(batch)
    ring.idle(START + SECOND)
    assert ring.clock_ns == 0
    ring.settle(batch)
    assert [packet[:3] for packet in batch.packets()] == [(segment(), START, START)]
    ring.idle(START + 5 * SECOND)
    assert ring.clock_ns == START + 5 * SECOND
    ring.idle(START)
    assert ring.clock_ns == START + 5 * SECOND


def test_silence_is_no_jump():
    """After hours without a packet, which the driver bridged, the next one is not held to be an outlier."""
    memory = bytearray(block_of([Frame(START + i, segment(i)) for i in range(3)], SIZE))
    ring, batch = walker(memory, SIZE, 1), PacketBatch()
    ring.begin(batch)
    ring.walk(batch)
    ring.begin(batch)
    later = START + 9 * 3600 * SECOND
    ring.idle(later)
    memory[:] = block_of([Frame(later + SECOND, segment(3))], SIZE)
    assert ring.walk(batch) and batch.packets()[0][1:3] == (later + SECOND, later + SECOND)
    assert sum(ring.clock_counts.values()) == 0


@pytest.mark.parametrize("total", [None, 0], ids=["as sent", "offloaded"])
def test_tag_from_metadata(total):
    """A tag that the kernel took off is the outermost one, and its 4 bytes do not count as IP."""
    body = tcp("10.0.0.1", "10.0.0.2", 1000, 80, seq=1, ack=0, flags=2)
    packet = ipv4("10.0.0.1", "10.0.0.2", body, total=total)
    data = [ethernet(packet), ethernet(packet, vlans=(7,))]
    frames = [Frame(START + i, data[i % 2], vlan_tci=0x2000 | 5) for i in range(4)]
    flows, _, _ = rows_by(RingSource([block_of(frames, SIZE)], SIZE))
    assert [(row["vlan_id"], row["vlan_variants"], row["client_ip_bytes"]) for row in flows] == [(5, 1, 4 * len(packet))]
    ring, batch = walker(bytearray(block_of(frames, SIZE)), SIZE, 1), PacketBatch()
    ring.begin(batch)
    ring.walk(batch)
    assert [packet[7] for packet in batch.packets()] == [len(data[i % 2]) + 4 for i in range(4)]


def test_cut_packet():
    whole = segment(payload=b"x" * 500)
    frames = [Frame(START, whole[:60], wire_len=len(whole))]
    flows, _, _ = rows_by(RingSource([block_of(frames, SIZE)], SIZE))
    assert flows[0]["client_ip_bytes"] == len(whole) - 14


def test_drops_count_when_they_are_told():
    """The interval table says in which second the source learnt of lost packets, and 0 for the others."""

    class Lossy(RingSource):
        drops = 0

        def fill(self, batch):
            more = super().fill(batch)
            self.drops += 5 if self.drops == 0 and self.ring.packets > 10 else 0
            return more

    blocks = [block_of([Frame(START + s * SECOND + i, segment(i)) for i in range(10)], SIZE) for s in range(3)]
    _, intervals, _ = rows_by(Lossy(blocks, SIZE))
    assert [row["capture_drops"] for row in intervals][:3] == [0, 5, 0]


BAD_FRAME = {
    "data before the header's end": {"data_offset": FRAME_HEADER - 1},
    "data beyond the block": {"data_offset": 65535},
    "longer than the block": {"captured_len": SIZE},
    "longest": {"captured_len": 2**32 - 1, "wire_len": 2**31 - 1},
    "wire length": {"wire_len": 2**31},
    "next is itself": {"next_offset": 0},
    "next inside the header": {"next_offset": FRAME_HEADER - 4},
    "next not aligned": {"next_offset": DATA + 1},
    "next beyond the block": {"next_offset": SIZE},
    "next wraps": {"next_offset": 2**32 - 8},
}


@pytest.mark.parametrize("wrong", BAD_FRAME.values(), ids=BAD_FRAME)
def test_impossible_frame(wrong):
    good = [Frame(START + i, segment(i)) for i in range(4)]
    frames = [frame_bytes(frame, False) for frame in good]
    frames.append(frame_bytes(Frame(START + 9, segment(9)), False, **wrong))
    frames.append(frame_bytes(Frame(START + 10, segment(10)), True))
    check_broken(block_bytes(frames, SIZE), 4)


@pytest.mark.parametrize("before", [0, 4])
def test_the_last_frame_ends_where_its_block_does(before):
    """Not a byte later, whether it is the block's first one or not."""
    good = [frame_bytes(Frame(START + i, segment(i)), False) for i in range(before)]
    room = SIZE - BLOCK_HEADER - sum(map(len, good)) - DATA
    last = Frame(START + before, segment(before).ljust(room, b"\0"))
    ring, batch = walker(bytearray(block_bytes([*good, frame_bytes(last, True)], SIZE)), SIZE, 1), PacketBatch()
    ring.begin(batch)
    ring.walk(batch)
    ring.settle(batch)
    assert ring.failed is None and ring.packets == before + 1 and ring.bytes == room + before * len(segment())
    for beyond in (1, 8):
        longer = frame_bytes(last, True, captured_len=room + beyond)
        check_broken(block_bytes([*good, longer], SIZE), before)


BAD_BLOCK = {
    "first inside the block's header": {"first_offset": 40},
    "first not aligned": {"first_offset": 52},
    "first at the block's end": {"first_offset": SIZE - FRAME_HEADER + 4},
    "first beyond the block": {"first_offset": 2**32 - 8},
    "more packets than there are": {"packets": 2**32 - 1},
}


@pytest.mark.parametrize("wrong", BAD_BLOCK.values(), ids=BAD_BLOCK)
def test_impossible_block(wrong):
    check_broken(block_of([Frame(START, segment())], SIZE, **wrong), 0)


def check_broken(block, packets):
    """The packets before come out, then the ring says that it is broken, again and again."""
    ring, batch = walker(bytearray(block), SIZE, 1), PacketBatch()
    ring.begin(batch)
    ring.walk(batch)
    assert len(batch) == ring.packets == packets
    for _ in range(3):
        assert ring.failed == "a length in the ring is impossible"
        ring.begin(batch)
        assert not ring.walk(batch)


def test_random_bytes_break_nothing():
    chance = random.Random(3)
    good = block_of([Frame(START + i, segment(i)) for i in range(20)], SIZE)
    for _ in range(2000):
        memory = bytearray(good * 2)
        for _ in range(chance.randrange(1, 5)):
            at = chance.randrange(2 * SIZE)
            memory[at] = chance.randrange(256)
        ring, batch = walker(memory, SIZE, 1), PacketBatch()
        for _ in range(4):
            ring.begin(batch)
            ring.walk(batch)
            assert all(len(packet[0]) <= SIZE for packet in batch.packets())


def test_memory_that_is_no_ring():
    for size in (0, 8, 115, 2**32 - 8):
        with pytest.raises(ValueError, match=r"too short or not aligned|holds no block"):
            walker(bytearray(SIZE), size, 1)
    with pytest.raises(BufferError):
        walker(bytes(SIZE), SIZE, 1)
    ring = walker(bytearray(SIZE), SIZE, 1)
    ring.close()
    with pytest.raises(ValueError, match="closed"):
        ring.begin(PacketBatch())
