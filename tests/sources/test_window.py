"""Windows of time: instants as text, what a window does to the clock, and which files of a set are not read."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta, timezone

import pytest
from capture_files import HOUR, PCAP_NS, PCAP_US, T0, enhanced, interface, pcap, read, section

from synfin.errors import ConfigError
from synfin.sources.tails import latest_ns
from synfin.sources.window import Window, parse_instant

S = 10**9
MAY = int(datetime(2024, 5, 1, 12, 30, tzinfo=UTC).timestamp()) * S


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2024-05-01T12:30:00Z", MAY),
        ("2024-05-01T12:30", MAY),
        ("2024-05-01 12:30:00", MAY),
        ("2024-05-01T12:30:00.123456789Z", MAY + 123_456_789),
        ("2024-05-01T12:30:00,5", MAY + S // 2),
        ("2024-05-01T14:30:00.000000001+02:00", MAY + 1),
        ("2024-05-01T14:30:00+0200", MAY),
        ("2024-05-01T07:30-05", MAY),
        ("2024-05-01", MAY - 12 * HOUR - HOUR // 2),
        ("1714566600", MAY),
        ("1714566600.000000007", MAY + 7),
        ("0", 0),
        (MAY + 3, MAY + 3),
        (datetime(2024, 5, 1, 12, 30, 0, 250_000), MAY + S // 4),
        (datetime(2024, 5, 1, 14, 30, tzinfo=timezone(timedelta(hours=2))), MAY),
    ],
)
def test_instants(text, ns):
    assert parse_instant(text) == ns


@pytest.mark.parametrize(
    "text",
    ["", "now", "2024-13-01", "2024-05-01T25:00", "2024-05-01T12:30:61", "2024-05-01T12:30:00.1234567890", "12:30", "-5", "1e9",
     "2024-05-01T12:30:00.5.5", "2024-05-01T12:30:00+99:00", "1714566600.1234567890", "٣", "2024-05-01T12:30.5"],
)  # fmt: skip
def test_what_is_no_instant(text):
    with pytest.raises(ConfigError, match="is not an instant") as error:
        parse_instant(text)
    assert "\n" not in str(error.value)


def test_windows():
    assert Window.of(None, None) is None
    assert Window.of("2024-05-01T12:30Z", None) == Window(MAY)
    assert Window.of(None, MAY) == Window(0, MAY)
    assert Window.of("1950-01-01", "2999-01-01") == Window()  # beyond what timestamps can be
    for start, end in ((MAY, MAY), (MAY + 1, MAY)):
        with pytest.raises(ConfigError, match="ends before"):
            Window.of(start, end)


def test_the_first_instant_is_inside_and_the_last_is_not(tmp_path):
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([(T0 + i, bytes([i])) for i in range(6)], magic=PCAP_NS))
    rows, source = read(path, window=Window(T0 + 2, T0 + 4))
    assert [(row.data, row.number) for row in rows] == [(b"\2", 3), (b"\3", 4)]
    assert source.outside == 4 and source.report.files[0].packets == 6


def test_packets_outside_do_not_move_the_clock(tmp_path):
    """In the second half, a packet behind the window comes before one in it: the clock stays in the window."""
    path = tmp_path / "a.pcap"
    times = [0, 10, 20, 100, 30, 25, 90]
    path.write_bytes(pcap([(T0 + t * S, bytes([t])) for t in times]))
    rows, _ = read(path, window=Window(T0 + 10 * S, T0 + 50 * S))
    assert [((row.time_ns - T0) // S, (row.clock_ns - T0) // S) for row in rows] == [
        (10, 10),
        (20, 20),
        (30, 30),
        (25, 30),
    ]


def test_a_lone_timestamp_is_judged_before_the_window_is(tmp_path):
    """Far ahead and alone, it takes the clock's time and is inside; of two, both are outside."""
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([(T0, b"a"), (T0 + S, b"b"), (T0 + 5 * HOUR, b"c"), (T0 + 2 * S, b"d")]))
    rows, source = read(path, window=Window(T0, T0 + 10 * S))
    assert [row.data for row in rows] == [b"a", b"b", b"c", b"d"] and rows[2].time_ns == T0 + S
    path.write_bytes(pcap([(T0, b"a"), (T0 + S, b"b"), (T0 + 5 * HOUR, b"c"), (T0 + 5 * HOUR, b"d")]))
    rows, source = read(path, window=Window(T0, T0 + 10 * S))
    assert [row.data for row in rows] == [b"a", b"b"] and source.outside == 2


