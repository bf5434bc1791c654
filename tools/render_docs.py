"""Renders what can be generated in the documents: ``python tools/render_docs.py [--check]``.

A generated part stands between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``; the answers of docs/recipes.md, the
pictures in docs/images/ and Grafana's dashboard are generated, too. Without ``--check`` the files are rewritten. With it
nothing is written: what is stale is printed, and the exit status is 1. Needs the `test` group of pyproject.toml (DuckDB,
Polars, dpkt); the packet counts of display filters are refreshed only where tshark is installed.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import docs_dashboard
import docs_ladder
import docs_memory
import docs_metrics
import docs_recipes
import docs_states
import docs_top

from synfin.cli.columns import type_name
from synfin.schema import KEYS, SKIPS

ROOT = docs_recipes.ROOT
_PART = re.compile(r"(<!-- begin: ([\w-]+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)
#: What differs from run to run: times, and the speed that follows from them.
_TIMING = re.compile(r"in \d+\.\d\d s(?: \([\d,]+ packets/s\))?")


def command(*arguments: str, width: int = 80) -> str:
    """What ``synfin ARGUMENTS`` prints in a terminal of this width, run from the root of the repository."""
    environment = {**os.environ, "COLUMNS": str(width), "PYTHONPATH": str(ROOT / "src"), "LC_ALL": "C.UTF-8"}
    line = [sys.executable, "-m", "synfin", *arguments]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip("\n")


def console(*arguments: str, width: int = 80) -> str:
    """A command and its output as a block."""
    return f"```console\n$ synfin {' '.join(arguments)}\n{command(*arguments, width=width)}\n```"


def skips() -> str:
    """The names under which packets are skipped."""
    rows = [f"| `{name}` | {text} |" for name, text in SKIPS]
    other = "| `link_type_N` | Link type N (a LINKTYPE_ number), which is not decoded. |"
    return "\n".join(["| skip | meaning |", "| --- | --- |", *rows, other])


def budget() -> str:
    """Instructions for each packet as the guard has them (benchmarks/guard.py)."""
    stored = json.loads((ROOT / "benchmarks" / "budget.json").read_text())
    rows = [f"| {name} | {figure:,.0f} |" for name, figure in stored["instructions"].items()]
    return "\n".join([f"| workload ({stored['compiler']}) | instructions a packet |", "| --- | ---: |", *rows])


def keys() -> str:
    """The columns of the keys of tables by key."""
    rows = [
        f"| `{table}` | `{column.name}` | {type_name(column)} | {column.doc} |"
        for table, columns in KEYS.items()
        for column in columns
    ]
    return "\n".join(["| table | column | type | meaning |", "| --- | --- | --- | --- |", *rows])


PARTS: dict[str, Callable[[], str]] = {
    "demo": lambda: console("track", "examples", "--head", "30", width=100),
    "explain": lambda: console("explain", "examples/04-refused.pcap", width=100),
    "help": lambda: console("--help"),
    "help-track": lambda: console("track", "--help"),
    "help-explain": lambda: console("explain", "--help"),
    "help-extract": lambda: console("extract", "--help"),
    "help-live": lambda: console("live", "--help"),
    "help-top": lambda: console("top", "--help"),
    "help-verify": lambda: console("verify", "--help"),
    "help-columns": lambda: console("columns", "--help"),
    "help-completion": lambda: console("completion", "--help"),
    "flows": lambda: command("columns", "--format", "markdown"),
    "intervals": lambda: command("columns", "--table", "intervals", "--format", "markdown"),
    "keys": keys,
    "skips": skips,
    "memory": docs_memory.figure,
    "budget": budget,
    "metrics": docs_metrics.tables,
    "metric-labels": docs_metrics.labels,
    "metric-bounds": docs_metrics.bounds,
    "diagram": docs_states.diagram,
    "arrows": docs_states.arrows,
    "events": docs_states.events,
    "matrix": docs_states.matrix,
}


def rendered(text: str) -> str:
    """A document with fresh parts. A part that differs in nothing but times stays as it is."""

    def part(match: re.Match[str]) -> str:
        fresh = f"{match[1]}{PARTS[match[2]]()}\n{match[3]}"
        return match[0] if _TIMING.sub("", fresh) == _TIMING.sub("", match[0]) else fresh

    return _PART.sub(part, text)


def documents() -> dict[Path, str]:
    """Every file with generated parts, and its text as it should be."""
    wanted = {
        ROOT / "docs" / "images" / name: docs_ladder.ladder(ROOT / "examples" / capture)
        for name, capture in docs_ladder.LADDERS.items()
    }
    wanted[docs_top.PICTURE] = docs_top.picture()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        wanted[path] = rendered(path.read_text())
    wanted[docs_recipes.DOCUMENT] = docs_recipes.refreshed(wanted[docs_recipes.DOCUMENT])
    wanted[ROOT / "deploy" / "grafana" / "synfin-live.json"] = docs_dashboard.dashboard()
    return wanted


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    stale = 0
    for path, text in documents().items():
        old = path.read_text() if path.exists() else ""
        if text == old:
            continue
        stale += 1
        name = str(path.relative_to(ROOT))
        if check:
            sys.stdout.writelines(
                difflib.unified_diff(old.splitlines(True), text.splitlines(True), name, f"{name} (fresh)")
            )
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            print(f"refreshed {name}")
    if check and stale:
        print("Stale documents: run `make docs`.", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
