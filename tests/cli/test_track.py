"""`synfin track` from a capture to rows, summary and exit code."""

import contextlib
import csv
import fcntl
import gzip
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small import PACKETS, ROWS, dialogues

from dialogue import SECOND, START, Dialogue, merge, pcap_bytes, write_pcap
from synfin.schema import INTERVALS, TABLES, default_names

HANDSHAKES = ["complete", "complete", "half_open", "refused", "unanswered"]


def test_summary_alone(synfin, capture, tmp_path):
    code, out, err = synfin("track", capture)
    assert (code, err) == (0, "")
    assert f"{PACKETS} packets in 1 file" in out
    assert f"{PACKETS} = {PACKETS} in connections" in out
    assert "add -o OUT" in out
    assert max(map(len, out.splitlines())) <= 80
    assert os.listdir(tmp_path) == ["in.pcap"]


def test_json_summary(synfin, capture):
    code, out, _ = synfin("track", capture, "--json", "--head", "2")
    summary = json.loads(out)
    assert code == 0
    assert summary["complete"] is True and summary["reason"] is None
    assert summary["packets"] == PACKETS and summary["connections"] == ROWS
    assert summary["accounting"] == {"packets": PACKETS, "in_records": PACKETS, "holds": True}
    counts = {name: HANDSHAKES.count(name) for name in HANDSHAKES}
    assert {name: count for name, count in summary["handshakes"].items() if count} == counts
    assert summary["worst_servers"]["refused"] == [{"server_ip": "10.0.0.2", "server_port": 81, "count": 1}]
    assert summary["worst_servers"]["unanswered"][0]["server_port"] == 82
    assert summary["syn_resends"] == 1
    assert summary["rtt"]["server"]["count"] == 3
    assert len(summary["head"]) == 2


def test_head_shows_rows(synfin, capture):
    code, out, _ = synfin("track", capture, "--head", "9")
    assert code == 0
    rows = [line for line in out.splitlines() if re.search(r"10\.0\.0\.1:4000\d|\[2001:db8::1\]:40004", line)]
    assert len(rows) == ROWS


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.csv", "x.jsonl"])
def test_file_of_each_format(synfin, capture, tmp_path, name):
    path = tmp_path / name
    code, out, _ = synfin("track", capture, "-o", path)
    assert code == 0 and f"Written: {path}" in out
    if name.endswith("parquet"):
        table = pq.read_table(path)
        columns, found = table.schema.names, table["handshake"].to_pylist()
    elif name.endswith("arrow"):
        table = pa.ipc.open_stream(path.read_bytes()).read_all()
        columns, found = table.schema.names, table["handshake"].to_pylist()
    elif name.endswith("csv"):
        rows = list(csv.DictReader(io.StringIO(path.read_text())))
        columns, found = list(rows[0]), [row["handshake"] for row in rows]
    else:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        columns, found = list(rows[0]), [row["handshake"] for row in rows]
    assert columns == default_names("flows")
    assert sorted(found) == HANDSHAKES
    assert sorted(os.listdir(tmp_path)) == ["in.pcap", name]


def test_folder_holds_both_tables(synfin, capture, tmp_path):
    code, _, _ = synfin("track", capture, "-o", tmp_path / "rows")
    assert code == 0
    assert pq.read_table(tmp_path / "rows/flows").num_rows == ROWS
    intervals = pq.read_table(tmp_path / "rows/intervals")
    assert intervals.schema.names == [column.name for column in INTERVALS]
    assert sum(intervals["packets"].to_pylist()) == PACKETS
    code, _, err = synfin("track", capture, "-o", tmp_path / "rows")
    assert code == 2 and "--append" in err and err.count("\n") == 1
    assert synfin("track", capture, "-o", tmp_path / "rows", "--append")[0] == 0
    assert pq.read_table(tmp_path / "rows/flows").num_rows == 2 * ROWS


