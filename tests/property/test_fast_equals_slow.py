"""The core and the slow tracker give the same rows, every column of both tables, on random talk."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from talk import seen_twice, talk

from dialogue import write_pcap, write_pcapng
from rows import compare, fast, order

#: Every choice that a talk makes is drawn by Hypothesis, so that one that fails shrinks to few packets.
#: Talk of which the tap saw something.
TALKS = st.randoms(use_true_random=False).map(talk).filter(lambda talk: bool(talk[0]))
LONG = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


def examples(number: int, *, fixed: bool = True):
    """Settings of a property test: the same examples in every run, unless not ``fixed``."""
    return settings(max_examples=number, deadline=None, derandomize=fixed, suppress_health_check=LONG)


def written(folder, files, write=write_pcap):
    return [write(folder / f"{number}.cap", packets) for number, packets in enumerate(files)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("talk")


def check(folder, talk):
    files, tracking = talk
    assert compare(written(folder, files), tracking) == []


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_every_column_of_both_tables(folder, start):
    for seed in range(start, start + 50):
        check(folder, talk(random.Random(seed)))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(200, 1000, 100))
def test_every_column_of_both_tables_at_length(folder, start):
    for seed in range(start, start + 100):
        check(folder, talk(random.Random(seed)))


@pytest.mark.slow
@examples(300)
@given(talk=TALKS)
def test_every_column_of_free_talk(folder, talk):
    """What fails here is shrunk and printed. `make fuzz` takes other examples in every run."""
    check(folder, talk)


@pytest.mark.skipif("SYNFIN_FUZZ" not in os.environ, reason="as many examples as there is time for: make fuzz")
@examples(int(os.environ.get("SYNFIN_FUZZ", "1")), fixed=False)
@given(talk=TALKS, duplicates=st.sampled_from(["keep", "count", "drop"]))
def test_fuzz(folder, talk, duplicates):
    files, tracking = talk
    paths = written(folder, files if duplicates == "keep" else seen_twice(files, len(files[0])))
    assert compare(paths, replace(tracking, duplicates=duplicates)) == []


@pytest.mark.parametrize("duplicates", ["count", "drop"])
def test_capture_duplicates(folder, duplicates):
    found = 0
    for seed in range(40):
        files, tracking = talk(random.Random(seed))
        tracking = replace(tracking, duplicates=duplicates)
        paths = [write_pcap(folder / f"{n}.cap", packets) for n, packets in enumerate(seen_twice(files, seed))]
        assert (seed, compare(paths, tracking)) == (seed, [])
        _, intervals, stats = fast(paths, tracking)
        found += stats["skips"].get("capture_duplicate", 0) + sum(row["capture_duplicates"] or 0 for row in intervals)
    assert found > 400


def test_evictions(folder):
    """Several talks at once in one capture, at caps that they reach all the time."""
    evicted: Counter[str] = Counter()
    for seed in range(25):
        several = [talk(random.Random(1_000 * seed + number))[0] for number in range(6)]
        packets = [packet for files in several for part in files for packet in part[:150]]
        packets.sort(key=lambda packet: packet.time_ns)
        _, tracking = talk(random.Random(seed))
        tracking = replace(tracking, max_flows=1 + seed % 7, duplicates=("keep", "count")[seed % 2])
        paths = written(folder, [packets])
        assert (seed, compare(paths, tracking)) == (seed, [])
        evicted.update(fast(paths, tracking)[2]["evicted"])
    assert min(evicted[rank] for rank in ("unanswered", "half_open", "lingering", "open")) > 20


@examples(60)
@given(talk=TALKS, chunk=st.sampled_from([1, 2, 3, 7, 16, 61, 1000]))
def test_chunks_change_nothing(folder, talk, chunk):
    files, tracking = talk
    paths = written(folder, files)
    whole, pieces = fast(paths, tracking), fast(paths, tracking, chunk_bytes=chunk)
    assert sorted(whole[0], key=order) == sorted(pieces[0], key=order)
    assert whole[1] == pieces[1]


@examples(40)
@given(talk=TALKS)
def test_the_container_changes_nothing(folder, talk):
    files, tracking = talk
    plain = fast(written(folder, files), tracking)
    blocks = fast(written(folder, files, write_pcapng), tracking)
    for row in blocks[0]:
        row["interface"] = None
    assert sorted(plain[0], key=order) == sorted(blocks[0], key=order)
    assert plain[1] == blocks[1]


@examples(60)
@given(talk=TALKS, pieces=st.integers(2, 6))
def test_splitting_a_capture_changes_nothing(folder, talk, pieces):
    """A rotated set is one stream. Not where the clock jumps: the last packet of a file is judged without a next one."""
    files, tracking = talk
    packets = sorted((packet for part in files for packet in part), key=lambda packet: packet.time_ns)
    gaps = [b.time_ns - a.time_ns for a, b in pairwise(packets)]
    if len(packets) < pieces or max(gaps) > 3_600 * 10**9:
        return
    size = -(-len(packets) // pieces)
    split = [packets[start : start + size] for start in range(0, len(packets), size)]
    if any(a == b for number, a in enumerate(split) for b in split[:number]):
        return  # a capture that is the same as another is read once
    whole = fast([write_pcap(folder / "whole.cap", packets)], tracking)
    paths = [write_pcap(folder / f"part{number}.cap", part) for number, part in enumerate(split)]
    parts = fast(paths, tracking)
    for row in whole[0] + parts[0]:
        row["first_file"] = row["first_packet"] = None
    assert sorted(whole[0], key=repr) == sorted(parts[0], key=repr)
    assert whole[1] == parts[1]
