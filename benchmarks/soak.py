"""A sidecar under churn for an hour: does its memory stay flat, below table, ring and a constant, and is every packet told?

Two namespaces and a cable; `send` sends short connections of the generator at a rate that swings, each pass with other
addresses; `synfin live` tracks them with a cap on records that is reached again and again, metrics, rolled Parquet of which the
oldest is pruned, and interim rows. Its memory is read from /proc, its figures from its own metrics.

Exit code 1 where memory grew or exceeded the bound, where the packets that were sent are not those that were told, or where the
run ended otherwise than it should.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from operator import itemgetter
from pathlib import Path

import chart
from cases import Case, generate
from measuring import HERE, Row, machine, record

sys.path.insert(0, str(HERE.parent / "tools"))
from netns import Namespace, NotAllowed, become_root, veth

#: What the process has beside ring and records, with all columns and interim rows to Parquet. A row of all columns takes 720
#: bytes: the program with Arrow (100 MiB), up to 8 blocks of 16,384 rows on their way (95), two row groups of 61,440 rows (90), what
#: waits to be written (45), and the encoders of three files with what allocators keep (some 100).
CONSTANT_BYTES = 448 << 20
RING_MIB = 64
PORT = 9470
#: How much the line through the leasts may rise over the last three quarters of a run. Half a byte for each connection of an hour are
#: 6 MiB, and leasts of an unchanging program lie some 5 MiB apart.
GROWTH_KB = 16 << 10
#: Files of one run, and how many of them share one least. What waits to be written takes 10 MiB more each second, some 200 until
#: a file is complete and it goes; what never goes shows in the least. Four files of an hour's run are two waves of the rate.
TURNS = 60
TURNS_OF_A_LEAST = 4
#: How often the least is looked for: it lasts for a fraction of a second.
LOOK_S = 0.1
#: The rate swings by half in this time, so that the cap is reached in the first half and timeouts end records in the other.
WAVE_S = 120
#: Of one pass; about 100,000 connections, cut off where they stand at its end.
TRAFFIC = Case("soak", 1_000_000, 4_000, 50, payload="small", mix="churn")
#: What must hold. Rows that the writer had no time for are told and judged by nobody: they depend on what else runs.
JUDGED = ("flat", "bounded", "accounted", "ended_as_told")
METRICS = {
    "records": "synfin_records", "table_bytes": "synfin_tracker_memory_bytes", "packets": "synfin_packets_total",
    "skipped": "synfin_skipped_packets_total", "ring_drops": "synfin_ring_dropped_packets_total",
    "evicted": "synfin_evictions_total", "ended": "synfin_records_ended_total", "rows": "synfin_output_rows_total",
    "rows_lost": "synfin_output_rows_lost_total", "files": "synfin_output_files_total",
}  # fmt: skip


def scraped(namespace: Namespace) -> dict[str, int]:
    """The sum of each of METRICS over its labels."""
    with namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(20)
        sock.connect(("127.0.0.1", PORT))
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n")
        text = b"".join(iter(lambda: sock.recv(65536), b"")).decode()
    return {
        column: int(sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)", text, re.MULTILINE)))
        for column, name in METRICS.items()
    }


def memory(pid: int) -> dict[str, int]:
    """Resident kilobytes: all, the process's own, those mapped (the ring among them), and all with shared ones in part."""
    status = Path(f"/proc/{pid}/status").read_text()
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    names = {
        "rss_kb": "VmRSS",
        "peak_kb": "VmHWM",
        "anonymous_kb": "RssAnon",
        "file_kb": "RssFile",
        "shared_kb": "RssShmem",
    }
    found = {column: int(re.search(rf"{name}:\s+(\d+)", status)[1]) for column, name in names.items()}
    return found | {"pss_kb": int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])}


def least_resident_kb(pid: int, end: float) -> int:
    """The least that a process has in memory at any look until `end` (monotonic)."""
    page_kb, least = os.sysconf("SC_PAGE_SIZE") >> 10, None
    while least is None or time.monotonic() < end:
        now = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page_kb
        least = now if least is None else min(least, now)
        time.sleep(LOOK_S)
    return least


