"""Part one: the gauges of a live run against the kernels, state by state."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from live_truth import cases, tables
from live_truth.kernel import GAUGES
from live_truth.moments import SECOND, Moment, Observer
from live_truth.sidecar import SidecarFailed, rows, sidecar
from live_truth.world import World

#: Room for what the moments open beside the connections of the first.
ROOM = 1.1


class Watched(NamedTuple):
    """A run that is over: its moments, for each the row of the interval table that belongs to it, the summary, and how long
    the last TIME-WAIT of the first five moments took, by the kernels and by the interval table (seconds)."""

    moments: list[Moment]
    intervals: list[dict[str, int]]
    summary: dict
    time_wait_s: tuple[float, float] | None = None


def watch(
    folder: Path,
    scale: int,
    steps: list[Callable[[Observer], None]],
    say: Callable[[str], None] = lambda _: None,
    *options: str,
) -> Watched:
    """Play steps before a sidecar. Raises SidecarFailed where it lost packets or its account does not hold."""
    with World(int(scale * ROOM)) as world, sidecar(world.servers, "vb", folder / "rows", *options) as run:
        at = Observer(world, run, scale, say)
        for step in steps:
            step(at)
        summary = json.loads(run.end())
    if summary["capture_drops"] or not summary["accounting"]["holds"]:
        raise SidecarFailed("packets were lost before the tracker: no truth to compare with")
    told = {row["interval_start"]: row for row in rows(folder / "rows", "intervals")}
    nothing = dict.fromkeys(GAUGES, 0)  # an interval in which nothing is and nothing comes is not written
    beside = [told.get(moment.time_ns - SECOND, nothing) for moment in at.moments]
    return Watched(at.moments, beside, summary, _time_wait(folder / "rows", told.values(), at.emptied_ns))


def _time_wait(folder: Path, told: Iterable[dict[str, int]], emptied_ns: int | None) -> tuple[float, float] | None:
    if emptied_ns is None:
        return None
    starts = (row["time_wait_start"] for row in rows(folder, "flows", ["time_wait_start"]))
    began = max(start for start in starts if start is not None and start < emptied_ns)
    # The first second at whose end none is left.
    ended = (
        max(row["interval_start"] for row in told if row["time_wait"] and row["interval_start"] < emptied_ns)
        + 2 * SECOND
    )
    return (emptied_ns - began) / SECOND, (ended - began) / SECOND


FIVE = [Observer.opened, Observer.half_closed, Observer.ended, Observer.flooded, Observer.close_all, Observer.gone]


def greatest(watched: Watched) -> int:
    """The greatest difference that has no name."""
    off = (tables.differences(*pair).values() for pair in zip(watched.moments, watched.intervals, strict=True))
    return max(abs(value) for each in off for value in each)


def report(folder: Path, scale: int, say: Callable[[str], None]) -> tuple[str, bool]:
    """The tables of all moments, and whether all is as expected."""
    watched = watch(folder, scale, [*FIVE, cases.play], say)
    most = greatest(watched)
    parts = [tables.of_moment(moment, row) for moment, row in zip(watched.moments, watched.intervals, strict=True)]
    verdict = (
        f"Greatest difference without a name, over {len(GAUGES)} gauges, {len(parts)} moments, metrics and interval table: **{most}**. "
        f"The run tracked {watched.summary['packets']:,} packets and lost none.\n"
    )
    more = "\n".join(parts[-len(cases.CASES) :])
    five = "\n".join(parts[: -len(cases.CASES)])
    kernels, told = watched.time_wait_s
    five += (
        f"\nAfter the packet that began the last TIME-WAIT, `ss` had none {kernels:.1f} s later (asked every half second), "
        f"the interval table at the end of the second that is {told:.1f} s later.\n"
    )
    return f"{verdict}\n{five}\n### Where kernel and tap cannot agree\n\n{more}", most == 0