def test_many_packets_that_wait_outside_the_window(tmp_path):
    """More packets that are judged one by one than a batch may borrow, none of them given out."""
    path = tmp_path / "a.pcap"
    jumps = [(T0 + i * 3 * HOUR + j, b"x") for i in range(200) for j in range(2)]
    path.write_bytes(pcap([*jumps, (T0 + 700 * HOUR, b"in"), (T0 + 700 * HOUR, b"in")]))
    rows, source = read(path, window=Window(T0 + 650 * HOUR))
    assert [row.data for row in rows] == [b"in", b"in"] and source.outside == 400


def write_set(folder, names_and_starts, seconds=60):
    for name, start in names_and_starts:
        (folder / name).write_bytes(
            pcap([(T0 + (start + i) * S, b"%d" % (start + i) + bytes(2000)) for i in range(seconds)])
        )


ROTATED = [
    ["t-1.pcap", "t-2.pcap", "t-9.pcap", "t-10.pcap", "t-11.pcap"],
    ["t.pcap", "t.pcap1", "t.pcap2", "t.pcap9", "t.pcap10"],
    ["t_00001_20240501120000.pcap", "t_00002_20240501120100.pcap", "t_00003_20240501120200.pcap",
     "t_00004_20240501120300.pcap", "t_00005_20240501120400.pcap"],
]  # fmt: skip


@pytest.mark.parametrize("names", ROTATED)
def test_files_of_a_rotated_set_outside_the_window_are_not_read(tmp_path, names):
    write_set(tmp_path, [(name, i * 60) for i, name in enumerate(names)])
    for name in (names[0], names[4]):  # what lies in them between the first and the last packets is never seen
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:100_000] + b"\xff" * 300_000 + data[24:])
    rows, source = read(tmp_path, window=Window(T0 + 130 * S, T0 + 170 * S))
    assert [int(row.data[:3]) for row in rows] == list(range(130, 170))
    left_out = [str(tmp_path / names[i]) for i in (0, 1, 3, 4)]
    assert source.report.left_out == left_out and not source.report.broken
    assert source.outside == 20 and source.bytes_total == (tmp_path / names[2]).stat().st_size
    assert any(
        "4 files outside the window of time, not read: " + ", ".join(left_out) in line
        for line in source.report.warnings
    )


@pytest.mark.parametrize(
    ("names", "starts"),
    [
        (["left.pcap", "right.pcap"], [0, 1]),  # not named as a set
        (["tap1.pcap", "tap2.pcap"], [0, 1]),  # named as one, but the first goes on when the second begins
        (["t-2.pcap", "t-1.pcap"], [0, 60]),  # the names are in another order
    ],
)
def test_other_files_are_read_to_their_end(tmp_path, names, starts):
    """Their beginnings do not tell where they end; only the window of each packet does."""
    write_set(tmp_path, list(zip(names, starts, strict=True)))
    rows, source = read(tmp_path, window=Window(T0 + 50 * S))
    assert source.report.left_out == []
    assert len(rows) + source.outside == 120
    assert len(rows) == sum(min(max(start + 60 - 50, 0), 60) for start in starts)


