"""What a live run tells of itself at one moment: plain values, made by the threads that own them, read by all others.

A worker's thread makes its WorkerSnapshot about once a second and lays it down by one assignment; whoever serves metrics
reads the last one. So no lock is taken and no tracker is asked by two threads. All values of a snapshot belong together.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from synfin import __version__

if TYPE_CHECKING:
    from synfin._core.tracker import Tracker
    from synfin.sources.live import LiveInput
    from synfin.sources.losses import Losses

#: A worker whose last snapshot is older is stuck: it makes one each second, on an idle link as well.
STUCK_SECONDS = 10.0


@dataclass(frozen=True)
class WorkerSnapshot:
    """One worker as it stood.

    Attributes
    ----------
    worker : its number, from 0.
    stats, gauges, histograms : `Tracker.stats`, `Tracker.gauges`, `Tracker.histograms`.
    losses : by interface; under "" what only the host knows.
    timestamps : by interface which clock stamps its packets, "hardware" or "software".
    interface_up : by interface.
    clock_ns : the input clock (ns since 1970); None before the first packet.
    taken_monotonic : when, by `time.monotonic`.
    services : `Tracker.services`.
    """

    worker: int
    stats: Mapping[str, Any]
    gauges: Mapping[str, int]
    histograms: Mapping[str, Mapping[str, Any]]
    losses: Mapping[str, Losses] = field(default_factory=dict)
    timestamps: Mapping[str, str] = field(default_factory=dict)
    interface_up: Mapping[str, bool] = field(default_factory=dict)
    clock_ns: int | None = None
    taken_monotonic: float = 0.0
    services: Mapping[tuple[str, int], Mapping[str, int]] | None = None

    @classmethod
    def take(cls, worker: int, tracker: Tracker, source: LiveInput) -> WorkerSnapshot:
        """The worker as it stands. To be called by the thread that owns the tracker."""
        stats = tracker.stats()
        return cls(
            worker,
            stats,
            tracker.gauges(),
            tracker.histograms(),
            source.losses(),
            dict(source.timestamps),
            dict(source.interface_up),
            stats["clock_ns"],
            time.monotonic(),
            tracker.services(),
        )


@dataclass(frozen=True)
class ServiceSnapshot:
    """A whole live run as it stood.

    Attributes
    ----------
    workers : the last snapshot of each worker; empty before the first.
    rows_written, files_written : by table, interim rows under "interim".
    rows_lost : by table, rows that could not be written because the output failed.
    output_error : why rows cannot be written now; None while they can.
    started : when the run began, seconds since 1970.
    interim_rows : interim rows written.
    build : what runs: names and versions.
    """

    workers: tuple[WorkerSnapshot, ...] = ()
    rows_written: Mapping[str, int] = field(default_factory=dict)
    files_written: Mapping[str, int] = field(default_factory=dict)
    output_error: str | None = None
    started: float = 0.0
    interim_rows: int = 0
    build: Mapping[str, str] = field(default_factory=dict)
    rows_lost: Mapping[str, int] = field(default_factory=dict)


def build_facts() -> dict[str, str]:
    """Names and versions of what runs, for ServiceSnapshot.build."""
    return {
        "version": __version__,
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "machine": platform.machine(),
    }


def alive(snapshot: ServiceSnapshot, now: float | None = None) -> tuple[bool, str]:
    """Whether every worker's ring moves, and a sentence. `now` is of `time.monotonic`.

    A worker makes its snapshot when it has emptied its ring, or found nothing in it; an interface that is down or a link
    without packets therefore is no sign of trouble, and a worker that says nothing is. A run whose workers have said
    nothing yet is starting.
    """
    now = time.monotonic() if now is None else now
    for worker in snapshot.workers:
        silent = now - worker.taken_monotonic
        if silent > STUCK_SECONDS:
            return False, f"worker {worker.worker} has not moved for {silent:.0f} s"
    return True, "alive" if snapshot.workers else "starting"


def ready(snapshot: ServiceSnapshot, workers: int, now: float | None = None) -> tuple[bool, str]:
    """Whether all workers track, an interface is up and rows can be written; and a sentence."""
    fine, text = alive(snapshot, now)
    if not fine:
        return False, text
    if len(snapshot.workers) < workers:
        return False, f"{workers - len(snapshot.workers)} of {workers} workers have not begun"
    up = {name: state for worker in snapshot.workers for name, state in worker.interface_up.items()}
    if up and not any(up.values()):
        return False, f"down: {', '.join(sorted(up))}"
    if snapshot.output_error:
        return False, "rows cannot be written"
    return True, "ready"
