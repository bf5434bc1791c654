"""Workers with inputs and clocks of their own, on captures dealt out by connection: their rows are one tracker's."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from zlib import crc32

import pytest

from dialogue import Dialogue
from rows import by_key, fast, figures_by_service, rows_of
from synfin._core.batch import PacketBatch
from synfin.errors import SynfinError
from synfin.settings import NS_PER_S, Settings
from synfin.sidecar import workers as live_workers
from synfin.sidecar.workers import LiveWorkers
from synfin.sources.captures import CaptureInput
from synfin.sources.report import InputReport

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PF_STEP_BACK = 1  # _core/types.pxd


class Dealt:
    """An input of packets that were read before; between them, and at the end, the clock goes on without packets."""

    def __init__(self, packets, end_ns, names, seed, fails=None):
        self.files, self.interfaces = names
        self.drops, self.bytes_read, self.report = 0, 0, InputReport()
        self.timestamps, self.interface_up = {}, {}
        self.idle_clock_ns = 0
        self._packets, self._end_ns, self._at = packets, end_ns, 0
        self._random = random.Random(seed)
        self._left = 2  # empty batches at the end
        self._fails = fails
        self.stopped, self.all_taken = threading.Event(), threading.Event()
        self.closed = False

    def fill(self, batch):
        batch.clear()
        time.sleep(self._random.choice([0, 0, 0.002]))
        if self._fails and self._at and self._after.all_taken.wait(10):
            raise self._fails
        if self._at < len(self._packets):
            count = self._random.choice([0, 1, 7, 256])
            some = self._packets[self._at : self._at + count]
            if self._at and not some:
                self.idle_clock_ns = self._packets[self._at][2]  # nothing before it comes any more
            for data, stamp, clock, number, file, interface, link_type, wire, flags in some:
                batch.append(data, stamp, clock, number, file, interface, link_type, wire, flags)
                self.idle_clock_ns = clock
            self._at += len(some)
            return True
        self.all_taken.set()
        if self.idle_clock_ns:
            self.idle_clock_ns = self._end_ns
        self._left -= 1
        if self._left < 0:
            self.stopped.wait(10)
        return self._left >= 0

    def stop(self):
        self._left = min(self._left, 2)
        self.stopped.set()

    def close(self):
        self.closed = True

    def losses(self):
        return {}


def packets_of(paths):
    """All packets of captures, and the names of files and interfaces."""
    batch, packets = PacketBatch(), []
    with CaptureInput([str(path) for path in paths]) as source:
        while source.fill(batch):
            packets += batch.packets()
        return packets, (list(source.files), list(source.interfaces))


def ends_of(packet):
    """The ends of a TCP segment on Ethernet, or of that which an ICMP error quotes, in one order for both directions; one
    value for everything else."""
    data = packet[0]
    if data[12:14] == b"\x08\x00":
        return _ends4(data[14:])
    ip = data[14:]
    if data[12:14] == b"\x86\xdd" and ip[6:7] == b"\x06":
        return sorted([(ip[8:24], ip[40:42]), (ip[24:40], ip[42:44])])
    return []


def _ends4(ip):
    head = (ip[0] & 15) * 4 if ip else 0
    if ip[9:10] == b"\x06":
        return sorted([(ip[12:16], ip[head : head + 2]), (ip[16:20], ip[head + 2 : head + 4])])
    return _ends4(ip[head + 8 :]) if ip[9:10] == b"\x01" and ip[head : head + 1] == b"\x03" else []


def deal(packets, names, count, seed, end_ns=None):
    """Inputs for so many workers: each packet to that of its ends, and the clock of all packets at the end."""
    hands = [[] for _ in range(count)]
    for packet in packets:
        hands[crc32(repr(ends_of(packet)).encode(), seed) % count].append(packet)
    end_ns = end_ns or (packets[-1][2] if packets else 0)
    return [Dealt(hand, end_ns, names, (seed << 8) + i) for i, hand in enumerate(hands)]


def tracked(sources, settings=None, **columns):
    """Rows of both tables by live workers, and these."""
    run = LiveWorkers(sources, settings or Settings(), **columns)
    for source in sources:
        source.stopped.set()
    tables = {table: [] for table in (*run.settings.tables, "interim")}
    for table, block in run.blocks():
        tables[table] += rows_of(block, "flows" if table == "interim" else table)
    assert all(source.closed for source in sources)
    return tables, run


def ordered(rows):
    return sorted(rows, key=lambda row: (row["first_packet"], row["flow_id"]))


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Workers hand over after every batch."""
    monkeypatch.setattr(live_workers, "_HAND_OVER_S", 0.0)


def captures():
    return sorted(path for path in EXAMPLES.rglob("*.pcap*") if path.stat().st_size < 3_000_000)


