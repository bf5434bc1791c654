"""The comparison as a table for people and as data for machines."""

from __future__ import annotations

import shlex
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from synfin.output.render import number
from synfin.verify.classes import UNEXPLAINED
from synfin.verify.join import Difference, Joined
from synfin.verify.lives import text
from synfin.verify.tcptrace_classes import TCPTRACE_ARGUMENTS
from synfin.verify.tshark_classes import TSHARK_ARGUMENTS

_SHOWN = 20  #: unexplained differences, and notes, that the text shows; --json has all


@dataclass(frozen=True)
class Part:
    """Packets of a capture that are compared in its place.

    Attributes
    ----------
    path : of a capture that holds nothing but them.
    numbers : of each of them in the whole capture, from 1.
    options : what chose them, as the commands take it; empty where they are all.
    left_out : the other packets, by the names of their skips.
    warnings, complete : what was wrong with the whole capture, and whether it was read to its end.
    """

    path: str
    numbers: Sequence[int]
    options: list[str]
    left_out: dict[str, int]
    warnings: list[str]
    complete: bool


@dataclass
class Report:
    """One capture: the comparisons with each tool, and what could not be compared."""

    capture: str
    part: Part | None = None
    complete: bool = True  #: the capture was read to its end
    joined: list[Joined] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def unexplained(self) -> list[Difference]:
        return [one for joined in self.joined for one in joined.differences if not one.explained]

    @property
    def compared(self) -> int:
        """Values that were compared, and connections that only one side has or cuts otherwise."""
        return sum(joined.compared.total() + len(joined.differences) for joined in self.joined)

    @property
    def agrees(self) -> bool:
        """The capture was read to its end and compared, and nothing is unexplained."""
        return self.complete and bool(self.compared) and not self.unexplained

    def packets(self, numbers: Sequence[int]) -> list[int]:
        """The numbers in the capture of packets that were compared."""
        return [self.part.numbers[each - 1] for each in numbers] if self.part else list(numbers)

    def command(self, flow_id: str) -> str:
        """The command that shows one connection packet by packet."""
        options = self.part.options if self.part else []
        return shlex.join(["synfin", "explain", self.capture, *options, "--flow", flow_id])


def class_counts(joined: Joined) -> Counter[tuple[str, str]]:
    """How many differences of each column fall into each class; one may fall into several."""
    return Counter((one.column, name) for one in joined.differences for name in {name for name, _ in one.parts})


# ------------------------------------------------------------------------------------------------ text


def as_text(report: Report, width: int) -> str:
    """The report in lines of at most `width` columns (80 or more); names of files and commands stay whole."""
    lines = [report.capture, *_part(report, width)]
    for note in report.notes[:_SHOWN]:
        lines += _fill(f"note: {note}", width)
    if (more := len(report.notes) - _SHOWN) > 0:
        lines.append(f"  and {number(more, 'more note')} (--json holds all)")
    for joined in report.joined:
        if joined.compared or joined.differences:
            lines += ["", *_fill(_matched(joined), width), "", *_columns(joined), *_classes(joined, width)]
    return "\n".join([*lines, "", *_verdict(report, width)]) + "\n"


def _fill(said: str, width: int) -> list[str]:
    return textwrap.wrap(
        said, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def _part(report: Report, width: int) -> list[str]:
    if not report.part or not report.part.options:
        return []
    counts = {"compared": len(report.part.numbers), **report.part.left_out}
    terms = " + ".join(f"{count:,} {name}" for name, count in counts.items())
    return _fill(f"{shlex.join(report.part.options)}: {number(sum(counts.values()), 'packet')} = {terms}", width)


def _matched(joined: Joined) -> str:
    rows = f"{number(joined.matched, 'row')} matched of {joined.mine:,} by synfin and {joined.others:,}"
    return f"{joined.tool}: {rows} by {joined.tool.split()[0]}"


def _columns(joined: Joined) -> list[str]:
    lines = [f"  {'column':<24}{'compared':>10}{'equal':>10}{'differing':>10}"]
    for name, compared in joined.compared.items():
        equal = joined.equal[name]
        lines.append(f"  {name:<24}{compared:>10}{equal:>10}{compared - equal:>10}")
    return lines


def _classes(joined: Joined, width: int) -> list[str]:
    counts = class_counts(joined)
    if not counts:
        return []
    lines = ["", f"  {'differences in':<24}{'class':<24}{'count':>6}"]
    lines += [f"  {column:<24}{name:<24}{count:>6}" for (column, name), count in sorted(counts.items())]
    arguments = arguments_of(joined.tool)
    for name in sorted({name for _, name in counts} - {UNEXPLAINED}):
        lines += ["", *_fill(f"{name}: {arguments[name]}", width)]
    return lines


def arguments_of(tool: str) -> dict[str, str]:
    """The argument for each class of a tool."""
    return TCPTRACE_ARGUMENTS if tool.startswith("tcptrace") else TSHARK_ARGUMENTS


def _verdict(report: Report, width: int) -> list[str]:
    read = "" if report.complete else " in what could be read"
    if not report.compared:
        return _fill(f"nothing compared: no TCP connection{read} (`synfin track` says what there is)", width)
    unexplained = report.unexplained
    if not unexplained:
        return [f"  nothing unexplained{read}"]
    lines = [f"  {len(unexplained):,} unexplained{read}"]
    tools = {id(one): joined.tool.split()[0] for joined in report.joined for one in joined.differences}
    for one in unexplained[:_SHOWN]:
        lines += _pointer(report, one, tools[id(one)], width)
    if (more := len(unexplained) - _SHOWN) > 0:
        lines.append(f"  and {more:,} more (--json holds all)")
    return lines


def _pointer(report: Report, one: Difference, tool: str, width: int) -> list[str]:
    """Where to look: the difference, its packets, and the command that shows them."""
    ends = [text(end) for end in one.pair]
    way = " - ".join(ends) if one.way is None else " > ".join(ends if one.way == 0 else ends[::-1])
    numbers = report.packets(sorted({each for name, found in one.parts for each in found if name == UNEXPLAINED}))
    packets = f", packets {', '.join(map(str, numbers))}" if numbers else ""
    lines = _fill(f"{one.column} of {way}: {one.ours} by synfin, {one.theirs} by {tool}{packets}", width)
    return lines + [f"    {report.command(life.name)}" for life in one.mine[:3]]


# ------------------------------------------------------------------------------------------------ data


def as_data(report: Report) -> dict[str, Any]:
    """The report with every difference."""
    data: dict[str, Any] = {
        "capture": report.capture, "complete": report.complete, "notes": report.notes, "compared": report.compared,
        "unexplained": len(report.unexplained), "tools": [_tool(report, joined) for joined in report.joined],
    }  # fmt: skip
    if report.part and report.part.options:
        data["narrowed"] = {"packets": len(report.part.numbers), **report.part.left_out}
    return data


def _tool(report: Report, joined: Joined) -> dict[str, Any]:
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
                "classes": [{"name": name, "packets": report.packets(numbers)} for name, numbers in one.parts],
                "explain": [report.command(life.name) for life in one.mine],
            }
            for one in joined.differences
        ],
    }  # fmt: skip
