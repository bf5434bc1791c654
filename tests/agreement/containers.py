"""What capinfos makes of the corrupt and odd files beside synfin, and the reasons for which the two differ."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from corpus import ROOT, index
from reading import read_each

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


def hostile() -> list[Path]:
    """The corrupt and odd files, of which capinfos' answers are at hand."""
    return [ROOT / row["path"] for row in index("hostile/INDEX.tsv")]


def containers() -> list[Path]:
    """The odd but sound files of `format/`."""
    return sorted(path for path in (ROOT / "format").rglob("*") if path.is_file())


@cache
def results() -> dict[Path, dict]:
    """synfin's result for every file."""
    return read_each(hostile() + containers())


def cases() -> list[Case]:
    """Every file that both were asked about: those of `format/` only where capinfos is installed."""
    stored = [
        case(ROOT / row["path"], int(row["capinfos_exit"]), row["capinfos_message"], row["capinfos_packets"])
        for row in index("hostile/INDEX.tsv")
    ]
    return stored + ([ask(path) for path in containers()] if shutil.which("capinfos") else [])


def ask(path: Path) -> Case:
    """Run capinfos on a file."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # a sanitizer is for us
    done = subprocess.run(
        ["capinfos", "-c", "-M", path], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    packets = re.search(r"Number of packets:\s+(\d+)", done.stdout)
    return case(path, done.returncode, done.stderr, packets[1] if packets else "")


def case(path: Path, code: int, message: str, packets: str) -> Case:
    """Where capinfos stopped inside a file, its message says after how many packets."""
    read = re.search(r"after reading (\d+) packets", message)
    count = read[1] if read else packets
    return Case(path, results()[path], code, message, int(count) if count else None)


def reason(one: Case) -> str | None:
    """The name of the first reason that holds, None where the two differ without one."""
    return next((name for name, rule, _ in REASONS if rule(one)), None)
