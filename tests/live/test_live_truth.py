"""Gauges of a live run against two kernels, state by state: what `make live-truth` does at full size."""

from __future__ import annotations

from functools import partial

import pytest
from live_truth import __main__ as command
from live_truth import cases, tables
from live_truth.gauges import FIVE, watch
from live_truth.kernel import GAUGES

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]


def exact(watched):
    """Fail with the table of the first moment that differs."""
    for moment, row in zip(watched.moments, watched.intervals, strict=True):
        assert not any(tables.differences(moment, row).values()), tables.of_moment(moment, row)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_states_of_real_connections(tmp_path, workers):
    """Four moments; the fifth needs a TIME-WAIT of 60 s."""
    watched = watch(tmp_path, 500, FIVE[:4], lambda _: None, "--workers", str(workers))
    exact(watched)
    # All nine states of an end were there, and each gauge of connections that a whole capture can have.
    expected = [moment.expected() for moment in watched.moments]
    assert {name for name in GAUGES if any(each[name] for each in expected)} == set(GAUGES) - {"midstream"}


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([cases.overflown, cases.cookies], id="queues"),
        pytest.param([cases.deferred, cases.unsent], id="sockets"),
        pytest.param([cases.silent], id="silent"),
    ],
)
@pytest.mark.slow
def test_differences_have_names(tmp_path, steps):
    watched = watch(tmp_path, 500, [partial(cases.alone, step) for step in steps])
    exact(watched)
    assert all(any(each.adds.values()) for moment in watched.moments for each in moment.named)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["gauges", "lossy"])
def test_the_whole_program(tmp_path, part):
    """With a fifth moment, one TIME-WAIT after all was closed."""
    document = tmp_path / "page.md"
    document.write_text(f"<!-- measured: {part} -->\n<!-- end: {part} -->\n")
    assert command.main([part, "--scale", "2000", "--document", str(document)]) == 0
    assert "**5. Closed, one TIME-WAIT later**" in document.read_text()
