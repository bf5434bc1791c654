"""What is lost before the ring: counters of interface and host, as differences since the run began."""

from __future__ import annotations

import contextlib
import json
import mmap
import sys

import pytest
from taps import drain, received, send

from dialogue import Dialogue, ethernet
from synfin.output.summary import capture_report
from synfin.sources import losses
from synfin.sources.links import Link, Links
from synfin.sources.live import LiveInput
from synfin.sources.losses import InterfaceLosses, LiveReport, Losses, SoftnetDrops
from synfin.sources.report import InterfaceIncident

LONG = ethernet(bytes([0x45]) + bytes(2500), ethertype=0x0800)


def send_long(namespace, count):
    """Frames that the peer drops, because its MTU is smaller; a newer veth tells the sender."""
    for _ in range(count):
        with contextlib.suppress(OSError):
            send(namespace, "va", [LONG])


def link(index=7, dropped=0, missed=0, packets=0):
    return Link(index, "eth0", 1, True, True, dropped, missed, packets)


def statistics(namespace, name):
    (found,) = json.loads(namespace.run(["ip", "-s", "-s", "-d", "-j", "link", "show", name]))
    return found


@pytest.mark.kernel
def test_interface_is_what_iproute2_says(cable):
    """Every field, before and after frames that the interface must drop: they are longer than its MTU."""
    left, right = cable
    left.ip("link set va mtu 3000")
    links = right.call(Links)
    for _ in range(2):
        found, told = links.named("vb"), statistics(right, "vb")
        assert found == links.numbered(told["ifindex"])
        assert (found.name, found.index, found.hardware) == ("vb", told["ifindex"], 1) and told["link_type"] == "ether"
        assert (found.up, found.carrier) == ("UP" in told["flags"], "LOWER_UP" in told["flags"]) == (True, True)
        assert (found.rx_dropped, found.rx_missed) == (told["stats64"]["rx"]["dropped"], told["stats64"]["rx"].get("missed_errors", 0))
        send_long(left, 20)
    assert found.rx_dropped >= 20
    assert links.named("lo").hardware == 772 and not links.named("lo").up
    assert links.named("eth7") is links.named("") is links.named("a-name-far-too-long") is links.numbered(99) is None
    links.close()


@pytest.mark.kernel
def test_what_the_interface_drops_is_told(cable):
    """Of that run alone, and beside the ring's own count, which knows nothing of it."""
    left, right = cable
    left.ip("link set va mtu 3000")
    send_long(left, 7)
    source = right.call(LiveInput, ["vb"])
    before = statistics(right, "vb")["stats64"]["rx"]["dropped"]
    send(left, "va", [packet.data for packet in Dialogue().handshake().packets])
    send_long(left, 20)
    _, _, run = drain(source)
    after = statistics(right, "vb")["stats64"]["rx"]["dropped"]
    assert before >= 7
    assert run.report.losses["vb"] == Losses(ring_packets=3, interface_rx_dropped=after - before)
    assert after - before == 20
    assert "vb: 20 packets were dropped before the ring, by driver or queues (rx_dropped)" in run.report.warnings


@pytest.mark.kernel
def test_identity_of_a_run(cable):
    """Sent is what was read and what was dropped; JSON, text and files say the same."""
    left, right = cable
    source = right.call(LiveInput, ["vb"], ring_bytes=0, block_bytes=mmap.PAGESIZE)
    frame = Dialogue().handshake().packets[0].data
    send(left, "va", [frame] * 500)
    _, _, run = drain(source)
    stats = run.tracker.stats()
    report = capture_report(run.report, stats["packets"])
    assert report["holds"] and report["ring_packets"] == 500 == report["packets"] + report["ring_drops"]
    assert report["ring_drops"] == source.drops > 0 and report["ring_freezes"] > 0
    assert report["timestamps"] == {"vb": "software"} and received(run) == 500


@pytest.mark.kernel
def test_summary_names_all_losses(cable):
    def run(*how):
        return cable[1].run([sys.executable, "-m", "synfin", "live", "vb", "--seconds", "0.2", *how])

    summary = json.loads(run("--json"))
    names = {"packets", "holds", "timestamps", *vars(Losses())}
    assert set(summary["capture"]) == names and summary["capture"]["holds"]
    assert set(summary["input"]["losses"]) == {"vb", ""}
    text = run()
    assert "Ring           0 = 0 read + 0 dropped, ring full\n" in text
    assert "  lost before  0 by the interface, 0 missed by the card, " in text
    assert "  stamped by   the system (vb)\n" in text