def processor_s(pid: int) -> float:
    """User and system time of all its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def counters(namespace: Namespace, interface: str) -> dict[str, int]:
    """Frames that an interface has sent and received, and those that it dropped."""
    (link,) = json.loads(namespace.run(["ip", "-s", "-j", "link", "show", interface]))
    stats = link["stats64"]
    return {
        f"{way}_{what}": stats[way][name]
        for way in ("rx", "tx")
        for what, name in (("packets", "packets"), ("drops", "dropped"))
    }


def sidecar(namespace: Namespace, folder: Path, cap: int, turn: float) -> subprocess.Popen:
    """`synfin live` on the cable, with everything that could grow; files and interim rows every `turn` seconds."""
    line = [
        sys.executable, "-m", "synfin", "live", "vb", "--ring", RING_MIB, "--max-flows", cap, "--metrics", PORT, "-o", folder / "rows",
        "--roll", f"{turn:g}s", "--interim", f"{turn:g}s", "--keep", f"{5 * turn:.0f}M", "--idle-timeout", "5m", "--json",
    ]  # fmt: skip
    with (folder / "summary.json").open("w") as out:
        return namespace.popen([str(word) for word in line], stdout=out)


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in it; some may go meanwhile."""
    done = subprocess.run(["du", "-sb", folder], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0])


def sample(begin: float, process: subprocess.Popen, namespace: Namespace, folder: Path, seconds: float) -> Row:
    """What it is like after so many seconds, and the least of its memory in them."""
    least_kb = least_resident_kb(process.pid, time.monotonic() + seconds)
    row = {
        "elapsed_s": round(time.monotonic() - begin, 1), "least_kb": least_kb, "cpu_s": processor_s(process.pid),
        "threads": len(os.listdir(f"/proc/{process.pid}/task")), "descriptors": len(os.listdir(f"/proc/{process.pid}/fd")),
    }  # fmt: skip
    return row | memory(process.pid) | scraped(namespace) | {"folder_bytes": folder_bytes(folder)}


def soak(folder: Path, arguments: argparse.Namespace) -> tuple[list[Row], dict[str, int]]:
    """Samples of one run, and what was sent and told in all."""
    capture = generate(TRAFFIC, arguments.folder)
    with Namespace() as left, Namespace() as right:
        for namespace in (left, right):
            namespace.sysctl("ipv6/conf/default/disable_ipv6", 1)
        right.ip("link set lo up")
        with veth(left, "va", right, "vb"):
            process = sidecar(right, folder, arguments.max_flows, max(arguments.seconds / TURNS, 2))
            sender = None
            try:
                time.sleep(2)
                # Counted from here on: what the kernels say of themselves when the cable is plugged in has passed.
                first, begin, rows = counters(right, "vb"), time.monotonic(), []
                before = sample(begin, process, right, folder, 0)
                words = ["--rate", arguments.rate, "--wave", WAVE_S, "--seconds", arguments.seconds, capture, "va"]
                sender = left.popen([str(HERE / "build/send"), *map(str, words)], stdout=subprocess.PIPE, text=True)
                while sender.poll() is None:
                    rows.append(sample(begin, process, right, folder, arguments.every))
                    print(told(rows[-1]), flush=True)
                time.sleep(1)
                rows.append(sample(begin, process, right, folder, 0))
                last = counters(right, "vb")
                process.send_signal(signal.SIGTERM)
                code = process.wait(120)
            finally:
                for each in (process, sender):
                    if each and each.poll() is None:
                        each.kill()
                        each.wait()
    said = json.loads(sender.stdout.read())
    summary = json.loads((folder / "summary.json").read_text())
    total = {
        "exit_code": code, "sent": said["sent"], "refused": said["refused"],
        "received": last["rx_packets"] - first["rx_packets"], "packets": summary["packets"] - before["packets"],
        "ring_drops": summary["input"]["losses"]["vb"]["ring_drops"], "rows_lost": rows[-1]["rows_lost"],
    }  # fmt: skip
    return rows, total


def told(row: Row) -> str:
    return (
        f"{row['elapsed_s']:>7} s  {row['rss_kb'] / 1024:6.1f} MiB  {row['records']:>7,} records in {row['table_bytes'] / 2**20:5.1f} MiB  "
        f"{row['packets']:>11,} packets  {row['ring_drops']} dropped  {row['rows']:>9,} rows  {row['cpu_s']:.1f} s of processor time"
    )


