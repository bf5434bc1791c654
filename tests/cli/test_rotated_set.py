"""A rotated set of 400 gzip captures through the command, with one cut, one empty, one of text and one doubled."""

import gzip
import json
import shutil
import zlib

import pyarrow.parquet as pq
import pytest

from dialogue import SECOND, START, Dialogue, merge, pcap_bytes

FILES = 400
CUT, EMPTY, TEXT, DOUBLED = 100, 200, 300, 50
LONG_PORT = 30000


def dialogues():
    """One connection with a segment in every file, and one across each border between two files."""
    long = Dialogue(a_port=LONG_PORT, start=START - SECOND, step=SECOND)
    long.syn(long.a)
    long.synack(long.b, step=10)
    long.ack(long.a, step=10)
    for _ in range(1, FILES):
        long.data(long.a, 100)
    across = []
    for number in range(FILES - 1):
        one = Dialogue(a_port=number + 1, start=START + number * SECOND + SECOND // 2, step=SECOND // 10).handshake()
        one.wait(SECOND // 5)
        across.append(one.close())
    return [long, *across]


def name(number):
    return f"net-{number:03}.pcap.gz"


@pytest.fixture
def folder(tmp_path):
    """The set, and the packets of each file that can be read (of the cut one: of what is left)."""
    folder = tmp_path / "set"
    folder.mkdir()
    parts = [[] for _ in range(FILES)]
    for packet in merge(*dialogues()):
        parts[(packet.time_ns - START) // SECOND].append(packet)
    assert all(len(part) >= 4 for part in parts)
    for number, part in enumerate(parts):
        (folder / name(number)).write_bytes(gzip.compress(pcap_bytes(part)))
    whole = (folder / name(CUT)).read_bytes()
    (folder / name(CUT)).write_bytes(whole[:-60])
    left = len(zlib.decompressobj(wbits=31).decompress(whole[:-60]))
    while len(pcap_bytes(parts[CUT])) > left:
        parts[CUT].pop()
    (folder / name(EMPTY)).write_bytes(b"")
    (folder / name(TEXT)).write_text("rotated at midnight\n")
    parts[EMPTY] = parts[TEXT] = []
    shutil.copy(folder / name(DOUBLED), folder / "net-zzz.pcap.gz")
    return folder, parts


def test_summary_names_every_fault_and_the_run_ends_with_1(synfin, folder, tmp_path):
    folder, parts = folder
    code, out, err = synfin("track", folder, "-o", tmp_path / "rows.parquet", "--json")
    summary = json.loads(out)
    packets = sum(map(len, parts))
    offset = len(pcap_bytes(parts[CUT]))
    assert (code, err) == (1, "")
    assert summary["complete"] is False
    assert (summary["file"], summary["offset"]) == (str(folder / name(CUT)), offset)
    assert summary["packets"] == packets and summary["accounting"]["holds"]
    found = summary["input"]
    assert [(item["path"], item["offset"], item["kind"]) for item in found["broken"]] == [
        (str(folder / name(CUT)), offset, "truncated")
    ]
    assert {path for path, _ in found["skipped"]} == {str(folder / name(EMPTY)), str(folder / name(TEXT))}
    assert [sorted(pair) for pair in found["duplicates"]] == [
        [str(folder / name(DOUBLED)), str(folder / "net-zzz.pcap.gz")]
    ]
    assert pq.read_metadata(tmp_path / "rows.parquet").metadata[b"complete"] == b"false"


def test_text_names_every_fault(synfin, folder):
    folder, parts = folder
    code, out, _ = synfin("track", folder)
    told = " ".join(out.split())
    assert code == 1 and "INCOMPLETE" in out
    for fault in (name(CUT), name(EMPTY), name(TEXT), "net-zzz.pcap.gz"):
        assert fault in out
    for word in (f"{len(pcap_bytes(parts[CUT])):,}", "empty file", "looks like text", "same capture"):
        assert word in told
    assert max(map(len, out.splitlines())) <= 120


def test_state_is_carried_from_file_to_file(synfin, folder, tmp_path):
    folder, parts = folder
    synfin("track", folder, "-o", tmp_path / "rows.parquet")
    rows = {row["client_port"]: row for row in pq.read_table(tmp_path / "rows.parquet", columns=[
        "client_port", "handshake", "close", "client_packets", "server_packets"]).to_pylist()}  # fmt: skip
    assert sum(row["client_packets"] + row["server_packets"] for row in rows.values()) == sum(map(len, parts))
    assert rows[LONG_PORT]["client_packets"] == 1 + sum(bool(part) for part in parts)
    faulty = {CUT, EMPTY, TEXT}
    for number in range(FILES - 1):
        if not {number, number + 1} & faulty:
            row = rows[number + 1]
            assert (row["handshake"], row["close"]) == ("complete", "fin_4way"), number
            assert (row["client_packets"], row["server_packets"]) == (4, 3)


def test_what_is_no_capture_or_a_copy_does_not_fail_the_run(synfin, folder):
    folder, _ = folder
    (folder / name(CUT)).unlink()
    code, out, _ = synfin("track", folder, "--json")
    summary = json.loads(out)
    assert code == 0 and summary["complete"] is True
    assert len(summary["input"]["skipped"]) == 2 and len(summary["input"]["duplicates"]) == 1
