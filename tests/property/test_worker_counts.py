"""The number of workers changes no row: every column of both tables, and every figure of the account."""

from __future__ import annotations

import random
import socket
import struct
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from talk import seen_twice, talk

from corpus import ROOT as CAPTURES
from corpus import captures, needs_captures
from dialogue import MS, SECOND, START, Captured, Dialogue, merge, write_pcap
from rows import compare, fast, order, rows_of
from synfin import schema
from synfin.errors import ConfigError
from synfin.run import Run, choose_workers
from synfin.settings import Settings
from synfin.sources.captures import CaptureInput
from synfin.workers import Workers

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
EVERYTHING = [column.name for column in schema.FLOWS]
USUAL = [column.name for column in schema.FLOWS if not column.optional]
ADDRESS = socket.inet_aton("10.0.0.1")


def account(paths, settings: Settings, workers: int, columns: list[str], **source):
    """Both tables and the account, in a form that is equal for equal runs."""
    flows, intervals, stats = fast(paths, settings, columns, workers, **source)
    del stats["memory"]
    return sorted(flows, key=order), intervals, stats


def same_for_all(paths, settings: Settings, workers=(2, 3, 4), **source) -> dict:
    """Compares runs with several workers with that of one; returns the account.

    With the usual columns, workers get the packets' headers only; the optional ones need whole packets.
    """
    flows, intervals, stats = account(paths, settings, 1, EVERYTHING, **source)
    for count in workers:
        columns = EVERYTHING if count == 3 else USUAL
        other = account(paths, settings, count, columns, **source)
        assert other[2] == stats, count
        assert other[1] == intervals, count
        assert other[0] == [{name: row[name] for name in columns} for row in flows], count
    return stats


def crowd(seed: int, talks: int = 6) -> tuple[list[list[Captured]], Settings]:
    """Several random talks of different hosts in one capture, each in its own order: clocks jump and step back."""
    rnd = random.Random(seed)
    tracking, lines = Settings(), []
    for number in range(talks):
        files, tracking = talk(random.Random(seed * talks + number))
        tracking = replace(tracking, max_flows=None)  # a cap takes one worker
        host = socket.inet_aton(f"10.0.{number + 1}.1")
        lines += [
            [packet._replace(data=packet.data.replace(ADDRESS, host)) for packet in part] for part in files if part
        ]
    mixed = []
    while lines:
        line = rnd.choice(lines)
        size = rnd.choice([1, 1, 2, 5, 40])
        mixed += line[:size]
        del line[:size]
        lines = [line for line in lines if line]
    cut = rnd.randrange(len(mixed)) if rnd.random() < 0.3 else 0
    files = [mixed[:cut], mixed[cut:]] if cut else [mixed]
    return [part for part in files if part], replace(tracking, checksum="ignore")


@pytest.mark.parametrize("start", [0, *(pytest.param(start, marks=pytest.mark.slow) for start in range(10, 300, 10))])
@pytest.mark.parametrize("duplicates", ["keep", "count", "drop"])
def test_random_talk(tmp_path, start, duplicates):
    for seed in range(start, start + 10):
        files, tracking = crowd(seed)
        if duplicates != "keep":
            files = seen_twice(files, seed)
        paths = [write_pcap(tmp_path / f"{seed}-{number}.cap", part) for number, part in enumerate(files)]
        same_for_all(paths, replace(tracking, duplicates=duplicates))


def test_several_workers_equal_the_slow_tracker(tmp_path):
    pytest.importorskip("synfin.reference", reason="the slow tracker needs dpkt")
    for seed in range(500, 530):
        files, tracking = crowd(seed, 3)
        paths = [write_pcap(tmp_path / f"{number}.cap", part) for number, part in enumerate(files)]
        assert compare(paths, tracking, workers=3) == []


