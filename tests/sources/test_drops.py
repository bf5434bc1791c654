"""What captures say of lost packets: interface statistics of pcapng (draft-ietf-opsawg-pcapng, section 4.6)."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from capture_files import T0, block, enhanced, interface, options, pcap, read, section

from dialogue import SECOND, START, Dialogue
from rows import fast

IFRECV, IFDROP, OSDROP = 4, 5, 7
UNKNOWN = 2**64 - 1


def statistics(counts: dict[int, int], number: int = 0, order: str = "<") -> bytes:
    """An interface statistics block with 64-bit counts by option code."""
    opts = options([(code, struct.pack(order + "Q", count)) for code, count in counts.items()], order)
    return block(5, struct.pack(order + "III", number, 0, 0) + opts, order)


def drops_of(tmp_path: Path, *contents: bytes, chunk: int = 1 << 16) -> int | None:
    paths = [tmp_path / f"{number}.pcapng" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    rows, source = read(*paths, chunk_bytes=chunk)
    assert len(rows) == sum(content.count(b"packet..") for content in contents) and not source.report.broken
    return source.drops


def one_interface(*blocks: bytes, order: str = "<") -> bytes:
    head = section(order) + interface(order)
    return head + b"".join(enhanced(T0 // 1000, b"packet..", order=order) + part for part in blocks)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_last_block_of_an_interface_holds_its_count(tmp_path, order, chunk):
    parts = [
        statistics({IFRECV: 10, IFDROP: 3}, order=order),
        statistics({IFRECV: 20, IFDROP: 5, OSDROP: 2}, order=order),
    ]
    assert drops_of(tmp_path, one_interface(*parts, order=order), chunk=chunk) == 7


def test_interfaces_sections_and_files_add_up(tmp_path):
    two = section() + interface() + interface() + enhanced(T0 // 1000, b"packet..", 1)
    two += statistics({IFDROP: 1}) + statistics({OSDROP: 20}, 1) + statistics({IFDROP: 1})
    assert (
        drops_of(tmp_path, two + one_interface(statistics({IFDROP: 300})), one_interface(statistics({IFDROP: 4000})))
        == 4321
    )


NOT_KNOWN = {
    "no statistics": b"",
    "other counts only": statistics({IFRECV: 10}),
    "unknown": statistics({IFDROP: UNKNOWN}),
    "an interface that is not there": statistics({IFDROP: 5}, 1),
    "a count of 4 bytes": block(5, struct.pack("<III", 0, 0, 0) + options([(IFDROP, bytes(4))])),
    "an option over the end": block(5, struct.pack("<IIIHHQ", 0, 0, 0, IFDROP, 9, 5)),
    "no room for an interface": block(5, bytes(8)),
    "an absurd size": block(5, struct.pack("<III", 0, 0, 0) + options([(1, bytes(65532)), (IFDROP, bytes(8))])),
}


@pytest.mark.parametrize("name", NOT_KNOWN)
def test_nobody_knows(tmp_path, name):
    assert drops_of(tmp_path, one_interface(NOT_KNOWN[name], b"")) is None


def test_none_lost_is_known(tmp_path):
    assert drops_of(tmp_path, one_interface(statistics({IFDROP: 0, OSDROP: UNKNOWN}))) == 0


def test_claims_beyond_reason_stay_a_number(tmp_path):
    most = one_interface(statistics({IFDROP: 2**62, OSDROP: 2**62})) * 3
    assert drops_of(tmp_path, most, most * 2) == 2**62


def talk(start: int, port: int) -> bytes:
    """Packets of one connection, one a second, as blocks."""
    d = Dialogue(a_port=port, start=start).handshake()
    for _ in range(5):
        d.data(d.a, 10, step=SECOND)
    return b"".join(enhanced(packet.time_ns // 1000, packet.data) for packet in d.packets)


@pytest.mark.parametrize(("chunk", "workers"), [(100, 1), (1 << 16, 1), (100, 3), (1 << 16, 2)])
def test_the_interval_in_which_the_capture_ends_counts_them(tmp_path, chunk, workers):
    (tmp_path / "1.pcapng").write_bytes(section() + interface() + talk(START, 1000) + statistics({IFDROP: 4}))
    (tmp_path / "2.pcapng").write_bytes(
        section() + interface() + talk(START + 20 * SECOND, 2000) + statistics({IFDROP: 1})
    )
    (tmp_path / "3.pcap").write_bytes(pcap([(START + 40 * SECOND, b"x")]))
    _, intervals, _ = fast([tmp_path], workers=workers, chunk_bytes=chunk)
    lost = {(row["interval_start"] - START) // SECOND: row["capture_drops"] for row in intervals}
    assert {second: count for second, count in lost.items() if count} == {5: 4, 25: 1}
    assert lost[3] is None and lost[21] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_without_packets_counts_with_the_first_that_ends(tmp_path, workers):
    (tmp_path / "0.pcapng").write_bytes(section() + interface() + statistics({IFDROP: 3}))
    (tmp_path / "1.pcap").write_bytes(pcap([(START, b"x"), (START + 5 * SECOND, b"x")]))
    (tmp_path / "2.pcap").write_bytes(pcap([(START + 20 * SECOND, b"y")]))
    _, intervals, _ = fast([tmp_path], workers=workers)
    lost = {(row["interval_start"] - START) // SECOND: row["capture_drops"] for row in intervals}
    assert lost[5] == 3 and sum(filter(None, lost.values())) == 3


def test_a_set_without_any_packet_tells(tmp_path):
    empty = [section() + interface() + statistics({IFDROP: lost}) for lost in (3, 4)]
    assert drops_of(tmp_path, *empty) == 7 and drops_of(tmp_path, section() + interface(), empty[0]) == 3


FOLDER = os.environ.get("SYNFIN_CAPTURES")


@pytest.mark.skipif(not FOLDER, reason="SYNFIN_CAPTURES names no folder of captures")
@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_statistics_as_tshark_reads_them():
    # Not test202: this dissector stops where a section changes the byte order.
    names = (Path(FOLDER) / "format/hadrielk+pcapng-test-generator").glob("*.pcapng")
    paths = sorted(path for path in names if "test202" not in path.name)
    assert len(paths) > 20
    found = {path.name: (read(path)[1].drops, told_by_tshark(path)) for path in paths}
    assert {name: ours for name, (ours, _) in found.items()} == {name: theirs for name, (_, theirs) in found.items()}
    assert {ours for ours, _ in found.values()} >= {None, 10, 30, 53}


def told_by_tshark(path: Path) -> int | None:
    """The sum of each interface's last counts, as tshark dissects the file itself."""
    command = ["tshark", "-n", "-r", path, "-X", "read_format:MIME Files Format", "-T", "pdml"]
    document = ElementTree.fromstring(subprocess.run(command, capture_output=True, check=True).stdout)
    last: dict[tuple[int, int], dict[str, int]] = {}
    section = number = 0
    for field in document.iter("field"):
        name, shown = field.get("name").rpartition(".")[2], field.get("show")
        if field.get("name") == "pcapng.block.type":
            section += shown.lower() == "0x0a0d0d0a"
        elif name == "interface_id":
            number = int(shown)
        elif name in ("dropped", "dropped_by_os"):
            last.setdefault((section, number), {})[name] = int(shown)
    return sum(sum(counts.values()) for counts in last.values()) if last else None
