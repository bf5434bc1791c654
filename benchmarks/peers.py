"""Other programs on the same captures, side by side in one run: processor time, memory, and what each makes of it.

Whatever is installed is run, as a program of its own and with its defaults but for what PEERS says. Debian packages:
tshark, tcptrace, argus-server, softflowd, nfdump (for nfpcapd); from PyPI: nfstream, dpkt. Captures hold microseconds,
because argus, softflowd and tcptrace refuse nanoseconds; synfin and the floor read the same files.
"""

from __future__ import annotations

import argparse
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import chart
from cases import CASES, Case, generate, speed_cases
from measuring import EMPTY_PCAP, HERE, Command, Row, machine, measure, raw_row, record

_DPKT = """
import sys, dpkt
connections = {}
for stamp, frame in dpkt.pcap.Reader(open(sys.argv[1], "rb")):
    ip = dpkt.ethernet.Ethernet(frame).data
    tcp = ip.data
    if isinstance(tcp, dpkt.tcp.TCP):
        ends = frozenset(((ip.src, tcp.sport), (ip.dst, tcp.dport)))
        count, sent, flags, begin, _ = connections.get(ends, (0, 0, 0, stamp, stamp))
        connections[ends] = count + 1, sent + len(frame), flags | tcp.flags, begin, stamp
print(len(connections))
"""
_NFSTREAM = """
import sys
from nfstream import NFStreamer
if __name__ == "__main__":
    print(sum(1 for flow in NFStreamer(source=sys.argv[1], n_dissections=0, statistical_analysis=True, n_meters=1)))
"""


class Place(NamedTuple):
    """Where a command runs: the capture, a folder for its output, connections at most, a UDP port that takes all."""

    capture: Path
    folder: Path
    connections: int
    port: int
    python: str


class Peer(NamedTuple):
    """A program: how it is called, what it makes, how it tells its version, and where it is run (None: everywhere)."""

    name: str
    makes: str
    command: Callable[[Place], Command]
    version: Command
    captures: tuple[str, ...] | None = None


def _synfin(at: Place) -> list[str | Path]:
    return [sys.executable, "-m", "synfin", "track", at.capture, "--workers", "1"]


PEERS = (
    Peer("floor", "a counter for each connection", lambda at: [HERE / "build/floor", at.capture], ()),
    Peer("synfin", "rows with all default columns, interval table, summary; nothing written", _synfin, ()),
    Peer("synfin to Parquet", "the same, both tables written",
         lambda at: [*_synfin(at), "-o", at.folder / "rows"], ()),
    Peer("nfpcapd", "unidirectional flows with packets, bytes, flags and latencies, written to its files",
         lambda at: ["nfpcapd", "-r", at.capture, "-w", at.folder, "-B", str(max(2 * at.connections, 524288))],
         ("nfpcapd", "-V")),
    Peer("softflowd", "unidirectional flows with packets, bytes and flags, sent as NetFlow 9 to a port on this machine",
         lambda at: ["softflowd", "-r", at.capture, "-n", f"127.0.0.1:{at.port}", "-v", "9", "-6", "-d",
                     "-m", str(at.connections + 1000), "-p", at.folder / "pid", "-c", "none"],
         ("softflowd", "-h")),
    Peer("argus", "bidirectional flows with states, sequence numbers, losses and handshake times (-R), written to a file",
         lambda at: ["argus", "-X", "-R", "-r", at.capture, "-w", at.folder / "argus.out"], ("argus", "-h")),
    Peer("tcptrace", "connections with resends, windows, RTT and so on, in its long format (-l)",
         lambda at: ["tcptrace", "-n", "-l", at.capture], ("tcptrace", "-version"), ("full",)),
    Peer("tshark", "TCP conversations with packets and bytes (-z conv,tcp), after its TCP analysis of every packet",
         lambda at: ["tshark", "-n", "-q", "-z", "conv,tcp", "-r", at.capture], ("tshark", "-v"), ("full",)),
    Peer("nfstream", "bidirectional flows with statistics of sizes and gaps, no dissection, one meter, counted in Python",
         lambda at: [at.python, "-c", _NFSTREAM, at.capture],
         ("python", "-c", "from importlib.metadata import version; print(version('nfstream'))"), ("full",)),
    Peer("dpkt loop", "packets, bytes, flags and times for each connection in a dict",
         lambda at: [at.python, "-c", _DPKT, at.capture],
         ("python", "-c", "from importlib.metadata import version; print(version('dpkt'))"), ("full",)),
)  # fmt: skip


class Figure(NamedTuple):
    """One program on one capture: seconds and bytes, less what an empty capture takes; None where it failed."""

    capture: str
    peer: str
    cpu: float | None
    wall: float
    peak_bytes: int
    ratio: float
    note: str


def version_of(peer: Peer, python: str) -> str | None:
    """What the program says of its version; None where it is not installed."""
    if not peer.version:
        return "this tree"
    line = [python if word == "python" else str(word) for word in peer.version]
    if not shutil.which(line[0]):
        return None
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if line[0] == python:
        return done.stdout.strip() if done.returncode == 0 else None
    found = re.search(r"[Vv]ersion[: ]*(?:-- version )?\D{0,3}(\d[\w.]*)|\(TM?\)|TShark \(Wireshark\) ([\d.]+)",
                      done.stdout + done.stderr)  # fmt: skip
    return next((group.rstrip(".") for group in found.groups() if group), "?") if found else "?"


