"""How cost grows with packets and with connections, for synfin and for the floor; charts and a table.

Connections are open at once, and every packet belongs to another one than the packet before it. The marks are where
what they take, by this run's own memory figures, no longer fits into a level of cache.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import chart
from cases import Case, generate
from measuring import EMPTY_PCAP, HERE, Medians, Row, alternate, cache_bytes, machine, record

#: Packets for each connection: an opening takes 3, so that most of the time is not spent there.
_PACKETS_EACH = 10
_LEAST_PACKETS = 2_000_000


class Point(NamedTuple):
    """A capture and what it took; start-up taken off."""

    packets: int
    connections: int
    track: Medians
    floor: Medians


def connection_cases(most: int) -> list[Case]:
    """1,000 connections, and more up to `most`, at 1, 2, 5 in each power of ten."""
    counts = [step * 10**power for power in range(3, 8) for step in (1, 2, 5)]
    return [
        Case(f"grow-{count}", max(_LEAST_PACKETS, _PACKETS_EACH * count), count, 160)
        for count in counts if count <= most
    ]  # fmt: skip


def packet_cases(most: int) -> list[Case]:
    """1 million packets of 20,000 connections, and more up to `most`."""
    counts = [step * 10**power for power in (6, 7, 8) for step in (1, 2, 5)]
    return [Case(f"long-{count}", count, 20_000, 160) for count in counts if count <= most]


def measured(cases: list[Case], folder: Path, runs: int, raw: list[Row], keep: bool) -> list[Point]:
    """One point for each capture, which is removed afterwards unless `keep`."""
    empty = folder / "empty.pcap"
    empty.write_bytes(EMPTY_PCAP)
    programs = {"track": [sys.executable, "-m", "synfin", "track"], "floor": [HERE / "build/floor"]}
    start = alternate("empty", {name: [*program, empty] for name, program in programs.items()}, runs, raw)
    points = []
    for case in cases:
        path = generate(case, folder)
        took = alternate(case.name, {name: [*program, path] for name, program in programs.items()}, runs, raw)
        less = {
            name: Medians(*(max(a - b, 0) for a, b in zip(took[name], start[name], strict=True))) for name in programs
        }
        points.append(Point(case.packets, case.connections, less["track"], less["floor"]))
        print(line_of(points[-1]), flush=True)
        if not keep:
            path.unlink()
    return points


def line_of(point: Point) -> str:
    each = [used.cpu / point.packets * 1e9 for used in (point.track, point.floor)]
    return (
        f"| {point.packets:>11,} | {point.connections:>11,} | {point.track.cpu:>7.2f} | {each[0]:>7.1f} "
        f"| {each[1]:>7.1f} | {point.track.peak_bytes / 1e6:>8.0f} |"
    )


HEAD = (
    f"| {'packets':>11} | connections | {'cpu s':>7} | {'ns':>7} | {'floor':>7} | {'MB':>8} |\n"
    f"| {'-' * 10}: | ----------: | {'-' * 6}: | {'-' * 6}: | {'-' * 6}: | {'-' * 7}: |"
)


def leaves(points: list[Point]) -> dict[str, float]:
    """Connections with which the tracker's memory is as large as each level of cache."""
    most = points[-1]
    each = most.track.peak_bytes / most.connections
    return {f"out of {level}": size / each for level, size in cache_bytes().items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how cost grows with packets and connections.")
    parser.add_argument("--packets", type=int, default=100_000_000, help="at most (100,000,000: 10 GB on disk)")
    parser.add_argument("--connections", type=int, default=5_000_000, help="at most (5,000,000)")
    parser.add_argument("--runs", type=int, default=3, help="measurements of each; the median counts (3)")
    parser.add_argument("--keep", action="store_true", help="keep the captures")
    parser.add_argument("--folder", type=Path, default=HERE / "build/captures", help="where the captures are kept")
    parser.add_argument("--record", metavar="MACHINE", help="keep the run in benchmarks/runs/<date>-MACHINE-growth")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    facts, raw = machine(), []
    print(HEAD)
    how = arguments.folder, arguments.runs, raw, arguments.keep
    by_packets = measured(packet_cases(arguments.packets), *how)
    by_connections = measured(connection_cases(arguments.connections), *how)
    if not arguments.record:
        return
    summary = "\n".join([HEAD, *map(line_of, [*by_packets, *by_connections]), ""])
    command = f"make -C benchmarks growth ARGS='--packets {arguments.packets} --connections {arguments.connections}'"
    folder = record(f"{arguments.record}-growth", facts, command, summary, raw)
    picture = chart.lines(
        "Processor time for each packet",
        {
            "synfin": [(p.connections, p.track.cpu / p.packets * 1e9) for p in by_connections],
            "bare loop": [(p.connections, p.floor.cpu / p.packets * 1e9) for p in by_connections],
        },
        ("connections open at once", "ns"), leaves(by_connections), chart.note(facts),
    )  # fmt: skip
    (folder / "connections.svg").write_text(picture)
    picture = chart.lines(
        "Processor time, 20,000 connections",
        {
            "synfin": [(p.packets, p.track.cpu) for p in by_packets],
            "bare loop": [(p.packets, p.floor.cpu) for p in by_packets],
        },
        ("packets", "s"), {}, chart.note(facts),
    )  # fmt: skip
    (folder / "packets.svg").write_text(picture)


if __name__ == "__main__":
    main()