@pytest.mark.parametrize("path", captures(), ids=lambda path: path.name)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_rows_are_those_of_one_tracker(path, count):
    settings = Settings(interval=NS_PER_S // 5)
    flows, intervals, stats = fast([path], settings)
    packets, names = packets_of([path])
    tables, run = tracked(deal(packets, names, count, seed=count), settings)
    assert ordered(tables["flows"]) == ordered(flows)
    assert tables["intervals"] == [{**row, "capture_drops": 0} for row in intervals]
    assert run.outcome.complete
    ours = run.stats()
    for name in ("packets", "packets_in_records", "records", "skips", "ip_bytes", "handshakes", "closes", "counts", "gauges",
                 "half_open_peak", "time_wait_peak", "rtt", "first_time_ns", "last_time_ns"):  # fmt: skip
        assert ours[name] == stats[name], name


@pytest.mark.parametrize("path", captures(), ids=lambda path: path.name)
@pytest.mark.parametrize("count", [*(pytest.param(count, marks=pytest.mark.slow) for count in (1, 2)), 5])
def test_tables_by_key_are_those_of_one_tracker(path, count):
    settings = Settings(interval=NS_PER_S // 5, by=("service", "client"), top=3)
    expected = by_key([path], settings)
    packets, names = packets_of([path])
    tables, _ = tracked(deal(packets, names, count, seed=count), settings)
    for row in tables["intervals"]:
        row["capture_drops"] = None
    assert {table: tables[table] for table in expected} == expected


@pytest.mark.parametrize("count", [1, 3])
def test_listed_services_are_added_up_over_workers(count):
    paths = sorted(EXAMPLES.glob("*.pcap*"))
    packets, names = packets_of(paths)
    services = [("10.20.0.80", 443), ("10.20.0.80", 7002), ("192.0.2.1", 80)]
    _, run = tracked(deal(packets, names, count, seed=7), services=services)
    truth = figures_by_service(paths)
    for service in services:
        figures = [worker.published.services[service] for worker in run.workers]
        for name in figures[0]:
            assert sum(each[name] for each in figures) == truth[service][name], (service, name)
    assert count == 1 or sum(worker.published.services[services[0]]["syns"] > 0 for worker in run.workers) > 1


def talk(count, client_port=20_000, start=1_700_000_000 * NS_PER_S, step=NS_PER_S // 10):
    """Packets of connections one after another, each closed, as `Dealt` takes them."""
    packets = []
    for which in range(count):
        d = Dialogue(a_port=client_port + which, start=start + which * step).handshake().close()
        packets += [(p.data, p.time_ns, p.time_ns, 0, -1, 0, 1, len(p.data), 0) for p in d.packets]
    return sorted(packets, key=lambda packet: packet[1])


NAMES = ([], ["eth0"])


def rows_until(run, enough):
    """Rows of the interval table until there are so many, or two seconds have passed."""
    rows, end = [], time.monotonic() + 2
    run.tick = lambda: time.monotonic() < end or run.stop()
    for table, block in run.blocks():
        if table == "intervals":
            rows += rows_of(block, table)
        if len(rows) >= enough and not run._stopped:
            return rows
    return None


@pytest.mark.parametrize("silent", ["no packet ever", "a packet at first"])
def test_a_silent_worker_holds_nothing_back(silent):
    """Rows come while the run goes on, although one of two links is idle."""
    packets = talk(40)
    end_ns = packets[-1][1] + 3 * NS_PER_S
    few = [] if silent == "no packet ever" else talk(1, client_port=1000)
    sources = [Dealt(packets, end_ns, NAMES, 1), Dealt(few, end_ns, NAMES, 2)]
    for source in sources:
        source._left = 1 << 30
    run = LiveWorkers(sources, Settings(time_wait=NS_PER_S // 100))
    rows = rows_until(run, 4)
    assert rows is not None and [row["complete"] for row in rows] == [True] * len(rows)
    assert sum(row["closed_fin"] for row in rows) <= 40 + len(few) and run.stats()["packets"] == len(packets) + len(few)


def test_a_clock_that_steps_back_in_one_worker():
    """Its intervals come again as rows of their own; nobody waits for ever, and nothing is counted twice."""
    before, after = talk(15), talk(300, client_port=30_000, start=1_700_000_000 * NS_PER_S - 7200 * NS_PER_S)
    sources = [Dealt(packets, before[-1][1], NAMES, seed) for seed, packets in enumerate([before, talk(15, client_port=25_000)])]
    # As the clock of an input does (sources/clock.pxd): the step is told by its 1000th packet in a row.
    clocks = [before[-1][1]] * 999 + [p[1] for p in after[999:]]
    stepped = [(*p[:2], clock, *p[3:]) for p, clock in zip(after, clocks, strict=True)]
    assert len(stepped) > 1200
    mark = list(stepped[999])
    mark[2], mark[8] = before[-1][1], PF_STEP_BACK
    stepped[999] = tuple(mark)
    sources[0]._packets = sources[0]._packets + stepped
    tables, run = tracked(sources)
    assert run.stats()["clock_steps"] == 1
    assert sum(row["syns"] for row in tables["intervals"]) == 330 == len(tables["flows"])
    assert sum(row["packets"] for row in tables["intervals"]) == run.stats()["packets"]


def test_a_worker_that_fails_ends_the_run():
    """One line names the worker and its trouble; the others end in order, their rows come first, all is closed."""
    packets = talk(40)
    broken = Dealt(talk(40, client_port=30_000), 0, NAMES, 2, fails=OSError(5, "no ring"))
    broken._after = Dealt(packets, packets[-1][1], NAMES, 1)
    sources = [broken._after, broken]
    sources[0]._left = 1 << 30
    run, rows = LiveWorkers(sources, Settings()), []
    with pytest.raises(SynfinError, match=r"^worker 1 failed: OSError: \[Errno 5\] no ring$"):
        for table, block in run.blocks():
            rows += rows_of(block, table) if table == "flows" else []
    assert len(rows) == 40 and (run.outcome.complete, run.outcome.reason) == (False, "worker 1 failed: OSError: [Errno 5] no ring")
    assert all(source.closed for source in sources)
    assert not any(worker.thread.is_alive() for worker in run.workers)


def test_tracking_goes_on_while_nobody_takes_rows():
    """A worker is ahead by its credit only, and has tracked what came until its block is full."""
    packets = talk(2000, step=NS_PER_S // 1000)
    source = Dealt(packets, packets[-1][1], NAMES, 1)
    source._left = 1 << 30
    run = LiveWorkers([source], Settings(time_wait=NS_PER_S // 100))
    blocks = run.blocks()
    next(blocks)
    end = time.monotonic() + 10
    while source._at < len(packets) and time.monotonic() < end:
        time.sleep(0.01)
    assert source._at == len(packets) and run._inbox.qsize() <= live_workers._CREDIT
    blocks.close()
    assert source.closed


def test_a_cap_is_divided():
    packets = []
    for which in range(200):
        d = Dialogue(a_port=20_000 + which, start=1_700_000_000 * NS_PER_S + which * 1000)
        d.syn(d.a)
        packets += [(p.data, p.time_ns, p.time_ns, 0, -1, 0, 1, len(p.data), 0) for p in d.packets]
    packets.sort(key=lambda packet: packet[1])
    tables, run = tracked(deal(packets, NAMES, 2, seed=5), Settings(max_flows=40))
    stats = run.stats()
    assert stats["cap"] == 40 and sum(stats["evicted"].values()) == 160
    assert len(tables["flows"]) == 200 == stats["records"]


def test_published_snapshots(monkeypatch):
    monkeypatch.setattr(live_workers, "_HAND_OVER_S", 3600.0)
    packets = talk(10)
    run = LiveWorkers(deal(packets, NAMES, 2, seed=3), Settings())
    assert [worker.published.stats["packets"] for worker in run.workers] == [0, 0]
    for worker in run.workers:
        worker.source.stopped.set()
    list(run.blocks())
    assert sum(worker.published.stats["packets"] for worker in run.workers) == len(packets) == run.stats()["packets"]


@pytest.mark.parametrize("room", [True, False])
def test_interim_rows(room):
    """Open connections are written as they stand, while the run goes on and there is room; the final row has the same number."""
    start = 1_700_000_000 * NS_PER_S
    packets = []
    for which in range(20):
        d = Dialogue(a_port=20_000 + which, start=start + which * NS_PER_S // 100).handshake()
        d.data(d.a, 100)
        d.wait(5 * NS_PER_S)
        d.data(d.b, 100)
        packets += [(p.data, p.time_ns, p.time_ns, 0, -1, 0, 1, len(p.data), 0) for p in d.packets]
    packets.sort(key=lambda packet: packet[1])
    sources = deal(packets, NAMES, 2, seed=1)
    run = LiveWorkers(sources, Settings())
    run.interim_ns = 2 * NS_PER_S
    run.ask_for_room(lambda: room)
    for source in sources:
        source.stopped.set()
    tables = {"flows": [], "intervals": [], "interim": []}
    for table, block in run.blocks():
        tables[table] += rows_of(block, "intervals" if table == "intervals" else "flows")
    assert len(tables["flows"]) == 20
    if not room:
        assert not tables["interim"]
        return
    assert {row["record"] for row in tables["interim"]} == {"interim"}
    # Of all, where the thread that takes them keeps up: they leave the last of a worker's credit to others.
    assert {row["flow_id"] for row in tables["interim"]} <= {row["flow_id"] for row in tables["flows"]}
    assert {row["end_reason"] for row in tables["interim"]} == {None}
