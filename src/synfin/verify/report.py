"""The comparison as a table for people and as data for machines."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from synfin.verify.classes import UNEXPLAINED
from synfin.verify.join import Difference, Joined
from synfin.verify.lives import text
from synfin.verify.tcptrace_classes import TCPTRACE_ARGUMENTS
from synfin.verify.tshark_classes import TSHARK_ARGUMENTS

_SHOWN = 20  #: unexplained differences that the text shows; --json has all


@dataclass
class Report:
    """One capture: the comparisons with each tool, and what could not be compared."""

    capture: str
    joined: list[Joined] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def unexplained(self) -> list[Difference]:
        return [one for joined in self.joined for one in joined.differences if not one.explained]


def class_counts(joined: Joined) -> Counter[tuple[str, str]]:
    """How many differences of each column fall into each class; one may fall into several."""
    return Counter((one.column, name) for one in joined.differences for name in {name for name, _ in one.parts})


def as_text(report: Report) -> str:
    lines = [report.capture, *(f"  note: {note}" for note in report.notes)]
    for joined in report.joined:
        lines += [
            "",
            f"  {joined.tool}: {joined.matched} rows matched of {joined.mine} by synfin and {joined.others} by {joined.tool}",
        ]
        lines += ["", f"  {'column':<24}{'compared':>10}{'equal':>10}{'differing':>10}"]
        for name, compared in joined.compared.items():
            equal = joined.equal[name]
            lines.append(f"  {name:<24}{compared:>10}{equal:>10}{compared - equal:>10}")
        lines += _classes(joined)
    unexplained = report.unexplained
    lines += ["", f"  {len(unexplained)} unexplained" if unexplained else "  nothing unexplained"]
    lines += [f"  {line}" for one in unexplained[:_SHOWN] for line in _pointer(report.capture, one)]
    if len(unexplained) > _SHOWN:
        lines.append(f"  and {len(unexplained) - _SHOWN} more: --json lists all")
    return "\n".join(lines) + "\n"


def _classes(joined: Joined) -> list[str]:
    counts = class_counts(joined)
    if not counts:
        return []
    lines = ["", f"  {'differences in':<24}{'class':<24}{'count':>6}"]
    lines += [f"  {column:<24}{name:<24}{count:>6}" for (column, name), count in sorted(counts.items())]
    names = sorted({name for _, name in counts} - {UNEXPLAINED})
    arguments = arguments_of(joined.tool)
    return lines + [f"  {name}: {arguments[name]}" for name in names]


def arguments_of(tool: str) -> dict[str, str]:
    """The argument for each class of a tool."""
    return TCPTRACE_ARGUMENTS if tool.startswith("tcptrace") else TSHARK_ARGUMENTS


def _pointer(capture: str, one: Difference) -> list[str]:
    """Where to look: the difference, its packets, and the command that shows them."""
    ends = [text(end) for end in one.pair]
    way = " - ".join(ends) if one.way is None else " > ".join(ends if one.way == 0 else ends[::-1])
    numbers = sorted({number for name, found in one.parts for number in found if name == UNEXPLAINED})
    packets = f", packets {', '.join(map(str, numbers))}" if numbers else ""
    lines = [f"{one.column} of {way}: {one.ours} by synfin, {one.theirs} by the other{packets}"]
    return lines + [f"    {command(capture, life.name)}" for life in one.mine[:3]]


def command(capture: str, flow_id: str) -> str:
    """The command that shows one connection packet by packet."""
    return f"synfin explain {shlex.quote(capture)} --flow {flow_id}"


def as_data(report: Report) -> dict[str, Any]:
    return {
        "capture": report.capture,
        "notes": report.notes,
        "unexplained": len(report.unexplained),
        "tools": [_tool(report.capture, joined) for joined in report.joined],
    }


def _tool(capture: str, joined: Joined) -> dict[str, Any]:
    return {
        "tool": joined.tool, "records": joined.mine, "connections": joined.others, "matched": joined.matched,
        "columns": {
            name: {"compared": compared, "equal": joined.equal[name], "differing": compared - joined.equal[name]}
            for name, compared in joined.compared.items()
        },
        "differences": [
            {
                "column": one.column, "from": text(one.pair[one.way or 0]), "to": text(one.pair[1 - (one.way or 0)]),
                "both_ways": one.way is None, "synfin": one.ours, "other": one.theirs,
                "classes": [{"name": name, "packets": list(numbers)} for name, numbers in one.parts],
                "explain": [command(capture, life.name) for life in one.mine],
            }
            for one in joined.differences
        ],
    }  # fmt: skip
