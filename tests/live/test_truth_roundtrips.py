"""Round trips of real connections against what their kernels measured, and over links whose delay is known."""

from __future__ import annotations

import pytest
from live_truth.roundtrips import KNOWN, Line, against_kernel, against_line, watch

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]
MICRO, MILLI = 1_000, 1_000_000


def all_clean(seen, count):
    for place, rows in seen.rows.items():
        assert len(rows) == count, place
        assert {(row["rtt_server_quality"], row["rtt_client_quality"]) for row in rows.values()} == {("clean", "clean")}


def inside_the_kernels(seen):
    """A tap next to an end sees less of a round trip than the end's kernel, by what lies between socket and interface."""
    for column, errors in against_kernel(seen).items():
        assert errors.most <= MICRO and errors.median > -MILLI, (column, errors)


def test_a_cable(tmp_path):
    seen = watch(tmp_path / "rows", 300, 1)
    all_clean(seen, 300)
    inside_the_kernels(seen)


def test_a_line_with_a_delay_of_its_own_for_each_direction(tmp_path):
    """A tap in its middle tells the servers' side from the clients'."""
    seen = watch(tmp_path / "rows", 30, 1, Line())
    all_clean(seen, 30)
    inside_the_kernels(seen)
    assert KNOWN == {"client": 5 * MILLI, "server": 25 * MILLI}
    for column, (_, errors) in against_line(seen).items():
        # The line is never early. It is late by what the scheduler takes, which on a busy machine is much for some.
        assert 0 <= errors.least < 2 * MILLI, (column, errors)
    for row in seen.rows["middle"].values():
        assert row["rtt_handshake_ns"] == row["rtt_server_ns"] + row["rtt_client_ns"]
