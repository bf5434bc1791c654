"""Verify one capture: synfin's rows beside another tool's."""

from __future__ import annotations

from synfin.verify import tools
from synfin.verify.explain import Evidence, explain
from synfin.verify.join import SLOW_COLUMNS, TSHARK_COLUMNS, Joined, join
from synfin.verify.lives import Life, slow_rows, synfin_rows
from synfin.verify.report import Report
from synfin.verify.tcptrace import COLUMNS, comparable, tcptrace, with_packets
from synfin.verify.tcptrace_classes import TCPTRACE_CLASSES
from synfin.verify.witness import watch


def verify(path: str) -> Report:
    """Compare a capture with tshark and tcptrace; without either, with the slow tracker.

    Raises SynfinError where synfin cannot read the capture at all.
    """
    report = Report(path)
    mine, broken = synfin_rows(path)
    if broken:
        report.notes.append(broken)
    for compare in (against_tshark, against_tcptrace):
        try:
            report.joined.append(compare(path, mine))
        except tools.ToolError as error:
            report.notes.append(str(error))
    if not report.joined:
        report.notes.append("compared with synfin's slow tracker only, which follows the same definitions")
        report.joined.append(join("synfin.reference", SLOW_COLUMNS, mine, slow_rows(path)))
    return report


def against_tshark(path: str, mine: list[Life]) -> Joined:
    """Every difference between synfin's rows and tshark's streams with its reason. Raises ToolError."""
    theirs = tools.tshark(path)
    joined = join(tools.version(tools.TSHARK) or tools.TSHARK, TSHARK_COLUMNS, mine, theirs)
    settle(path, joined, theirs)
    return joined


def against_tcptrace(path: str, mine: list[Life]) -> Joined:
    """The same for tcptrace's connections."""
    theirs = tcptrace(path)
    joined = join(tools.version(tools.TCPTRACE) or tools.TCPTRACE, COLUMNS, comparable(mine), theirs)
    if joined.differences:
        seen = watch(path, {one.pair for one in joined.differences})
        lives = {life.name: life for life in with_packets(path, theirs, seen.steps)}
        evidence = Evidence(lives, seen, TCPTRACE_CLASSES, 1000, COLUMNS, comparable)
        for one in joined.differences:
            explain(one, evidence)
    return joined


def settle(path: str, joined: Joined, theirs: list[Life]) -> None:
    """Find the reason of every difference of a capture."""
    if joined.differences:
        seen = watch(path, {one.pair for one in joined.differences})
        evidence = Evidence({life.name: life for life in theirs}, seen)
        for one in joined.differences:
            explain(one, evidence)
