"""The clocks of the input against the model in clock_model.py, and the cases of the open-case list one by one."""

from __future__ import annotations

import pytest
from capture_files import HOUR, T0, enhanced, interface, pcap, read, section, simple
from clock_model import merged
from hypothesis import given, settings
from hypothesis import strategies as st

MINUTE = HOUR // 60
STEP_BACK = 1


def run(tmp_path, *files: list[int], chunk: int = 1 << 20):
    paths = []
    for i, stamps in enumerate(files):
        paths.append(tmp_path / f"{i:03}.pcap")
        paths[-1].write_bytes(pcap([(stamp, b"%d" % k) for k, stamp in enumerate(stamps, 1)], magic=0xA1B23C4D))
    rows, source = read(*paths, chunk_bytes=chunk)
    for row in rows:
        assert row.data == b"%d" % row.number
    return rows, source.report


def check(tmp_path, *files: list[int], chunk: int = 1 << 20):
    rows, report = run(tmp_path, *files, chunk=chunk)
    expected, outliers = merged(list(files))
    assert [(r.file_id, r.number, r.time_ns, r.clock_ns, bool(r.flags & STEP_BACK)) for r in rows] == expected
    assert report.time_outliers == outliers
    assert report.clock_counts["step"] == sum(row[4] for row in expected)
    return rows, report


def stamps_of(*minutes: float) -> list[int]:
    return [T0 + int(minute * MINUTE) for minute in minutes]


@pytest.mark.parametrize(
    ("minutes", "judged", "clock"),
    [
        ((0, 61, 1), (0, 0, 1), (0, 0, 1)),  # a lone one
        ((0, 60, 1), (0, 60, 1), (0, 60, 60)),  # an hour is not more than an hour
        ((0, 90, 70), (0, 90, 70), (0, 70, 70)),  # confirmed: the smaller of the two
        ((0, 70, 90), (0, 70, 90), (0, 70, 90)),
        ((0, 70, 140, 150), (0, 70, 140, 150), (0, 70, 140, 150)),
        ((0, 70, 140, 71), (0, 70, 70, 71), (0, 70, 70, 71)),  # witness first, then lone itself
        ((0, 61), (0, 61), (0, 61)),  # a file's last packet is taken as it is
        ((61, 0), (61, 0), (61, 61)),
        ((61, 0, 0.5), (0, 0, 0.5), (0, 0, 0.5)),  # a lone first one
        ((61, 0, 2), (61, 0, 2), (61, 61, 61)),  # the third does not confirm
        ((60, 0, 0), (60, 0, 0), (60, 60, 60)),
        ((300, 0, 200, 1), (0, 0, 0, 1), (0, 0, 0, 1)),
        ((300, 0, 200, 210), (0, 0, 200, 210), (0, 0, 200, 210)),
    ],
)
def test_judgement_of_one_file(tmp_path, minutes, judged, clock):
    rows, _ = check(tmp_path, stamps_of(*minutes))
    assert [row.time_ns for row in rows] == stamps_of(*judged)
    assert [row.clock_ns for row in rows] == stamps_of(*clock)


def test_incidents_name_file_and_packet(tmp_path):
    _, report = run(tmp_path, stamps_of(0, 90, 1, 2, 90, 91), stamps_of(3))
    outlier, jump = report.incidents
    assert (outlier.kind, outlier.packet, outlier.before_ns, outlier.after_ns) == ("outlier", 2, *stamps_of(90, 0))
    assert (jump.kind, jump.packet, jump.before_ns, jump.after_ns) == ("jump", 5, *stamps_of(2, 90))
    assert outlier.path.endswith("000.pcap") and "packet 2" in str(outlier)


@pytest.mark.parametrize("count", [999, 1000, 1001, 2100])
def test_step_back_on_the_thousandth_packet_behind(tmp_path, count):
    late = [T0 - 2 * HOUR + i for i in range(count)]
    rows, _ = check(tmp_path, [T0, T0, T0, *late])
    steps = [row.number for row in rows if row.flags & STEP_BACK]
    assert steps == ([1003] if count >= 1000 else [])
    if count >= 1000:
        assert rows[1002].clock_ns == T0  # judged by the old clock
        assert [row.clock_ns for row in rows[1003:]] == late[1000:]


def test_a_packet_within_the_hour_starts_the_count_again(tmp_path):
    late = [T0 - 2 * HOUR] * 999
    rows, _ = check(tmp_path, [T0, T0, T0, *late, T0, *late])
    assert not any(row.flags & STEP_BACK for row in rows)


def test_a_step_moves_only_the_source_that_delivered_it(tmp_path):
    back = [T0 - 5 * HOUR + i for i in range(1500)]
    rows, _ = check(tmp_path, [T0, T0, T0, *back], [T0 + 1, T0 + 2, T0 + 3])
    step = next(i for i, row in enumerate(rows) if row.flags & STEP_BACK)
    assert rows[step].file_id == 0


def test_packets_without_timestamp_take_the_clock(tmp_path):
    content = section() + interface()
    content += (
        simple(b"none") + enhanced(T0 // 1000, b"a") + simple(b"b") + enhanced(T0 // 1000 + 7, b"c") + simple(b"d")
    )
    path = tmp_path / "x.pcapng"
    path.write_bytes(content)
    rows, source = read(path)
    assert [row.time_ns for row in rows] == [0, T0, T0, T0 + 7000, T0 + 7000]
    assert all(row.flags == 0 and row.clock_ns == row.time_ns for row in rows)
    assert source.report.incidents == []


STAMPS = st.lists(
    st.one_of(
        st.integers(0, 3),
        st.sampled_from([-130, -61, -60, -59, 30, 59, 60, 61, 62, 90, 120, 121, 122, 180, 185, 600]),
    ).map(lambda minute: T0 + minute * MINUTE),
    max_size=14,
)


@given(st.lists(STAMPS, min_size=1, max_size=4), st.sampled_from([3, 50, 1 << 20]))
@settings(max_examples=500, deadline=None)
def test_any_files_as_the_model_merges_them(tmp_path_factory, files, chunk):
    # Files that hold the same packets would be skipped as copies; an own first packet keeps them apart.
    files = [[T0 - i, *stamps] if stamps else stamps for i, stamps in enumerate(files)]
    check(tmp_path_factory.mktemp("merge"), *files, chunk=chunk)


@given(st.data())
@settings(max_examples=12, deadline=None)
def test_long_files_with_steps_as_the_model_merges_them(tmp_path_factory, data):
    files = []
    for i in range(data.draw(st.integers(1, 3))):
        stamps, at = [T0 - i], T0
        for _ in range(data.draw(st.integers(1, 4))):
            at += data.draw(st.sampled_from([-5, -2, -1, 0, 1, 3])) * HOUR + data.draw(st.integers(-100, 100))
            step = data.draw(st.sampled_from([0, 1, MINUTE // 10]))
            count = data.draw(st.sampled_from([1, 300, 999, 1000, 1700]))
            stamps += [at + k * step for k in range(count)]
            at = stamps[-1]
        files.append(stamps)
    check(tmp_path_factory.mktemp("long"), *files)


def test_every_second_packet_an_outlier(tmp_path):
    # Each one waits in a copy; copies must not be overwritten while a batch holds them.
    stamps = [T0 + i + (HOUR * 9 if i % 2 else 0) for i in range(3000)]
    rows, report = check(tmp_path, stamps, chunk=1000)
    assert len(rows) == 3000 and report.time_outliers == 1499  # the last packet is taken as it is
