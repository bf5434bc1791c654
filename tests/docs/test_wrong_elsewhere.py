"""docs/wrong-elsewhere.md: every command on the page prints what the page shows, in the versions that it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
import render_docs

ROOT = render_docs.ROOT
PAGE = (ROOT / "docs" / "wrong-elsewhere.md").read_text()
VERSIONS = dict(re.findall(r"^\| ([a-z, ]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE))
#: How a program tells its version, where it is not `--version`.
ASKED = {"tcptrace": "-v", "argus": "-h", "ra": "-h", "softflowd": "-h", "nfpcapd": "-V", "nfdump": "-V"}
COMMANDS = [
    part
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for part in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]


def programs(command: str) -> set[str]:
    """The tools of the page's table that a command runs."""
    words = {part.split()[0] for part in re.split(r"[|;]", command.partition(" -c ")[0]) if part.split()}
    named = {tool for tools in VERSIONS for tool in tools.split(", ")}
    return (words | {tool for tool in named if f'__import__("{tool}")' in command}) & named


def version_of(tool: str) -> str | None:
    """All that the tool says when it is asked for its version; None where it is not installed."""
    if tool == "nfstream":
        asked = ["python", "-c", "import nfstream; print(nfstream.__version__)"]
    else:
        asked = [tool, ASKED.get(tool, "--version")]
    if shutil.which(asked[0]) is None:
        return None
    run = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    return None if tool == "nfstream" and run.returncode else run.stdout + run.stderr


def test_the_page_is_read():
    """At least six cases, each with synfin's words beside another tool's; each tool of the table is run, and tshark most."""
    cases = PAGE.split("\n## ")[1:]
    assert len(cases) >= 6
    for case in cases:
        assert "$ synfin track" in case and re.search(r"^\$ (?!synfin)", case, re.MULTILINE) and "RFC" in case
    run = [tool for command, _ in COMMANDS for tool in programs(command)]
    assert set(run) == {tool for tools in VERSIONS for tool in tools.split(", ")}
    assert run.count("tshark") >= 5 and all(output.strip() for _, output in COMMANDS)


def name_of(command: str) -> str:
    """Which tool on which scenario."""
    tool = min(programs(command), default="synfin")
    return f"{tool}-{re.search(r'scenarios/([^/]*)/', command)[1]}"


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=[name_of(command) for command, _ in COMMANDS])
def test_a_command_prints_what_the_page_shows(command, shown, tmp_path):
    for tool in programs(command):
        wanted = next(version for tools, version in VERSIONS.items() if tool in tools.split(", "))
        said = version_of(tool)
        if said is None or not re.search(rf"(?<![\d.]){re.escape(wanted)}(?![\d.]*\d)", said):
            pytest.skip(f"the page shows {tool} {wanted}, which is not installed")
    line = re.sub(r"^synfin ", f"{sys.executable} -m synfin ", command).replace("TEMP", str(tmp_path))
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(
        ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "LC_ALL": "C", "PYTHONPATH": path},
    )  # fmt: skip
    assert [text.strip() for text in run.stdout.splitlines()] == [text.strip() for text in shown.splitlines()], (
        run.stderr
    )
