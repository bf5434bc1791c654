"""Encoding goes on in another thread, a bounded way behind; what fails there reaches the caller, and no thread is left."""

import os
import signal
import threading

import pyarrow.parquet as pq
import pytest
from fakes import FakeBlock, sample

from synfin.errors import ExportError
from synfin.output import formats
from synfin.output.arrow import Layout
from synfin.output.encoder import BLOCKS_AHEAD, Encoder
from synfin.output.writer import Output, Target

PATIENCE_S = 60


@pytest.fixture(autouse=True)
def no_thread_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_in_another_thread_and_in_order():
    written, threads = [], set()

    def write(table, block):
        written.append((table, block))
        threads.add(threading.current_thread())

    encoder = Encoder(write)
    put = [(("flows", "intervals")[k % 3 == 0], k) for k in range(50)]
    for table, block in put:
        encoder.put(table, block)
    encoder.finish()
    assert written == put
    assert len(threads) == 1 and threading.current_thread() not in threads


def test_the_caller_is_ahead_by_no_more_than_is_said():
    """The first block is written only when the caller has gone as far ahead as it may: a caller that had to wait for
    each block would never get there, and one that may go on has time to be found out.
    """
    returned, ahead, far = [], [], threading.Event()

    def write(table, block):
        assert block or far.wait(PATIENCE_S)
        threading.Event().wait(0.01)
        ahead.append(len(returned) - block)  # so many puts came back beside those whose blocks are written

    encoder = Encoder(write)
    for block in range(4 * BLOCKS_AHEAD):
        encoder.put("flows", block)
        returned.append(block)
        if len(returned) == BLOCKS_AHEAD:
            far.set()
    encoder.finish()
    assert max(ahead) == ahead[0] == BLOCKS_AHEAD


def test_an_offer_is_taken_while_there_is_room_and_never_waits():
    go, written = threading.Event(), []

    def write(*what):
        assert go.wait(PATIENCE_S)
        written.append(what)

    encoder = Encoder(write, room=10)
    assert encoder.is_idle
    assert [encoder.offer("flows", size, size=size) for size in (6, 5, 3, 2, 1, 1)] == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]
    assert not encoder.is_idle
    go.set()
    while not encoder.is_idle:
        threading.Event().wait(0.001)
    assert encoder.offer("flows", 10, size=10)
    encoder.put("flows", 1)  # waits for one that takes everything
    encoder.finish()
    assert [size for _, size in written] == [6, 3, 1, 10, 1]


def test_an_offer_after_a_failure_tells_it():
    def write():
        raise ExportError("cannot write rows")

    encoder = Encoder(write, room=10)
    assert encoder.offer()
    while not encoder.is_idle:
        threading.Event().wait(0.001)
    with pytest.raises(ExportError):
        encoder.offer()
    encoder.close()


def test_a_failure_is_told_and_nothing_is_written_after_it():
    written, failure = [], ExportError("cannot write rows: no space left on device")

    def write(table, block):
        if block == 2:
            raise failure
        written.append(block)

    encoder = Encoder(write)
    with pytest.raises(ExportError) as caught:
        for block in range(10 * BLOCKS_AHEAD):
            encoder.put("flows", block)
    assert caught.value is failure
    with pytest.raises(ExportError):
        encoder.finish()
    encoder.close()
    assert written == [0, 1]


def test_a_failure_with_the_last_block_is_told_at_the_end():
    def write(table, block):
        raise ExportError("cannot write rows")

    encoder = Encoder(write)
    encoder.put("flows", 0)
    with pytest.raises(ExportError):
        encoder.finish()
    encoder.close()


def test_a_signal_breaks_off_the_wait_for_room():
    go, old = threading.Event(), None

    def stop(number, frame):
        raise KeyboardInterrupt

    encoder = Encoder(lambda table, block: go.wait(PATIENCE_S))
    for block in range(BLOCKS_AHEAD):
        encoder.put("flows", block)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        old = signal.signal(signal.SIGUSR1, stop)
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            encoder.put("flows", BLOCKS_AHEAD)
    finally:
        signal.signal(signal.SIGUSR1, old)
        go.set()
        timer.join()
        encoder.close()


class Watched(formats.ArrowStream):
    """A format that notes the threads of its writes, and fails at the third where it is asked to."""

    threads: set[threading.Thread]
    fails: bool

    def write(self, batch):
        self.threads.add(threading.current_thread())
        self.count = getattr(self, "count", 0) + 1
        if self.fails and self.count == 3:
            raise OSError(28, "no room")
        super().write(batch)


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setitem(formats.FORMATS, "arrow", Watched)
    Watched.threads, Watched.fails = set(), False
    return Watched


def write_blocks(path, count=1):
    layout = Layout.choose("flows")
    output = Output(Target.parse(str(path), format="arrow"), {"flows": layout})
    try:
        for _ in range(count):
            output.write("flows", FakeBlock("flows", sample("flows")))
        output.commit({})
    except BaseException:
        output.abort()
        raise


def test_files_are_written_by_another_thread_and_what_may_block_by_this_one(watched, tmp_path):
    write_blocks(tmp_path / "rows.arrow")
    assert threading.current_thread() not in watched.threads
    watched.threads.clear()
    write_blocks("/dev/null")
    assert watched.threads == {threading.current_thread()}


def test_a_format_that_fails_leaves_no_file(watched, tmp_path):
    watched.fails = True
    with pytest.raises(ExportError, match="no space left on device; make room"):
        write_blocks(tmp_path / "rows.arrow", 20)
    assert list(tmp_path.iterdir()) == []


def test_two_tables_share_the_thread(tmp_path):
    layouts = {table: Layout.choose(table) for table in ("flows", "intervals")}
    output = Output(Target.parse(f"{tmp_path}/rows/"), layouts)
    for rows in range(1, 9):
        for table in layouts:
            output.write(table, FakeBlock(table, sample(table, rows)))
    output.commit({})
    for table, column in (("flows", "first_packet"), ("intervals", "syns")):
        expected = [value for rows in range(1, 9) for value in sample(table, rows)[column]]
        assert pq.read_table(tmp_path / "rows" / table)[column].to_pylist() == expected
