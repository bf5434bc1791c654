"""A live run that breaks: what it says, how it ends, and what it leaves to the next one."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from processes import TIMEOUT, end, sidecar, stored, until
from taps import send

from dialogue import Dialogue

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]

FAULTY = Path(__file__).with_name("faulty.py")
HURRY = ("--workers", 2, "--time-wait", "100ms", "--reorder", "0s")
WRITING = ".writing"


def talk(left, ports):
    """Connections that opened and closed."""
    send(left, "va", [packet.data for port in ports for packet in Dialogue(a_port=port).handshake().close().packets])


def ports_in(out):
    return {row["client_port"] for row in stored(out, "flows")}


def roll(process, manager, out, ports):
    """Give files their names until the rows of these connections are in them."""

    def there():
        process.send_signal(signal.SIGHUP)
        manager.wait_for("READY=1")
        time.sleep(1)  # the writing thread may be about to
        return ports <= ports_in(out)

    until(there, "rows that are not written")


def faulty(left, right, folder, fault, *arguments, **environ):
    """A run with a fault in its second worker, and with complete files of 40 connections."""
    return sidecar(right, folder, fault, "vb", "-o", folder / "rows", *HURRY, *arguments, program=(FAULTY,), **environ)


def files_of(out):
    """Content of the complete files."""
    return {path: path.read_bytes() for path in (out / "flows").rglob("part-*.parquet")}


def halves(out):
    return [path for path in (out / WRITING).rglob("*") if path.is_file()]


def in_the_middle(left, process, manager, out):
    """Bring the run to where some files are complete and another one is being written; the complete ones."""
    talk(left, range(1000, 1040))
    roll(process, manager, out, set(range(1000, 1040)))
    before = files_of(out)
    talk(left, range(2000, 2040))
    until(lambda: any(path.parent.name == "flows" for path in halves(out)), "no row is being written")
    return before


def goes_on(left, right, folder, before):
    """The next run takes the folder over: what was complete is untouched, what was half written is gone."""
    out = folder / "rows"
    with sidecar(right, folder, "vb", "-o", out, *HURRY) as (process, manager):
        assert halves(out) == []
        talk(left, range(3000, 3020))
        roll(process, manager, out, set(range(3000, 3020)))
        assert end(process)[0] == 0
    after = files_of(out)
    assert all(after[path] == content for path, content in before.items()) and len(after) > len(before)
    assert len(stored(out, "flows")) == len(ports_in(out))


def broken_off(left, right, folder, before, reason):
    """A run that broke kept its rows, in files that say that they are not all and why, and the next one takes over."""
    out = folder / "rows"
    assert halves(out) == []
    after = files_of(out)
    assert all(after[path] == content for path, content in before.items())
    metadata = pq.read_metadata(max(after.keys() - before.keys())).metadata
    assert (metadata[b"complete"], metadata[b"reason"]) == (b"false", reason)
    assert ports_in(out) & set(range(2000, 2040))
    goes_on(left, right, folder, after)


def test_worker_that_fails_ends_the_process(cable, tmp_path):
    """One line says which and why; what the others had tracked is written, and the files say that they are not all."""
    left, right = cable
    out = tmp_path / "rows"
    with faulty(left, right, tmp_path, "fails") as (process, manager):
        before = in_the_middle(left, process, manager, out)
        code, text, err = end(process, signal.SIGUSR1)
    assert (code, text, err) == (1, "", "synfin: worker 1 failed: LookupError: laid in\n")
    broken_off(left, right, tmp_path, before, b"worker 1 failed: LookupError: laid in")


def test_the_main_thread_breaks(cable, tmp_path):
    """A defect: its traceback is told, and the rows that had come get their names, in files that say that they are not all."""
    left, right = cable
    out = tmp_path / "rows"
    with faulty(left, right, tmp_path, "breaks") as (process, manager):
        before = in_the_middle(left, process, manager, out)
        code, text, err = end(process, signal.SIGUSR1)
    assert (code, text) == (1, "") and err.endswith("\nLookupError: laid in\n") and "Traceback" in err
    broken_off(left, right, tmp_path, before, b"synfin failed: LookupError: laid in")


def test_failure_is_an_event_of_a_json_log(cable, tmp_path):
    left, right = cable
    with faulty(left, right, tmp_path, "fails", "--log-format", "json") as (process, _):
        code, _, err = end(process, signal.SIGUSR1)
    *events, line = err.splitlines()
    assert code == 1 and line == "synfin: worker 1 failed: LookupError: laid in"
    (failed,) = [event for event in map(json.loads, events) if event["event"] == "failed"]
    assert (failed["level"], failed["reason"]) == ("error", "worker 1 failed: LookupError: laid in")
    assert "faulty.py" in failed["traceback"] and "LookupError" in failed["traceback"]


@pytest.mark.parametrize(
    "how",
    [signal.SIGKILL, *(pytest.param(how, marks=pytest.mark.slow) for how in ("segfaults", signal.SIGABRT, signal.SIGBUS))],
    ids=str,
)
def test_fatal_signal(cable, tmp_path, how):
    """The process dies of it, and says where its threads were; complete files stay."""
    left, right = cable
    out = tmp_path / "rows"
    with faulty(left, right, tmp_path, "segfaults") as (process, manager):
        before = in_the_middle(left, process, manager, out)
        number, sent = (signal.SIGSEGV, signal.SIGUSR1) if how == "segfaults" else (how, how)
        code, text, err = end(process, sent)
    assert (code, text) == (-number, "")
    if number == signal.SIGKILL:
        assert err == ""
    else:
        assert err.startswith("Fatal Python error: ") and "workers.py" in err
    goes_on(left, right, tmp_path, before)


@pytest.mark.slow
def test_watchdog_starves_when_a_worker_hangs(cable, tmp_path):
    """The service manager is told nothing more and ends the process as it does: by SIGABRT. Health says which worker."""
    left, right = cable
    right.ip("link set lo up")

    def health():
        with right.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(TIMEOUT)
            client.connect(("127.0.0.1", 9108))
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    with faulty(left, right, tmp_path, "hangs", "--metrics", 9108, WATCHDOG_USEC="1000000") as (process, manager):
        for _ in range(3):
            manager.wait_for("WATCHDOG=1")
        until(lambda: " 200 " in health().splitlines()[0], "it passes for ill")
        process.send_signal(signal.SIGUSR1)
        until(lambda: " 503 " in health().splitlines()[0], "it passes for healthy")
        assert "worker 1 has not moved for " in health()
        manager.forget()
        manager._socket.settimeout(3)
        with pytest.raises(TimeoutError):
            manager.wait_for("WATCHDOG=1")
        assert process.poll() is None
        code, _, err = end(process, signal.SIGABRT)
    assert code == -signal.SIGABRT and "Fatal Python error: Aborted" in err and "in hangs" in err
    goes_on(left, right, tmp_path, {})
