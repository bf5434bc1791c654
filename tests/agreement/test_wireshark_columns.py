"""`wireshark_completeness` and `wireshark_initial_rtt_ns` against tshark, on every shared capture."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter

import pytest
from shared import captures_with_streams, flow_rows, packets_of
from tshark_columns import (
    CUT_ELSEWHERE,
    EQUAL,
    FORETOLD,
    FRAGMENT,
    NOT_DECODED,
    NOT_SHOWN,
    ONE_PASS,
    UNEXPLAINED,
    alone_class,
    completeness_class,
    initial_rtt_class,
    join,
    nanoseconds,
    stream_flags,
    two_pass_class,
)

from corpus import needs_captures

pytestmark = needs_captures


def test_against_the_stored_streams():
    """tshark 4.0.17 on one pass; where a stream is exactly one record, nothing is unexplained."""
    counts, unexplained = Counter(), []
    for path, streams in captures_with_streams():
        rows = flow_rows(path)
        pairs, _, alone = join(rows, streams)
        runs = stream_flags(packets_of(path), streams)
        for row, stream in pairs:
            verdicts = {
                "completeness": completeness_class(row, stream, runs.get(stream["stream"])),
                "initial_rtt": initial_rtt_class(row, stream),
            }
            counts.update(verdicts.items())
            unexplained += [(path.name, stream["stream"], what) for what, why in verdicts.items() if why == UNEXPLAINED]
        counts.update(("stream", alone_class(stream, rows, streams)) for stream in alone)
    assert unexplained == []
    assert counts["initial_rtt", EQUAL] > 26_000
    assert counts["initial_rtt", NOT_SHOWN] < 10
    assert counts["completeness", EQUAL] > 11_000
    assert counts["completeness", EQUAL] + counts["completeness", ONE_PASS] > 26_000
    assert counts["completeness", FORETOLD] + counts["completeness", FRAGMENT] < 10
    assert counts["stream", CUT_ELSEWHERE] + counts["stream", NOT_DECODED] < 200


def two_passes(path) -> dict[int, tuple[int, int | None]]:
    """Completeness and initial RTT by stream, as tshark says after reading a capture twice; frames of one header only."""
    command = ["tshark", "-2", "-n", "-r", path, "-Y", "tcp", "-T", "fields", "-E", "occurrence=a"]
    options = ("tcp.desegment_tcp_streams:FALSE", "ip.defragment:FALSE", "ipv6.defragment:FALSE")
    fields = ("tcp.stream", "tcp.completeness", "tcp.analysis.initial_rtt")
    command += [word for option in options for word in ("-o", option)]
    command += [word for field in fields for word in ("-e", field)]
    found: dict[int, tuple[int, int | None]] = {}
    for line in subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines():
        stream, completeness, rtt = line.split("\t")
        if stream.isdigit():
            known = found.get(int(stream), (0, None))
            found[int(stream)] = (int(completeness or 0) | known[0], nanoseconds(rtt) if rtt else known[1])
    return found


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_against_tshark_on_two_passes():
    """Read twice, tshark says with every frame what the whole stream came to. Every eighth capture."""
    counts, unexplained = Counter(), []
    for path, streams in list(captures_with_streams())[::8]:
        found, runs = two_passes(path), stream_flags(packets_of(path), streams)
        for row, stream in join(flow_rows(path), streams)[0]:
            number = int(stream["stream"])
            if number not in found:
                continue
            completeness, rtt = found[number]
            why = two_pass_class(row["wireshark_completeness"], completeness, runs.get(stream["stream"]))
            counts[why] += 1
            missing = rtt is None and initial_rtt_class(row, stream) == NOT_SHOWN
            if why == UNEXPLAINED or (row["wireshark_initial_rtt_ns"] != rtt and not missing):
                unexplained.append((path.name, number))
    assert unexplained == []
    assert counts[EQUAL] > 100
