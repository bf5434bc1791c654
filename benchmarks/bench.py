"""Speed and memory of `synfin track` on generated captures, beside a loop that only walks and counts (floor.c).

Every measurement is a process of its own: its processor time (user and system) and peak memory come from the kernel's
account of it. What the same command takes for an empty capture, its start-up, is taken off.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

from cases import CASES, Case, generate, memory_cases, speed_cases
from measuring import EMPTY_PCAP, HERE, Command, Row, alternate, machine, measure, raw_row, record


class Speed(NamedTuple):
    """A line of the table of speeds: medians in seconds, ratio to the floor, microseconds for each connection."""

    capture: str
    what: str
    packets: int
    connections: int
    cpu: float
    wall: float
    ratio: float
    peak_bytes: float


class Memory(NamedTuple):
    """A line of the table of memory: bytes for each live connection, from outside and as the tracker says it."""

    capture: str
    connections: int
    bytes_each: float
    tracker_each: float
    account: str


def commands(case: Case, path: Path, folder: Path) -> dict[str, Command]:
    """What is measured on a capture; the floor first."""
    track = [sys.executable, "-m", "synfin", "track", path, "--workers", "1"]
    chosen: dict[str, Command] = {"floor": [HERE / "build/floor", path], "track": track}
    if case.name == "slow":
        chosen["track to Parquet"] = [*track, "-o", folder / "bench.parquet"]
    if case.name == "syns":
        # A record for every SYN is what the cap is there against.
        chosen["track, capped"] = [*chosen.pop("track"), "--max-flows", str(max(case.packets // 20, 1))]
    return chosen


def bench_speed(cases: list[Case], folder: Path, runs: int, raw: list[Row]) -> list[Speed]:
    """One row for each capture and command: medians over `runs`, start-up taken off."""
    empty = folder / "empty.pcap"
    empty.write_bytes(EMPTY_PCAP)
    rows = []
    for case in cases:
        path = generate(case, folder)
        connections = int(re.search(r"(\d+) flows", measure([HERE / "build/floor", path]).output)[1])
        start = alternate("empty", commands(case, empty, folder), runs, raw)
        took = alternate(case.name, commands(case, path, folder), runs, raw)
        floor = took["floor"].cpu - start["floor"].cpu
        for name, used in took.items():
            cpu, wall = used.cpu - start[name].cpu, used.wall - start[name].wall
            rows.append(Speed(case.name, name, case.packets, connections, cpu, wall, cpu / floor, used.peak_bytes))
            print(speed_line(rows[-1]), flush=True)
    return rows


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
            usage = measure([sys.executable, "-m", "synfin", "track", generate(case, folder), "--workers", "1"])
            peaks.append(usage.peak_bytes)
            raw.append(raw_row(case.name, "track", 1, usage))
        each = (peaks[0] - peaks[1]) / (many.connections - few.connections)
        parts = json.loads(measure([sys.executable, "-c", _STATS, generate(many, folder)]).output)
        account = ", ".join(f"{name} {size / many.connections:.0f}" for name, size in parts.items())
        rows.append(Memory(many.name, many.connections, each, sum(parts.values()) / many.connections, account))
        print(memory_line(rows[-1]), flush=True)
    return rows


def speed_line(row: Speed) -> str:
    return (
        f"| {row.capture:<7} | {row.what:<16} | {row.packets:>10,} | {row.connections:>10,} | {row.cpu:>7.2f} "
        f"| {row.wall:>7.2f} | {row.packets / row.cpu / 1e6:>6.2f} | {row.cpu / row.packets * 1e9:>6.0f} "
        f"| {row.cpu / row.connections * 1e6:>7.2f} | {row.ratio:>6.2f} | {row.peak_bytes / 1e6:>7.0f} |"
    )


def memory_line(row: Memory) -> str:
    return (
        f"| {row.capture:<17} | {row.connections:>11,} | {row.bytes_each:>10.0f} | {row.tracker_each:>11.0f} "
        f"| {row.account} |"
    )


SPEED_HEAD = (
    f"| {'capture':<7} | {'what':<16} | {'packets':>10} | {'keys':>10} | {'cpu s':>7} | {'wall s':>7} | {'M/s':>6} "
    f"| {'ns':>6} | {'us/key':>7} | {'ratio':>6} | {'peak MB':>7} |\n"
    f"| {'-' * 7} | {'-' * 16} | {'-' * 9}: | {'-' * 9}: | {'-' * 6}: | {'-' * 6}: | {'-' * 5}: "
    f"| {'-' * 5}: | {'-' * 6}: | {'-' * 5}: | {'-' * 6}: |"
)
MEMORY_HEAD = (
    f"| {'capture':<17} | connections | bytes each | its account | of which |\n"
    f"| {'-' * 17} | ----------: | ---------: | ----------: | --- |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure synfin's speed and memory on generated captures.")
    parser.add_argument("--scale", type=float, default=1.0, help="of all packets and connections (1)")
    parser.add_argument("--runs", type=int, default=3, help="measurements of each command; the median counts (3)")
    parser.add_argument("--folder", type=Path, default=HERE / "build/captures", help="where the captures are kept")
    parser.add_argument("--only", nargs="+", choices=[*CASES, "memory"], default=[], help="these captures")
    parser.add_argument("--record", metavar="MACHINE", help="keep the run in benchmarks/runs/<date>-MACHINE")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    facts, raw, summary = machine(), [], ""
    if speed := speed_cases(arguments.scale, arguments.only):
        print(SPEED_HEAD)
        rows = bench_speed(speed, arguments.folder, arguments.runs, raw)
        summary += "\n".join([SPEED_HEAD, *map(speed_line, rows), ""])
    if not arguments.only or "memory" in arguments.only:
        print(MEMORY_HEAD)
        sizes = bench_memory(memory_cases(arguments.scale), arguments.folder, raw)
        summary += "\n".join(["", MEMORY_HEAD, *map(memory_line, sizes), ""])
    if arguments.record:
        how = f"make -C benchmarks bench ARGS='--scale {arguments.scale:g} --runs {arguments.runs}'"
        record(arguments.record, facts, how, summary, raw)


if __name__ == "__main__":
    main()