def run(peer: Peer, place: Place, limit_s: float):
    """One run in an empty folder of its own."""
    with tempfile.TemporaryDirectory(dir=place.folder) as folder:
        return measure(peer.command(place._replace(folder=Path(folder))), limit_s)


def figures(case: Case, peers: list[Peer], arguments: argparse.Namespace, raw: list[Row]) -> list[Figure]:
    """All programs on one capture, one after the other, the floor first."""
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # what is sent there is dropped once its buffer is full
    sink.bind(("127.0.0.1", 0))
    empty = arguments.folder / "empty.pcap"
    empty.write_bytes(EMPTY_PCAP)
    capture = generate(case, arguments.folder, microseconds=True)
    place = Place(capture, arguments.folder, 0, sink.getsockname()[1], arguments.python)
    said = measure([HERE / "build/floor", capture]).output  # warms the page cache as well
    place = place._replace(connections=int(re.search(r"(\d+) flows", said)[1]))
    rows: list[Figure] = []
    for peer in peers:
        if peer.captures and case.name not in peer.captures:
            continue
        try:
            start = run(peer, place._replace(capture=empty), arguments.limit)
            results = [run(peer, place, arguments.limit) for _ in range(arguments.runs)]
        except RuntimeError as error:
            rows.append(Figure(case.name, peer.name, None, 0, 0, 0, str(error).splitlines()[0][:120]))
        else:
            raw += [raw_row(case.name, peer.name, number, result) for number, result in enumerate(results, 1)]
            best = sorted(results, key=lambda result: result.cpu)[len(results) // 2]
            cpu = best.cpu - start.cpu
            ratio = cpu / rows[0].cpu if rows else 1.0
            rows.append(Figure(case.name, peer.name, cpu, best.wall - start.wall, best.peak_bytes, ratio, ""))
        print(line_of(rows[-1]), flush=True)
    sink.close()
    return rows


def line_of(row: Figure) -> str:
    if row.cpu is None:
        return f"| {row.capture:<7} | {row.peer:<17} | – | – | – | – | {row.note} |"
    return (
        f"| {row.capture:<7} | {row.peer:<17} | {row.cpu:>7.2f} | {row.wall:>7.2f} | {row.ratio:>6.1f} "
        f"| {row.peak_bytes / 1e6:>7.0f} | |"
    )


HEAD = (
    f"| {'capture':<7} | {'program':<17} | {'cpu s':>7} | {'wall s':>7} | {'ratio':>6} | {'peak MB':>7} | |\n"
    f"| {'-' * 7} | {'-' * 17} | {'-' * 6}: | {'-' * 6}: | {'-' * 5}: | {'-' * 6}: | --- |"
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure other programs on the same captures.")
    parser.add_argument("--scale", type=float, default=1.0, help="of all packets and connections (1)")
    parser.add_argument("--runs", type=int, default=3, help="measurements of each program; the median counts (3)")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which a run is given up (600)")
    parser.add_argument("--folder", type=Path, default=HERE / "build/captures", help="where the captures are kept")
    parser.add_argument("--only", nargs="+", choices=CASES, default=["full", "snap", "slow", "flood"])
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has nfstream and dpkt (this one)")
    parser.add_argument("--record", metavar="MACHINE", help="keep the run in benchmarks/runs/<date>-MACHINE-peers")
    arguments = parser.parse_args()
    arguments.folder = arguments.folder.absolute()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    facts, raw = machine(), []
    versions = {peer.name: version_of(peer, arguments.python) for peer in PEERS}
    there = [peer for peer in PEERS if versions[peer.name]]
    for peer in there:
        print(f"{peer.name} ({versions[peer.name]}): {peer.makes}")
    print(f"not installed: {', '.join(name for name, version in versions.items() if not version) or 'none'}\n\n{HEAD}")
    rows = [
        row for case in speed_cases(arguments.scale, arguments.only) for row in figures(case, there, arguments, raw)
    ]
    if arguments.record:
        kept = {"summary": "\n".join([HEAD, *map(line_of, rows), ""])}
        kept["summary"] += "\n" + "".join(f"- {p.name} ({versions[p.name]}): {p.makes}\n" for p in there)
        how = f"make bench-peers ARGS='--scale {arguments.scale:g} --runs {arguments.runs}'"
        folder = record(f"{arguments.record}-peers", facts, how, kept["summary"], raw)
        (folder / "peers.svg").write_text(picture(rows, facts))


def picture(rows: list[Figure], facts: dict[str, str]) -> str:
    """The ratios to the floor as bars."""
    bars = [(row.capture, row.peer, row.ratio) for row in rows if row.cpu is not None and row.peer != "floor"]
    return chart.bars("Processor time, in that of the bare loop on the same capture", bars, chart.note(facts))


if __name__ == "__main__":
    main()