def test_a_second_at_the_borders_is_left_for_disorder(tmp_path):
    write_set(tmp_path, [("t-1.pcap", 0), ("t-2.pcap", 60), ("t-3.pcap", 120)])
    assert read(tmp_path, window=Window(T0 + 60 * S + S // 2, T0 + 119 * S + S // 2))[1].report.left_out == []
    assert len(read(tmp_path, window=Window(T0 + 61 * S, T0 + 119 * S))[1].report.left_out) == 2


def write_fast(path, start_ns, seconds, build=pcap):
    """200 packets of 1,000 bytes in each second: the first 64 KiB pass in a third of one."""
    path.write_bytes(build([(start_ns + i * S // 200, i.to_bytes(4) * 250) for i in range(seconds * 200)]))


def pcapng(packets):
    return section() + interface(opts=[(9, b"\x09")]) + b"".join(enhanced(*packet) for packet in packets)


@pytest.mark.parametrize("build", [pcap, pcapng])
def test_parallel_captures_named_like_a_rotated_set_are_read(tmp_path, build):
    """At their rate the beginnings do not show that they overlap, but the ends do."""
    for i in range(2):
        write_fast(tmp_path / f"cap-{i}.pcap", T0 + i * S // 5, 10, build)
    rows, source = read(tmp_path, window=Window(T0 + 5 * S))
    assert source.report.left_out == []
    assert len(rows) == 5 * 200 + 5 * 200 + 40


@pytest.mark.parametrize("build", [pcap, pcapng])
@pytest.mark.parametrize("seconds", [1, 10])
def test_fast_rotated_sets_are_left_out_by_their_ends(tmp_path, build, seconds):
    for i in range(4):
        write_fast(tmp_path / f"cap-{i}.pcap", T0 + i * seconds * S, seconds, build)
    rows, source = read(tmp_path, window=Window(T0 + 3 * seconds * S))
    assert source.report.left_out == [str(tmp_path / f"cap-{i}.pcap") for i in range(2)]
    assert len(rows) == seconds * 200


@pytest.mark.parametrize("change", [gzip.compress, lambda data: data[:-1]])
def test_files_whose_ends_cannot_be_looked_at_are_read(tmp_path, change):
    write_set(tmp_path, [(f"t-{i}.pcap", i * 60) for i in range(3)])
    first = tmp_path / "t-0.pcap"
    first.write_bytes(change(first.read_bytes()))
    assert read(tmp_path, window=Window(T0 + 150 * S))[1].report.left_out == [str(tmp_path / "t-1.pcap")]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("size", [1, 1400, 65_550])
def test_the_latest_time_of_a_file(tmp_path, order, size):
    stamps = [T0 + i * S for i in range(30)]
    path = tmp_path / "a.pcap"
    for magic in (PCAP_US, PCAP_NS):
        path.write_bytes(pcap([(stamp, bytes(size)) for stamp in stamps], order, magic))
        assert latest_ns(str(path)) == stamps[-1]
    for resolution, ticks in ((6, 10**6), (9, S), (0x80 | 10, 1024)):
        described = interface(
            order, opts=[(9, bytes([resolution])), (14, (7).to_bytes(8, "little" if order == "<" else "big"))]
        )
        packets = [enhanced(stamp * ticks // S, bytes(size), order=order) for stamp in stamps]
        path.write_bytes(section(order) + described + b"".join(packets))
        assert latest_ns(str(path)) == stamps[-1] + 7 * S
        path.write_bytes(section(order) + described + b"".join(packets) + described + packets[0])
        assert latest_ns(str(path)) is None


def test_the_latest_time_of_what_is_no_capture(tmp_path):
    path = tmp_path / "a"
    for content in (b"", b"words", bytes(1000), pcap([]), pcap([(T0, b"x")] * 9)[:-1], section(), pcapng([])):
        path.write_bytes(content)
        assert latest_ns(str(path)) is None
    assert latest_ns(str(tmp_path / "gone")) is None
