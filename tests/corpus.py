"""The folder of real captures that SYNFIN_CAPTURES names, and its lists."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("SYNFIN_CAPTURES") or "no-folder")
needs_captures = pytest.mark.skipif(
    not os.environ.get("SYNFIN_CAPTURES"), reason="SYNFIN_CAPTURES names no folder of captures"
)


def index(name: str = "INDEX.tsv") -> list[dict[str, str]]:
    """The rows of a list of captures; none without the folder."""
    if not (ROOT / name).exists():
        return []
    with open(ROOT / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def captures() -> list[dict[str, str]]:
    """The sound captures in a format that synfin reads."""
    return [row for row in index() if "pcap" in row["format"]]


def everything() -> list[Path]:
    """Every file that may be a capture: the sound, the containers, the hostile, and those of Zeek's suite."""
    return sorted(
        path
        for path in ROOT.rglob("*")
        if path.is_file() and "ref" not in path.parts and path.suffix not in (".tsv", ".md")
    )
