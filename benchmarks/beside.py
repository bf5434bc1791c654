"""`synfin live` beside other programs on one cable: what each sees of the same packets, and the processor time that it takes.

Two namespaces and a veth pair. `send` offers a capture of the generator as fast as it can, in passes with other addresses; one
program at a time listens at the other end, and they take turns. A program's processor time is that from the moment before the
first packet to its end, the writing of what it has included and its start left out. What the kernel does to put a packet into a
ring is done in the sender's time, for all programs alike.

Debian packages: tcpdump, argus-server and argus-client, softflowd. What is not installed is left out and named.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cases import Case, generate
from measuring import HERE, Row, machine, record, wait
from peers import Peer, version_of

sys.path.insert(0, str(HERE.parent / "tools"))
from netns import Namespace, NotAllowed, become_root, veth

#: Short connections; and whole packets of connections that stay.
TRAFFIC = {
    "churn": Case("live-churn", 1_000_000, 5_000, 50, payload="small", mix="churn"),
    "full": Case("live-full", 500_000, 10_000, 10, snaplen=262144),
}
#: Seconds that a program has to begin, and to take what waits in its ring.
_START_S, _DRAIN_S, _LIMIT_S = 2.5, 1.5, 120
#: Every program's ring is as large as synfin's.
_RING_BYTES = 64 << 20


class Program(NamedTuple):
    """A program that listens on `vb`: its command in a folder of its own, its version, and how many packets it says that it
    saw, asked while it runs or read from what it printed and wrote. It ends by SIGINT, or by a command.
    """

    name: str
    makes: str
    command: Callable[[Path], list[object]]
    version: tuple[str, ...]
    saw: Callable[[Path, str], int]
    asked: Callable[[Path], str] | None = None
    stop: Callable[[Path], list[object]] | None = None


def _synfin(folder: Path) -> list[object]:
    return [sys.executable, "-m", "synfin", "live", "vb", "--ring", _RING_BYTES >> 20, "--json"]


def _of_summary(folder: Path, text: str) -> int:
    return json.loads(text[text.index("{\n") :])["packets"]


def _tcpdump(folder: Path, to: str | Path) -> list[object]:
    return ["tcpdump", "-i", "vb", "-n", "-B", _RING_BYTES >> 10, "-Z", "root", "-w", to]


def _of_tcpdump(folder: Path, text: str) -> int:
    return int(re.search(r"(\d+) packets captured", text)[1])


def _of_argus(folder: Path, text: str) -> int:
    done = subprocess.run(["racount", "-r", folder / "argus.out"], capture_output=True, text=True, check=True)
    return int(re.search(r"^\s*sum\s+\d+\s+(\d+)", done.stdout, re.MULTILINE)[1])


def _ask_softflowd(folder: Path) -> str:
    line = ["softflowctl", "-c", folder / "control", "statistics"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


PROGRAMS = (
    Program("synfin", "rows with all default columns, interval table, summary; nothing written", _synfin, (), _of_summary),
    Program("synfin to Parquet", "the same, both tables written",
            lambda folder: [*_synfin(folder), "-o", folder / "rows"], (), _of_summary),
    Program("tcpdump", "whole packets, handed to /dev/null; nothing is looked at",
            lambda folder: _tcpdump(folder, "/dev/null"), ("tcpdump", "--version"), _of_tcpdump),
    Program("tcpdump to a file", "whole packets, kept",
            lambda folder: _tcpdump(folder, folder / "kept.pcap"), ("tcpdump", "--version"), _of_tcpdump),
    Program("argus", "flows of both directions with states, losses and handshake times (-R), written to a file",
            lambda folder: ["argus", "-X", "-R", "-i", "vb", "-w", folder / "argus.out"], ("argus", "-h"), _of_argus),
    Program("softflowd", "flows of one direction, as NetFlow 9 to a port on the machine",
            lambda folder: ["softflowd", "-i", "vb", "-n", "127.0.0.1:9", "-v", "9", "-6", "-d", "-m", 2_000_000, "-B", _RING_BYTES,
                            "-p", folder / "pid", "-c", folder / "control"],
            ("softflowd", "-h"), lambda folder, text: int(re.search(r"Packets processed: (\d+)", text)[1]), _ask_softflowd,
            lambda folder: ["softflowctl", "-c", folder / "control", "shutdown"]),
)  # fmt: skip


class Result(NamedTuple):
    """One program on one flood: packets that were sent in how many seconds, those that it saw, processor seconds."""

    sent: int
    seconds: float
    seen: int
    cpu: float


def processor_s(pid: int) -> float:
    """Processor time of a process of ours so far: clock_getcpuclockid(3), written out."""
    return time.clock_gettime((~pid << 3) | 2)


def one(program: Program, capture: Path, folder: Path, words: list[object]) -> Result:
    """Let one program listen while the capture is sent."""
    with Namespace() as left, Namespace() as right:
        for namespace in (left, right):
            namespace.sysctl("ipv6/conf/default/disable_ipv6", 1)
        right.ip("link set lo up")
        with veth(left, "va", right, "vb"), (folder / "told").open("w+") as told:
            line = [str(word) for word in program.command(folder)]
            process = right.popen(line, stdin=subprocess.DEVNULL, stdout=told, stderr=subprocess.STDOUT)
            try:
                time.sleep(_START_S)
                before = processor_s(process.pid)
                line = [str(word) for word in (HERE / "build/send", *words, capture, "va")]
                sender = left.popen(line, stdout=subprocess.PIPE, text=True)
                said = json.loads(sender.communicate(timeout=_LIMIT_S)[0])
                time.sleep(_DRAIN_S)
                asked = program.asked(folder) if program.asked else ""
                if program.stop:
                    subprocess.run(program.stop(folder), check=True, capture_output=True)
                else:
                    process.send_signal(signal.SIGINT)
                usage = wait(process, time.perf_counter() + _LIMIT_S)
                if usage is None:
                    raise RuntimeError(f"{program.name} did not end")
            finally:
                if process.returncode is None:
                    process.kill()
                    process.wait()
            told.seek(0)
            seen = program.saw(folder, asked + told.read())
    return Result(said["sent"], said["seconds"], seen, usage.ru_utime + usage.ru_stime - before)


def installed() -> list[Program]:
    """The programs that are there, each with its version told; the others named."""
    found = []
    for program in PROGRAMS:
        version = version_of(Peer(program.name, "", lambda at: [], program.version), sys.executable)
        if version is None:
            print(f"{program.name} is not installed", flush=True)
        else:
            print(f"{program.name} ({version}): {program.makes}", flush=True)
            found.append(program)
    return found


HEAD = (
    "| capture | program | million packets/s offered | sent | seen | lost | cpu s | ns a packet seen | to synfin's, in one turn |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def line_of(name: str, program: str, runs: list[Result], base: list[Result]) -> str:
    """Medians of a program's runs; the last column is that of the ratios within each turn."""
    rate, sent, seen, cpu = (
        statistics.median(values)
        for values in zip(*((run.sent / run.seconds, run.sent, run.seen, run.cpu) for run in runs), strict=True)
    )
    each = statistics.median(run.cpu / run.seen for run in runs)
    ratio = statistics.median(
        (run.cpu / run.seen) / (first.cpu / first.seen) for run, first in zip(runs, base, strict=True)
    )
    return (
        f"| {name} | {program} | {rate / 1e6:.2f} | {sent:,.0f} | {seen:,.0f} | {100 * (sent - seen) / sent:.2g} % | {cpu:.2f} "
        f"| {1e9 * each:.0f} | {ratio:.1f} |"
    )