def leasts(rows: list[Row]) -> list[Row]:
    """The row with the least resident memory of each TURNS_OF_A_LEAST files that begin after the first quarter of the run."""
    end = rows[-1]["elapsed_s"]
    width = end * TURNS_OF_A_LEAST / TURNS
    windows = defaultdict(list)
    for row in rows:
        windows[min(row["elapsed_s"], end - 0.1) // width].append(row)
    return [min(window, key=itemgetter("least_kb")) for number, window in windows.items() if number * width >= end / 4]


def slope_kb_per_s(rows: list[Row], column: str) -> float:
    """Of the line through a column."""
    times, sizes = [row["elapsed_s"] for row in rows], [row[column] for row in rows]
    return statistics.linear_regression(times, sizes).slope


def verdict(rows: list[Row], total: dict[str, int], growth_kb: int) -> dict[str, int | float | bool]:
    """Figures of a run, and whether it passes."""
    tail_s = rows[-1]["elapsed_s"] * 3 / 4
    slope = slope_kb_per_s(least := leasts(rows), "least_kb")
    growth = slope * tail_s
    tail = [row for row in rows if row["elapsed_s"] >= rows[-1]["elapsed_s"] / 4]
    every_sample = slope_kb_per_s(tail, "rss_kb") * tail_s
    table = max(row["table_bytes"] for row in rows)
    peak = rows[-1]["peak_kb"] * 1024
    spent, passed = rows[-1]["cpu_s"] - rows[0]["cpu_s"], rows[-1]["elapsed_s"] - rows[0]["elapsed_s"]
    found = {
        "seconds": rows[-1]["elapsed_s"], "slope_kb_per_hour": round(slope * 3600), "fitted_growth_kb": round(growth),
        "fitted_growth_of_every_sample_kb": round(every_sample),
        "least_kb": min(row["least_kb"] for row in least), "highest_least_kb": max(row["least_kb"] for row in least),
        "peak_bytes": peak, "table_bytes": table, "ring_bytes": RING_MIB << 20, "rest_bytes": peak - table - (RING_MIB << 20),
        "constant_bytes": CONSTANT_BYTES, "core_share": round(spent / passed, 3), **total,
    }  # fmt: skip
    return found | {
        "flat": growth <= growth_kb,
        "bounded": found["rest_bytes"] <= CONSTANT_BYTES,
        "accounted": total["sent"] == total["received"] == total["packets"] + total["ring_drops"],
        "ended_as_told": total["exit_code"] == (1 if total["rows_lost"] else 0),
    }


def picture(rows: list[Row], facts: dict[str, str], found: dict[str, int | float | bool]) -> str:
    names = {"resident": "rss_kb", "records": "table_bytes"}
    series = {
        name: [(row["elapsed_s"] / 60, row[key] / (1 << 20 if key.endswith("bytes") else 1 << 10)) for row in rows]
        for name, key in names.items()
    }
    series["least of each four files"] = [(row["elapsed_s"] / 60, row["least_kb"] / 1024) for row in leasts(rows)]
    title = f"Memory of synfin live under churn: the least {found['slope_kb_per_hour']:+,} KB an hour in the last three quarters"
    return chart.curves(
        title, series, ("minutes", "MiB"), {"fitted from here": rows[-1]["elapsed_s"] / 240}, chart.note(facts)
    )


def keep(
    arguments: argparse.Namespace, facts: dict[str, str], rows: list[Row], found: dict[str, int | float | bool]
) -> None:
    command = f"make soak SOAK_SECONDS={arguments.seconds:g}"
    table = ["| figure | value |", "| --- | ---: |", *(f"| {name} | {value} |" for name, value in found.items()), ""]
    folder = record(f"{arguments.record}-soak", facts, command, "\n".join(table), rows)
    (folder / "verdict.json").write_text(json.dumps(found, indent=2) + "\n")
    (folder / "memory.svg").write_text(picture(rows, facts, found))


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a sidecar under churn and look whether its memory stays flat.")
    parser.add_argument("--seconds", type=float, default=3600, help="how long (3600)")
    parser.add_argument("--every", type=float, default=10, help="seconds between two samples (10)")
    parser.add_argument("--rate", type=float, default=30_000, help="packets a second, in the mean (30,000)")
    parser.add_argument("--max-flows", type=int, default=240_000, help="records at once, at most (240,000)")
    parser.add_argument(
        "--growth-kb",
        type=int,
        default=GROWTH_KB,
        help=f"fitted growth of the least that is let pass ({GROWTH_KB:,})",
    )
    parser.add_argument("--folder", type=Path, default=HERE / "build/captures", help="where the capture is kept")
    parser.add_argument(
        "--rows", type=Path, default=HERE / "build", help="where the sidecar's files are written meanwhile"
    )
    parser.add_argument("--record", metavar="MACHINE", help="keep the run in benchmarks/runs/<date>-MACHINE-soak")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    place = arguments.rows / f"soak-{os.getpid()}"
    place.mkdir(parents=True)
    facts = machine()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # nothing is left behind
    try:
        become_root()
        rows, total = soak(place, arguments)
    except NotAllowed as reason:
        print(f"no soak here: {reason}")
        return 0
    finally:
        shutil.rmtree(place)
    found = verdict(rows, total, arguments.growth_kb)
    for name, value in found.items():
        print(f"{name:>20}  {value:,}" if not isinstance(value, bool) else f"{name:>20}  {'yes' if value else 'NO'}")
    if arguments.record:
        keep(arguments, facts, rows, found)
    return 0 if all(found[name] for name in JUDGED) else 1


if __name__ == "__main__":
    sys.exit(main())
