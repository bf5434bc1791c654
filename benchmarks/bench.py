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
    """A capture to measure on: `packets` at --scale 1, `connections` open at once, `span` seconds of capture time."""

    name: str
    packets: int
    connections: int
    span: int
    snaplen: int
    ipv6_share: float = 0.1
    payload: str = "full"

    def path(self, folder: Path, scale: float) -> Path:
        return folder / f"{self.name}-{scale:g}.pcap"


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

    family: str
    connections: int
    bytes_each: float
    tracker: str


Row = dict[str, str | int]

SPEED = [
    Case(f"{connections // 1000}k-{cut}-{span}s", packets, connections, span, snaplen)
    for cut, packets, snaplen in (("snapped", 4_000_000, 96), ("full", 2_000_000, 262144))
    for connections in (20_000, 500_000)
    for span in (1, 240)
]
#: Connections with a complete handshake, data both ways and no loss; the small ones are what is taken off.
MEMORY = {
    family: (
        Case(f"memory-{family}", 9_000_000, 1_000_000, 20, 96, share, "small"),
        Case(f"memory-{family}-few", 100_000, 1_000, 20, 96, share, "small"),
    )
    for family, share in (("ipv4", 0.0), ("ipv6", 1.0))
}


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


def generate(case: Case, folder: Path, scale: float) -> Path:
    """The case's capture, made unless this generator has made it before."""
    path = case.path(folder, scale)
    if path.exists() and path.stat().st_mtime > (HERE / "build/traffic").stat().st_mtime:
        return path
    parts = {
        "--packets": int(case.packets * scale), "--connections-open": int(case.connections * scale) or 1,
        "--span": case.span, "--snaplen": case.snaplen, "--ipv6-share": case.ipv6_share, "--payload": case.payload,
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
        "track to Parquet": [*track, "-o", folder / "bench.parquet"],
        "floor": [HERE / "build/floor", path],
    }


def bench_speed(folder: Path, runs: int, scale: float, raw: list[Row]) -> list[Speed]:
    """One row for each capture and command: medians over `runs`, start-up taken off."""
    empty = folder / "empty.pcap"
    empty.write_bytes(EMPTY_PCAP)
    start = {name: repeat("empty", name, command, runs, raw) for name, command in commands(empty, folder).items()}
    start["floor"] = (0.0, 0.0)
    rows = []
    for case in SPEED:
        path = generate(case, folder, scale)
        packets = int(case.packets * scale)
        floor_cpu = None
        for name, command in reversed(commands(path, folder).items()):
            wall, cpu = (a - b for a, b in zip(repeat(case.name, name, command, runs, raw), start[name], strict=True))
            floor_cpu = floor_cpu or cpu
            rows.append(Speed(case.name, name, packets, cpu, wall, packets / cpu / 1e6, cpu / floor_cpu))
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


def bench_memory(folder: Path, scale: float, raw: list[Row]) -> list[Memory]:
    """Bytes for each live connection: peak memory with many of them less that with few, and what the tracker says."""
    rows = []
    for family, (many, few) in MEMORY.items():
        peaks = {}
        for case in (many, few):
            path = generate(case, folder, scale)
            usage = measure([sys.executable, "-m", "synfin", "track", path])
            peaks[case] = usage.peak_bytes
            raw.append(raw_row(case.name, "track", 1, usage))
        more = int(many.connections * scale) - int(few.connections * scale)
        stats = json.loads(measure([sys.executable, "-c", _STATS, many.path(folder, scale)]).output)
        rows.append(Memory(family, int(many.connections * scale), (peaks[many] - peaks[few]) / more, str(stats)))
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
    return f"| {row.family:<6} | {row.connections:>11,} | {row.bytes_each:>10.0f} | {row.tracker} |"


SPEED_HEAD = (
    f"| {'capture':<17} | {'what':<16} | {'packets':>10} | {'cpu s':>7} | {'wall s':>7} | {'M/s':>6} | {'ratio':>5} |\n"
    f"| {'-' * 17} | {'-' * 16} | {'-' * 9}: | {'-' * 6}: | {'-' * 6}: | {'-' * 5}: | {'-' * 4}: |"
)
MEMORY_HEAD = (
    "| family | connections | bytes each | the tracker's own account |\n| ------ | ----------: | ---------: | --- |"
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
    parser.add_argument("--only", choices=["speed", "memory"], help="one half of it")
    parser.add_argument("--record", metavar="MACHINE", help="keep the run in benchmarks/runs/<date>-MACHINE")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    raw: list[Row] = []
    summary = ""
    if arguments.only != "memory":
        print(SPEED_HEAD)
        rows = bench_speed(arguments.folder, arguments.runs, arguments.scale, raw)
        summary += "\n".join([SPEED_HEAD, *map(speed_line, rows), ""])
    if arguments.only != "speed":
        print(MEMORY_HEAD)
        rows = bench_memory(arguments.folder, arguments.scale, raw)
        summary += "\n".join(["", MEMORY_HEAD, *map(memory_line, rows), ""])
    if arguments.record:
        record(HERE / "runs" / f"{datetime.date.today()}-{arguments.record}", summary, raw, arguments)


if __name__ == "__main__":
    main()
