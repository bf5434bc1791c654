"""Part three: what gauges are worth where the tap loses packets, and when they are 0 again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

import synfin
from live_truth import capture, tables
from live_truth.gauges import FIVE, ROOM
from live_truth.kernel import GAUGES
from live_truth.moments import SECOND, Moment, Observer
from live_truth.sidecar import Sidecar, rows, sidecar
from live_truth.world import World

LOSSES = (0.0, 0.01, 0.1, 0.5)
#: The longest timeout of a run that must forget soon, and all others below it.
LONGEST_S = 30
FORGETFUL = {
    "idle-timeout": f"{LONGEST_S}s", "one-sided-timeout": "20s", "attempt-timeout": "20s", "half-open-timeout": "20s",
    "closing-timeout": "20s", "time-wait": "20s", "reset-linger": "5s",
}  # fmt: skip
#: A deadline within the reorder allowance is met that much later by a scrape, which is at most 1.5 s old.
_SCRAPED_S = LONGEST_S + 1 + 2
_ZERO = dict.fromkeys(GAUGES, 0)

Intervals = dict[int, Mapping[str, int]]


def intervals(path: Path, settings: Mapping[str, str] | None = None) -> Intervals:
    """The gauges of a capture, by the end of each interval in which they are not all 0."""
    keywords = {name.replace("-", "_"): value for name, value in (settings or {}).items()}
    columns = ["interval_start", *GAUGES]
    told = pa.table(synfin.scan(path, table="intervals", columns=columns, workers=1, **keywords))
    return _by_end(told.set_column(0, "interval_start", told["interval_start"].cast(pa.int64())).to_pylist())


def _by_end(told: Sequence[Mapping[str, int]]) -> Intervals:
    return {
        row["interval_start"] + SECOND: {name: row[name] for name in GAUGES}
        for row in told
        if any(row[name] for name in GAUGES)
    }


def forgotten_s(told: Intervals, last_ns: int) -> int:
    """How many whole seconds after the one of the last packet some gauge was still not 0."""
    return (max(told, default=0) - (last_ns // SECOND + 1) * SECOND) // SECOND if told else 0


class Lossy(NamedTuple):
    """A run that is over: its moments and its frames; for each loss of a live run, its interval table with timeouts of 30 s, and
    its gauges by a scrape one longest timeout after the last packet."""

    moments: list[Moment]
    frames: list[capture.Frame]
    live: dict[float, Intervals]
    scraped: dict[float, dict[str, int]]


def play(
    folder: Path, scale: int, say: Callable[[str], None] = lambda _: None, losses: Sequence[float] = LOSSES[1:]
) -> Lossy:
    """The five moments, recorded, before sidecars that lose packets."""
    forget = [word for name, value in FORGETFUL.items() for word in (f"--{name}", value)]
    with World(int(scale * ROOM)) as world, contextlib.ExitStack() as stack:
        path = folder / "recorded.pcap"
        stack.enter_context(capture.recorded(world.servers, "vb", path))
        whole = stack.enter_context(sidecar(world.servers, "vb", folder / "whole"))
        runs: dict[float, Sidecar] = {}
        for number, lost in enumerate(losses):
            options = ("--filter", capture.random_filter(lost), *forget)
            runs[lost] = stack.enter_context(
                sidecar(world.servers, "vb", folder / f"live-{number}", *options, port=9109 + number)
            )
        at, scraped = Observer(world, whole, scale, say), {}
        for step in FIVE:
            step(at)
            if step is Observer.close_all:
                say("waiting until the forgetful runs have forgotten")
                time.sleep(_SCRAPED_S)
                scraped = {lost: run.gauges() for lost, run in runs.items()}
        for run in runs.values():
            run.end()
    live = {lost: _by_end(rows(run.folder, "intervals", ["interval_start", *GAUGES])) for lost, run in runs.items()}
    return Lossy(at.moments, capture.read(path), live, scraped)


def errors(folder: Path, found: Lossy, lost: float) -> list[dict[str, int]]:
    """For each moment, the gauges of the thinned capture less those of the kernels."""
    path = folder / f"lost-{lost}.pcap"
    capture.write(path, [*capture.thinned(found.frames, lost), capture.tick(found.moments[-1].time_ns + 2 * SECOND)])
    told = intervals(path)
    return [
        {name: told.get(moment.time_ns, _ZERO)[name] - value for name, value in moment.expected().items()}
        for moment in found.moments
    ]


def forgotten_in_file(folder: Path, found: Lossy, lost: float) -> int:
    """`forgotten_s` of the thinned capture."""
    left, path = capture.thinned(found.frames, lost), folder / f"forget-{lost}.pcap"
    last = max(frame.time_ns for frame in left)
    capture.write(path, [*left, capture.tick(last + (LONGEST_S + 10) * SECOND)])
    return forgotten_s(intervals(path, FORGETFUL), last)


def report(folder: Path, scale: int, say: Callable[[str], None]) -> tuple[str, bool]:
    """The tables, and whether nothing differs without loss, and every gauge is 0 one longest timeout after the last packet."""
    found = play(folder, scale, say)
    say("tracking the thinned captures")
    by_loss = {lost: errors(folder, found, lost) for lost in LOSSES}
    text = ""
    for number, moment in enumerate(found.moments):
        kernel = moment.expected()
        off = {name: [by_loss[lost][number][name] for lost in LOSSES] for name in GAUGES}
        shown = [(f"`{name}`", kernel[name], *values) for name, values in off.items() if kernel[name] or any(values)]
        text += (
            f"**{moment.title}**\n\n"
            + tables.table(("gauge", "kernels", *(f"{lost:.0%} lost" for lost in LOSSES)), shown)
            + "\n\n"
        )
    last = max(frame.time_ns for frame in found.frames)
    files = {lost: forgotten_in_file(folder, found, lost) for lost in LOSSES}
    lives = {lost: forgotten_s(told, last) for lost, told in found.live.items()}
    left = {lost: sum(told.values()) for lost, told in found.scraped.items()}
    forgotten = [(f"{lost:.0%}", files[lost], lives.get(lost), left.get(lost)) for lost in LOSSES]
    text += f"One longest timeout ({LONGEST_S} s) after the last packet:\n\n" + tables.table(
        (
            "lost",
            "file: seconds until all gauges were 0",
            "live: the same",
            f"live: sum of all gauges of a scrape after {_SCRAPED_S} s",
        ),
        forgotten,
    )
    exact = not any(value for each in by_loss[0.0] for value in each.values())
    return text, exact and all(value <= LONGEST_S for value in (*files.values(), *lives.values())) and not any(
        left.values()
    )
