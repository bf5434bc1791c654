"""What tests of the output folder share: blocks of random numbers, a clock that is set by hand, waiting for the writer."""

from __future__ import annotations

import random
import struct
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

from synfin.output.arrow import Layout
from synfin.sidecar.rolling import Rolling

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
NOON = int(datetime(2031, 5, 7, 12, 0, tzinfo=UTC).timestamp()) * SECOND
COLUMNS = {
    "flows": ["flow_id", "client_port"],
    "intervals": ["interval_start", "syns"],
    "interim": ["flow_id", "client_port"],
}
_PATIENCE_S = 60


def layouts(*tables: str) -> dict[str, Layout]:
    """Layouts of two columns."""
    return {
        table: Layout.choose("flows", COLUMNS[table]).for_interim()
        if table == "interim"
        else Layout.choose(table, COLUMNS[table])
        for table in tables
    }


class Numbers:
    """A block with the columns of `layouts`; the first one is random, so that it takes its room on disk."""

    def __init__(self, table: str, rows: int, seed: int = 0):
        self.rows = rows
        first, second = COLUMNS[table]
        self.values = random.Random(seed).randbytes(8 * rows)
        if first == "flow_id":  # not negative
            self.values = struct.pack(f"<{rows}q", *(n >> 1 for n in struct.unpack(f"<{rows}Q", self.values)))
        self._columns = {first: self.values, second: bytes(8 * rows)}

    def buffers(self, name: str):
        return None, self._columns[name]

    @property
    def first(self) -> list[int]:
        return list(struct.unpack(f"<{self.rows}q", self.values))


class Clock:
    """A wall clock that stands still unless it is set."""

    def __init__(self, now_ns: int = NOON):
        self.now_ns = now_ns

    def __call__(self) -> int:
        return self.now_ns


def settle(rolling: Rolling) -> None:
    """Wait until the writing thread has done everything that it was given."""
    until = time.monotonic() + _PATIENCE_S
    while not rolling._encoder.is_idle:
        assert time.monotonic() < until
        time.sleep(0.001)


def tick(rolling: Rolling) -> None:
    """A second goes by for the writer."""
    settle(rolling)
    rolling.tick()
    settle(rolling)


def tree(folder: Path) -> list[str]:
    """The complete files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.parquet") if not path.name.startswith("."))


def hidden(folder: Path) -> list[str]:
    """The half files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*.tmp"))


def rows(path: Path) -> list[int]:
    """The first column of one file."""
    return pq.ParquetFile(path).read().column(0).cast("int64").to_pylist()


def about(path: Path) -> dict[str, str]:
    """What a file says of its run."""
    return {key.decode(): value.decode() for key, value in pq.ParquetFile(path).metadata.metadata.items()}
