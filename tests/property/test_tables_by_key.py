"""Tables by key (`--by`): those of the slow tracker, for every number of workers; what they hold sums to the interval table."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

import pytest
from talk import seen_twice, talk

from dialogue import MS, SECOND, write_pcap
from rows import by_key, slow
from synfin import schema
from synfin.settings import Settings
from test_worker_counts import attempts, crowd

BOTH = ("service", "client")
SUMMED = [column.name for column in schema.INTERVALS if column.group in ("gauge", "count")]
SUMMED = [name for name in SUMMED if not name.endswith("_peak") and name != "capture_drops"]


def expected(paths, settings: Settings) -> dict[str, list[dict]]:
    """The tables by the slow tracker."""
    _, intervals, result = slow(paths, settings)
    return {"intervals": intervals, **result.keyed}


def check(paths, settings: Settings, workers=(1, 2, 5), **source) -> dict[str, list[dict]]:
    """Compares the core's tables for each number of workers with the slow tracker's, and their sums."""
    tables = expected(paths, settings)
    for count in workers:
        ours = by_key(paths, settings, count, **source)
        for table in settings.tables[1:]:
            assert ours[table] == tables[table], (count, table)
    for table in settings.tables[2:]:
        assert sums(tables[table]) == sums(tables["intervals"]), table
    return tables


def sums(rows: list[dict]) -> dict[tuple, dict[str, int | None]]:
    """What the rows of each interval come to; those that a step of the clock brought again are taken together."""
    totals: dict[tuple, dict] = defaultdict(lambda: dict.fromkeys(SUMMED))
    for row in rows:
        total = totals[row["interval_start"]]
        for name in SUMMED:
            total[name] = row[name] if total[name] is None else total[name] + row[name]
    return totals


@pytest.mark.parametrize("duplicates", ["keep", "count", "drop"])
@pytest.mark.parametrize("start", [0, *(pytest.param(start, marks=pytest.mark.slow) for start in range(30, 300, 30))])
def test_random_talk(tmp_path, start, duplicates):
    for seed in range(start, start + 30):
        files, tracking = crowd(seed, 4)
        if duplicates != "keep":
            files = seen_twice(files, seed)
        tracking = replace(tracking, duplicates=duplicates, by=BOTH, top=1 + seed % 5)
        paths = [write_pcap(tmp_path / f"{seed}-{number}.cap", part) for number, part in enumerate(files)]
        check(paths, tracking)


def test_talk_of_two_ends(tmp_path):
    for seed in range(100):
        files, tracking = talk(random.Random(seed))
        paths = [write_pcap(tmp_path / f"{number}.cap", part) for number, part in enumerate(files)]
        check(paths, replace(tracking, by=BOTH), workers=(1,))


@pytest.mark.parametrize("top", [1, 3, 1000])
@pytest.mark.parametrize("interval", [10 * MS, SECOND])
def test_a_crowd(tmp_path, interval, top):
    path = write_pcap(tmp_path / "crowd.pcap", attempts(600))
    tables = check([path], Settings(interval=interval, by=BOTH, top=top))
    others = [row for row in tables["clients"] if row["client_ip"] == schema.OTHER]
    assert bool(others) == (top < 600)
