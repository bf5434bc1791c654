"""Captures sent through a tracker into the snapshots that a live run makes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synfin._core.tracker import Tracker
from synfin.run import Run
from synfin.settings import Settings
from synfin.sidecar.snapshot import ServiceSnapshot, WorkerSnapshot, build_facts
from synfin.sources.captures import CaptureInput

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.pcap*"))


@dataclass(frozen=True)
class Counted:
    """What `synfin.sources.losses.Losses` tells."""

    ring_packets: int = 0
    ring_drops: int = 0
    ring_freezes: int = 0
    interface_rx_dropped: int = 0
    interface_rx_missed: int = 0
    interface_unseen: int = 0
    softnet_dropped: int = 0


@dataclass
class Tap:
    """Of a live source what a worker's snapshot asks."""

    counted: dict[str, Counted]
    timestamps: dict[str, str]
    interface_up: dict[str, bool]

    def losses(self) -> dict[str, Counted]:
        return self.counted


def tap(name: str = "tap0", *, up: bool = True, clock: str = "software", softnet: int = 0, **counted: int) -> Tap:
    losses = {name: Counted(**counted), "": Counted(softnet_dropped=softnet)}
    return Tap(losses, {name: clock}, {name: up})


def run_of(paths: Sequence[Path], settings: Settings | None = None, services: Sequence[tuple[str, int]] = (), tick=None) -> Run:
    """What tracks these captures; `services` are listed for metrics."""
    run = Run(CaptureInput([str(path) for path in paths]), settings or Settings(), tick=tick)
    run.tracker = Tracker(run.settings, services=services)
    return run


def worker(
    paths: Sequence[Path],
    number: int = 0,
    source: Tap | None = None,
    settings: Settings | None = None,
    *,
    services: Sequence[tuple[str, int]] = (),
) -> WorkerSnapshot:
    """The snapshot of a worker that has had these captures, to their end."""
    run = run_of(paths, settings, services)
    for _ in run.blocks():
        pass
    return WorkerSnapshot.take(number, run.tracker, source or tap())


def service(*workers: WorkerSnapshot, **more) -> ServiceSnapshot:
    """The snapshot of a run with these workers."""
    return ServiceSnapshot(workers, started=time.time(), build=build_facts(), **more)