def test_tables_by_key_stand_beside_the_others_where_they_are_asked_for(synfin, capture, tmp_path):
    rows = tmp_path / "rows"
    assert synfin("track", capture, "-o", rows, "--by", "service", "--by", "client", "--top", 1)[0] == 0
    assert sorted(os.listdir(rows)) == ["clients", "flows", "intervals", "services"]
    for table, key in (("services", ["server_ip", "server_port"]), ("clients", ["client_ip"])):
        found = pq.read_table(rows / table)
        assert found.schema.names == [column.name for column in TABLES[table]] and found.schema.names[3 : 3 + len(key)] == key
        assert sum(found["packets"].to_pylist()) == PACKETS
    only = tmp_path / "clients.csv"
    assert synfin("track", capture, "-o", only, "--table", "clients", "--by", "client")[0] == 0
    assert sum(int(row["packets"]) for row in csv.DictReader(io.StringIO(only.read_text()))) == PACKETS


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--by", "service"], "-o OUT"),
        (["--by", "service", "-o", "x.parquet"], "--table services"),
        (["--by", "service", "-o", "rows", "--table", "flows"], "--table services"),
        (["-o", "x.parquet", "--table", "clients"], "--by client"),
    ],
)
def test_a_table_by_key_without_a_place_is_refused(synfin, capture, monkeypatch, arguments, told):
    monkeypatch.chdir(capture.parent)
    code, _, err = synfin("track", capture, *arguments)
    assert code == 2 and told in err and err.count("\n") == 1
    assert os.listdir(capture.parent) == [capture.name]


def test_file_metadata(synfin, capture, tmp_path):
    synfin("track", capture, "-o", tmp_path / "x.parquet")
    about = pq.read_metadata(tmp_path / "x.parquet").metadata
    assert about[b"complete"] == b"true" and b"reason" not in about
    assert json.loads(about[b"accounting"]) == {"packets": PACKETS, "in_records": PACKETS}
    assert json.loads(about[b"inputs"]) == [str(capture)]
    assert about[b"schema_version"] == b"1" and about[b"table"] == b"flows"
    assert about[b"command"].startswith(b"synfin ") and about[b"synfin_version"]


def test_a_name_that_is_no_utf_8(start, capture, tmp_path):
    """In metadata and in the summary it has U+FFFD where rows have it; the rows are not lost over it."""
    name, shown = tmp_path / os.fsdecode(b"cut\xff.pcap"), str(tmp_path / "cut\ufffd.pcap")
    name.write_bytes(capture.read_bytes()[:-1])
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    for more in ([], ["--json"], ["-o", tmp_path / "x.parquet"]):
        process = start("track", "--strict", name, *more, env=strict)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (1, b"") and (b"\\udcff" in out if "--json" in more else shown in out.decode())
    about = pq.read_metadata(tmp_path / "x.parquet").metadata
    assert json.loads(about[b"inputs"]) == [shown] and about[b"file"].decode() == shown
    assert "cut\ufffd.pcap" in about[b"command"].decode()


def test_columns_interval_and_profile(synfin, capture, tmp_path):
    path = tmp_path / "x.parquet"
    assert synfin("track", capture, "-o", path, "--columns", "server_port, syn_first", "--profile", "lakehouse")[0] == 0
    schema = pq.read_schema(path)
    assert [(field.name, str(field.type)) for field in schema] == [
        ("server_port", "int32"), ("syn_first", "timestamp[us, tz=UTC]"), ("syn_first_ns", "int64"),
    ]  # fmt: skip
    assert synfin("track", capture, "-o", path, "--table", "intervals", "--interval", "100ms")[0] == 0
    assert set(pq.read_table(path)["interval_ns"].to_pylist()) == {100_000_000}


def test_workers_change_nothing_but_the_order_of_rows(synfin, capture, tmp_path):
    tables, summaries = [], []
    for workers in (1, 3):
        path = tmp_path / f"{workers}.parquet"
        code, out, _ = synfin("track", capture, "--workers", workers, "-o", path, "--table", "flows", "--json")
        summary = json.loads(out)
        assert code == 0
        tables.append(sorted(map(str, pq.read_table(path).drop_columns("first_seen").to_pylist())))
        summaries.append({name: summary[name] for name in summary if name not in ("seconds", "packets_per_second", "outputs")})
    assert tables[0] == tables[1] and len(tables[0]) == ROWS
    assert summaries[0] == summaries[1]


