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
#: The longest timeout of runs that must forget soon.
LONGEST_S = 30
_ZERO = dict.fromkeys(GAUGES, 0)

Intervals = dict[int, Mapping[str, int]]


def forgetful(longest_s: int) -> dict[str, str]:
    """Options of a run in which no timeout is longer than this, and all but one are shorter."""
    shorter = ("one-sided", "attempt", "half-open", "closing")
    names = ("idle-timeout", *(f"{name}-timeout" for name in shorter), "time-wait", "reset-linger")
    return {name: f"{longest_s if name == 'idle-timeout' else longest_s * 2 // 3}s" for name in names}


def as_options(settings: Mapping[str, str]) -> list[str]:
    """For a command line."""
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def scraped_s(longest_s: int) -> int:
    """When a scrape shows that everything is forgotten: a deadline is met up to the reorder allowance (1 s) later, and a
    scrape is up to 1.5 s old."""
    return longest_s + 3


def intervals(path: Path, settings: Mapping[str, str] | None = None) -> Intervals:
    """The gauges of a capture, by the end of each interval in which they are not all 0."""
    keywords = {name.replace("-", "_"): value for name, value in (settings or {}).items()}
    columns = ["interval_start", *GAUGES]
    told = pa.table(synfin.scan(path, table="intervals", columns=columns, workers=1, **keywords))
    return by_end(told.set_column(0, "interval_start", told["interval_start"].cast(pa.int64())).to_pylist())


def by_end(told: Sequence[Mapping[str, int]]) -> Intervals:
    """The gauges of interval rows that are not all 0, by the end of the interval."""
    return {
        row["interval_start"] + SECOND: {name: row[name] for name in GAUGES}
        for row in told
        if any(row[name] for name in GAUGES)
    }


def remembered_s(told: Intervals, last_ns: int) -> float:
    """How long after the last packet some gauge was still not 0 at the end of a second; seconds."""
    return (max(told, default=last_ns) - last_ns) / SECOND


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
    with World(int(scale * ROOM)) as world, contextlib.ExitStack() as stack:
        path = folder / "recorded.pcap"
        stack.enter_context(capture.recorded(world.servers, "vb", path))
        whole = stack.enter_context(sidecar(world.servers, "vb", folder / "whole"))
        runs: dict[float, Sidecar] = {}
        for number, lost in enumerate(losses):
            options = ("--filter", capture.random_filter(lost), *as_options(forgetful(LONGEST_S)))
            runs[lost] = stack.enter_context(
                sidecar(world.servers, "vb", folder / f"live-{number}", *options, port=9109 + number)
            )
        at, scraped = Observer(world, whole, scale, say), {}
        for step in FIVE:
            step(at)
            if step is Observer.close_all:
                say("waiting until the forgetful runs have forgotten")
                time.sleep(scraped_s(LONGEST_S))
                scraped = {lost: run.gauges() for lost, run in runs.items()}
        for run in runs.values():
            run.end()
    live = {lost: by_end(rows(run.folder, "intervals", ["interval_start", *GAUGES])) for lost, run in runs.items()}
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


def remembered_in_file(folder: Path, found: Lossy, lost: float) -> float:
    """`remembered_s` of the thinned capture."""
    left, path = capture.thinned(found.frames, lost), folder / f"forget-{lost}.pcap"
    last = capture.last_ns(left)
    capture.write(path, [*left, capture.tick(last + (LONGEST_S + 10) * SECOND)])
    return remembered_s(intervals(path, forgetful(LONGEST_S)), last)


def _of_moments(found: Lossy, by_loss: Mapping[float, list[dict[str, int]]]) -> str:
    head = ("gauge", "kernels", *(f"{lost:.0%} lost" for lost in by_loss))
    text = ""
    for number, moment in enumerate(found.moments):
        kernel = moment.expected()
        off = {name: [errors[number][name] for errors in by_loss.values()] for name in GAUGES}
        shown = [(f"`{name}`", kernel[name], *values) for name, values in off.items() if kernel[name] or any(values)]
        text += f"**{moment.title}**\n\n{tables.table(head, shown)}\n\n"
    return text


def report(folder: Path, scale: int, say: Callable[[str], None]) -> tuple[str, bool]:
    """The tables, and whether nothing differs without loss, and every gauge is 0 one longest timeout after the last packet."""
    found = play(folder, scale, say)
    say("tracking the thinned captures")
    by_loss = {lost: errors(folder, found, lost) for lost in LOSSES}
    last = capture.last_ns(found.frames)
    files = {lost: remembered_in_file(folder, found, lost) for lost in LOSSES}
    lives = {lost: remembered_s(told, last) for lost, told in found.live.items()}
    left = {lost: sum(told.values()) for lost, told in found.scraped.items()}
    shown = [
        (f"{lost:.0%}", f"{files[lost]:.3f} s", f"{lives[lost]:.3f} s" if lost in lives else None, left.get(lost))
        for lost in LOSSES
    ]
    head = ("lost", "file", "live", f"live: sum of all gauges after {scraped_s(LONGEST_S)} s")
    text = (
        f"What is told of {len(found.frames):,} packets, less what the kernels say:\n\n{_of_moments(found, by_loss)}"
        f"With `--idle-timeout {LONGEST_S}s`, and all other timeouts below it: how long after the last packet some gauge was "
        f"still not 0 at the end of a second.\n\n{tables.table(head, shown)}\n"
    )
    exact = not any(value for each in by_loss[0.0] for value in each.values())
    soon = all(value < LONGEST_S for value in (*files.values(), *lives.values()))
    return text, exact and soon and not any(left.values())
