"""`synfin live` as a service on real interfaces: workers, signals, what a manager is told, what is left of privileges."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from processes import end, sidecar, stored, until

import synfin
from dialogue import Dialogue
from synfin._core.batch import PacketBatch
from synfin.schema import FLOWS
from synfin.sources.captures import CaptureInput

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
#: What differs between a replay and its capture: instants, what follows from them, and where packets came from.
OWN = {c.name for c in FLOWS if c.kind == "instant" or c.name.endswith("_ns")} | {
    "flow_id", "interface", "first_file", "first_packet",
}  # fmt: skip
NET_RAW = 1 << 13


def packets_of(path):
    """Instants and frames of a capture."""
    batch, packets = PacketBatch(), []
    with CaptureInput([str(path)]) as source:
        while source.fill(batch):
            packets += [(packet[1], packet[0]) for packet in batch.packets()]
    return packets


def replay(namespace, interface, packets):
    """Send frames at the speed at which they were recorded."""
    with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((interface, 0))
        began, first = time.monotonic(), packets[0][0]
        for stamp, frame in packets:
            time.sleep(max(began + (stamp - first) / 1e9 - time.monotonic(), 0))
            sender.send(frame)


def send(namespace, interface, dialogues):
    """Send dialogues, one after another."""
    with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((interface, 0))
        for d in dialogues:
            for packet in d.packets:
                sender.send(packet.data)


def closed(count, port=20_000):
    """Connections that opened and closed."""
    return [Dialogue(a_port=port + which).handshake().close() for which in range(count)]


def comparable(rows):
    """What must be equal, in one order."""
    kept = [{name: value for name, value in row.items() if name.removesuffix("_ns") not in OWN and name not in OWN} for row in rows]
    return sorted(kept, key=lambda row: json.dumps(row, sort_keys=True, default=str))


@pytest.mark.parametrize(
    "name", ["12-ipv6.pcapng.gz", "13-busy-service.pcap", "17-doubled.pcap", "19-zero-window.pcap", "31-port-reuse.pcap"]
)
def test_a_replay_gives_the_rows_of_its_capture(cable, tmp_path, name):
    """By one worker and, beside it, by two: all of it equal but instants and where packets came from."""
    left, right = cable
    packets = packets_of(EXAMPLES / name)
    one, two = tmp_path / "one", tmp_path / "two"
    with (
        sidecar(right, tmp_path, "vb", "-o", one, "--json") as (first, _),
        sidecar(right, tmp_path, "vb", "-o", two, "--json", "--workers", 2) as (second, _),
    ):
        replay(left, "va", packets)
        summaries = []
        for process in (first, second):
            code, out, err = end(process)
            assert (code, err) == (0, "")
            summaries.append(json.loads(out))
    expected = comparable(synfin.scan(str(EXAMPLES / name)).to_pylist())
    assert comparable(stored(one, "flows")) == expected
    assert comparable(stored(two, "flows")) == expected
    for summary in summaries:
        assert summary["packets"] == len(packets) and summary["accounting"]["holds"] and summary["capture_drops"] == 0
    over_time = synfin.scan(str(EXAMPLES / name), table="intervals").to_pylist()
    for table in (stored(one, "intervals"), stored(two, "intervals")):
        for count in ("packets", "syns", "completed", "closed_fin", "retransmitted_segments"):
            assert sum(row[count] for row in table) == sum(row[count] for row in over_time), count
        assert len({row["interval_start"] for row in table}) == len(table)
        assert table[-1]["connections"] == summaries[0]["at_end"]["connections"]
    assert summaries[0]["at_end"] == summaries[1]["at_end"]


def test_workers_share_the_connections(cable, tmp_path):
    left, right = cable
    with sidecar(right, tmp_path, "vb", "-o", tmp_path / "rows", "--json", "--workers", 3) as (process, _):
        send(left, "va", closed(300))
        code, out, _ = end(process, signal.SIGINT)
    summary, rows = json.loads(out), stored(tmp_path / "rows", "flows")
    assert code == 0 and summary["packets"] == 300 * 7
    assert [(row["handshake"], row["close"]) for row in rows] == [("complete", "fin_4way")] * 300
    assert len({row["client_port"] for row in rows}) == 300


def test_a_hangup_rolls(cable, tmp_path):
    """Files have their final names after SIGHUP, and the run goes on."""
    left, right = cable
    out = tmp_path / "rows"
    with sidecar(right, tmp_path, "vb", "-o", out, "--time-wait", "200ms", "--reorder", "0s") as (process, manager):
        send(left, "va", closed(5))
        time.sleep(2.5)
        process.send_signal(signal.SIGHUP)
        manager.wait_for("RELOADING=1\nMONOTONIC_USEC=")
        manager.wait_for("READY=1")
        until(lambda: len(stored(out, "flows")) == 5, "the roll wrote no file")
        send(left, "va", closed(3, port=30_000))
        code, _, err = end(process)
        manager.wait_for("STOPPING=1")
    assert (code, err) == (0, "")
    files = sorted((out / "flows").rglob("*.parquet"))
    assert len(files) == 2 and len(stored(out, "flows")) == 8
    assert all(path.parent.name.startswith("hour=") and path.parent.parent.name.startswith("date=") for path in files)


def test_a_hangup_rereads_the_file(cable, tmp_path):
    left, right = cable
    out, file = tmp_path / "rows", tmp_path / "synfin.toml"
    file.write_text(f'interfaces = ["vb"]\noutput = "{out}"\nlog-format = "json"\ntime-wait = "200ms"\nreorder = "0s"\n')
    with sidecar(right, tmp_path, "--config", file) as (process, manager):
        for text in ("workers = 3\nroll-rows = 2\n", "rol = 3\n"):
            with file.open("a") as config:
                config.write(text)
            process.send_signal(signal.SIGHUP)
            manager.wait_for("RELOADING=1")
            manager.wait_for("READY=1")
        send(left, "va", closed(1))
        time.sleep(2)
        send(left, "va", closed(1, port=30_000))
        time.sleep(2)
        send(left, "va", closed(1, port=40_000))
        code, _, err = end(process)
    events = [json.loads(line) for line in err.splitlines()]
    named = {event["event"]: event for event in events}
    assert code == 0 and named["restart_needed"]["keys"] == "workers"
    assert named["not_reread"]["reason"] == f"{file}: there is no key 'rol'; is 'roll' meant?"
    assert len(stored(out, "flows")) == 3 and len(list((out / "flows").rglob("*.parquet"))) == 2


def test_interim_rows_without_their_table_are_not_reread(cable, tmp_path):
    left, right = cable
    file = tmp_path / "synfin.toml"
    file.write_text(f'interfaces = ["vb"]\noutput = "{tmp_path / "rows"}"\ntable = "intervals"\n')
    with sidecar(right, tmp_path, "--config", file) as (process, manager):
        with file.open("a") as config:
            config.write('interim = "1s"\n')
        process.send_signal(signal.SIGHUP)
        manager.wait_for("RELOADING=1")
        manager.wait_for("READY=1")
        send(left, "va", [Dialogue().handshake()])
        time.sleep(2.5)
        code, _, err = end(process)
    assert code == 0 and "not_reread" in err and "--interim writes rows of the flow table" in err


@pytest.fixture
def open_folder():
    """Makes folders that every user can write to, also above them."""
    with contextlib.ExitStack() as folders:

        def make():
            path = Path(folders.enter_context(tempfile.TemporaryDirectory()))
            path.chmod(0o777)
            return path

        yield make


def test_privileges_of_a_run(cable, open_folder):
    """Every thread has CAP_NET_RAW and nothing else, also as another user."""
    left, right = cable
    for user in ((), ("--user", "nobody")):
        out = open_folder()
        with sidecar(right, out, "vb", "--workers", 2, "-o", out / "rows", *user) as (process, _):
            tasks = [dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
                     for task in Path(f"/proc/{process.pid}/task").iterdir()]  # fmt: skip
            assert len(tasks) >= 3
            for status in tasks:
                assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == NET_RAW and int(status["CapBnd"], 16) == 0
                assert status["NoNewPrivs"] == "1" and (status["Uid"].split()[1] != "0") == bool(user)
            send(left, "va", closed(2))
            code, _, err = end(process)
        assert (code, err) == (0, "")
        assert len(stored(out / "rows", "flows")) == 2


def test_all_code_is_loaded_before_privileges_are_dropped(cable, tmp_path):
    """With everything that a run can do, progress on a terminal too."""
    left, right = cable
    right.ip("link set lo up")
    terminal, line = os.openpty()
    with os.fdopen(line, "wb"), os.fdopen(terminal, "rb", buffering=0) as screen:
        what = ("vb", "--workers", 2, "-o", tmp_path / "rows", "--metrics", 9108, "--roll", "1s", "--keep", "1h", "--interim", "1s",
                "--head", 3)  # fmt: skip
        with sidecar(right, tmp_path, *what, program=(Path(__file__).with_name("blind.py"),), stderr=line) as (process, _):
            for number in range(3):
                send(left, "va", closed(3, port=10_000 + 1000 * number))
                time.sleep(0.7)
            with right.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.connect(("127.0.0.1", 9108))
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert b"synfin_packets_total" in b"".join(iter(lambda: client.recv(65536), b""))
            process.send_signal(signal.SIGHUP)
            code, out, _ = end(process)
        os.set_blocking(terminal, False)
        seen = screen.read().decode()
    assert code == 0, seen
    assert "live" in seen and "late" not in seen and "Traceback" not in seen
    assert "complete" in out


def test_what_cannot_be(cable, tmp_path):
    import subprocess
    import sys

    def line(*arguments):
        process = cable[1].popen(
            [sys.executable, "-m", "synfin", "live", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        out, err = process.communicate(timeout=30)
        assert out == "" and len(err.splitlines()) == 1
        return process.returncode, err.strip()

    assert line("vb", "--user", "no-such-user") == (2, "synfin: there is no user 'no-such-user' (--user)")
    assert line() == (2, "synfin: name an interface: synfin live IFACE, or `interfaces` in the file of --config")
    assert line("vb", "--interim", "1s") == (
        2, "synfin: --interim is about the files of a local folder of Parquet; add -o FOLDER",
    )  # fmt: skip
    assert line("vb", "-o", tmp_path / "rows", "--table", "intervals", "--interim", "1s") == (
        2, "synfin: --interim writes rows of the flow table, which --table leaves out",
    )  # fmt: skip
    (tmp_path / "nobodys").mkdir(mode=0o700)
    assert line("vb", "-o", tmp_path / "nobodys" / "rows", "--user", "nobody")[1].endswith(
        "permission denied; choose another place; by then the run goes on as user nobody, without root's rights"
    )
    assert line("vb", "--workers", 2, "--max-memory", "1G")[1].startswith("synfin: a cap on memory")
    (tmp_path / "x.toml").write_text("ring = 1\n")
    assert line("vb", "--config", tmp_path / "x.toml") == (
        2, f"synfin: {tmp_path}/x.toml: ring: must be at least 2 and at most 65536, not 1",
    )  # fmt: skip


def test_the_watchdog_is_fed_while_all_is_well(cable, tmp_path):
    _, right = cable
    with sidecar(right, tmp_path, "vb", WATCHDOG_USEC="1000000") as (process, manager):
        began = time.monotonic()
        for _ in range(4):
            manager.wait_for("WATCHDOG=1")
        assert 1 < time.monotonic() - began < 5
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        manager._socket.settimeout(1.5)
        with pytest.raises(TimeoutError):
            while True:
                manager.wait_for("WATCHDOG=1")
        process.send_signal(signal.SIGCONT)
        manager.wait_for("WATCHDOG=1")
        assert end(process)[0] == 0


def test_metrics_of_a_run(cable, tmp_path):
    """Both workers, the output and the health are served, by a process that has no privileges any more."""
    left, right = cable
    right.ip("link set lo up")

    def get(path):
        with right.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            client.connect(("127.0.0.1", 9108))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    with sidecar(right, tmp_path, "vb", "--workers", 2, "--metrics", 9108, "-o", tmp_path / "rows") as (process, _):
        send(left, "va", [Dialogue(a_port=20_000 + which).handshake() for which in range(30)])

        def established():
            lines = [line for line in get("/metrics").splitlines() if line.startswith("synfin_ends{") and "ESTABLISHED" in line]
            return sum(float(line.split()[-1]) for line in lines)

        until(lambda: established() == 60, "both ends of 30 connections")
        assert " 200 " in get("/healthz").splitlines()[0] and " 200 " in get("/readyz").splitlines()[0]
        assert end(process)[0] == 0


class TestPython:
    """`synfin.live`: a stream of record batches."""

    def test_batches_while_it_runs(self, cable):
        left, right = cable
        with right.call(synfin.live, "vb", time_wait="100ms", reorder="0s") as stream:
            assert "flow_id" in stream.schema.names
            send(left, "va", closed(4))
            batches = iter(stream)
            assert next(batches).num_rows == 4
            stream.stop()
            assert sum(batch.num_rows for batch in batches) == 0
            assert stream.stats["packets"] == 28 and stream.drops == 0 and stream.warnings == []
            with pytest.raises(synfin.ConfigError, match="only once"):
                iter(stream)

    def test_an_arrow_stream(self, cable):
        left, right = cable
        stream = right.call(synfin.live, ["vb"], table="intervals", seconds=1.5, workers=2, columns=["syns", "packets"])
        threading.Timer(0.2, send, (left, "va", closed(3))).start()
        table = pa.RecordBatchReader.from_stream(stream).read_all()
        assert table.column_names == ["syns", "packets"] and sum(table["syns"].to_pylist()) == 3
        stream.close()

    def test_closing_ends_it(self, cable):
        _, right = cable
        threads = threading.active_count()
        stream = right.call(synfin.live, "vb", workers=2, table="intervals")
        with contextlib.closing(stream):
            threading.Timer(0.3, stream.stop).start()
            assert list(stream) == []
        assert threading.active_count() <= threads
        unused = right.call(synfin.live, "vb")
        unused.close()

    def test_wrong_calls(self, cable):
        with pytest.raises(synfin.CaptureOpenError, match="there is no interface 'eth7'"):
            cable[1].call(synfin.live, "eth7")
        with pytest.raises(synfin.ConfigError, match="no setting is called 'speed'"):
            synfin.live("vb", speed=3)
        with pytest.raises(synfin.ConfigError):
            synfin.live("vb", table="rows")
