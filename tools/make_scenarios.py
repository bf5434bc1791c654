"""Writes the folders of tests/scenarios/ that are made, not recorded: ``python tools/make_scenarios.py``.

Each function of tools/scenarios/ is a scenario: its name is the folder's, its docstring says why it is there, and it
returns the packets of the capture (or of several, by file name). What is expected is written beside it by hand, from the
rules and not from what synfin gives. A folder that no function makes is left alone: a scenario may as well be a capture
of real hosts.
"""

from __future__ import annotations

import json
import sys
import textwrap
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "scenarios"
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

from dialogue import write_pcap  # noqa: E402
from scenarios import SCENARIOS  # noqa: E402

TOPICS = ("opening", "attempts", "closing", "borders", "resets", "time", "caps", "elsewhere")


def write(name: str) -> None:
    """Make one folder."""
    scenario = SCENARIOS[name]
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    packets = scenario.make()
    for file, part in (packets if isinstance(packets, dict) else {"capture.pcap": packets}).items():
        write_pcap(folder / file, part)
    lines = [json.dumps(row) for row in scenario.expect]
    (folder / "expect.jsonl").write_text("\n".join(lines) + "\n")
    if scenario.settings:
        (folder / "settings.json").write_text(json.dumps(scenario.settings) + "\n")
    why = textwrap.fill(" ".join(scenario.why.split()), 100)
    (folder / "README.md").write_text(f"# {name}\n\n{why}\n")


def main() -> None:
    for topic in TOPICS:
        import_module(f"scenarios.{topic}")
    for name in SCENARIOS:
        write(name)
    print(f"{len(SCENARIOS)} scenarios in {FOLDER.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
