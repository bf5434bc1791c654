"""`synfin top` on an interface: the numbers of what passes, and nothing else of the machine touched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time

import pytest
from processes import end, sidecar, until
from taps import send

from dialogue import Dialogue

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]


def start(namespace, *arguments, workers=1):
    """`synfin top` in a process, once it listens."""
    process = namespace.popen(
        [sys.executable, "-m", "synfin", "top", "vb", "--once", "--workers", str(workers), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "80", "LINES": "40"},
    )  # fmt: skip
    # Each worker's socket makes the interface promiscuous once.
    listening = f"promiscuity {workers}"
    until(
        lambda: process.poll() is not None or listening in namespace.run(["ip", "-d", "link", "show", "vb"]),
        "it does not listen",
    )
    return process


def frames(dialogues):
    return [packet.data for dialogue in dialogues for packet in dialogue.packets]


def numbers(text):
    """The numbers of the panels by their labels."""
    cells = re.findall(r"(?:^|\s)([A-Za-z][A-Za-z-]*(?:[ -][A-Za-z12]+)*)\s+([\d.,]+)(?=\s|$)", text)
    return {label: float(value.replace(",", "")) for label, value in cells}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_numbers_of_what_passes(cable, workers):
    """Gauges of connections that stay open, closed ones in TIME-WAIT, and rates of what happened."""
    left, right = cable
    window_s = 4
    process = start(right, "--window", f"{window_s}s", "--sort", "connections", workers=workers)
    is_open = [Dialogue(a_port=20_000 + which, b_port=443).handshake() for which in range(30)]
    is_closed = [Dialogue(a_port=30_000 + which, b_port=80).handshake().close() for which in range(12)]
    unanswered = [Dialogue(a_port=40_000 + which, b_port=81) for which in range(7)]
    for dialogue in unanswered:
        dialogue.syn(dialogue.a)
    everything = frames([*is_open, *is_closed, *unanswered])
    threading.Timer(0.5, send, (left, "va", everything)).start()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    title, *lines = out.splitlines()
    assert title.startswith("synfin top vb") and f"last {window_s} s" in title
    assert (f"({workers} workers)" in title) == (workers > 1)
    found = numbers("\n".join(lines))
    assert found["connections"] == 30 + 7 and found["opening"] == 7 and found["ESTABLISHED"] == 60
    assert found["TIME-WAIT"] == 12 and found["SYN-SENT"] == 7 and found["half-open"] == 0
    # Rates are shown with three digits or so.
    assert found["SYNs"] * window_s == pytest.approx(49, abs=window_s) and found["new"] * window_s == pytest.approx(
        42, abs=window_s
    )
    assert found["packets"] * window_s == pytest.approx(len(everything), abs=window_s)
    at = next(number for number, line in enumerate(lines) if line.startswith("by connections"))
    rows = [line.split() for line in lines[at + 1 :]]
    assert [row[1:4] for row in rows] == [["30", "0", "0"], ["7", "0", "0"], ["0", "0", "12"]]
    assert [row[0].rpartition(":")[2] for row in rows] == ["443", "81", "80"]


def test_the_folder_of_a_run(cable, tmp_path):
    """What a sidecar has written so far, after its last roll."""
    left, right = cable
    rows = tmp_path / "rows"
    with sidecar(right, tmp_path, "vb", "-o", rows, "--roll", "1s", "--by", "service", "--by", "client") as (
        process,
        _,
    ):
        send(left, "va", frames([Dialogue(a_port=20_000 + which, b_port=443).handshake() for which in range(30)]))

        def shown():
            done = subprocess.run(
                [sys.executable, "-m", "synfin", "top", rows], capture_output=True, text=True, check=False
            )
            # The files of a roll get their names one by one.
            return done.stdout if numbers(done.stdout).get("connections") == 30 and ":443" in done.stdout else None

        text = until(shown, "the connections are not shown")
        services = text[text.index("SERVICES") :].splitlines()[2:]
        assert [line.split()[:2] for line in services] == [["10.0.0.2:443", "30"]]
        assert end(process)[0] == 0


@pytest.mark.slow
def test_an_idle_link(cable):
    """It says that nothing came, and ends when it was told to."""
    _, right = cable
    process = start(right, "--window", "1s")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (1, "", "synfin: vb: no packets came\n")


def test_no_such_interface(cable):
    _, right = cable
    process = right.popen(
        [sys.executable, "-m", "synfin", "top", "vc"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, err = process.communicate(timeout=30)
    assert (
        process.returncode == 2
        and out == ""
        and err.startswith("synfin: 'vc' is neither a folder nor an interface; interfaces are lo, vb")
    )


class TestFeed:
    """The interfaces as a source of rows, in this process."""

    @pytest.fixture
    def feed(self, cable):
        from synfin.settings import Settings
        from synfin.sidecar.config import LiveConfig
        from synfin.top import interfaces

        feeds = []

        def make(**settings):
            config = LiveConfig(("vb",), Settings(by=("service", "client"), reorder=0, **settings), workers=2)
            # Privileges of the tests' own process are kept.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(interfaces.privileges, "drop", lambda user: [])
                feeds.append(cable[1].call(interfaces.Interfaces, config, 300 * 1_000_000_000))
            return feeds[-1]

        yield make
        for each in feeds:
            each.close()

    def test_what_has_no_row_was_empty(self, cable, feed):
        """Once all is over, gauges and rates fall to 0 although no row says so."""
        from synfin.top.figures import figures
        from synfin.top.history import History

        second = 1_000_000_000
        source = feed(time_wait=second // 2, reset_linger=second // 2)
        send(cable[0], "va", frames([Dialogue(a_port=20_000 + which).handshake().close() for which in range(5)]))
        history, seen = History(300 * second), []

        def over():
            nonlocal history
            for table, rows in source.take():
                history = history.with_rows(table, rows)
            of = figures(history, second, source.end_ns)
            if of is not None:
                seen.append((of.now["time_wait"], of.rate["packets"]))
            return seen and seen[-1] == (0, 0) and max(rate for _, rate in seen) > 0

        until(over, "it does not end")
        assert max(rate for _, rate in seen) <= 35 and source.notice == ""

    def test_it_ends_its_threads(self, feed):
        before = set(threading.enumerate())
        source = feed()
        time.sleep(0.3)
        assert len(set(threading.enumerate()) - before) >= 3
        source.close()
        assert not [thread for thread in set(threading.enumerate()) - before if thread.is_alive()]
        source.close = lambda: None

    def test_an_interface_that_goes(self, cable, feed):
        source = feed()
        cable[1].ip("link set vb down")
        until(lambda: source.notice == "vb is down", "it does not say so")
        cable[1].ip("link set vb up")
        until(lambda: source.notice == "", "it does not say so")
