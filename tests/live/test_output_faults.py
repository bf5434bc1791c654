"""A live run whose disk is full, and one that is killed again and again, as processes on real interfaces."""

from __future__ import annotations

import random
import re
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from processes import TIMEOUT, end, sidecar, stored, until
from taps import send

from dialogue import Dialogue

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]

SMALL_DISK = Path(__file__).with_name("on_small_disk.py")
HURRY = ("--time-wait", "100ms", "--reorder", "0s")
WRITING = ".writing"


def talk(left, ports):
    """Connections that opened and closed."""
    send(left, "va", [packet.data for port in ports for packet in Dialogue(a_port=port).handshake().close().packets])


def asked(namespace, path):
    """Status line and body of what the endpoint answers."""
    with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(TIMEOUT)
        client.connect(("127.0.0.1", 9108))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = b"".join(iter(lambda: client.recv(65536), b"")).decode().partition("\r\n\r\n")
    return head.splitlines()[0], body


def metric(namespace, name):
    """A metric without labels, or the sum over them."""
    _, body = asked(namespace, "/metrics")
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", body, re.MULTILINE))


def test_disk_full(cable, tmp_path):
    """Tracking and metrics go on, log and readiness say so, and rows are written again when there is room; each row is in a
    file or was counted.
    """
    left, right = cable
    right.ip("link set lo up")
    disk = tmp_path / "disk"
    disk.mkdir()
    how = (disk, "4m", "vb", "-o", disk / "rows", "--metrics", 9108, "--table", "flows", *HURRY)
    try:
        run = sidecar(right, tmp_path, *how, program=(SMALL_DISK,))
        process, _ = run.__enter__()
    except AssertionError as error:
        if "not allowed: " in str(error):
            pytest.skip(str(error))
        raise
    try:
        seen = Path(f"/proc/{process.pid}/root") / disk.relative_to("/")
        filler = seen / "filler"

        def said(number):
            process.send_signal(signal.SIGHUP)  # a roll, so that what is written meets the disk
            time.sleep(0.3)
            return metric(right, "synfin_output_failing") == number

        talk(left, range(1000, 1100))
        until(lambda: said(0) and len(stored(seen / "rows", "flows")) == 100, "no rows")
        before = metric(right, "synfin_packets_total")
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(4096))
        talk(left, range(2000, 2100))
        until(lambda: said(1), "it passes for well")
        assert " 200 " in asked(right, "/healthz")[0]
        status, why = asked(right, "/readyz")
        assert " 503 " in status and "rows cannot be written" in why
        talk(left, range(3000, 3100))
        until(lambda: metric(right, "synfin_packets_total") == before + 2 * 700, "it does not track")
        until(lambda: metric(right, "synfin_output_rows_lost_total") >= 100, "rows that nobody lost")
        filler.unlink()
        until(lambda: said(0), "it does not try again")
        assert " 200 " in asked(right, "/readyz")[0]
        talk(left, range(4000, 4100))
        until(
            lambda: (
                said(0) and {row["client_port"] for row in stored(seen / "rows", "flows")} >= set(range(4000, 4100))
            ),
            "no rows",
        )
        lost = metric(right, "synfin_output_rows_lost_total")
        written = len(stored(seen / "rows", "flows"))
        code, _, err = end(process)
    finally:
        run.__exit__(None, None, None)
    assert lost > 0 and written + lost == 400
    assert "error output_failed" in err and "no space left on device" in err and "warning output_resumed" in err
    assert code == 1 and err.splitlines()[-1] == f"synfin: {lost:.0f} rows could not be written to {disk / 'rows'}"


def test_a_folder_that_fails_at_the_end(cable, tmp_path):
    """The last files find no place: the log says why before the last line says how many rows that costs."""
    left, right = cable
    with sidecar(right, tmp_path, "vb", "-o", tmp_path / "rows", "--roll", "1d", "--table", "flows") as (process, _):
        talk(left, range(1000, 1100))
        shutil.rmtree(tmp_path / "rows")
        code, _, err = end(process)
    *_, why, lines = err.splitlines()
    assert "error output_failed" in why and "no such file or directory" in why
    assert code == 1 and lines == f"synfin: 100 rows could not be written to {tmp_path / 'rows'}"


def test_port_that_is_taken(cable):
    """One line and exit code 2, before anything is tracked or written."""
    import subprocess
    import sys

    _, right = cable
    right.ip("link set lo up")
    with right.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("127.0.0.1", 9108))
        other.listen()
        process = right.popen(
            [sys.executable, "-m", "synfin", "live", "vb", "--metrics", "9108"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        out, err = process.communicate(timeout=TIMEOUT)
    line = "synfin: cannot serve metrics on 127.0.0.1:9108: it is taken; choose another port\n"
    assert (process.returncode, out, err) == (2, "", line)


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_random_moments_of_a_run(cable, tmp_path, kills, record_property):
    """While connections end all the time and files roll: every file under its name is whole, and the next start removes
    what was half written.
    """
    left, right = cable
    out, seed = tmp_path / "rows", random.randrange(1 << 30)
    chance = random.Random(seed)
    record_property("seed", seed)
    frames = [packet.data for port in range(1000, 1200) for packet in Dialogue(a_port=port).handshake().close().packets]
    over = threading.Event()

    def talk_on():
        while not over.wait(0.02):
            send(left, "va", frames)

    talking = threading.Thread(target=talk_on)
    talking.start()
    halves = rows = 0
    checked = set()
    try:
        for _ in range(kills):
            how = ("--roll", "1s", "--roll-rows", chance.choice([500, 5000]), "--time-wait", "20ms", "--reorder", "0s")
            with sidecar(right, tmp_path, "vb", "-o", out, *how) as (process, _):
                of_others = [p for p in (out / WRITING).rglob("*.tmp") if f".{process.pid}." not in p.name]
                assert of_others == [], seed
                time.sleep(chance.uniform(0, 1.5))
                process.kill()
                process.wait(TIMEOUT)
            halves += len([path for path in (out / WRITING).rglob("*.tmp") if path.is_file()])
            for path in set(out.rglob("part-*.parquet")) - checked:
                table = pq.read_table(path)  # all of it, and the footer
                assert table.num_rows > 0 and pq.read_metadata(path).metadata[b"complete"] == b"true", (seed, path)
                rows += table.num_rows
                checked.add(path)
    finally:
        over.set()
        talking.join()
    with sidecar(right, tmp_path, "vb", "-o", out) as (process, _):
        assert end(process)[0] == 0
    assert [path for path in (out / WRITING).rglob("*") if path.is_file()] == []
    record_property("half files removed", halves)
    record_property("complete files", len(checked))
    if kills > 10:
        assert halves and rows
