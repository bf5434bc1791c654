"""Corrupt and odd files: read or refused with file and offset, and what capinfos makes of the same file.

Where one of the two reads a file that the other refuses, or another number of packets, one of REASONS must hold: a rule over
what both say, never a list of files.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from suite import ROOT, index

pytestmark = pytest.mark.skipif(not ROOT.exists(), reason="SYNFIN_CAPTURES names no folder of captures")

SECONDS = 5  # a file
XZ = b"\xfd7zXZ\0"


@dataclass
class Case:
    """One file: what synfin says and what capinfos said."""

    path: Path
    synfin: dict
    exit: int
    message: str
    packets: int | None  # capinfos' count, as far as it came

    @property
    def fault(self) -> str:
        return self.synfin["fault"] or ""

    def same(self) -> bool:
        """Both read it, or both stop, after as many packets."""
        return bool(self.fault) == bool(self.exit) and (self.packets is None or self.packets == self.synfin["packets"])


#: (name, rule, argument)
REASONS = (
    ("foreign_link_type", lambda c: re.search(r"network type \d+ unknown", c.message) and not c.fault,
     "capinfos refuses a link type that it does not know; synfin reads the file and counts the packets as link_type_N"),
    ("unpacked", lambda c: c.path.read_bytes()[:6] == XZ, "a capture packed by xz, which capinfos does not unpack"),
    ("unpadded_block", lambda c: "total block lengths" in c.message and not c.fault,
     "both length fields of the pcapng block agree and are no multiple of 4; capinfos looks for the second one behind padding"),
    ("one_block_beyond_the_end", lambda c: not c.exit and c.synfin["packets"] == 0 and "the file ends inside" in c.fault,
     "the first block is longer than the file: synfin stops there; capinfos takes the file for something that is no capture"),
    ("variant_guessed", lambda c: c.exit and "a captured length of" in c.fault,
     "capinfos guesses that impossible lengths mean another variant of pcap and goes on for a packet; synfin stops at the record"),
)  # fmt: skip


@cache
def results() -> dict[Path, dict]:
    """synfin's result for every file, each line from one process: a crash or a hang shows as a missing line."""
    paths = [ROOT / row["path"] for row in index("hostile/INDEX.tsv")]
    paths += sorted(path for path in (ROOT / "format").rglob("*") if path.is_file())
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("read_one.py"))],
        input="".join(f"{path}\n" for path in paths),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    found = {Path(one["path"]): one for one in map(json.loads, run.stdout.splitlines())}
    assert list(found) == paths
    return found


def cases() -> list[Case]:
    found = []
    for row in index("hostile/INDEX.tsv"):
        read = re.search(r"after reading (\d+) packets", row["capinfos_message"])
        packets = read[1] if read else row["capinfos_packets"]
        path = ROOT / row["path"]
        code = int(row["capinfos_exit"])
        found.append(Case(path, results()[path], code, row["capinfos_message"], int(packets) if packets else None))
    return found


def test_each_is_read_or_refused_in_time():
    assert len(results()) > 450
    assert {str(path): one["seconds"] for path, one in results().items() if one["seconds"] > SECONDS} == {}


def test_what_was_read_adds_up():
    for path, one in results().items():
        assert one["packets"] == one["in_records"] + one["skipped"], path


def test_a_fault_names_file_and_place():
    for path, one in results().items():
        if one["fault"]:
            assert str(path) in one["fault"], one
            assert "byte offset" in one["fault"] or "not a capture" in one["fault"], one


def test_the_container_files_are_read_to_their_end():
    """What stands in `format/` is odd but sound; only what says itself that it is broken may be refused."""
    refused = {path.name: one["fault"] for path, one in results().items() if "format" in path.parts and one["fault"]}
    assert refused == {}


def test_capinfos_reads_as_much_or_there_is_a_reason():
    differing = [case for case in cases() if not case.same()]
    unexplained = [
        (case.path.name, case.fault, case.synfin["packets"], case.exit, case.packets, case.message)
        for case in differing
        if not any(rule(case) for _, rule, _ in REASONS)
    ]
    assert unexplained == []
    assert len(differing) < 20


def test_every_reason_is_needed():
    differing = [case for case in cases() if not case.same()]
    assert [name for name, rule, _ in REASONS if not any(rule(case) for case in differing)] == []