def test_rows_on_standard_output(synfin, capture):
    code, out, err = synfin("track", capture, "-o", "-", "--format", "jsonl", "--columns", "handshake")
    assert code == 0
    assert sorted(json.loads(line)["handshake"] for line in out.splitlines()) == HANDSHAKES
    assert f"{PACKETS} packets" in err


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_binary_rows_through_a_pipe(start, capture, kind):
    process = start("track", capture, "-o", "-", "--format", kind)
    data = process.communicate(timeout=60)[0]
    table = pq.read_table(pa.BufferReader(data)) if kind == "parquet" else pa.ipc.open_stream(data).read_all()
    assert process.returncode == 0 and sorted(table["handshake"].to_pylist()) == HANDSHAKES


def test_capture_from_standard_input(start):
    process = start("track", "-", "--json", stdin=subprocess.PIPE)
    out, _ = process.communicate(pcap_bytes(merge(*dialogues())), timeout=60)
    assert process.returncode == 0 and json.loads(out)["packets"] == PACKETS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["IN", "--idle-timeout", "soon"], "is not a duration"),
        (["IN", "--interval", "0"], "interval"),
        (["IN", "--no-such-option"], "--no-such-option"),
        (["IN", "-o", "x.csv", "--columns", "clientip"], "did you mean 'client_ip'"),
        (["IN", "-o", "rows", "--columns", "client_ip"], "--table"),
        (["IN", "--append"], "-o OUT"),
        (["IN", "--server-ports", "80-20"], "port"),
        (["IN", "--key", "mac"], "'vlan' and 'tunnel'"),
            (["IN", "--checksum", "maybe"], "verify"),
        (["IN", "-o", "x.dat"], "names no format"),
        (["IN", "-o", "IN", "--format", "csv"], "both input and output"),
        (["missing.pcap"], "missing.pcap"),
        (["."], "no files"),
        ([], "CAPTURE"),
    ],
)
def test_wrong_call_is_one_line_and_exit_2(synfin, capture, tmp_path_factory, arguments, message):
    folder = tmp_path_factory.mktemp("elsewhere")
    with contextlib.chdir(folder):
        code, out, err = synfin("track", *[capture if word == "IN" else word for word in arguments])
    assert (code, out) == (2, "")
    assert err.startswith("synfin: ") and err.count("\n") == 1 and message in err
    assert os.listdir(folder) == []


def test_not_a_capture(synfin, tmp_path):
    path = tmp_path / "notes.pcap"
    path.write_text("just a few words\n" * 10)
    code, out, err = synfin("track", path, "-o", tmp_path / "x.csv")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "notes.pcap" in err and "pcapng" in err
    assert os.listdir(tmp_path) == ["notes.pcap"]


def test_empty_capture_gives_an_empty_table(synfin, tmp_path):
    write_pcap(tmp_path / "e.pcap", [])
    code, out, _ = synfin("track", tmp_path / "e.pcap", "-o", tmp_path / "x.parquet")
    assert code == 0 and "0 packets" in out
    assert pq.read_table(tmp_path / "x.parquet").schema.names == default_names("flows")


def test_truncated_last_packet(synfin, capture, tmp_path):
    data = capture.read_bytes()
    (tmp_path / "cut.pcap").write_bytes(data[:-5])
    code, out, _ = synfin("track", tmp_path / "cut.pcap", "-o", tmp_path / "x.parquet")
    assert code == 0 and "cut.pcap" in out and f"{PACKETS - 1} packets" in out
    assert pq.read_metadata(tmp_path / "x.parquet").metadata[b"complete"] == b"true"
    assert synfin("track", tmp_path / "cut.pcap", "--strict")[0] == 1


def test_corrupt_block_keeps_what_was_read(synfin, capture, tmp_path):
    whole = capture.read_bytes()
    offset = len(whole)
    data = whole + struct.pack("<IIII", 1, 0, 0x7FFFFFFF, 0x7FFFFFFF) + b"\xff" * 4000
    (tmp_path / "bad.pcap").write_bytes(data)
    code, out, _ = synfin("track", tmp_path / "bad.pcap", "-o", tmp_path / "x.parquet")
    assert code == 1 and "INCOMPLETE" in out
    about = pq.read_metadata(tmp_path / "x.parquet").metadata
    assert about[b"complete"] == b"false" and about[b"reason"]
    assert about[b"file"].endswith(b"bad.pcap") and int(about[b"offset"]) == offset
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.num_rows == ROWS and "end_of_input" in table["end_reason"].to_pylist()


