"""The regression guard: instructions that the compiled core spends on a packet, against a stored budget.

callgrind counts instructions, so the figure is the same on a loaded machine and on a quiet one. Counted is what runs
inside functions of synfin's extension modules, the C library's functions that they call included; Python between them
is not. Of each workload's count that of an empty capture is taken off, and the rest is divided by the packets.

Seeds are fixed: the generator's, the index's (os.urandom is replaced) and Python's own hashes. Another compiler makes
other instructions of the same source, so a budget holds for the compiler that it names. Exit status 1: over budget.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cases import Case, generate
from measuring import EMPTY_PCAP, HERE

BUDGET = HERE / "budget.json"
TOLERANCE = 0.03
#: Every packet of another connection; all that a mix of talk has, losses included; openings and closes; SYNs alone.
WORKLOADS = (
    Case("guard-snap", 200_000, 20_000, 0.5),
    Case("guard-mixed", 200_000, 2_000, 60, payload="small", mix="standard"),
    Case("guard-churn", 100_000, 2_000, 60, payload="small", mix="churn"),
    Case("guard-flood", 100_000, 1_000, 0.5, random_syns=0.9),
)
_TRACK = "import os, sys; os.urandom = lambda size: b's' * size; from synfin.cli.main import main; sys.exit(main())"
#: Nothing that chance or the processor decides: the C library has its routines in several variants.
_FIXED = {
    "PYTHONHASHSEED": "0",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM",
}


def instructions(capture: Path) -> int:
    """Instructions within the compiled core for one run of `synfin track`. Raises RuntimeError if the run fails."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        command = [
            "valgrind", "--tool=callgrind", "--toggle-collect=__pyx_pw_6synfin*", f"--callgrind-out-file={out}",
            sys.executable, "-c", _TRACK, "track", str(capture), "--workers", "1",
        ]  # fmt: skip
        done = subprocess.run(command, env={**os.environ, **_FIXED}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"synfin under callgrind ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return total_of(out.read_text())


def total_of(profile: str) -> int:
    """The sum that a callgrind profile states for all its functions."""
    found = re.search(r"^totals: (\d+)$", profile, re.MULTILINE)
    if not found or found[1] == "0":
        raise RuntimeError("callgrind counted nothing: have the names of Cython's functions changed?")
    return int(found[1])


def compiler() -> str:
    """What the tracker's module was compiled with: the compiler's own note, without its release number."""
    import synfin._core.tracker as module

    note = re.search(rb"(GCC|clang)[^\0]*? (\d+)\.\d+", Path(module.__file__).read_bytes())
    return f"{note[1].decode()} {note[2].decode()}, {os.uname().machine}" if note else "unknown"


def measured(folder: Path) -> Iterator[tuple[str, float]]:
    """Instructions for each packet, workload by workload."""
    empty = folder / "guard-empty.pcap"
    empty.write_bytes(EMPTY_PCAP)
    start = instructions(empty)
    for case in WORKLOADS:
        yield case.name.removeprefix("guard-"), (instructions(generate(case, folder)) - start) / case.packets


def judged(figures: dict[str, float], budget: dict[str, float]) -> list[str]:
    """The workloads that need over TOLERANCE more than their budget, or have none."""
    return [name for name, figure in figures.items() if figure > budget.get(name, 0) * (1 + TOLERANCE)]


def line_of(name: str, figure: float, budget: float | None) -> str:
    change = f"{figure / budget - 1:+7.1%}" if budget else "    new"
    return f"| {name:<8} | {figure:>12.1f} | {budget or 0:>8.1f} | {change} |"


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare instructions for each packet with the budget.")
    parser.add_argument("--accept", action="store_true", help="store what is measured as the new budget")
    parser.add_argument("--folder", type=Path, default=HERE / "build/captures", help="where the captures are kept")
    arguments = parser.parse_args()
    if not shutil.which("valgrind"):
        print("guard skipped: it needs valgrind (Debian: apt install valgrind)")
        return 0
    arguments.folder.mkdir(parents=True, exist_ok=True)
    stored = json.loads(BUDGET.read_text()) if BUDGET.exists() else {"compiler": "", "instructions": {}}
    budget = stored["instructions"]
    print("| workload | instructions |   budget |  change |\n| -------- | -----------: | -------: | ------: |")
    figures = {}
    for name, figure in measured(arguments.folder):
        figures[name] = round(figure, 1)
        print(line_of(name, figure, budget.get(name)), flush=True)
    if arguments.accept:
        BUDGET.write_text(json.dumps({"compiler": compiler(), "instructions": figures}, indent=2) + "\n")
        print(f"accepted: {BUDGET.name} holds these figures now; commit it and say in the message what they buy")
        return 0
    if stored["compiler"] != compiler():
        print(f"guard skipped: the budget holds for {stored['compiler']}, this is {compiler()}")
        return 0
    if over := judged(figures, budget):
        print(
            f"over budget by more than {TOLERANCE:.0%}: {', '.join(over)}. `callgrind_annotate` shows where "
            "(docs/performance.md). If it must be: make guard ARGS=--accept"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
