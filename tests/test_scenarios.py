"""Every folder of tests/scenarios/: its captures give the rows that it expects, from the core and from the slow tracker.

A folder holds one or more captures (one input, in the order of their names), `expect.jsonl` with one line for each row in
the order of first packets, naming the columns that matter, a README.md that says why, and, where needed, `settings.json`
with fields of Settings. Nothing else is needed to add one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rows import compare, fast
from synfin.schema import ENUMS
from synfin.settings import Settings

FOLDER = Path(__file__).parent / "scenarios"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


def captures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix not in {".jsonl", ".json", ".md"})


def expected(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "expect.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_scenario(name):
    folder = FOLDER / name
    file = folder / "settings.json"
    settings = Settings(**(json.loads(file.read_text()) if file.exists() else {}))
    assert (folder / "README.md").read_text().startswith(f"# {name}\n")
    paths = captures(folder)
    rows = sorted(fast(paths, settings)[0], key=lambda row: (row["first_file"], row["first_packet"]))
    for row in rows:
        row["first_file"] = Path(row["first_file"]).name
    wanted = expected(folder)
    assert [{column: row[column] for column in want} for row, want in zip(rows, wanted, strict=False)] == wanted
    assert len(rows) == len(wanted)
    assert compare(paths, settings) == []


@pytest.mark.parametrize("enum", ["handshake", "close", "end_reason"])
def test_every_value_has_a_scenario(enum):
    seen = {row.get(enum) for name in NAMES for row in expected(FOLDER / name)}
    assert set(ENUMS[enum]) - seen == set()
