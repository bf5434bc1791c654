"""`--max-memory` bounds the process: its peak as the kernel accounts it, and a run inside a cgroup of that size."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dialogue import START, pcap_bytes

pytestmark = pytest.mark.skipif(
    os.environ.get("SYNFIN_ASAN") == "1", reason="a sanitizer's own memory is not what the limit is about"
)

MIB = 1 << 20
FLOOD = 200_000


@pytest.fixture(scope="module")
def flood(tmp_path_factory):
    """A pcap of SYNs from random ends, each of them twice: 400,000 packets, of which 200,000 are connections."""
    rnd, out, at = random.Random(1), [pcap_bytes([])], START
    ethernet = bytes(12) + b"\x08\x00"
    for _ in range(FLOOD):
        at += 1_000
        ip = struct.pack("!BBHHHBBHII", 0x45, 0, 40, 0, 0x4000, 64, 6, 0, rnd.getrandbits(32), 0x0A000001)
        tcp = struct.pack("!HHIIHHHH", rnd.getrandbits(16), 80, rnd.getrandbits(32), 0, 0x5002, 65535, 0, 0)
        packet = struct.pack("<IIII", at // 10**9, at % 10**9, 54, 54) + ethernet + ip + tcp
        out += [packet, packet]
    path = tmp_path_factory.mktemp("flood") / "flood.pcap"
    path.write_bytes(b"".join(out))
    return path


#: Runs a command and tells its peak. A process of its own: the kernel counts to a process what it had before exec, and
#: what runs these tests is large.
MEASURE = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
status, usage = os.wait4(pid, 0)[1:]
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, file=sys.stderr)
"""


def peak(command: list[str]) -> tuple[int, int, dict]:
    """Exit status, peak resident bytes, and the summary of a command that prints it as JSON."""
    run = subprocess.run([sys.executable, "-S", "-c", MEASURE, *command], capture_output=True, text=True, check=True)
    code, most = map(int, run.stderr.split()[-2:])
    return code, most * (1 if sys.platform == "darwin" else 1024), json.loads(run.stdout) if run.stdout else {}


def track(*words: object) -> list[str]:
    return [sys.executable, "-m", "synfin", "track", "--json", *map(str, words)]


@pytest.mark.parametrize(("limit", "output"), [(96, None), (192, None), (512, "rows.parquet"), (512, "rows.csv")])
def test_the_process_stays_below_the_limit(flood, tmp_path, limit, output):
    rows = [] if output is None else ["-o", tmp_path / output]
    code, most, summary = peak(track(flood, "--max-memory", f"{limit}M", *rows))
    assert code == 0 and most < limit * MIB
    # More is used than half of what the limit leaves beside the program and its output: the cap is no empty promise.
    assert sum(summary["evicted"].values()) > 1_000 and summary["cap"] > 8_000
    assert summary["accounting"]["holds"] and summary["packets"] == 2 * FLOOD
    assert summary["end_reasons"]["evicted"] == sum(summary["evicted"].values())


def test_tables_by_key_stay_below_the_limit_as_well(flood, tmp_path):
    """Of connections from nearly as many clients; nothing is lost but rows of their own."""
    code, most, summary = peak(track(flood, "--max-memory", "512M", "-o", tmp_path / "rows", "--by", "client", "--by", "service"))
    assert code == 0 and most < 512 * MIB and summary["accounting"]["holds"]
    tables = {name: pq.read_table(tmp_path / "rows" / name) for name in ("intervals", "clients", "services")}
    for column in ("packets", "ip_bytes", "syns", "syn_resends", "evicted", "unanswered", "opening", "connections"):
        assert len({sum(table[column].to_pylist()) for table in tables.values()}) == 1, column
    assert len(tables["services"]) == len(tables["intervals"])
    assert tables["clients"]["client_ip"].to_pylist().count("other") == len(tables["intervals"])


def test_without_a_limit_it_takes_more(flood):
    """Else the test above could not fail."""
    code, most, summary = peak(track(flood))
    assert code == 0 and most > 150 * MIB and summary["evicted"] == {} and summary["cap"] is None


def memory_cgroup(limit: int) -> tuple[Path, Path]:
    """A fresh cgroup with a limit on memory, and the file that takes processes. Skips where none may be made."""
    name = f"synfin-test-{os.getpid()}"
    for root, knob in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        folder = Path(root, name)
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / knob).write_text(str(limit))
            return folder, folder / "cgroup.procs"
        except OSError:
            folder.rmdir()
    pytest.skip("no cgroup with a limit on memory can be made here")


@pytest.mark.parametrize("capped", [True, False])
def test_in_a_cgroup_of_that_size_it_is_not_killed(flood, capped):
    """And without the option it is, so that the cgroup can tell."""
    limit = 128
    folder, procs = memory_cgroup(limit * MIB)
    enter = ["/bin/sh", "-c", f'echo $$ > {procs} && exec "$0" "$@"']
    try:
        words = ["--max-memory", f"{limit}M"] if capped else []
        code, _, summary = peak([*enter, *track(flood, *words)])
    finally:
        folder.rmdir()
    if capped:
        assert code == 0 and summary["complete"] and summary["evicted"]
    else:
        assert code == -9 or (code != 0 and not summary)


def test_a_limit_below_the_programs_own_needs_is_refused(flood, synfin):
    code, out, err = synfin("track", flood, "--max-memory", "1M")
    assert code == 2 and out == "" and "give at least" in err and len(err.splitlines()) == 1


def test_the_summary_says_how_much_was_evicted(flood, synfin):
    code, out, _ = synfin("track", flood, "--max-flows", 50_000)
    text = " ".join(out.split())
    assert code == 0 and "evicted 150,000 (75.0 %) at the cap of 50,000 at once: unanswered 150,000 at the end" in text
