"""Speed and memory of `synfin track` on generated captures, beside a loop that only walks and counts (floor.c).

Every measurement is a process of its own: its processor time (user and system) and peak memory come from the kernel's
account of it. The time that synfin takes for an empty capture, its start-up, is taken off; the floor has none.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
EMPTY_PCAP = struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)


class Case(NamedTuple):
    """A capture to measure on: `connections` open at once, `span` seconds of capture time."""

    name: str
    packets: int
    connections: int
    span: int
    snaplen: int = 96
    ipv6_share: float = 0.1
    payload: str = "full"


class Usage(NamedTuple):
    """What one process took: seconds on the clock and on processors, bytes of memory at most."""

    wall: float
    cpu: float
    peak_bytes: int
    output: str


class Speed(NamedTuple):
    """A line of the table of speeds: medians in seconds, million packets per processor second, ratio to the floor."""

    capture: str
    what: str
    packets: int
    cpu: float
    wall: float
    mpps: float
    ratio: float


class Memory(NamedTuple):
    """A line of the table of memory: bytes for each live connection, from outside and as the tracker says it."""

    capture: str
    connections: int
    bytes_each: float
    tracker_each: float
    account: str


Row = dict[str, str | int]


def speed_cases(scale: float) -> list[Case]:
    """Few and many connections, snapped and whole packets, a burst and the same load over minutes."""
    sizes = (
        (20, "snapped", 4),
        (500, "snapped", 10),
        (20, "full", 2),
        (500, "full", 3),
    )  # thousands, millions of packets
    return [
        Case(
            f"{int(thousands * scale)}k-{cut}-{span}s",
            int(millions * 1_000_000 * scale),
            int(thousands * 1000 * scale),
            span,
            96 if cut == "snapped" else 262144,
        )
        for thousands, cut, millions in sizes
        for span in (1, 240)
    ]


def memory_cases(scale: float) -> list[tuple[Case, Case]]:
    """Connections with a complete handshake, data both ways and no loss: many, and the few that are taken off."""
    return [
        (
            Case(f"memory-{family}", int(9_000_000 * scale), int(1_000_000 * scale), 20, 96, share, "small"),
            Case(f"memory-{family}-few", 100_000, 1_000, 20, 96, share, "small"),
        )
        for family, share in (("ipv4", 0.0), ("ipv6", 1.0))
    ]


def measure(command: list[str | Path]) -> Usage:
    """Runs a command to its end. Raises RuntimeError if it fails."""
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{text}")
    return Usage(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, text)


def generate(case: Case, folder: Path) -> Path:
    """The case's capture, made unless this generator has made it before."""
    path = folder / f"{case.name}-{case.packets}.pcap"
    if path.exists() and path.stat().st_mtime > (HERE / "build/traffic").stat().st_mtime:
        return path
    parts = {
        "--packets": case.packets, "--connections-open": case.connections, "--span": case.span,
        "--snaplen": case.snaplen, "--ipv6-share": case.ipv6_share, "--payload": case.payload,
        "--mix": "longlived", "-o": path.with_suffix(".part"),
    }  # fmt: skip
    measure([HERE / "build/traffic", *(part for pair in parts.items() for part in pair)])
    path.with_suffix(".part").rename(path)
    return path


def commands(path: Path, folder: Path) -> dict[str, list[str | Path]]:
    """What is measured on a capture."""
    track = [sys.executable, "-m", "synfin", "track", path]
    return {
        "track": track,
        "copies counted": [*track, "--duplicates", "count"],
        "track to Parquet": [*track, "-o", folder / "bench.parquet"],
        "floor": [HERE / "build/floor", path],
    }


def bench_speed(cases: list[Case], folder: Path, runs: int, raw: list[Row]) -> list[Speed]:
    """One row for each capture and command: medians over `runs`, start-up taken off."""
    empty = folder / "empty.pcap"
    empty.write_bytes(EMPTY_PCAP)
    start = {name: repeat("empty", name, command, runs, raw) for name, command in commands(empty, folder).items()}
    start["floor"] = (0.0, 0.0)
    rows = []
    for case in cases:
        path = generate(case, folder)
        floor_cpu = None
        for name, command in reversed(commands(path, folder).items()):
            wall, cpu = (a - b for a, b in zip(repeat(case.name, name, command, runs, raw), start[name], strict=True))
            floor_cpu = floor_cpu or cpu  # the first of them
            rows.append(Speed(case.name, name, case.packets, cpu, wall, case.packets / cpu / 1e6, cpu / floor_cpu))
            print(speed_line(rows[-1]), flush=True)
    return rows


def repeat(capture: str, what: str, command: list[str | Path], runs: int, raw: list[Row]) -> tuple[float, float]:
    """Median wall and processor seconds; every single run goes to `raw`. The first run of a case only warms the cache."""
    measure(command)
    results = [measure(command) for _ in range(runs)]
    raw += [raw_row(capture, what, number, result) for number, result in enumerate(results, 1)]
    return statistics.median(r.wall for r in results), statistics.median(r.cpu for r in results)


