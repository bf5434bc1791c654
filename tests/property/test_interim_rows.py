"""Interim rows: each is the row that the record would have if the input ended there, as the slow tracker says; when they are
due; and that asking for them changes nothing.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from talk import talk

from dialogue import SECOND, START, Captured, Dialogue, merge, write_pcap
from rows import differences, fast, order, rows_of, slow
from synfin._core.batch import PacketBatch
from synfin._core.tracker import Tracker
from synfin.errors import SynfinError
from synfin.settings import Settings
from synfin.sources.captures import CaptureInput

MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE
STEPS_BACK = 1  # PF_STEP_BACK of types.pxd
ASKED_LATER = {"unanswered", "half_open"}


class Asked:
    """A tracker on captures that is asked for interim rows."""

    def __init__(self, paths, settings: Settings, columns=None):
        self.tracker = Tracker(settings, columns)
        self.source = CaptureInput([str(path) for path in paths])
        self.tables: dict[str, list[dict]] = {"flows": [], "intervals": [], "interim": []}

    def take(self, force: bool = False) -> None:
        self.tracker.names(list(self.source.files), list(self.source.interfaces))
        for table in self.tables:
            while (block := self.tracker.take(table, force)) is not None:
                self.tables[table] += rows_of(block, "intervals" if table == "intervals" else "flows")

    def interim(self, older_than_ns: int) -> None:
        while not self.tracker.interim(older_than_ns):
            self.take()

    def read(self, older_than_ns: int | None = None) -> None:
        """Track everything; after each batch ask for interim rows."""
        batch = PacketBatch()
        while self.source.fill(batch):
            while not self.tracker.feed(batch):
                self.take()
            if older_than_ns is not None:
                self.interim(older_than_ns)
        self.take(force=True)

    def finish(self) -> None:
        while not self.tracker.finish():
            self.take()
        self.take(force=True)
        self.source.close()


def as_interim(row: dict) -> dict:
    """What an interim row says where the final row of a record that goes on says `row`."""
    going_on = row | {"record": "interim", "end_reason": None}
    if row["handshake"] in ASKED_LATER:
        going_on["handshake"] = "pending"
    if row["time_wait_end"] == "expired":  # within the allowance for late packets, which falls away at the end
        going_on["time_wait_end"] = None
    return going_on


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("interim")


def check(folder, seed: int) -> Counter:
    """Compares at a random place of a talk; returns what was there to compare."""
    rnd = random.Random(seed)
    files, settings = talk(rnd)
    packets = rnd.choice(files)
    path = write_pcap(folder / "prefix.cap", packets[: rnd.randrange(1, len(packets) + 1)])
    asked = Asked([path], settings)
    asked.read()
    asked.interim(0)
    asked.take(force=True)
    ended = len(asked.tables["flows"])
    asked.finish()
    flows, intervals, _ = slow([path], settings)
    for row in intervals:
        row["capture_drops"] = None
    for row in asked.tables["intervals"]:
        row["capture_drops"] = None
    assert differences("flow", asked.tables["flows"], flows, order) == []
    assert asked.tables["intervals"] == intervals
    left = {order(row): row for row in asked.tables["flows"][ended:] if row["end_reason"] not in ("fin", "rst")}
    found: Counter[str] = Counter()
    assert len(asked.tables["interim"]) == len(left)
    for row in asked.tables["interim"]:
        final = left.pop(order(row))
        if row["odd_syns"] < final["odd_syns"]:  # of a SYN that is held beside it
            found["held"] += 1
            assert {name for name in row if row[name] != as_interim(final)[name]} <= HELD
        else:
            assert row == as_interim(final)
            found[row["handshake"]] += 1
            found[final["end_reason"]] += 1
    assert not left
    return found


#: Columns of what a SYN that is held beside a record counts in, once it has proven nothing.
HELD = {
    "first_seen", "last_seen", "duration_ns", "odd_syns", "vlan_id", "vlan_variants",
    *(f"{side}_{name}" for side in ("client", "server") for name in ("packets", "ip_bytes", "payload_bytes")),
}  # fmt: skip


def test_an_interim_row_is_the_row_of_a_run_that_ends_there(folder):
    found = Counter()
    for seed in range(150):
        found += check(folder, seed)
    for what in ("complete", "pending", "not_seen", "held", "end_of_input"):
        assert found[what] >= 3, (what, found)


@pytest.mark.slow
def test_an_interim_row_is_the_row_of_a_run_that_ends_there_at_length(folder):
    for seed in range(150, 2000):
        check(folder, seed)


@pytest.mark.parametrize("period", [0, SECOND, 100 * SECOND])
def test_asking_changes_nothing(folder, period):
    for seed in range(40):
        files, settings = talk(random.Random(seed))
        paths = [write_pcap(folder / f"{number}.cap", packets) for number, packets in enumerate(files)]
        flows, intervals, stats = fast(paths, settings)
        asked = Asked(paths, settings)
        asked.read(period)
        asked.finish()
        for row in asked.tables["intervals"] + intervals:
            row["capture_drops"] = None
        assert sorted(asked.tables["flows"], key=order) == sorted(flows, key=order)
        assert asked.tables["intervals"] == intervals
        told = asked.tracker.stats()
        assert {**told, "memory": None} == {**stats, "memory": None}


def long_talk(port: int, start: int, seconds: int) -> Dialogue:
    """An open connection with a segment each second."""
    talk = Dialogue(a_port=port, start=start)
    talk.handshake()
    for _ in range(seconds):
        talk.wait(SECOND)
        talk.data(talk.a, 10)
        talk.ack(talk.b)
    return talk


def fed(packets: list[Captured], period: int, tracker: Tracker) -> list[tuple[int, dict]]:
    """(clock, interim row) of every row when packets come one at a time, each followed by the question."""
    told, clock = [], None
    for number, packet in enumerate(packets, 1):
        batch = PacketBatch()
        clock = packet.time_ns if clock is None else max(clock, packet.time_ns)
        batch.append(packet.data, packet.time_ns, clock, number)
        assert tracker.feed(batch)
        assert tracker.interim(period)
        told += told_now(tracker, clock)
    return told


def told_now(tracker: Tracker, clock: int) -> list[tuple[int, dict]]:
    tracker.names(["x"], [])
    block = tracker.take("interim", True)
    return [(clock, row) for row in rows_of(block, "flows")] if block else []


def test_when_rows_are_due():
    """A row after a whole period of life, and after each further one; none of connections that are shorter."""
    period = 10 * SECOND
    packets = merge(
        *(long_talk(1000 + n, START + n * 3 * SECOND, 35) for n in range(4)), long_talk(7000, START, 9).close()
    )
    told = defaultdict(list)
    for clock, row in fed(packets, period, Tracker(Settings())):
        assert (row["record"], row["end_reason"], row["handshake"]) == ("interim", None, "complete")
        told[row["client_port"]].append((clock, row))
    assert sorted(told) == [1000, 1001, 1002, 1003]
    for rows in told.values():
        born = rows[0][1]["first_seen"]
        times = [born, *(clock for clock, _ in rows)]
        gaps = [b - a for a, b in pairwise(times)]
        assert len(gaps) in (3, 4)  # the last while others talk
        assert min(gaps) >= period and max(gaps) < period + 1.2 * SECOND
        assert [row["client_packets"] for _, row in rows] == sorted(row["client_packets"] for _, row in rows)
        assert len({row["flow_id"] for _, row in rows}) == 1


def test_a_number_that_is_given_again_begins_a_period_of_its_own():
    """A record of another record's place in memory is told after its own period, not after the former one's."""
    tracker, period = Tracker(Settings(reorder=0)), 10 * SECOND
    first = long_talk(1000, START, 15)
    first.rst(first.a)
    second = long_talk(1001, first.now + Settings().reset_linger + SECOND, 12)
    told = fed(first.packets, period, tracker) + fed(second.packets, period, tracker)
    stats = tracker.stats()
    assert (stats["records"], stats["live"]) == (1, 1)
    assert [row["client_port"] for _, row in told] == [1000, 1001]
    for clock, row in told:
        assert period <= clock - row["first_seen"] < period + 1.2 * SECOND


def test_idle_capture_time_brings_rows():
    """An open connection that is silent is told as capture time goes on without packets."""
    tracker = Tracker(Settings())
    fed(long_talk(1000, START, 1).packets, MINUTE, tracker)
    told = []
    for second in range(2, 200):
        clock = START + second * SECOND
        assert tracker.advance(clock) and tracker.interim(MINUTE)
        told += told_now(tracker, clock)
    assert [(clock - START) // SECOND for clock, _ in told] == [61, 121, 181]


def test_a_clock_that_steps_back_begins_periods_anew():
    """After a step back nobody knows how long ago anything was: rows come a period after it, not a day."""
    tracker, period = Tracker(Settings()), 10 * SECOND
    before = long_talk(1000, START + DAY, 2)
    assert fed(before.packets, period, tracker) == []
    back = PacketBatch()
    back.append(before.data(before.a, 10).data, START, flags=STEPS_BACK)
    assert tracker.feed(back)
    told = fed(long_talk(1001, START, 25).packets, period, tracker)
    assert tracker.stats()["clock_steps"] == 1
    by_port = Counter(row["client_port"] for _, row in told)
    assert by_port[1001] == 2 and by_port[1000] == 2
    assert min(clock for clock, _ in told) >= START + period
    assert sorted(round((clock - START) / period) for clock, _ in told) == [1, 1, 2, 2]


def test_more_rows_than_a_block_holds_come_in_steps():
    """40,000 connections: no step writes more than a block, each connection is told once, and packets may come between."""
    tracker, columns = Tracker(Settings(), ["flow_id", "record", "client_port", "client_ip"]), []
    syn = Dialogue(a_port=1000, start=START)
    syn.syn(syn.a)
    frame = bytearray(syn.packets[0].data)
    batch = PacketBatch()
    for number in range(40_000):
        frame[26:30] = (0x0A000000 + number).to_bytes(4, "big")  # the sender's address
        batch.append(bytes(frame), START + number, START + number, number)
        if len(batch) == 256 or number == 39_999:
            assert tracker.feed(batch)
            batch.clear()
    steps = 0
    while not tracker.interim(0):
        steps += 1
        while (block := tracker.take("interim")) is not None:
            assert block.rows <= 4_096 + 4
            columns += rows_of(block, "flows")
    columns += [row for _, row in told_now(tracker, 0)]
    assert steps >= 9
    assert len(columns) == len({row["flow_id"] for row in columns}) == 40_000
    assert tracker.stats()["live"] == 40_000


def test_nothing_before_the_first_packet_and_no_negative_age():
    tracker = Tracker(Settings())
    assert tracker.interim(0) and tracker.take("interim", True) is None
    with pytest.raises(SynfinError, match="negative"):
        tracker.interim(-1)
