"""What the tests of interfaces share: frames that are sent as they are, and a source that is tracked to its end."""

from __future__ import annotations

import socket
import time

from rows import rows_of
from synfin.run import Run
from synfin.settings import Settings

TIMEOUT = 20.0


def until(condition, what):
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def send(namespace, interface, frames):
    """Send frames as they are; gives them."""
    with namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((interface, 0))
        for frame in frames:
            sender.send(frame)
    return list(frames)


def drain(source):
    """End a source that has seen everything, and track what it has: rows of both tables, and the run."""
    run = Run(source, Settings())
    return *finish(run), run


def finish(run):
    """End the input of a run: rows of both tables."""
    run.source.stop()
    tables = {"flows": [], "intervals": []}
    for table, block in run.blocks():
        tables[table] += rows_of(block, table)
    return tables["flows"], tables["intervals"]


def received(run):
    """Packets that the kernel had for the rings of a run."""
    return sum(lost.ring_packets for lost in run.report.losses.values())
