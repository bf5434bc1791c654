"""Small captures, and the command run in this process or in its own."""

import os
import signal
import subprocess
import sys

import pytest
from small import PACKETS, dialogues

from dialogue import merge, write_pcap
from synfin.cli.main import main


@pytest.fixture
def capture(tmp_path):
    """A pcap with ROWS connections in PACKETS packets."""
    packets = merge(*dialogues())
    assert len(packets) == PACKETS
    return write_pcap(tmp_path / "in.pcap", packets)


@pytest.fixture
def synfin(capfd, monkeypatch):
    """Run the command here; returns (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["synfin", *map(str, arguments)])
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return leaving.value.code, out, err

    return run


@pytest.fixture
def start():
    """Start the command in a process of its own."""

    def run(*arguments, **how):
        command = [sys.executable, "-m", "synfin", *map(str, arguments)]
        # Of a shell's background job, SIGINT would be ignored.
        heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": heard, "env": os.environ, **how}
        return subprocess.Popen(command, **how)

    return run
