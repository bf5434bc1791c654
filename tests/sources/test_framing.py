"""pcap and pcapng framing, whatever the chunks, against what dpkt reads in the same bytes and against the formats."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import dpkt
import pytest
from capture_files import (
    PCAP_KUZNETZOV,
    PCAP_NS,
    PCAP_US,
    T0,
    block,
    enhanced,
    interface,
    old_packet,
    pcap,
    read,
    section,
    simple,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from synfin.sources import merge
from synfin.sources.faults import FOREIGN, fault

CHUNKS = (1, 2, 3, 7, 16, 1000, 1 << 20)
SECOND = 10**9


@pytest.fixture
def store(tmp_path):
    def write(content: bytes, name: str = "x.pcap"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def some_packets(count: int = 40, step_ns: int = 1_000_003_000):
    return [(T0 + i * step_ns, bytes([i]) * (i * 7 % 90)) for i in range(count)]


def assert_like_dpkt(rows, reader):
    theirs = list(reader)
    assert [row.data for row in rows] == [data for _, data in theirs]
    # dpkt's times are rounded to what a float holds; test_pcap_times_are_exact looks closer.
    assert all(abs(row.time_ns - float(when) * 1e9) < 2000 for row, (when, _) in zip(rows, theirs, strict=True))


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [PCAP_US, PCAP_NS])
def test_pcap_as_dpkt_reads_it(store, chunk, order, magic):
    content = pcap(some_packets(step_ns=1_000_003_017), order, magic, link_type=113)
    rows, source = read(store(content), chunk_bytes=chunk)
    reader = dpkt.pcap.Reader(io.BytesIO(content))
    assert_like_dpkt(rows, reader)
    assert {row.link_type for row in rows} == {reader.datalink()} == {113}
    assert [row.number for row in rows] == list(range(1, 41))
    assert source.bytes_read == source.bytes_total == len(content)
    assert not source.report.warnings


@pytest.mark.parametrize("magic", [PCAP_US, PCAP_NS, PCAP_KUZNETZOV])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pcap_times_are_exact(store, magic, order):
    tick = 1 if magic == PCAP_NS else 1000
    packets = [(T0 + i * 123_456_789 * tick, b"abc") for i in range(9)]
    rows, _ = read(store(pcap(packets, order, magic)), chunk_bytes=5)
    assert [(row.time_ns, row.data) for row in rows] == packets


def test_pcap_swapped_lengths_of_old_versions(store):
    packets = [(T0, b"abcd", 1500), (T0 + 1000, b"efghij", 60)]
    for version in ((2, 2), (2, 4)):
        rows, _ = read(store(pcap(packets, version=version)))
        assert [(row.data, row.wire_len) for row in rows] == [(b"abcd", 1500), (b"efghij", 60)]


def test_pcap_lengths_of_version_2_3_in_either_order(store):
    content = pcap([], version=(2, 3))
    for lengths in ((4, 1500), (1500, 4)):
        content += struct.pack("<IIII", T0 // 10**9, 0, *lengths) + b"abcd"
    rows, _ = read(store(content))
    assert [(row.data, row.wire_len) for row in rows] == [(b"abcd", 1500)] * 2


def test_pcap_link_type_without_frame_check_bits(store):
    rows, _ = read(store(pcap([(T0, b"a")], link_type=0x54000001)))
    assert rows[0].link_type == 1


def test_wire_length_is_never_below_the_captured_length(store):
    rows, _ = read(store(pcap([(T0, b"abcd", 2)])))
    assert rows[0].wire_len == 4
    rows, _ = read(store(section() + interface() + enhanced(1, b"abcd", wire=0), "x.pcapng"))
    assert rows[0].wire_len == 4


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_as_dpkt_reads_it(store, chunk, order):
    content = section(order) + interface(order)
    for time_ns, data in some_packets():
        content += enhanced(time_ns // 1000, data, order=order) + block(0x0BAD, b"unknown!", order)
    rows, _ = read(store(content), chunk_bytes=chunk)
    assert_like_dpkt(rows, dpkt.pcapng.Reader(io.BytesIO(content)))
    assert len(rows) == 40


@pytest.mark.parametrize("chunk", CHUNKS)
def test_pcapng_sections_interfaces_and_packet_blocks(store, chunk):
    content = b""
    for order in "<>":
        content += section(order) + interface(order, 1, opts=[(2, b"eth0"), (9, b"\x09")])
        content += interface(order, 101, 6, opts=[(9, b"\x83"), (14, struct.pack(order + "q", 100))])
        content += block(5, b"statistics..", order) + block(0x80000001, b"", order)
        content += enhanced(T0 + 5, b"first", order=order, opts=[(1, b"a comment")])
        content += old_packet(16 * 17 + 4, b"second", 1, order)
        content += (
            simple(b"third", order, wire=99)
            + interface(order, 113)
            + enhanced(T0 // 1000 + 9, b"fourth", 2, order=order)
        )
    rows, source = read(store(content), chunk_bytes=chunk)
    half = len(rows) // 2
    assert [(r.data, r.link_type, source.interfaces[r.interface_id]) for r in rows[:half]] == [
        (b"first", 1, "eth0"),
        (b"second", 101, "1"),
        (b"third" + bytes(3), 1, "eth0"),
        (b"fourth", 113, "2"),
    ]
    assert [(r.data, r.interface_id) for r in rows[half:]] == [(r.data, r.interface_id) for r in rows[:half]]
    assert rows[0].time_ns == T0 + 5
    assert rows[1].time_ns == 134_500_000_000  # 276 eighths of a second after 100 s
    assert rows[2].time_ns == T0 + 5 and rows[2].wire_len == 99  # no timestamp: the source's clock
    assert rows[3].time_ns == T0 + 9_000


def time_of(stamp: int, resolution: int, offset: int) -> int:
    """Definition of pcapng section 4.2 in whole numbers, kept between 1970 and 2116."""
    units = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    return min(max(stamp * SECOND // units + offset * SECOND, 0), 2**62 - 1)


@given(
    st.integers(0, 2**64 - 1),
    st.one_of(st.integers(0, 255), st.sampled_from([0, 3, 6, 9, 12, 28, 29, 0x80, 0x9E, 0xBF, 0xC0, 0xFF])),
    st.one_of(st.just(0), st.integers(-(2**63), 2**63 - 1), st.integers(-(10**10), 10**10)),
)
@settings(max_examples=400, deadline=None)
def test_pcapng_time_of_any_resolution_and_offset(tmp_path_factory, stamp, resolution, offset):
    path = tmp_path_factory.getbasetemp() / "time.pcapng"
    opts = [(9, bytes([resolution])), (14, struct.pack("<q", offset))]
    path.write_bytes(section() + interface(opts=opts) + enhanced(stamp, b""))
    rows, source = read(path)
    true_ns = time_of(stamp, resolution, offset)
    assert rows[0].time_ns == true_ns
    outside = (
        stamp * SECOND // (2 ** (resolution & 127) if resolution & 128 else 10**resolution) + offset * SECOND != true_ns
    )
    assert source.report.files[0].clamped == outside


def test_pcapng_snaplen_cuts_simple_packets(store):
    rows, _ = read(store(section() + interface(snaplen=3) + simple(b"abcd", wire=4)))
    assert (rows[0].data, rows[0].wire_len, rows[0].time_ns) == (b"abc", 4, 0)


def test_pcapng_interface_names_are_numbered_once(store, tmp_path):
    content = b"".join(
        section() + interface(opts=[(2, name)]) + enhanced(1, b"") for name in (b"a", b"b\0", b"a", b"\xff")
    )
    rows, source = read(store(content))
    assert [source.interfaces[row.interface_id] for row in rows] == ["a", "b", "a", "\ufffd"]
    assert source.interfaces == ["a", "b", "\ufffd"]


def test_pcapng_lengths_without_padding(store):
    # Early writers announced the length of a block without its padding (a capture with an odd snap length).
    body = struct.pack("<IIIII", 0, 0, 7, 5, 5) + b"abcde" + bytes(3)
    odd = struct.pack("<II", 6, 37) + body + struct.pack("<I", 37)
    rows, source = read(store(section() + interface() + odd + enhanced(8, b"next")))
    assert [row.data for row in rows] == [b"abcde", b"next"] and not source.report.broken


MEMORY_CODE = """
import resource, sys
sys.path[:0] = sys.argv[2:]
from capture_files import read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows, _ = read(sys.argv[1])
print(len(rows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def declared(name: str) -> dict[str, int]:
    text = files("synfin.sources").joinpath("frame.pxd").read_text()
    body = text.partition(f"cdef enum {name}:")[2].partition("\n\n")[0]
    return {word: int(value) for word, value in re.findall(r"^ +\w\w_(\w+) = (\d+)", body, re.MULTILINE)}


def test_numbers_that_python_shares_with_the_core():
    errors = declared("FrameError")
    assert errors.pop("NONE") == 0 and fault(0, 0, 0) is None
    assert all(len(fault(value, 1, 2)) == 2 for value in errors.values())
    assert fault(errors["CUT"], 0, 0)[0] == "truncated" and fault(errors["MAGIC"], 0, 0)[0] == FOREIGN
    with pytest.raises(IndexError):
        fault(len(errors) + 1, 0, 0)
    assert declared("Framed") == {
        name: getattr(merge, name) for name in ("NEED", "PACKET", "INTERFACE", "END", "BROKEN")
    }


def test_memory_does_not_grow_with_the_file(tmp_path):
    # 1.2 GB, most of them holes: unknown blocks of 200 MB between packets.
    path, size = tmp_path / "x.pcapng", 200_000_000
    with open(path, "wb") as file:
        file.write(section() + interface())
        for _ in range(6):
            file.write(struct.pack("<II", 99, size))
            file.seek(size - 12, 1)
            file.write(struct.pack("<I", size) + enhanced(8, b"next"))
    paths = [str(Path(__file__).parent), *sys.path]
    out = subprocess.run([sys.executable, "-c", MEMORY_CODE, str(path), *paths], capture_output=True, check=True).stdout
    count, kilobytes = map(int, out.split())
    assert count == 6 and kilobytes < 20_000


GOOD = pcap(some_packets(5))
NG = section() + interface()
FAULTS = {
    "pcap, captured length": (GOOD + struct.pack("<IIII", 1, 2, 262145, 262145) + b"x" * 99, len(GOOD), "corrupt", 5),
    "pcap, version": (pcap([], version=(1, 4)), 0, "corrupt", 0),
    "pcap, cut header": (GOOD[:20], 0, "truncated", 0),
    "pcap, cut record header": (GOOD + b"1234", len(GOOD), "truncated", 5),
    "pcap, cut packet": (GOOD + struct.pack("<IIII", 1, 2, 60, 60) + b"x" * 59, len(GOOD), "truncated", 5),
    "pcapng, byte order": (block(0x0A0D0D0A, bytes(16)), 0, "corrupt", 0),
    "pcapng, section version": (section(version=(2, 0)), 0, "corrupt", 0),
    "pcapng, length 8": (NG + struct.pack("<II", 6, 8) + bytes(20), len(NG), "corrupt", 0),
    "pcapng, length": (NG + struct.pack("<II", 6, 1 << 30) + bytes(20), len(NG), "corrupt", 0),
    "pcapng, tail": (NG + enhanced(1, b"ab")[:-4] + bytes(4), len(NG), "corrupt", 0),
    "pcapng, tail of an unknown block": (NG + block(99, b"abcd")[:-4] + bytes(4), len(NG), "corrupt", 0),
    "pcapng, cut unknown block": (NG + block(99, bytes(80))[:50], len(NG), "truncated", 0),
    "pcapng, short": (NG + block(6, b"abcd"), len(NG), "corrupt", 0),
    "pcapng, captured": (
        NG + block(6, struct.pack("<IIIII", 0, 0, 0, 9, 9) + b"12345678"), len(NG), "corrupt", 0,
    ),
    "pcapng, interface": (NG + enhanced(1, b"a") + enhanced(1, b"b", 1), len(NG) + 36, "corrupt", 1),
    "pcapng, no interface": (section() + simple(b"a"), 28, "corrupt", 0),
    "pcapng, option": (section() + block(1, bytes(8) + struct.pack("<HH", 2, 9) + b"eth0"), 28, "corrupt", 0),
    "pcapng, cut": (NG + enhanced(1, b"a") + enhanced(1, b"b")[:11], len(NG) + 36, "truncated", 1),
}  # fmt: skip


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_the_offset_of_the_record(store, name, chunk):
    content, offset, kind, packets = FAULTS[name]
    rows, source = read(store(content), chunk_bytes=chunk)
    (broken,) = source.report.broken
    assert (len(rows), broken.offset, broken.kind) == (packets, offset, kind)
    assert f"at byte offset {offset}" in str(broken)
    assert source.report.failed == (kind == "corrupt")
    assert source.report.files[0].packets == packets


@given(st.lists(st.integers(0, 200), max_size=30), st.integers(0, 6000), st.integers(1, 400), st.booleans())
@settings(max_examples=150, deadline=None)
def test_cut_anywhere_gives_every_whole_packet(tmp_path_factory, sizes, cut, chunk, pcapng):
    ends, content = [], (section() + interface()) if pcapng else pcap([])
    start = len(content)
    for i, size in enumerate(sizes):
        content += enhanced(i, bytes(size)) if pcapng else pcap([(i * 1000, bytes(size))])[24:]
        ends.append(len(content))
    cut = max(start, len(content) - cut)
    path = tmp_path_factory.getbasetemp() / "cut.pcap"
    path.write_bytes(content[:cut])
    rows, source = read(path, chunk_bytes=chunk)
    whole = [end for end in ends if end <= cut]
    assert len(rows) == len(whole)
    border = whole[-1] if whole else start
    assert [(b.kind, b.offset) for b in source.report.broken] == ([] if border == cut else [("truncated", border)])


@given(
    st.binary(max_size=300), st.sampled_from([b"", pcap([]), section() + interface()]), st.sampled_from([1, 5, 4096])
)
@settings(max_examples=300, deadline=None)
def test_any_bytes_end_cleanly(tmp_path_factory, junk, start, chunk):
    path = tmp_path_factory.getbasetemp() / "junk"
    path.write_bytes((start or b"\xa1\xb2\xc3\xd4") + junk)
    one, first = read(path, chunk_bytes=chunk)
    two, second = read(path)
    assert one == two and first.report.broken == second.report.broken
