"""Services that are listed for metrics: their figures are what the slow tracker's rows by service come to, to the last packet."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from talk import seen_twice, talk
from test_worker_counts import attempts, crowd

from dialogue import MS, SECOND, Dialogue, write_pcap
from rows import figures_by_service
from synfin import schema
from synfin._core.tracker import Tracker
from synfin.run import Run
from synfin.settings import Settings
from synfin.sources.captures import CaptureInput

NAMES = [column.name for column in schema.INTERVALS if column.group in ("gauge", "count")]
NAMES = [name for name in NAMES if not name.endswith("_peak") and name != "capture_drops"]
NEVER_SEEN = ("192.0.2.77", 7)


def told(paths, settings: Settings, services) -> dict:
    """Figures of services, at the end of captures."""
    run = Run(CaptureInput([str(path) for path in paths]), settings, flow_columns=[], interval_columns=[])
    run.tracker = Tracker(settings, [], [], services=services)
    for table, _ in run.blocks():
        assert table in settings.tables
    return run.tracker.services()


def check(paths, settings: Settings, seed: int = 0) -> dict:
    truth = figures_by_service(paths, settings)
    rnd = random.Random(seed)
    listed = [service for service in truth if rnd.random() < 0.7] + [NEVER_SEEN]
    rnd.shuffle(listed)
    ours = told(paths, settings, listed)
    assert set(ours) == set(listed)
    for service in listed:
        assert ours[service] == {name: truth[service][name] for name in NAMES}, service
    return ours


@pytest.mark.parametrize("duplicates", ["keep", "count", "drop"])
@pytest.mark.parametrize("start", [0, *(pytest.param(start, marks=pytest.mark.slow) for start in range(10, 40, 10))])
def test_random_talk(tmp_path, start, duplicates):
    for seed in range(start, start + 10):
        files, tracking = crowd(seed, 4)
        if duplicates != "keep":
            files = seen_twice(files, seed)
        paths = [write_pcap(tmp_path / f"{seed}-{number}.cap", part) for number, part in enumerate(files)]
        check(paths, replace(tracking, duplicates=duplicates), seed)


def test_talk_of_two_ends(tmp_path):
    for seed in range(40):
        files, tracking = talk(random.Random(seed))
        check([write_pcap(tmp_path / f"{n}.cap", part) for n, part in enumerate(files)], tracking, seed)


@pytest.mark.parametrize("by", [(), ("client",), ("service", "client")])
def test_beside_tables_by_key(tmp_path, by):
    """Also at a cap; and the service of most connections has no row of its own where others come before it by key."""
    path = write_pcap(tmp_path / "crowd.pcap", attempts(400))
    for settings in (Settings(), Settings(max_flows=50), Settings(reorder=0, interval=10 * MS)):
        ours = check([path], settings)
        assert told([path], replace(settings, by=by, top=1), list(ours)) == ours


def test_a_step_of_the_clock(tmp_path):
    back = [packet._replace(time_ns=packet.time_ns - 7200 * SECOND) for packet in attempts(300)]
    assert check([write_pcap(tmp_path / "back.pcap", [*attempts(100), *back])], Settings())


def test_services_that_differ_in_one_bit_of_the_port(tmp_path):
    dialogues = [Dialogue(a_port=40_000 + number, b_port=port) for number, port in enumerate((80, 81, 81))]
    packets = [packet for d in dialogues for packet in d.handshake().packets]
    services = [(dialogues[0].b.ip, 80), (dialogues[0].b.ip, 81)]
    ours = told([write_pcap(tmp_path / "ports.pcap", packets)], Settings(), services)
    assert [ours[service]["syns"] for service in services] == [1, 2]


def test_both_ip_versions_are_told_apart(tmp_path):
    """The same bytes begin 10.0.0.2 and a00:2::; a service of one is none of the other."""
    dialogues = [Dialogue(), Dialogue(a_ip="2001:db8::1", b_ip="a00:2::", start=1_700_000_001 * SECOND)]
    packets = [packet for d in dialogues for packet in d.handshake().packets]
    port = dialogues[0].b.port
    ours = told([write_pcap(tmp_path / "two.pcap", packets)], Settings(), [("a00:2::", port), ("10.0.0.2", port)])
    assert {service: figures["completed"] for service, figures in ours.items()} == {("a00:2::", port): 1, ("10.0.0.2", port): 1}
    assert told([tmp_path / "two.pcap"], Settings(), []) is None


def test_others_are_not_followed(tmp_path):
    path = write_pcap(tmp_path / "crowd.pcap", attempts(300))
    run = Run(CaptureInput([str(path)]), Settings())
    run.tracker = Tracker(Settings(), services=[NEVER_SEEN])
    assert {table for table, _ in run.blocks()} == {"flows", "intervals"}
    memory = run.tracker.memory()
    assert memory["services"] == memory["clients"] == 0 < memory["kept_keys"]
