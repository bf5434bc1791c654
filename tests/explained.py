"""What `synfin explain` knows of captures, as data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from synfin.explain.render import step_facts
from synfin.explain.select import COLUMNS, find
from synfin.explain.steps import IcmpError, Playback, Step, final_rows, identity
from synfin.run import Run
from synfin.settings import Settings
from synfin.sources.captures import CaptureInput


class Explained(NamedTuple):
    """A record: its final row, its segments, and what is said of each and of ICMP errors."""

    row: dict[str, Any]
    steps: list[Step]
    facts: list[dict[str, Any]]


def explained(paths: Sequence[Path | str], settings: Settings | None = None, count: int = 1000) -> list[Explained]:
    """The records that began first, in that order."""
    settings, names = settings or Settings(), [str(path) for path in paths]
    run = Run(CaptureInput(names), settings, flow_columns=COLUMNS, interval_columns=[])
    rows = find(run, None, count).rows
    told: dict[object, list[Step | IcmpError]] = {identity(row): [] for row in rows}
    playback = Playback(CaptureInput(names), settings, rows, lambda step: told[identity(step.row)].append(step))
    final = final_rows(playback, told.keys())
    return [
        Explained(
            final[name], [step for step in steps if isinstance(step, Step)], [step_facts(step, 0) for step in steps]
        )
        for name, steps in told.items()
    ]


def states(record: Explained) -> list[tuple[str, str]]:
    """Client's and server's state after each segment."""
    return [(facts["client_state"], facts["server_state"]) for facts in record.facts if facts["sender"]]


def words(record: Explained) -> list[str]:
    """What each segment did: the sender (ICMP for an error), and all that is said."""
    return [
        f"{facts['sender'] or 'ICMP'} " + "; ".join(word["text"] for word in facts["words"]) for facts in record.facts
    ]
