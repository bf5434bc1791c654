"""Real traffic of which the tap misses packets, or a whole direction, against the kernels and against the whole."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from live_truth import capture, lossy, onesided
from live_truth.gauges import FIVE
from live_truth.kernel import steady
from live_truth.moments import Observer
from live_truth.sidecar import rows, sidecar
from live_truth.world import World
from netns import NotAllowed
from wire import RST, SYN

from rows import compare

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]
LOSSES = onesided.LOSSES


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Connections of six kinds, both directions; skips where tcpdump does not run."""
    try:
        return onesided.record(tmp_path_factory.mktemp("recorded"), 15)
    except NotAllowed as reason:
        pytest.skip(str(reason))


def test_one_direction_says_what_is_missing(frames, tmp_path):
    seen = onesided.track(tmp_path, frames)
    assert len(seen.whole) == 90
    assert onesided.wrong(seen) == []
    seen.alone["client"].popitem()
    next(iter(seen.alone["server"].values()))["client_missing_bytes"] += 1
    assert len(onesided.wrong(seen)) == 2  # it would be told


@pytest.mark.parametrize("lost", ["client", "server", *LOSSES])
def test_the_slow_tracker_agrees(frames, tmp_path, lost):
    """On one direction alone, and on what random loss leaves."""
    path = tmp_path / "left.pcap"
    left = onesided.directions(frames)[lost] if isinstance(lost, str) else capture.thinned(frames, lost)
    assert 0 < len(left) < len(frames)
    capture.write(path, left)
    assert compare([path]) == []


@pytest.mark.parametrize("lost", LOSSES)
def test_lost_packets_are_told(frames, tmp_path, lost):
    """What is missing, by the headers that are left; and a clean round trip is the one that the whole shows."""
    left = capture.thinned(frames, lost)
    whole, told = onesided.rows(tmp_path / "whole.pcap", frames), onesided.rows(tmp_path / "left.pcap", left)
    sides = onesided.missing(told, left, frames)
    assert [each.told for each in sides] == [each.defined for each in sides]
    assert sum(each.told for each in sides) <= sum(each.exact for each in sides)
    assert lost < 0.1 or any(each.told for each in sides)
    count, wrong = onesided.clean(told, whole)
    assert count > 0 and wrong == 0
    qualities = Counter(row[f"{half}_quality"] for row in told.values() for half in ("rtt_server", "rtt_client"))
    assert qualities["clean"] == count and (lost < 0.1 or qualities["none"] > 0 < qualities["ambiguous"])


@pytest.mark.slow
@pytest.mark.usefixtures("frames")
def test_gauges_of_a_capture(tmp_path):
    """Without loss those of the kernels, at the moments of a live run; with loss they are off, by what is lost."""
    path = tmp_path / "recorded.pcap"
    with (
        World(400) as world,
        capture.recorded(world.servers, "vb", path),
        sidecar(world.servers, "vb", tmp_path / "rows") as run,
    ):
        at = Observer(world, run, 300)
        for step in FIVE[:2]:
            step(at)
    found = lossy.Lossy(at.moments, capture.read(path), {}, {})
    assert not any(value for each in lossy.errors(tmp_path, found, 0) for value in each.values())
    worst = [max(map(abs, each.values())) for each in lossy.errors(tmp_path, found, 0.5)]
    assert all(0 < error < 300 for error in worst)


@pytest.mark.parametrize("lost", [0, *LOSSES])
def test_gauges_of_a_file_end(frames, tmp_path, lost):
    """Whatever was lost, all are 0 one longest timeout after the last packet, and not before the last timeout began."""
    found = lossy.Lossy([], frames, {}, {})
    assert lossy.LONGEST_S - 1 <= lossy.remembered_in_file(tmp_path, found, lost) < lossy.LONGEST_S


@pytest.mark.slow
@pytest.mark.usefixtures("frames")
def test_gauges_of_a_live_run_end(tmp_path):
    """Half of the packets are lost before the ring; the link is idle afterwards."""
    path, longest_s = tmp_path / "recorded.pcap", 3
    options = ("--filter", capture.random_filter(0.5), *lossy.as_options(lossy.forgetful(longest_s)))
    with (
        World(300) as world,
        sidecar(world.servers, "vb", tmp_path / "rows", *options) as run,
        capture.recorded(world.servers, "vb", path),
    ):
        for port, order in ((7001, None), (7002, "shutdown"), (7003, "abort")):
            world.open(port, 60)
            world.talk(port, 1)
            if order:
                world.tell("client", order, port)
        world.listen(7004)
        for seq, flags in ((0, SYN), (1, RST)):
            world.forge(((number, number + seq, flags) for number in range(60)), 7004)
        steady(world, 0.2)
        time.sleep(lossy.scraped_s(longest_s))
        assert not any(run.gauges().values())
        run.end()
    told = lossy.by_end(rows(tmp_path / "rows", "intervals"))
    assert 0 < lossy.remembered_s(told, capture.last_ns(capture.read(path))) < longest_s
