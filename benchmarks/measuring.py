"""Runs commands and says what each took, by the kernel's account of its process; and what machine this is."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
EMPTY_PCAP = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)

Command = Sequence[str | Path]
Row = dict[str, str | int]


class Usage(NamedTuple):
    """What one process took: seconds on the clock and on processors, bytes of memory at most."""

    wall: float
    cpu: float
    peak_bytes: int
    output: str


class Medians(NamedTuple):
    """Of several runs: seconds on the clock and on processors, bytes of memory at most."""

    wall: float
    cpu: float
    peak_bytes: float


def measure(command: Command, limit_s: float | None = None) -> Usage:
    """Runs a command to its end.

    Its helpers count as well, once they have ended before it. Raises RuntimeError if it fails or takes longer than
    `limit_s` seconds on the clock.
    """
    line = list(map(str, command))
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        usage = wait(process, None if limit_s is None else begin + limit_s)
        wall = time.perf_counter() - begin
        output.seek(0)
        text = output.read().decode(errors="replace")
    if usage is None:
        raise RuntimeError(f"{' '.join(line)} took longer than {limit_s:g} s")
    if process.returncode:
        raise RuntimeError(f"{' '.join(line)} ended with {process.returncode}:\n{text[-2000:]}")
    return Usage(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, text)


def wait(process: subprocess.Popen, until: float | None):
    """What a process took by its end; None, and it is killed, where that has not come `until` (of time.perf_counter)."""
    # os.wait4 tells what this one child took; it has no limit of time, so with one it is asked again and again.
    flags = 0 if until is None else os.WNOHANG
    while True:
        pid, status, usage = os.wait4(process.pid, flags)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage
        if until is not None and time.perf_counter() > until:
            process.kill()
            process.wait()
            return None
        time.sleep(0.02)


def alternate(capture: str, commands: Mapping[str, Command], runs: int, raw: list[Row]) -> dict[str, Medians]:
    """Medians of each command's runs; every single run goes to `raw`.

    The commands take turns, so that what disturbs the machine for a while disturbs all of them. A first round warms the
    page cache and is not counted.
    """
    results: dict[str, list[Usage]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, command in commands.items():
            result = measure(command)
            if number:
                results[name].append(result)
                raw.append(raw_row(capture, name, number, result))
    return {
        name: Medians(*(statistics.median(getattr(run, field) for run in found) for field in Medians._fields))
        for name, found in results.items()
    }


def raw_row(capture: str, what: str, run: int, usage: Usage) -> Row:
    return {
        "capture": capture, "what": what, "run": run, "wall_s": f"{usage.wall:.4f}", "cpu_s": f"{usage.cpu:.4f}",
        "peak_bytes": usage.peak_bytes,
    }  # fmt: skip


def cache_bytes() -> dict[str, int]:
    """Sizes of the data caches that the first core sees, by level ("L1", "L2", ...)."""
    sizes = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if (folder / "type").read_text().strip() != "Instruction":
            text = (folder / "size").read_text().strip()
            sizes["L" + (folder / "level").read_text().strip()] = int(text.rstrip("K")) * 1024
    return sizes


def machine() -> dict[str, str]:
    """What the figures depend on, the load of the last minute included: above 0.2 something else was running, too."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return {
        "processor": processor,
        "cores": str(os.cpu_count()),
        "caches": ", ".join(f"{level} {size // 1024} KiB" for level, size in cache_bytes().items()),
        "memory": f"{gigabytes:.0f} GB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load at the start": f"{os.getloadavg()[0]:.2f}",
    }


def record(name: str, facts: Mapping[str, str], command: str, summary: str, raw: list[Row]) -> Path:
    """Keeps a run in `runs/<date>-<name>`: its tables, every measurement, and where and how it was made."""
    folder = HERE / "runs" / f"{datetime.date.today()}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    busy = float(facts["load at the start"]) > 0.2
    warning = (
        "\n**Other programs were running: these figures show that it works, not how fast it is.**\n" if busy else ""
    )
    (folder / "README.md").write_text(f"# One run of the benchmarks\n{warning}\n{lines}\n- command: `{command}`\n")
    (folder / "summary.md").write_text(summary)
    with (folder / "raw.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, raw[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(raw)
    return folder
