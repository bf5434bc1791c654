"""Tables in Markdown, of figures that were measured, and the places in a document where they stand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from live_truth.kernel import GAUGES
from live_truth.moments import Moment

Interval = Mapping[str, int]


def table(head: Sequence[str], rows: Iterable[Sequence[object]], texts: int = 1) -> str:
    """A table; all columns but the first ``texts`` are numbers. None is an empty cell."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(["---"] * texts + ["---:"] * (len(head) - texts)) + " |"]
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def differences(moment: Moment, interval: Interval) -> dict[str, int]:
    """By gauge, what synfin said (metrics or interval table, whichever is further off) less what was expected."""
    expected = moment.expected()
    return {
        name: max((moment.metrics[name] - expected[name], interval[name] - expected[name]), key=abs) for name in GAUGES
    }


def of_moment(moment: Moment, interval: Interval) -> str:
    """The gauges of one moment: what the kernels say, what that makes with the named differences, and what synfin said."""
    expected, off = moment.expected(), differences(moment, interval)
    rows = [
        (f"`{name}`", moment.told.client.get(name), moment.told.server.get(name), expected[name] - moment.told.both[name] or None,
         expected[name], moment.metrics[name], interval[name], off[name])
        for name in GAUGES
        if expected[name] or moment.metrics[name] or interval[name]
    ]  # fmt: skip
    text = f"**{moment.title}**\n\n"
    if rows:
        head = (
            "gauge",
            "`ss`, clients",
            "`ss`, servers",
            "named",
            "expected",
            "metrics",
            "interval table",
            "difference",
        )
        text += table(head, rows) + "\n"
    rest = (
        "Both kernels have no connection, and all gauges are 0." if not rows else "All other gauges are 0, as expected."
    )
    text += f"\n{rest}\n"
    for each in moment.named:
        adds = ", ".join(f"`{name}` {value:+,}" for name, value in each.adds.items())
        text += f"- Named: {each.reason} ({adds}).\n"
    return text


def put(document: Path, name: str, text: str) -> None:
    """Replace a measured part of a document. Raises ValueError where it has no such part."""
    part = re.compile(rf"(<!-- measured: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
    new, count = part.subn(lambda found: f"{found[1]}{text.rstrip()}\n{found[2]}", document.read_text())
    if count != 1:
        raise ValueError(f"{document}: no part {name}")
    document.write_text(new)