_STATS = """
import json, sys, synfin
scan = synfin.scan(sys.argv[1])
for batch in scan:
    pass
print(json.dumps(scan.stats.get("memory")))
"""


def bench_memory(cases: list[tuple[Case, Case]], folder: Path, raw: list[Row]) -> list[Memory]:
    """Bytes for each live connection: peak memory with many of them less that with few, and what the tracker says."""
    rows = []
    for many, few in cases:
        peaks = []
        for case in (many, few):
            usage = measure([sys.executable, "-m", "synfin", "track", generate(case, folder)])
            peaks.append(usage.peak_bytes)
            raw.append(raw_row(case.name, "track", 1, usage))
        each = (peaks[0] - peaks[1]) / (many.connections - few.connections)
        parts = json.loads(measure([sys.executable, "-c", _STATS, generate(many, folder)]).output)
        account = ", ".join(f"{name} {size / many.connections:.0f}" for name, size in parts.items())
        rows.append(Memory(many.name, many.connections, each, sum(parts.values()) / many.connections, account))
        print(memory_line(rows[-1]), flush=True)
    return rows


def raw_row(capture: str, what: str, run: int, usage: Usage) -> Row:
    return {
        "capture": capture, "what": what, "run": run, "wall_s": f"{usage.wall:.4f}", "cpu_s": f"{usage.cpu:.4f}",
        "peak_bytes": usage.peak_bytes,
    }  # fmt: skip


def speed_line(row: Speed) -> str:
    return (
        f"| {row.capture:<17} | {row.what:<16} | {row.packets:>10,} | {row.cpu:>7.2f} | {row.wall:>7.2f} "
        f"| {row.mpps:>6.2f} | {row.ratio:>5.2f} |"
    )


def memory_line(row: Memory) -> str:
    return (
        f"| {row.capture:<17} | {row.connections:>11,} | {row.bytes_each:>10.0f} | {row.tracker_each:>11.0f} "
        f"| {row.account} |"
    )


SPEED_HEAD = (
    f"| {'capture':<17} | {'what':<16} | {'packets':>10} | {'cpu s':>7} | {'wall s':>7} | {'M/s':>6} | {'ratio':>5} |\n"
    f"| {'-' * 17} | {'-' * 16} | {'-' * 9}: | {'-' * 6}: | {'-' * 6}: | {'-' * 5}: | {'-' * 4}: |"
)
MEMORY_HEAD = (
    f"| {'capture':<17} | connections | bytes each | its account | of which |\n"
    f"| {'-' * 17} | ----------: | ---------: | ----------: | --- |"
)


def machine() -> dict[str, str]:
    """What the figures depend on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "processor": cpu,
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def record(folder: Path, summary: str, raw: list[Row], arguments: argparse.Namespace) -> None:
    """Keeps a run: its table, every measurement, and where and how it was made."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = "\n".join(f"- {name}: {value}" for name, value in machine().items())
    how = f"make -C benchmarks bench ARGS='--scale {arguments.scale:g} --runs {arguments.runs}'"
    (folder / "README.md").write_text(f"# One run of the benchmarks\n\n{facts}\n- command: `{how}`\n")
    (folder / "summary.md").write_text(summary)
    with (folder / "raw.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, raw[0].keys())
        writer.writeheader()
        writer.writerows(raw)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure synfin's speed and memory on generated captures.")
    parser.add_argument("--scale", type=float, default=1.0, help="of all packets and connections (1)")
    parser.add_argument("--runs", type=int, default=3, help="measurements of each command; the median counts (3)")
    parser.add_argument("--folder", type=Path, default=HERE / "build/captures", help="where the captures are kept")
    parser.add_argument("--only", metavar="TEXT", default="", help="captures whose name holds this")
    parser.add_argument("--record", metavar="MACHINE", help="keep the run in benchmarks/runs/<date>-MACHINE")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    raw: list[Row] = []
    summary = ""
    if speed := [case for case in speed_cases(arguments.scale) if arguments.only in case.name]:
        print(SPEED_HEAD)
        rows = bench_speed(speed, arguments.folder, arguments.runs, raw)
        summary += "\n".join([SPEED_HEAD, *map(speed_line, rows), ""])
    if memory := [pair for pair in memory_cases(arguments.scale) if arguments.only in pair[0].name]:
        print(MEMORY_HEAD)
        sizes = bench_memory(memory, arguments.folder, raw)
        summary += "\n".join(["", MEMORY_HEAD, *map(memory_line, sizes), ""])
    if arguments.record:
        record(HERE / "runs" / f"{datetime.date.today()}-{arguments.record}", summary, raw, arguments)


if __name__ == "__main__":
    main()
