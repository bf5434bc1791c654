"""`synfin explain` on random talk: nothing is left out, the rows are `track`'s, and an interim row is the final row of what
came so far."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from talk import talk

from dialogue import write_pcap
from explained import explained, words
from rows import fast, order


@pytest.mark.parametrize("start", range(0, 200, 50))
def test_rows_and_packets(tmp_path, start):
    for seed in range(start, start + 50):
        files, tracking = talk(random.Random(seed))
        paths = [write_pcap(tmp_path / f"{number}.cap", packets) for number, packets in enumerate(files)]
        records = explained(paths, tracking)
        assert sorted((record.row for record in records), key=order) == sorted(fast(paths, tracking)[0], key=order)
        assert all(words(record) for record in records if record.steps)
        assert sum(len(record.steps) for record in records) == sum(map(len, files))


#: What an interim row does not know: that the record ends, and of a held SYN whether it belongs to it.
NOT_YET = {"record", "end_reason", "time_wait_end"}


def test_an_interim_row_is_the_final_row_of_what_came_so_far(tmp_path):
    compared = 0
    for seed in range(40):
        (packets, *_), tracking = talk(random.Random(seed))
        # Where the clock jumps, the last packet of a capture is judged without a next one.
        if len(packets) > 200 or max(abs(b.time_ns - a.time_ns) for a, b in pairwise(packets)) > 3_600 * 10**9:
            continue
        for record in explained([write_pcap(tmp_path / "all.cap", packets)], tracking):
            for step in record.steps:
                if step.after["held"]:
                    continue
                path = write_pcap(tmp_path / "part.cap", packets[: step.number])
                rows = [row for row in fast([path], tracking)[0] if row["flow_id"] == step.row["flow_id"]]
                if [row["client_port"] for row in rows] != [record.row["client_port"]]:
                    continue  # none of it so far, or another guess at who is the client
                if rows[0]["end_reason"] in ("end_of_input", "fin", "rst"):
                    differ = {name for name in step.row if step.row[name] != rows[0][name]} - NOT_YET - {"first_file"}
                    assert (seed, step.number, differ) == (seed, step.number, set())
                    compared += 1
    assert compared > 200