def measured(
    name: str, capture: Path, programs: list[Program], arguments: argparse.Namespace, raw: list[Row]
) -> list[str]:
    """Lines of the table for one capture."""
    words = ["--passes", arguments.passes, *(["--rate", arguments.rate] if arguments.rate else [])]
    results: dict[str, list[Result]] = {program.name: [] for program in programs}
    for turn in range(arguments.runs):
        for program in programs:
            folder = HERE / f"build/live-{os.getpid()}"
            folder.mkdir(parents=True)
            try:
                result = one(program, capture, folder, words)
            finally:
                shutil.rmtree(folder)
            results[program.name].append(result)
            raw.append({"capture": name, "program": program.name, "run": turn + 1, **result._asdict()})
    return [line_of(name, program, runs, next(iter(results.values()))) for program, runs in results.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure synfin live beside other programs on a veth pair.")
    parser.add_argument("--runs", type=int, default=5, help="turns (5)")
    parser.add_argument("--passes", type=int, default=6, help="how often a capture is sent in each (6)")
    parser.add_argument("--rate", type=float, help="packets a second (as many as go)")
    parser.add_argument("--only", nargs="+", choices=TRAFFIC, default=list(TRAFFIC), help="these captures")
    parser.add_argument("--programs", nargs="+", help="these programs; the first is what the others are held against")
    parser.add_argument("--folder", type=Path, default=HERE / "build/captures", help="where the captures are kept")
    parser.add_argument("--record", metavar="MACHINE", help="keep the run in benchmarks/runs/<date>-MACHINE-live")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    facts, raw = machine(), []
    try:
        become_root()
        with Namespace():
            pass
    except NotAllowed as reason:
        print(f"no live measurement here: {reason}")
        return
    programs = [program for program in installed() if not arguments.programs or program.name in arguments.programs]
    lines = [HEAD]
    print(HEAD, flush=True)
    for name in arguments.only:
        found = measured(name, generate(TRAFFIC[name], arguments.folder), programs, arguments, raw)
        print("\n".join(found), flush=True)
        lines += found
    if arguments.record:
        record(f"{arguments.record}-live", facts, "make bench-live", "\n".join([*lines, ""]), raw)


if __name__ == "__main__":
    main()
