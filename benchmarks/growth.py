"""How cost grows with packets and with connections, for synfin and for the floor; charts and a table.

Connections are open at once, and every packet belongs to another one than the packet before it. For each number of them
there are two captures: one that ends soon after all are open, and one with more packets. Their difference is what a
packet of an open connection takes; the first alone is what a connection takes, its opening and its row.
The marks are where what the connections take, by this run's own memory figures, no longer fits into a level of cache.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import chart
from cases import Case, generate
from measuring import EMPTY_PCAP, HERE, Medians, Row, alternate, cache_bytes, machine, record

#: Packets for each connection while all of them open: three of the opening, and what few of them say meanwhile.
_OPENING_PACKETS = 4
_LEAST_PACKETS = 200_000  # of fewer the time is lost in the noise


class Point(NamedTuple):
    """What a capture took, start-up taken off, and what the same connections took with `more` packets."""

    connections: int
    packets: int
    more: int
    track: tuple[Medians, Medians]
    floor: tuple[Medians, Medians]

    def packet_ns(self, took: tuple[Medians, Medians]) -> float:
        """Nanoseconds for a packet of an open connection; at least 1, since noise may be larger than the difference."""
        return max((took[1].cpu - took[0].cpu) / self.more * 1e9, 1.0)


def connection_counts(most: int) -> list[int]:
    """1,000 connections, and more up to `most`, at 1, 2, 5 in each power of ten."""
    return [count for power in range(3, 8) for step in (1, 2, 5) if (count := step * 10**power) <= most]


def packet_counts(most: int) -> list[int]:
    """1 million packets, and more up to `most`."""
    return [count for power in (6, 7, 8) for step in (1, 2, 5) if (count := step * 10**power) <= most]


class Lab(NamedTuple):
    """Where captures lie, how often each is measured, where single runs are noted, whether captures are kept."""

    folder: Path
    runs: int
    raw: list[Row]
    keep: bool

    def measured(self, case: Case) -> dict[str, Medians]:
        """Both programs on a capture, start-up taken off; the capture is removed afterwards unless `keep`."""
        empty = self.folder / "empty.pcap"
        empty.write_bytes(EMPTY_PCAP)
        path = generate(case, self.folder)
        programs = {"track": [sys.executable, "-m", "synfin", "track", "--workers", "1"], "floor": [HERE / "build/floor"]}
        start, took = (
            alternate(name, {key: [*program, file] for key, program in programs.items()}, self.runs, self.raw)
            for name, file in (("empty", empty), (case.name, path))
        )
        if not self.keep:
            path.unlink()
        return {
            name: Medians(*(max(a - b, 0) for a, b in zip(took[name], start[name], strict=True))) for name in programs
        }

    def by_connections(self, most: int) -> Iterator[Point]:
        for count in connection_counts(most):
            opening, more = max(_OPENING_PACKETS * count, _LEAST_PACKETS), max(2_000_000, 6 * count)
            short, long = (self.measured(Case("grow", packets, count, 160)) for packets in (opening, opening + more))
            yield Point(count, opening, more, (short["track"], long["track"]), (short["floor"], long["floor"]))

    def by_packets(self, most: int) -> Iterator[tuple[int, dict[str, Medians]]]:
        for count in packet_counts(most):
            yield count, self.measured(Case("long", count, 20_000, 160))


def line_of(point: Point) -> str:
    opening_only = point.packets == _OPENING_PACKETS * point.connections
    each = f"{point.track[0].cpu / point.connections * 1e6:.2f}" if opening_only else "–"
    return (
        f"| {point.connections:>11,} | {point.packet_ns(point.track):>9.0f} | {point.packet_ns(point.floor):>9.0f} "
        f"| {each:>13} | {point.track[1].peak_bytes / 1e6:>8.0f} |"
    )


HEAD = (
    f"| connections | packet ns | floor, ns | connection us | {'MB':>8} |\n"
    f"| ----------: | --------: | --------: | ------------: | {'-' * 7}: |"
)


def leaves(points: list[Point]) -> dict[str, float]:
    """Connections with which the tracker's memory is as large as each level of cache."""
    most = points[-1]
    each = most.track[1].peak_bytes / most.connections
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
    lab = Lab(arguments.folder, arguments.runs, raw, arguments.keep)
    lines = ["| packets of 20,000 connections | cpu s | floor, cpu s |", "| ---: | ---: | ---: |"]
    print("\n".join(lines))
    totals = []
    for count, took in lab.by_packets(arguments.packets):
        totals.append((count, took))
        lines.append(f"| {count:,} | {took['track'].cpu:.2f} | {took['floor'].cpu:.2f} |")
        print(lines[-1], flush=True)
    lines += ["", HEAD]
    print(f"\n{HEAD}")
    points = []
    for point in lab.by_connections(arguments.connections):
        points.append(point)
        lines.append(line_of(point))
        print(lines[-1], flush=True)
    if not arguments.record:
        return
    command = f"make -C benchmarks growth ARGS='--packets {arguments.packets} --connections {arguments.connections}'"
    folder = record(f"{arguments.record}-growth", facts, command, "\n".join([*lines, ""]), raw)
    series = {
        "synfin": [(p.connections, p.packet_ns(p.track)) for p in points],
        "bare loop": [(p.connections, p.packet_ns(p.floor)) for p in points],
    }
    title = "Processor time for a packet of an open connection"
    picture = chart.lines(title, series, ("connections open at once", "ns"), leaves(points), chart.note(facts))
    (folder / "connections.svg").write_text(picture)
    series = {
        name: [(count, max(took[key].cpu, 1e-3)) for count, took in totals]
        for name, key in (("synfin", "track"), ("bare loop", "floor"))
    }
    picture = chart.lines("Processor time, 20,000 connections", series, ("packets", "s"), {}, chart.note(facts))
    (folder / "packets.svg").write_text(picture)


if __name__ == "__main__":
    main()
