"""Rows of interfaces that wait while nobody takes them; packets themselves are in tests/live/test_top_live.py."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pyarrow as pa
import pytest

from synfin.settings import Settings
from synfin.top import history, interfaces
from synfin.top.interfaces import Interfaces

S = 1_000_000_000


def second(number, keys=1):
    """The rows of one second."""
    return pa.table({"start": [number * S] * keys, "end": [(number + 1) * S] * keys})


class Workers:
    """Gives rows without packets; ends when it is told to."""

    interface_up: dict[str, bool] = {}  # noqa: RUF012
    drops = 0

    def __init__(self, rows):
        self._rows = rows
        self.given, self._ended = threading.Event(), threading.Event()
        self.workers = [SimpleNamespace(published=SimpleNamespace(clock_ns=None))]
        self.outcome = SimpleNamespace(complete=True)

    def blocks(self):
        yield from self._rows
        self.given.set()
        self._ended.wait()

    def wake(self):
        self._ended.set()


@pytest.fixture
def waiting(monkeypatch):
    """Makes a feed on which rows have come that nobody took."""
    feeds = []

    def make(rows, keep_ns):
        workers = Workers(rows)
        monkeypatch.setattr(interfaces, "open_inputs", lambda config: [])
        monkeypatch.setattr(interfaces.privileges, "drop", lambda user: None)
        monkeypatch.setattr(interfaces, "LiveWorkers", lambda *inputs, **how: workers)
        monkeypatch.setattr(Interfaces, "_plain", lambda self, table, rows: rows)
        settings = Settings(by=("service",))
        feeds.append(Interfaces(SimpleNamespace(interfaces=["a"], workers=1, user=None, settings=settings), keep_ns))
        assert workers.given.wait(20)
        return feeds[-1], workers

    yield make
    for feed in feeds:
        feed.close()


def test_rows_wait_no_longer_than_they_are_kept(waiting):
    feed, _ = waiting([("intervals", second(number)) for number in range(1000)], 60 * S)
    (table, rows), *more = feed.take()
    assert (table, more, feed.take()) == ("intervals", [], [])
    assert rows["start"].to_pylist() == [number * S for number in range(940, 1000)]
    assert rows["start"].num_chunks <= history._MANY_CHUNKS
    assert feed.notice == ""


def test_no_more_rows_of_a_table_wait_than_there_is_room_for(waiting, monkeypatch):
    """The oldest go, which is said until they would be too old anyway."""
    monkeypatch.setattr(history, "ROOM", 100)
    rows = [piece for n in range(50) for piece in (("intervals", second(n)), ("services", second(n, 10)))]
    feed, workers = waiting(rows, 60 * S)
    taken = dict(feed.take())
    assert taken["intervals"].num_rows == 50
    assert taken["services"]["start"].unique().to_pylist() == [number * S for number in range(40, 50)]
    assert feed.notice == "rows came faster than they were shown: older ones are missing"
    feed.take()
    assert feed.notice != ""
    workers.workers[0].published.clock_ns = 150 * S
    assert feed.notice == ""