def attempts(count: int, every_ns: int = 7 * MS) -> list[Captured]:
    """Overlapping connections of many hosts, of which some are never answered, some half-open, some closed."""
    dialogues = []
    for number in range(count):
        d = Dialogue(
            a_ip=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            b_ip="10.200.0.1",
            start=START + number * every_ns,
        )
        d.syn(d.a)
        if number % 3:
            d.synack(d.b, step=(number % 11) * 20 * MS)
        if number % 3 == 1:
            d.ack(d.a, step=(number % 7) * 15 * MS)
            d.data(d.a, 10)
            d.close()
        dialogues.append(d)
    return merge(*dialogues)


def test_the_peak_of_the_sum_is_not_the_sum_of_peaks(tmp_path):
    path = write_pcap(tmp_path / "crowd.pcap", attempts(600))
    stats = same_for_all([path], Settings())
    assert stats["opening_peak"]["value"] > 100 and stats["half_open_peak"]["value"] > 10
    run = Run(CaptureInput([str(path)]), Settings(), workers=3)
    for _ in run.blocks():
        pass
    shares = [tracker.stats() for tracker in run.tracker._trackers]
    assert all(share["records"] > 100 for share in shares), "every worker had its share"
    # Each worker's highest came at another time: added, they would be too high.
    assert sum(share["half_open_peak"]["value"] for share in shares) > run.tracker.stats()["half_open_peak"]["value"]


@pytest.mark.parametrize("interval", [MS, 10 * MS, SECOND, 60 * SECOND])
def test_an_interval_table_longer_than_a_worker_may_hold(tmp_path, interval):
    packets = attempts(40)
    path = write_pcap(tmp_path / "long.pcap", [*packets, Captured(packets[-1].time_ns + 20 * SECOND, b"\0" * 60)])
    same_for_all([path], Settings(interval=interval), (3,))


@pytest.mark.parametrize("reorder", [0, SECOND, 20 * SECOND])
@pytest.mark.parametrize("behind", [999, 1000, 2500])
def test_steps_of_the_clock_reach_every_worker(tmp_path, behind, reorder):
    packets = attempts(300)
    back = [packet._replace(time_ns=packet.time_ns - 7200 * SECOND + MS) for packet in attempts(behind)[:behind]]
    path = write_pcap(tmp_path / "back.pcap", [*packets, *back, *attempts(50)])
    stats = same_for_all([path], Settings(reorder=reorder, interval=SECOND))
    assert stats["clock_steps"] == behind // 1000 or behind > 1000


def test_packets_that_no_tracker_sees_are_counted(tmp_path):
    noise = [Captured(START + number * MS, struct.pack("!12xH", 0x0806) + b"\0" * 50) for number in range(300)]
    path = write_pcap(tmp_path / "noise.pcap", sorted(noise + attempts(30), key=lambda packet: packet.time_ns))
    assert same_for_all([path], Settings())["skips"] == {"not_ip": 300}


def test_no_packet_at_all(tmp_path):
    same_for_all([write_pcap(tmp_path / "empty.pcap", [])], Settings())


@pytest.fixture(scope="module")
def syns(tmp_path_factory) -> Path:
    """More rows than one block of each of two trackers, in several rounds."""
    packets = [Dialogue(a_port=1024 + n, start=START + n * 1000).handshake().packets[0] for n in range(50_000)]
    return write_pcap(tmp_path_factory.mktemp("many") / "syns.pcap", packets)


@pytest.mark.slow
def test_more_rows_than_a_block_and_more_packets_than_a_round(syns):
    same_for_all([syns], Settings(), (2, 3))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.pcap*")), ids=lambda path: path.name)
def test_examples(path):
    same_for_all([path], Settings(duplicates="count", interval=100 * MS), (3,))


@needs_captures
@pytest.mark.parametrize("row", captures(), ids=lambda row: row["path"])
def test_captures(row):
    same_for_all([CAPTURES / row["path"]], Settings(), (2, 3))


def test_all_examples_as_one_stream_in_small_chunks():
    same_for_all(sorted(EXAMPLES.glob("*.pcap")), Settings(), (2, 4), chunk_bytes=1000)


