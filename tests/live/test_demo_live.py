"""`make demo-live`: it shows gauges that equal the kernel's, leaves nothing behind, and says in one line why it cannot run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import demo_live
import pytest
from netns import NotAllowed

TOOL = Path(__file__).resolve().parents[2] / "tools" / "demo_live.py"


@pytest.mark.kernel
def test_the_demo(namespaces, tmp_path):
    done = subprocess.run(
        [sys.executable, str(TOOL)], capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "" and list(tmp_path.iterdir()) == []
    states = {line.split()[0]: [int(word) for word in line.split()[1:4]] for line in done.stdout.splitlines() if re.match(r"[A-Z-]+\d?  ", line)}  # fmt: skip
    assert states["ESTABLISHED"] == [50, 25, 25] and states["TIME-WAIT"] == [120, 40, 80]
    assert 'synfin_attempts_total{outcome="refused"} 10\n' in done.stdout
    assert "rows/flows/date=" in done.stdout and str(tmp_path) not in done.stdout


def test_gauges_that_differ_fail(monkeypatch, capsys):
    monkeypatch.setattr(demo_live, "become_root", lambda: None)
    monkeypatch.setattr(demo_live, "_demo", lambda folder: False)
    assert demo_live.main() == 1
    assert capsys.readouterr().out == "The gauges and the kernel differ.\n"


def test_one_line_where_it_is_not_allowed(monkeypatch, capsys):
    def refuse():
        raise NotAllowed("needs root or user namespaces (Operation not permitted)")

    monkeypatch.setattr(demo_live, "become_root", refuse)
    before = set(os.listdir(tempfile.gettempdir()))
    assert demo_live.main() == 0
    assert (
        capsys.readouterr().out
        == "demo-live cannot run here: needs root or user namespaces (Operation not permitted)\n"
    )
    assert not [name for name in set(os.listdir(tempfile.gettempdir())) - before if name.startswith("synfin-demo-")]
