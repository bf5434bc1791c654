"""What each program beside `synfin live` says that it saw is read from its own words."""

from __future__ import annotations

import json
from pathlib import Path

import beside
import pytest
from beside import Result

SAID = {
    "synfin": "a warning\n" + json.dumps({"packets": 7, "more": {"packets": 9}}, indent=2),
    "tcpdump": "tcpdump: listening on vb\n7 packets captured\n9 packets received by filter\n2 packets dropped by kernel\n",
    "softflowd": "Number of active flows: 3\nPackets processed: 7\nPackets received by libpcap: 9\n",
}


@pytest.mark.parametrize("name", SAID)
def test_packets_that_a_program_saw(name):
    (program,) = (program for program in beside.PROGRAMS if program.name == name)
    assert program.saw(Path("nowhere"), SAID[name]) == 7


def test_medians_and_ratios_within_a_turn():
    base = [Result(100, 1.0, 100, 1e-6), Result(100, 1.0, 100, 2e-6), Result(100, 1.0, 100, 4e-6)]
    runs = [Result(100, 1.0, 50, 1e-6), Result(100, 2.0, 50, 2e-6), Result(100, 1.0, 50, 6e-6)]
    cells = [cell.strip() for cell in beside.line_of("churn", "other", runs, base).split("|")[1:-1]]
    assert cells == ["churn", "other", "0.00", "100", "50", "50 %", "0.00", "40", "2.0"]
