"""Tables by key (`--by`): those of the slow tracker, for every number of workers; what they hold sums to the interval table."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from dataclasses import replace

import pytest
from talk import seen_twice, talk
from test_worker_counts import EXAMPLES, attempts, crowd

from dialogue import MS, SECOND, START, Dialogue, write_pcap
from rows import by_key, fast, rows_of, slow
from synfin import schema
from synfin._core.batch import PacketBatch
from synfin._core.tracker import Tracker
from synfin.run import Run
from synfin.settings import Settings
from synfin.sources.captures import CaptureInput

BOTH = ("service", "client")
SUMMED = [column.name for column in schema.INTERVALS if column.group in ("gauge", "count")]
SUMMED = [name for name in SUMMED if not name.endswith("_peak") and name != "capture_drops"]


def expected(paths, settings: Settings) -> dict[str, list[dict]]:
    """The tables by the slow tracker."""
    _, intervals, result = slow(paths, settings)
    return {"intervals": intervals, **result.keyed}


def check(paths, settings: Settings, workers=(1, 2, 5), **source) -> dict[str, list[dict]]:
    """Compares the core's tables for each number of workers with the slow tracker's, and their sums."""
    tables = expected(paths, settings)
    for count in workers:
        ours = by_key(paths, settings, count, **source)
        for table in settings.tables[1:]:
            assert ours[table] == tables[table], (count, table)
    for table in settings.tables[2:]:
        assert sums(tables[table]) == sums(tables["intervals"]), table
    return tables


def sums(rows: list[dict]) -> dict[tuple, dict[str, int | None]]:
    """What the rows of each interval come to; those that a step of the clock brought again are taken together."""
    totals: dict[tuple, dict] = defaultdict(lambda: dict.fromkeys(SUMMED))
    for row in rows:
        total = totals[row["interval_start"]]
        for name in SUMMED:
            total[name] = row[name] if total[name] is None else total[name] + row[name]
    return totals


def check_crowd(folder, seed: int, duplicates: str) -> None:
    files, tracking = crowd(seed, 4)
    if duplicates != "keep":
        files = seen_twice(files, seed)
    tracking = replace(tracking, duplicates=duplicates, by=BOTH, top=1 + seed % 5)
    check([write_pcap(folder / f"{seed}-{number}.cap", part) for number, part in enumerate(files)], tracking)


@pytest.mark.parametrize("duplicates", ["keep", "count", "drop"])
@pytest.mark.parametrize("start", [0, *(pytest.param(start, marks=pytest.mark.slow) for start in range(5, 50, 5))])
def test_random_talk(tmp_path, start, duplicates):
    for seed in range(start, start + 5):
        check_crowd(tmp_path, seed, duplicates)


@pytest.mark.skipif("SYNFIN_FUZZ" not in os.environ, reason="as many examples as there is time for: make fuzz")
def test_fuzz(tmp_path):
    for _ in range(int(os.environ["SYNFIN_FUZZ"]) // 10):
        seed, duplicates = random.randrange(1 << 32), random.choice(["keep", "count", "drop"])
        try:
            check_crowd(tmp_path, seed, duplicates)
        except AssertionError:
            print(f"seed {seed}, {duplicates}")
            raise


def test_talk_of_two_ends(tmp_path):
    for seed in range(25):
        files, tracking = talk(random.Random(seed))
        paths = [write_pcap(tmp_path / f"{number}.cap", part) for number, part in enumerate(files)]
        check(paths, replace(tracking, by=BOTH), workers=(1,))


@pytest.mark.parametrize("top", [1, 3, 1000])
@pytest.mark.parametrize("interval", [pytest.param(10 * MS, marks=pytest.mark.slow), SECOND])
def test_a_crowd(tmp_path, interval, top):
    path = write_pcap(tmp_path / "crowd.pcap", attempts(600))
    tables = check([path], Settings(interval=interval, by=BOTH, top=top))
    others = [row for row in tables["clients"] if row["client_ip"] == schema.OTHER]
    assert bool(others) == (top < 600)


def turned() -> Dialogue:
    """A server's segment comes first, seconds before the client's SYN: the record is turned round."""
    d = Dialogue(a_port=40_000, b_port=50_123)  # neither is known as a server's
    d.syn(d.a)
    d.synack(d.b, captured=False)
    d.ack(d.a, captured=False)
    d.data(d.b, 100, step=SECOND)
    syn = d.packets.pop(0)
    d.packets.append(syn._replace(time_ns=d.packets[-1].time_ns + 2 * SECOND))
    d.now = d.packets[-1].time_ns
    return d


def values(rows: list[dict], *names: str) -> list[tuple]:
    return [tuple(row[name] for name in names) for row in rows]


def test_a_record_that_is_turned_round_takes_its_gauges_along_and_leaves_its_counts(tmp_path):
    path = write_pcap(tmp_path / "turned.pcap", turned().packets)
    tables = check([path], Settings(by=BOTH))
    assert values(tables["services"], "server_ip", "server_port", "packets", "syns", "completed", "established") == [
        ("10.0.0.1", 40_000, 1, 0, 0, 2),
        ("10.0.0.1", 40_000, 0, 0, 0, 2),
        ("10.0.0.2", 50_123, 1, 1, 1, 2),
        ("10.0.0.1", 40_000, 0, 0, 0, 0),
    ]
    assert values(tables["clients"], "client_ip", "packets", "midstream", "established") == [
        ("10.0.0.2", 1, 1, 2),
        ("10.0.0.2", 0, 1, 2),
        ("10.0.0.1", 1, 0, 2),
        ("10.0.0.2", 0, 0, 0),
    ]


def test_a_record_is_turned_round_in_time_wait(tmp_path):
    d = turned()
    syn = d.packets.pop()
    d.close(d.b)
    packets = [*d.packets, syn._replace(time_ns=d.now + SECOND)]
    tables = check([write_pcap(tmp_path / "turned.pcap", packets)], Settings(by=BOTH))
    assert values(tables["services"], "server_ip", "time_wait")[-2:] == [("10.0.0.2", 1), ("10.0.0.1", 0)]


@pytest.mark.parametrize("behind", [999, 1000, pytest.param(2500, marks=pytest.mark.slow)])
def test_steps_of_the_clock(tmp_path, behind):
    packets = attempts(300)
    back = [packet._replace(time_ns=packet.time_ns - 7200 * SECOND + MS) for packet in attempts(behind)[:behind]]
    path = write_pcap(tmp_path / "back.pcap", [*packets, *back, *attempts(50)])
    check([path], Settings(by=BOTH, top=20), workers=(1, 3))


def test_evictions(tmp_path):
    for seed in range(10):
        files, tracking = crowd(seed, 5)
        paths = [write_pcap(tmp_path / f"{seed}-{number}.cap", part) for number, part in enumerate(files)]
        check(paths, replace(tracking, by=BOTH, top=3, max_flows=1 + seed % 7), workers=(1,))


@pytest.mark.parametrize("ipv6", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_more_keys_than_parts_find_room_for(tmp_path, ipv6):
    """Each connection has a client of its own: an interval's parts take several pieces, of one worker as well."""
    packets = [
        packet
        for number in range(5000)
        for packet in Dialogue(
            a_ip=f"2001:db8::{number:x}" if ipv6 else f"10.9.{number >> 8}.{number & 255}",
            b_ip="2001:db8:1::1" if ipv6 else "10.0.0.2",
            start=START + number * 10_000,
        ).handshake().packets
    ]
    path = write_pcap(tmp_path / "many.pcap", sorted(packets, key=lambda packet: packet.time_ns))
    tables = check([path], Settings(by=BOTH, top=10))
    assert len(tables["clients"]) == 11 and tables["clients"][-1]["connections"] == 4990
    assert tables["clients"][-1]["rtt_server_p50_ns"] == tables["intervals"][0]["rtt_server_p50_ns"]


