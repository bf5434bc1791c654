"""Filter and window on real captures: the core against the slow tracker, which shares neither filter nor clocks with it."""

from __future__ import annotations

import pytest

import libpcap
import rows
from corpus import ROOT, captures, needs_captures
from synfin import reference
from synfin.errors import ConfigError
from synfin.run import Run
from synfin.settings import Settings
from synfin.sources.captures import CaptureInput
from synfin.sources.filter import Filter
from synfin.sources.window import Window

pytestmark = [needs_captures, pytest.mark.slow]
MOST_PACKETS = 20_000


def track(path, filter=None, window=None):
    """Rows of both tables and the account, by the core."""
    run = Run(CaptureInput([str(path)], window=window), Settings(), filter=filter)
    tables: dict[str, list[dict]] = {"flows": [], "intervals": []}
    for table, block in run.blocks():
        tables[table] += rows.rows_of(block, table)
    return tables["flows"], tables["intervals"], run.tracker.stats()


def compare(path, sources, *, filter=None, window=None):
    """What differs from the slow tracker, and how many packets were left out."""
    flows, intervals, stats = track(path, filter, window)
    matches = None
    if filter:
        programs = {packet.link_type: filter(packet.link_type) for _, packets in sources for packet in packets}

        def matches(packet):
            return libpcap.passes(programs[packet.link_type], packet.data, packet.wire_len)

    slow = reference.track(
        sources, Settings(), window=(window.start_ns, window.end_ns) if window else None, matches=matches
    )
    lines = rows.differences("flow", flows, slow.flows, rows.order)
    lines += rows.differences("interval", intervals, slow.intervals, lambda row: row["interval_start"])
    assert stats["packets"] == stats["packets_in_records"] + sum(stats["skips"].values())
    assert stats["skips"] == slow.skips and stats["packets"] == slow.packets
    return lines, stats["skips"].get("filtered", 0) + stats["skips"].get("outside_window", 0)


def usable() -> list[str]:
    return [row["path"] for row in captures() if int(row["bytes"]) < 4_000_000]


def packets_of(path):
    try:
        sources = reference.read([ROOT / path])
    except ValueError:
        pytest.skip("the slow tracker reads no such file")
    if not 3 <= len(sources[0][1]) <= MOST_PACKETS:
        pytest.skip("too few packets, or too many for the slow tracker")
    return sources


@pytest.mark.parametrize("path", usable())
def test_a_window_inside_the_capture(path):
    """From the first to the third quarter of the time, and each half: nothing is lost or doubled where they meet."""
    sources = packets_of(path)
    stamps = sorted(min(max(packet.time_ns or 0, 0), 1 << 61) for packet in sources[0][1])
    cuts = [stamps[len(stamps) * part // 4] for part in (1, 2, 3)]
    if cuts[0] == cuts[2]:
        pytest.skip("all packets have the same timestamp")
    lines, _ = compare(ROOT / path, sources, window=Window(cuts[0], cuts[2]))
    assert not lines[:5]
    halves = [track(ROOT / path, window=window)[2] for window in (Window(0, cuts[1]), Window(cuts[1]))]
    assert halves[0]["packets"] == halves[1]["packets"] == len(sources[0][1])
    assert sum(half["skips"].get("outside_window", 0) for half in halves) == len(sources[0][1])


@libpcap.needs_libpcap
@pytest.mark.parametrize("path", usable())
def test_a_filter(path):
    sources = packets_of(path)
    try:
        lines, _ = compare(ROOT / path, sources, filter=Filter("tcp and (src port > 1023 or tcp[13] & 2 != 0)"))
    except ConfigError as error:
        pytest.skip(str(error))
    assert not lines[:5]
