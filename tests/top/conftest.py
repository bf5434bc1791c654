"""The example captures as an output folder with tables by key."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NS_PER_S = 1_000_000_000


def synfin(*arguments, **environ):
    """A command in a process of its own; what it did."""
    command = [sys.executable, "-m", "synfin", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environ}
    )


@pytest.fixture(scope="session")
def run():
    return synfin


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """Makes an output folder of the examples; more options may be given."""

    def make(*options):
        folder = tmp_path_factory.mktemp("rows") / "out"
        done = synfin("track", ROOT / "examples", "-o", folder, "--by", "service", "--by", "client", *options)
        assert done.returncode == 0, done.stderr
        return folder

    return make


@pytest.fixture(scope="session")
def folder(written):
    return written()
