"""synfin's rows of every shared capture beside tshark's ready rows: the comparison that the tests judge and `write.py` prints.

tshark itself runs only where a capture's rows differ, to tell which packets they differ in.
"""

from __future__ import annotations

import gzip
import shutil
from functools import cache

from corpus import ROOT, captures
from synfin.verify import tools
from synfin.verify.join import TSHARK_COLUMNS, Joined, join
from synfin.verify.lives import synfin_rows
from synfin.verify.run import Comparison, beside_tshark, with_tcptrace, witnessed

HAS_TSHARK = shutil.which("tshark") is not None
HAS_TCPTRACE = shutil.which("tcptrace") is not None


def with_tshark_rows() -> list[dict[str, str]]:
    """The sound captures in a format that synfin reads and of which tshark's rows are at hand."""
    return [row for row in captures() if (ROOT / "ref" / f"{row['sha256']}.tsv.gz").exists()]


def against_tshark(capture: dict[str, str]) -> Joined:
    """The comparison of one capture; every difference with its reason."""
    path = str(ROOT / capture["path"])
    with gzip.open(ROOT / "ref" / f"{capture['sha256']}.tsv.gz", "rt", encoding="utf-8") as file:
        theirs = list(tools.tshark_rows(file))
    joined = join("tshark", TSHARK_COLUMNS, synfin_rows(path).lives, theirs)
    if joined.differences:
        settled(path, Comparison(joined, beside_tshark(tools.tshark(path))))
    return joined


def settled(path: str, comparison: Comparison) -> Joined:
    """One comparison, with the reasons of its differences."""
    return comparison.settled(witnessed(path, [comparison]))


def against_tcptrace(capture: dict[str, str]) -> Joined | str:
    """The comparison of one capture with tcptrace, which is run on it; or why there is none."""
    path = str(ROOT / capture["path"])
    try:
        return settled(path, with_tcptrace(path, synfin_rows(path).lives))
    except tools.ToolError as error:
        return str(error).replace(path, "a capture")


@cache
def all_against_tcptrace() -> dict[str, Joined | str]:
    """Every shared capture by its path in the folder."""
    return {capture["path"]: against_tcptrace(capture) for capture in with_tshark_rows()}


@cache
def all_against_tshark() -> dict[str, Joined]:
    """Every shared capture by its path in the folder."""
    return {capture["path"]: against_tshark(capture) for capture in with_tshark_rows()}
