"""`synfin top` as somebody sees it: the program itself, on a terminal of tmux."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from growing import rolled

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

TIMEOUT_S = 20.0
#: Raises where lines are made, after the first time.
CRASHING = """
import sys
from synfin.cli.main import main
from synfin.top import screen
def broken(*arguments, frame=screen.frame, calls=[], **how):
    calls.append(1)
    return frame(*arguments, **how) if len(calls) < 2 else 1 / 0
screen.frame = broken
main(sys.argv[1:])
"""


class Pane:
    """A shell on a terminal of its own."""

    def __init__(self, folder, width=80, height=24):
        self._place = tempfile.TemporaryDirectory(prefix="synfin-")  # the name of a socket is short
        self._tmux = ["tmux", "-S", f"{self._place.name}/tmux", "-f", "/dev/null"]
        self._modes = [folder / f"modes-{when}" for when in ("before", "after")]
        self._call(
            "new-session",
            "-d",
            "-x",
            str(width),
            "-y",
            str(height),
            "env",
            "-u",
            "COLUMNS",
            "-u",
            "LINES",
            "PS1=$ ",
            "sh",
        )
        self._save_modes(self._modes[0])

    def _call(self, *arguments):
        return subprocess.run(
            [*self._tmux, *arguments], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
        ).stdout

    def shell(self, line):
        self._call("send-keys", "-l", f"{line}\n")

    def _save_modes(self, path):
        self.until(lambda lines: lines and any(line.startswith("$") for line in lines))
        self.shell(f"clear; stty -a > {path}; echo saved")
        self.until(lambda lines: any(line.endswith("saved") for line in lines) and path.exists() and path.read_text())

    def start(self, *arguments, program=("-m", "synfin")):
        self.shell(shlex.join([sys.executable, *program, "top", *map(str, arguments)]) + "; echo ended $?")
        return self.until(lambda lines: lines[0].startswith("synfin top") and lines[-1].startswith("q quit"))

    def press(self, *keys):
        self._call("send-keys", *keys)

    def lines(self):
        return self._call("capture-pane", "-p").split("\n")[:-1]

    def until(self, condition):
        """The lines, once they are as they should be."""
        end = time.monotonic() + TIMEOUT_S
        while not condition(lines := self.lines()):
            assert time.monotonic() < end, "\n".join(lines)
            time.sleep(0.05)
        return lines

    def resize(self, width, height):
        self._call("resize-window", "-x", str(width), "-y", str(height))

    def process(self):
        shell = self._call("display-message", "-p", "#{pane_pid}").strip()
        return int(Path(f"/proc/{shell}/task/{shell}/children").read_text().split()[0])

    def check_sane(self, code):
        """The program has ended so, and the terminal is as it was: modes, page, cursor, echo."""
        self.until(lambda lines: f"ended {code}" in lines)
        self._save_modes(self._modes[1])
        assert not any(line.startswith(("CONNECTIONS", "q quit")) for line in self.lines())
        assert self._call("display-message", "-p", "#{alternate_on} #{cursor_flag}").split() == ["0", "1"]
        before, after = (path.read_text() for path in self._modes)
        assert before == after

    def close(self):
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, check=False, timeout=TIMEOUT_S)
        self._place.cleanup()


@pytest.fixture
def pane(tmp_path):
    panes = []

    def make(*size):
        panes.append(Pane(tmp_path, *size))
        return panes[-1]

    yield make
    for each in panes:
        each.close()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
def test_what_is_seen(pane, folder, run, width, height):
    """What a terminal shows is what a pipe gets of a terminal of that size, and the keys below."""
    lines = pane(width, height).start(folder)
    done = run("top", folder, COLUMNS=str(width), LINES=str(height - 1))
    printed = done.stdout.splitlines()
    assert done.returncode == 0 and done.stderr == "" and len(printed) > 10
    assert lines[1 : len(printed)] == printed[1:]
    assert not any(lines[len(printed) : -1]) and len(lines) == height
    assert lines[-1] == "q quit  space pause  ←→ sort  r reverse  w window  tab services/clients"
    assert " UTC, " in lines[0] and lines[0].endswith(" old  last 10 s")


def test_keys(pane, folder, run):
    terminal = pane()
    lines = terminal.start(folder)
    assert lines[13].startswith("SERVICES") and lines[14].startswith("by failed  ")
    terminal.press("Right")
    terminal.until(lambda lines: lines[14].startswith("by refused  ") and "refu-" in lines[13])
    terminal.press("Left", "Left")
    terminal.until(lambda lines: lines[14].startswith("by new  "))
    terminal.press("r")
    terminal.until(lambda lines: lines[14].startswith("by new, lowest  "))
    terminal.press("w")
    terminal.until(lambda lines: lines[0].endswith("last 60 s"))
    terminal.press("Tab")
    clients = run("top", folder, "--by", "client", "--window", "1m", "--sort", "new").stdout.splitlines()[15:23]
    terminal.press("r")
    terminal.until(lambda lines: lines[13].startswith("CLIENTS") and lines[15:23] == clients)
    terminal.press("q")
    terminal.check_sane(0)


def test_sizes(pane, folder):
    terminal = pane()
    narrow = terminal.start(folder)
    terminal.resize(200, 50)
    wide = terminal.until(lambda lines: len(lines) == 50 and lines[-1].startswith("q quit"))
    assert "RTT  newest interval" in wide[1] and wide[1].startswith("CONNECTIONS")
    terminal.resize(60, 12)
    small = terminal.until(lambda lines: len(lines) == 12 and lines[-1].startswith("q quit"))
    assert small[1:12] != narrow[1:12]
    terminal.resize(80, 24)
    terminal.until(lambda lines: lines[1:] == narrow[1:])
    terminal.press("q")
    terminal.check_sane(0)


def test_a_growing_folder_and_a_pause(pane, folder, tmp_path):
    appear = rolled(folder, tmp_path / "rows", 30)
    appear(0)
    terminal = pane()
    first = terminal.start(tmp_path / "rows")
    terminal.press("p")
    paused = terminal.until(lambda lines: lines[0].endswith("PAUSED"))
    appear(1)
    time.sleep(3)
    assert terminal.lines()[1:] == paused[1:] == first[1:]
    terminal.press("w")
    terminal.until(lambda lines: "last 30 s" in lines[0])
    terminal.press("Space")
    after = terminal.until(
        lambda lines: "PAUSED" not in lines[0] and "last 60 s" in lines[0] and lines[1:] != paused[1:]
    )
    appear(2)
    terminal.until(lambda lines: lines[1:] != after[1:])
    terminal.press("C-c")
    terminal.check_sane(0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it(pane, folder, number):
    terminal = pane()
    terminal.start(folder)
    os.kill(terminal.process(), number)
    terminal.check_sane(0)


def test_an_error_ends_it(pane, folder):
    """The message stands on the shell's page."""
    terminal = pane()
    terminal.start(folder, program=("-c", CRASHING))
    terminal.press("w")
    lines = terminal.until(lambda lines: "ended 1" in lines)
    assert any("ZeroDivisionError" in line for line in lines)
    terminal.check_sane(1)


def test_a_stop_and_on(pane, folder):
    """Ctrl-Z gives the terminal back, and fg takes it again."""
    terminal = pane()
    before = terminal.start(folder)
    terminal.shell("")  # no key
    terminal.press("C-z")
    terminal.until(lambda lines: any("ended 148" in line or "Stopped" in line for line in lines))
    terminal.shell("fg; echo ended $?")
    terminal.until(lambda lines: lines[1:] == before[1:])
    terminal.press("q")
    terminal.check_sane(0)