def test_a_sweep_of_many_records_at_once(tmp_path):
    """More ends of records in one sweep than a block of rows holds, each of another client, and rows in several turns."""
    syns = [
        Dialogue(a_ip=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", start=START + number).handshake().packets[0]
        for number in range(40_000)
    ]
    last = Dialogue(start=START + 100 * SECOND).handshake().packets
    path = write_pcap(tmp_path / "syns.pcap", [*syns, *last])
    tables = by_key([path], Settings(by=("client",), top=5))
    assert sums(tables["clients"]) == sums(tables["intervals"])
    assert sum(row["unanswered"] for row in tables["intervals"]) == 40_000


def test_keys_beyond_the_bound_count_as_others(tmp_path):
    path = write_pcap(tmp_path / "crowd.pcap", attempts(200))
    whole = by_key([path], Settings(by=BOTH))
    bounded = by_key([path], Settings(by=BOTH), most_keys=50)
    assert bounded["intervals"] == whole["intervals"]
    assert sums(bounded["clients"]) == sums(whole["intervals"])
    first = {f"10.0.0.{number}" for number in range(50)}  # while these live, nobody else has a place
    assert {row["client_ip"] for row in bounded["clients"][:51]} <= {*first, schema.OTHER}
    assert max(len(rows) for rows in by_start(bounded["clients"]).values()) <= 51
    assert bounded["services"] == whole["services"], "there is one only"


def taken_by_waves(settings: Settings, wave_of) -> list[int]:
    """Memory of both tables by key after each of ten waves, ten seconds apart, of frames as (offset in ns, frame)."""
    tracker, batch, taken, number = Tracker(settings, [], []), PacketBatch(), [], 0
    for wave in range(10):
        for at, (offset, frame) in enumerate(wave_of()):
            stamp, number = START + wave * 10 * SECOND + offset, number + 1
            batch.append(frame, stamp, stamp, number, 0, 0, 1, len(frame), 0)
            if at % 250 == 249:
                while not tracker.feed(batch):
                    for table in ("flows", "intervals", "services", "clients"):
                        tracker.take(table)
                batch.clear()
        memory = tracker.memory()
        taken.append(memory["services"] + memory["clients"])
    return taken


def test_memory_follows_the_keys_that_live():
    """Random clients and services come and go in waves, none twice: what the first ones took serves the others."""
    frame, rnd = Dialogue().handshake().packets[0].data, random.Random(3)

    def wave_of():
        for number in range(20_000):
            yield number * 50_000, frame[:26] + b"\x0a" + rnd.randbytes(3) + b"\x0b" + rnd.randbytes(3) + frame[34:]

    taken = taken_by_waves(Settings(by=BOTH, attempt_timeout=SECOND, reorder=0, top=3), wave_of)
    assert taken[0] > 2 * 20_000 * 200 and taken[-1] == taken[2] < 1.5 * taken[0]


def test_memory_follows_the_keys_of_records_that_are_turned_round():
    data, *_, syn = (packet.data for packet in turned().packets)
    rnd = random.Random(3)

    def wave_of():
        ends = [(b"\x0a" + rnd.randbytes(3), b"\x0b" + rnd.randbytes(3)) for _ in range(10_000)]
        for number, (client, server) in enumerate(ends):
            yield number * 50_000, data[:26] + server + client + data[34:]
        for number, (client, server) in enumerate(ends):
            yield SECOND + number * 50_000, syn[:26] + client + server + syn[34:]

    settings = Settings(by=BOTH, idle_timeout=2 * SECOND, one_sided_timeout=2 * SECOND, reorder=0, top=3)
    taken = taken_by_waves(settings, wave_of)
    assert taken[0] > 2 * 10_000 * 200 and taken[-1] == taken[2] < 1.5 * taken[0]


def by_start(rows: list[dict]) -> dict[int, list[dict]]:
    found: dict[int, list[dict]] = defaultdict(list)
    for row in rows:
        found[row["interval_start"]].append(row)
    return found


def test_rows_stand_in_the_order_of_their_rank(tmp_path):
    path = write_pcap(tmp_path / "crowd.pcap", attempts(400))
    for rows in by_start(by_key([path], Settings(by=BOTH), 2)["clients"]).values():
        addresses = [tuple(map(int, row["client_ip"].split("."))) for row in rows]
        rank = [(-row["syns"] - row["connections"], address) for row, address in zip(rows, addresses, strict=True)]
        assert rank == sorted(rank)


def test_nothing_is_kept_where_nobody_asks(tmp_path):
    path = write_pcap(tmp_path / "crowd.pcap", attempts(50))
    run = Run(CaptureInput([str(path)]), Settings())
    assert {table for table, _ in run.blocks()} == {"flows", "intervals"}
    memory = run.tracker.stats()["memory"]
    assert memory["kept_keys"] == memory["services"] == memory["clients"] == 0


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.pcap*")), ids=lambda path: path.name)
def test_examples(path):
    settings = Settings(duplicates="count", interval=100 * MS, by=BOTH, top=2)
    check([path], settings, workers=(1, 3))
    run = Run(CaptureInput([str(path)]), settings)
    rows = [row for table, block in run.blocks() if table == "intervals" for row in rows_of(block, table)]
    assert rows == fast([path], replace(settings, by=()))[1], "the interval table is what it is without, drops as well"
