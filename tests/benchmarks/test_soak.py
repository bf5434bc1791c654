"""The soak judges growth, bounds and sums as it says; and a minute of it passes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soak

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
TOTAL = {
    "exit_code": 0, "sent": 1000, "refused": 0, "received": 1000, "packets": 990, "ring_drops": 10, "rows_lost": 0,
}  # fmt: skip


def samples(grows_kb: float, first_kb: int = 150 << 10, peak_kb: int = 400 << 10, saw_kb: int = 0):
    """An hour, warm after a quarter of it; each minute what waits grows, and is written."""
    rows = []
    for at in range(0, 3610, 10):
        stays = 0 if at < 900 else first_kb + grows_kb * (at - 900) / 2700
        rows.append({
            "elapsed_s": float(at), "cpu_s": at / 10, "peak_kb": peak_kb, "table_bytes": 50 * MIB,
            "least_kb": stays + saw_kb * (at % 60 // 10) / 6, "rss_kb": stays + saw_kb * (at % 60) / 60,
        })  # fmt: skip
    return rows


@pytest.mark.parametrize(("grows_kb", "flat"), [(0, True), (4000, True), (4200, False), (-4200, True)])
def test_growth_after_the_warm_up_is_judged(grows_kb, flat):
    found = soak.verdict(samples(grows_kb), TOTAL, 4096)
    assert abs(found["fitted_growth_kb"] - grows_kb) <= 1 and found["flat"] is flat
    assert abs(found["slope_kb_per_hour"] - grows_kb * 3600 / 2700) <= 1
    assert abs(found["fitted_growth_of_every_sample_kb"] - grows_kb) <= 1
    assert found["bounded"] and found["accounted"] and found["ended_as_told"] and found["core_share"] == 0.1


@pytest.mark.parametrize(("grows_kb", "flat"), [(0, True), (3900, True), (4300, False)])
def test_what_waits_for_a_file_is_not_growth(grows_kb, flat):
    """Whatever it is, and a file that waits longer than the others moves no more than its own window."""
    rows = samples(grows_kb, saw_kb=150 << 10)
    for row in rows:
        if 3000 <= row["elapsed_s"] < 3060:
            row["least_kb"] += 100 << 10
    found = soak.verdict(rows, TOTAL, 4096)
    assert abs(found["fitted_growth_kb"] - grows_kb) <= 1 and found["flat"] is flat


def test_one_least_for_each_four_files():
    least = soak.leasts(samples(0, saw_kb=1000))
    assert [row["elapsed_s"] for row in least] == list(range(960, 3600, 240))


SAW = """
import time
for _ in range(100):
    held = b"x" * (64 << 20)
    print(flush=True)
    time.sleep(0.4)
    del held
    time.sleep(0.3)
"""


def test_the_least_of_a_process_is_found():
    """Of one that takes 64 MiB for most of the time; a sanitizer would keep what it freed."""
    plain = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "PYTHONMALLOC")}
    with subprocess.Popen([sys.executable, "-c", SAW], stdout=subprocess.PIPE, env=plain) as process:
        try:
            process.stdout.readline()
            most = soak.least_resident_kb(process.pid, 0)
            least = soak.least_resident_kb(process.pid, time.monotonic() + 3)
        finally:
            process.kill()
    assert least < 40 << 10 and most > least + (60 << 10)


def test_the_peak_is_held_against_its_bound():
    table_and_ring = 50 * MIB + (soak.RING_MIB << 20)
    for beyond, bounded in ((0, True), (1024, False)):
        peak_kb = (table_and_ring + soak.CONSTANT_BYTES + beyond) >> 10
        assert soak.verdict(samples(0, peak_kb=peak_kb), TOTAL, 4096)["bounded"] is bounded


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"packets": 989}, "accounted"),
        ({"received": 999}, "accounted"),
        ({"exit_code": 1}, "ended_as_told"),
        ({"rows_lost": 1}, "ended_as_told"),
    ],
)
def test_what_was_sent_must_have_been_told(changed, wrong):
    found = soak.verdict(samples(0), TOTAL | changed, 4096)
    assert not found[wrong] and sum(found[name] for name in soak.JUDGED) == 3


@pytest.mark.slow
@pytest.mark.kernel
def test_a_minute(tmp_path):
    """Not flat yet: allocators settle."""
    subprocess.run(["make", "-s", "-C", ROOT / "benchmarks", "all"], check=True, capture_output=True)
    line = ["--seconds", 60, "--max-flows", 20_000, "--growth-kb", 32 << 10, "--folder", tmp_path, "--rows", tmp_path]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/soak.py", *map(str, line)], capture_output=True, text=True, check=False
    )
    if done.stdout.startswith("no soak here"):
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accounted  yes" in done.stdout