def test_set_with_bad_members(synfin, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(6):
        one = Dialogue(a_port=3000 + number, start=START + number * SECOND).handshake().close()
        (folder / f"{number}.pcap.gz").write_bytes(gzip.compress(pcap_bytes(one.packets)))
    cut = gzip.compress(pcap_bytes(Dialogue(a_port=4000, start=START + 9 * SECOND).handshake().close().packets))
    (folder / "7.pcap.gz").write_bytes(cut[: len(cut) // 2])
    (folder / "8.pcap").write_bytes(b"")
    (folder / "notes.txt").write_text("not a capture\n")
    (folder / "5.pcap").write_bytes(gzip.decompress((folder / "5.pcap.gz").read_bytes()))
    code, out, _ = synfin("track", folder, "--json", "-o", tmp_path / "x.parquet")
    summary = json.loads(out)
    assert code == 1 and not summary["complete"] and summary["accounting"]["holds"]
    assert summary["file"].endswith("7.pcap.gz") and summary["offset"] is not None
    assert summary["input"]["failed"] and len(summary["input"]["broken"]) >= 1
    named = " ".join(summary["input"]["warnings"])
    assert all(name in named for name in ("7.pcap.gz", "notes.txt", "5.pcap"))
    table = pq.read_table(tmp_path / "x.parquet")
    assert set(table["client_port"].to_pylist()) >= set(range(3000, 3006))
    about = pq.read_metadata(tmp_path / "x.parquet").metadata
    assert about[b"complete"] == b"false" and about[b"file"].endswith(b"7.pcap.gz")


def test_unwritable_output(synfin, capture, tmp_path):
    code, out, err = synfin("track", capture, "-o", tmp_path / "none/x.csv")
    assert (code, out) == (1, "") and err.count("\n") == 1 and "create the folder" in err
    code, _, err = synfin("track", capture, "-o", "/dev/full", "--format", "csv")
    assert code == 1 and err == "synfin: cannot write /dev/full: no space left on device; make room or choose another place\n"


def test_reader_that_leaves_early_is_quiet(start, tmp_path):
    packets = [packet for port in range(2000, 6000) for packet in _syn(port)]
    write_pcap(tmp_path / "many.pcap", packets)
    process = start("track", tmp_path / "many.pcap", "-o", "-", "--format", "jsonl")
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 1 and err == b""


def _syn(port):
    one = Dialogue(a_port=port)
    one.syn(one.a)
    return one.packets


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_writes_what_was_read(start, tmp_path, number, code):
    path = tmp_path / "x.parquet"
    process = start("track", "-", "-o", path, stdin=subprocess.PIPE)
    process.stdin.write(pcap_bytes(merge(*dialogues())))
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".x.parquet*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    assert process.wait(30) == code
    out = process.stdout.read().decode()
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()
    assert "INCOMPLETE: interrupted" in out
    about = pq.read_metadata(path).metadata
    assert about[b"complete"] == b"false" and about[b"reason"] == b"interrupted"
    assert os.listdir(tmp_path) == ["x.parquet"]


SLOW_DISK = """
import sys, time
from synfin.cli.main import main
from synfin.output import writer
def slow(path, sync=writer.sync):
    print("syncing", file=sys.stderr, flush=True)
    time.sleep(1)
    sync(path)
writer.sync = slow
main(sys.argv[1:])
"""


def test_a_signal_while_the_file_is_completed_costs_no_row(tmp_path):
    """Nothing is left to be broken off: all was read."""
    capture = tmp_path / "x.pcap"
    capture.write_bytes(pcap_bytes(merge(*dialogues())))
    line = [sys.executable, "-c", SLOW_DISK, "track", capture, "-o", tmp_path / "x.parquet"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr.readline() == "syncing\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 0 and "INCOMPLETE" not in out
    assert pq.read_metadata(tmp_path / "x.parquet").metadata[b"complete"] == b"true"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_first_packet_leaves_nothing(start, tmp_path, number, code):
    process = start("track", "-", "-o", tmp_path / "x.parquet", stdin=subprocess.PIPE)
    process.stdin.write(pcap_bytes([])[:10])
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while _unread(process.stdin) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    assert process.wait(30) == code
    err = process.stderr.read().decode().strip()
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()
    assert err == ("synfin: terminated" if number == signal.SIGTERM else "synfin: interrupted")
    assert os.listdir(tmp_path) == []


def _unread(pipe):
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_progress_only_on_a_terminal(start, tmp_path):
    head, records = pcap_bytes([]), pcap_bytes(merge(*dialogues()))[24:]
    ours, theirs = pty.openpty()
    process = start("track", "-", stdin=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    process.stdin.write(head)
    for _ in range(20):
        process.stdin.write(records * 200)
        process.stdin.flush()
        time.sleep(0.05)
    process.stdin.close()
    shown = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            shown += os.read(ours, 4096)
        except OSError:
            break
    os.close(ours)
    process.stdout.close()
    assert process.wait(30) == 0
    text = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode()
    assert re.search(r"[\d,]+ packets, [\d,]+/s, [\d,]+ live", text), text


def test_a_named_file_that_is_no_capture_fails_the_run_and_ends_nothing(synfin, capture, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("not a capture\n")
    code, out, _ = synfin("track", notes, capture, "--json", "-o", tmp_path / "x.parquet")
    summary = json.loads(out)
    assert code == 1 and not summary["complete"] and summary["packets"] == PACKETS
    assert [(item["path"], item["kind"]) for item in summary["input"]["broken"]] == [(str(notes), "not a capture")]
    assert (summary["file"], summary["reason"]) == (str(notes), "not a capture: it looks like text")
    assert pq.read_table(tmp_path / "x.parquet").num_rows == ROWS
    code, out, _ = synfin("track", notes, capture)
    assert code == 1 and "notes.txt: not a capture at byte offset 0: it looks like text" in " ".join(out.split())
    code, _, err = synfin("track", notes, "/dev/null")
    assert code == 2 and "notes.txt" in err and "looks like text" in err and "accepted are" in err


#: Sets the title of a terminal, by two kinds of introducer; and a byte that is no UTF-8.
OBEYED = b"a\x1b]0;owned\x07\xc2\x9d\x7f\xff.pcap"


@pytest.mark.parametrize(
    ("names", "option", "said"),
    [([b"caps"], "--workers=1", "skipped: "), ([OBEYED], "--workers=1", "synfin: "), ([b"caps"], "--json", "skipped"),
     ([b"in.pcap", OBEYED], "--workers=1", "INCOMPLETE: "), ([b"in.pcap"], "--a\x1b[2Jb", "synfin: ")],
)  # fmt: skip
def test_names_say_nothing_to_a_terminal(start, capture, names, option, said):
    """What it would obey is replaced, in the summary and in errors; also where output is strict."""
    here = os.fsencode(capture.parent)
    os.mkdir(here + b"/caps")
    shutil.copy(capture, here + b"/caps/good.pcap")
    for path in (here + b"/caps/" + OBEYED, here + b"/" + OBEYED):
        with open(path, "wb") as file:
            file.write(b"junk")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONIOENCODING", "utf-8:strict")
        out, err = start("track", *(os.fsdecode(here + b"/" + name) for name in names), option).communicate(timeout=60)
    told = (out + err).decode()
    assert said in told and "Traceback" not in told
    assert not [char for char in told if not char.isprintable() and char != "\n"]
    if option == "--json":
        assert os.fsdecode(OBEYED) in json.loads(out)["input"]["warnings"][0]
    elif option == "--workers=1":
        assert "a\ufffd]0;owned\ufffd\ufffd\ufffd\ufffd.pcap" in told


def test_a_folder_of_rows_says_nothing_to_a_terminal(synfin, capture, tmp_path):
    _, out, _ = synfin("track", capture, "-o", f"{tmp_path}/a\x1b[2Jb/")
    assert f"\nWritten: {tmp_path}/a\ufffd[2Jb/" in out
