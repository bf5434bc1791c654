"""Real traffic in a file: recorded by tcpdump, thinned out at random, or cut down to one direction."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from netns import Namespace, NotAllowed

_PATIENCE_S = 30
#: tcpdump leaves in the ring what has come in the last second before it is interrupted.
_SETTLE_S = 1.5
#: Enough for every header; payload is not looked at.
_SNAP = 128
_HEADER, _RECORD = struct.Struct("<IHHiIII"), struct.Struct("<IIII")
_NANOSECONDS = 0xA1B23C4D


class Frame(NamedTuple):
    """One packet of a capture: its instant, its first bytes, and its length on the wire."""

    time_ns: int
    data: bytes
    length: int


class LostPackets(Exception):
    """tcpdump did not see everything; the text is what it says."""


@contextlib.contextmanager
def recorded(namespace: Namespace, interface: str, path: Path) -> Iterator[None]:
    """Record an interface for as long as the block lasts. Raises NotAllowed where tcpdump does not run, LostPackets at the end
    where some are missing."""
    # It ends by itself, should this process be killed.
    limit = ["timeout", "1800"]
    options = ["-n", "-s", str(_SNAP), "-B", "131072", "-Z", "root", "--time-stamp-precision=nano"]
    command = [*limit, "tcpdump", "-i", interface, *options, "-w", str(path)]
    process = namespace.popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = []
        while "listening on" not in (line := process.stderr.readline()):
            if not line:  # not installed; or a user namespace, in which it cannot give up its privileges
                raise NotAllowed(" ".join(said).strip())
            said.append(line)
        yield
        time.sleep(_SETTLE_S)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=_PATIENCE_S)[1]
        told = re.findall(r"^(\d+) packets? (captured|received|dropped)", said, re.MULTILINE)
        counts = {what: int(count) for count, what in told}
        if counts["dropped"] or counts["captured"] != counts["received"]:
            raise LostPackets(said.strip())
    finally:
        process.terminate()  # `timeout` passes it on
        process.communicate()


def read(path: Path) -> list[Frame]:
    """The frames of a file that `recorded` made. Raises ValueError for any other."""
    data = path.read_bytes()
    if _HEADER.unpack_from(data)[0] != _NANOSECONDS:
        raise ValueError(f"{path}: not a pcap of nanoseconds in this byte order")
    at, frames = _HEADER.size, []
    while at < len(data):
        seconds, nanoseconds, kept, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size + kept
        frames.append(Frame(seconds * 10**9 + nanoseconds, data[at - kept : at], length))
    return frames


def write(path: Path, frames: Iterable[Frame]) -> None:
    """Write frames as `recorded` does."""
    out = bytearray(_HEADER.pack(_NANOSECONDS, 2, 4, 0, 0, _SNAP, 1))
    for frame in frames:
        out += _RECORD.pack(*divmod(frame.time_ns, 10**9), len(frame.data), frame.length) + frame.data
    path.write_bytes(out)


def thinned(frames: Iterable[Frame], lost: float, seed: int = 1) -> list[Frame]:
    """What is left where each frame is lost with this probability; the same for the same seed."""
    chance = random.Random(seed)
    return [frame for frame in frames if chance.random() >= lost]


def last_ns(frames: Iterable[Frame]) -> int:
    """The instant of the last IPv4 packet: the two hosts also ask for each other's addresses (ARP) when all is over."""
    return max(frame.time_ns for frame in frames if frame.data[12:14] == b"\x08\x00")


def tick(time_ns: int) -> Frame:
    """A frame of no protocol that anybody looks at (IEEE 802 local experimental Ethertype): it moves the clock."""
    return Frame(time_ns, bytes(12) + b"\x88\xb5" + bytes(46), 60)


def random_filter(lost: float) -> str:
    """The same as `thinned` in the kernel, as bytecode for ``synfin live --filter``; no two runs lose the same packets."""
    # Load a random number (SKF_AD_RANDOM); take what lies at or above the share that is lost.
    program = (
        (0x20, 0, 0, 0xFFFFF000 + 56),
        (0x35, 0, 1, int(lost * (2**32 - 1))),
        (0x06, 0, 0, 262144),
        (0x06, 0, 0, 0),
    )
    return "\n".join([str(len(program)), *(" ".join(map(str, step)) for step in program)])
