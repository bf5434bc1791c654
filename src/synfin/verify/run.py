"""Verify one capture: synfin's rows beside another tool's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from synfin.verify import tools
from synfin.verify.explain import Evidence, explain
from synfin.verify.join import SLOW_COLUMNS, TSHARK_COLUMNS, Joined, join
from synfin.verify.lives import Life, slow_rows, synfin_rows
from synfin.verify.report import Part, Report
from synfin.verify.tcptrace import COLUMNS, comparable, tcptrace, with_packets
from synfin.verify.tcptrace_classes import TCPTRACE_CLASSES
from synfin.verify.witness import Seen, watch


def _silent(_: str) -> None:
    pass


def verify(capture: str, part: Part | None = None, say: Callable[[str], None] = _silent) -> Report:
    """Compare a capture, or a part of it, with tshark and tcptrace; without either, with the slow tracker.

    `say` is called with what is going on. Raises SynfinError where the capture cannot be opened or is none.
    """
    path = part.path if part else capture
    say("tracking")
    rows = synfin_rows(path)
    found = part or rows
    report = Report(capture, part, complete=found.complete, notes=list(found.warnings))
    comparisons = []
    for name, compare in ((tools.TSHARK, with_tshark), (tools.TCPTRACE, with_tcptrace)):
        say(f"running {name}")
        try:
            comparisons.append(compare(path, rows.lives))
        except tools.ToolError as error:
            report.notes.append(str(error).replace(path, capture))
    say("looking for reasons")
    seen = witnessed(path, comparisons)
    for comparison in comparisons:
        try:
            report.joined.append(comparison.settled(seen))
        except tools.ToolError as error:
            report.notes.append(str(error).replace(path, capture))
    if not report.joined:
        say("running the slow tracker")
        report.joined.append(join("synfin.reference", SLOW_COLUMNS, rows.lives, slow_rows(path)))
        if report.compared:
            report.notes.append("compared with synfin's slow tracker only, which follows the same definitions")
    return report


@dataclass(frozen=True)
class Comparison:
    """synfin's rows beside one tool's, and how what became of each packet is laid beside what the tool shows of it."""

    joined: Joined
    evidence: Callable[[Seen], Evidence]

    def settled(self, seen: Seen | None) -> Joined:
        """Every difference with its reason. `seen` is None only where nothing differs. Raises ToolError."""
        if seen and self.joined.differences:
            evidence = self.evidence(seen)
            for one in self.joined.differences:
                explain(one, evidence)
        return self.joined


def with_tshark(path: str, mine: list[Life]) -> Comparison:
    """The comparison with tshark's streams. Raises ToolError."""
    theirs = tools.tshark(path)
    joined = join(tools.version(tools.TSHARK) or tools.TSHARK, TSHARK_COLUMNS, mine, theirs)
    return Comparison(joined, beside_tshark(theirs))


def beside_tshark(theirs: list[Life]) -> Callable[[Seen], Evidence]:
    """The packets of tshark's streams beside what became of them."""
    return lambda seen: Evidence({life.name: life for life in theirs}, seen)


def with_tcptrace(path: str, mine: list[Life]) -> Comparison:
    """The comparison with tcptrace's connections. Raises ToolError."""
    theirs = tcptrace(path)
    joined = join(tools.version(tools.TCPTRACE) or tools.TCPTRACE, COLUMNS, comparable(mine), theirs)

    def evidence(seen: Seen) -> Evidence:
        lives = {life.name: life for life in with_packets(path, theirs, seen.steps)}
        return Evidence(lives, seen, TCPTRACE_CLASSES, 1000, COLUMNS, comparable)

    return Comparison(joined, evidence)


def witnessed(path: str, comparisons: list[Comparison]) -> Seen | None:
    """What became of each packet of the connections that differ somewhere; None where none does."""
    pairs = {one.pair for comparison in comparisons for one in comparison.joined.differences}
    return watch(path, pairs) if pairs else None