def test_only_differences_count():
    lost = InterfaceLosses(link(dropped=100, missed=50))
    assert lost.losses == Losses()
    lost.add_ring(10, 2, 1)
    lost.add_ring(5, 0, 0)
    lost.see(link(dropped=130, missed=51))
    assert lost.losses == Losses(15, 2, 1, 30, 1) and lost.drops == 2


def test_counters_that_begin_again():
    """The interface was made again, with counts of its own; what the first one lost stays."""
    lost = InterfaceLosses(link(dropped=100))
    lost.see(link(dropped=130, missed=3))
    lost.see(link(index=8, dropped=2))
    assert lost.losses == Losses(interface_rx_dropped=30, interface_rx_missed=3)
    lost.see(link(index=8, dropped=9, missed=1))
    assert lost.losses == Losses(interface_rx_dropped=37, interface_rx_missed=4)
    lost.see(link(index=8, dropped=5))  # the driver was reset: nothing is taken back, and what comes now counts at once
    assert lost.losses == Losses(interface_rx_dropped=42, interface_rx_missed=4)
    lost.see(link(index=8, dropped=6, missed=2))
    assert lost.losses == Losses(interface_rx_dropped=43, interface_rx_missed=6)


def test_what_a_new_interface_carried_before_its_ring():
    lost = InterfaceLosses(link(packets=1000))  # before the run: nobody's loss
    lost.add_ring(10, 0, 0)
    lost.begin_ring(link(index=8, packets=50), 20, 3, 1)
    lost.begin_ring(link(index=9, packets=5), 7, 0, 0)  # a ring that was asked a moment later than its interface
    assert lost.losses == Losses(37, 3, 1, interface_unseen=30)


def test_workers_together():
    parts = [Losses(10, 1, 1, 5, 6, 7, 8), Losses(20, 0, 0, 5, 6, 9, 8)]
    assert Losses.together(parts) == Losses(30, 1, 1, 5, 6, 9, 8)


def test_softnet_adds_up_the_processors(tmp_path, monkeypatch):
    """Columns of net/core/net-procfs.c: processed, dropped, time_squeeze, ..., in hexadecimal, a line for each processor."""
    path = tmp_path / "softnet_stat"
    monkeypatch.setattr(losses, "_SOFTNET", str(path))
    path.write_text("000000ff 00000010 00000000\n00000001 0000000f 00000000\n")
    drops = SoftnetDrops()
    assert drops.count == 0
    path.write_text("000000ff 0000001a 00000000\n00000001 00000010 00000000\n")
    assert drops.count == 11
    path.write_text("000000ff 0000001a 00000000\n")  # a processor was switched off
    assert drops.count == 11
    path.unlink()
    assert drops.count == 11 and SoftnetDrops().count == 0


def test_warnings():
    report = LiveReport(losses={"eth0": Losses(1000, 10, 2, 5, 6), "": Losses(softnet_dropped=7)})
    assert report.warnings == [
        "eth0: the ring was full and the kernel dropped 10 of 1,000 packets (1 %); make it larger (--ring)",
        "eth0: 5 packets were dropped before the ring, by driver or queues (rx_dropped)",
        "eth0: the card had no room for 6 packets (rx_missed_errors)",
        "the host's queues dropped 7 packets of all interfaces (softnet); raise net.core.netdev_max_backlog",
    ]
    assert LiveReport(losses={"eth0": Losses(1000), "": Losses()}).warnings == []


def test_incidents_are_bounded():
    report = LiveReport()
    for second in range(300):
        report.note(InterfaceIncident("down", "eth0", second * 10**9))
    assert len(report.incidents) == 256 and report.interface_incidents == 300
    assert report.warnings[-1] == "44 more incidents of interfaces" and len(report.warnings) == 257
    assert report.warnings[0] == "eth0, 1970-01-01 00:00:00.000000 UTC: it was set down"