@pytest.mark.parametrize(
    "settings",
    [
        Settings(key=("vlan", "tunnel")), Settings(checksum="verify"),
        pytest.param(Settings(key=("vlan",)), marks=pytest.mark.slow),
    ],
)
def test_settings_that_change_what_a_tracker_looks_at(tmp_path, settings):
    for seed in range(20):
        files, _ = crowd(seed)
        same_for_all([write_pcap(tmp_path / f"{n}.cap", part) for n, part in enumerate(files)], settings, (3,))


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_the_order_of_rows_is_the_same_in_every_run(tmp_path):
    path = write_pcap(tmp_path / "crowd.pcap", attempts(2000, MS))
    first = fast([path], None, None, 3)
    for _ in range(3):
        assert fast([path], None, None, 3)[:2] == first[:2]


@pytest.mark.slow
def test_the_thread_that_frames_can_do_all_the_work_and_none_of_it(syns, monkeypatch):
    tracking = Settings(attempt_timeout=MS)
    expected = fast([syns], tracking, None, 2)[:2]
    with monkeypatch.context() as patch:
        patch.setattr(Workers, "_serve", lambda self: None)
        assert fast([syns], tracking, None, 2)[:2] == expected
    monkeypatch.setattr(Workers, "_next_of", lambda self, which: self._told[which].get())
    assert fast([syns], tracking, None, 2)[:2] == expected


@pytest.mark.slow
def test_an_interruption_of_the_thread_that_frames_while_it_tracks(syns, monkeypatch):
    before, interrupted = threads(), threading.Event()
    track = Workers._track

    def broken_off(self, which, round):
        if threading.current_thread() is threading.main_thread():
            interrupted.set()
            raise KeyboardInterrupt
        assert interrupted.wait(60), "the thread that frames takes its turn while another is busy"
        return track(self, which, round)

    monkeypatch.setattr(Workers, "_track", broken_off)
    with pytest.raises(KeyboardInterrupt):
        list(Run(CaptureInput([str(syns)]), Settings(), workers=2).blocks())
    assert threads() == before


def test_an_error_in_a_worker_ends_the_run_and_its_threads(tmp_path):
    path, before = write_pcap(tmp_path / "crowd.pcap", attempts(100)), threads()

    def broken(link_type: int) -> bytes:
        raise ConfigError(f"no program for {link_type}")

    run = Run(CaptureInput([str(path)]), Settings(), filter=broken, workers=3)
    with pytest.raises(ConfigError, match="no program for 1"):
        list(run.blocks())
    assert threads() == before


@pytest.mark.slow
def test_a_run_that_is_given_up_ends_its_threads(syns):
    before = threads()
    blocks = Run(CaptureInput([str(syns)]), Settings(attempt_timeout=MS), workers=2).blocks()
    next(blocks)
    assert threads() != before
    blocks.close()
    assert threads() == before


def test_an_interrupted_run_has_all_rows_up_to_there(tmp_path):
    path = write_pcap(tmp_path / "crowd.pcap", attempts(3000))
    run = Run(CaptureInput([str(path)]), Settings(), workers=3)
    run.tick = run.stop
    rows = [row for table, block in run.blocks() if table == "flows" for row in rows_of(block, table)]
    stats = run.tracker.stats()
    assert 0 < stats["packets"] == stats["packets_in_records"] < 3000
    assert stats["packets"] == sum(row["client_packets"] + row["server_packets"] for row in rows)
    assert run.outcome.reason == "interrupted"


def test_how_many_workers(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert choose_workers(None, 10_000, Settings()) == 1
    assert choose_workers(None, 1 << 30, Settings()) == 3
    assert choose_workers(None, None, Settings()) == 3
    assert choose_workers(5, 10_000, Settings()) == 5
    for wrong in (0, -1, 65):
        with pytest.raises(ConfigError, match="between 1 and 64"):
            choose_workers(wrong, None, Settings())
    for capped in (Settings(max_flows=1000), Settings(max_memory=1 << 30)):
        assert choose_workers(None, 1 << 30, capped) == 1
        with pytest.raises(ConfigError, match="--workers 1"):
            choose_workers(2, None, capped)
