"""Interfaces that go down, come back, vanish and are made again while a live run goes on; and clocks that are set."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest
from netns import Namespace, veth
from processes import end, sidecar
from taps import TIMEOUT, received, send, until

from dialogue import Dialogue
from rows import rows_of
from synfin._core.batch import PacketBatch
from synfin.errors import CaptureOpenError
from synfin.output.render import summary_text
from synfin.output.summary import Servers, summarize
from synfin.run import Run
from synfin.settings import Settings
from synfin.sources import packet_socket
from synfin.sources.live import LiveInput

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]


class Running:
    """A run in a namespace, in a thread of its own, which goes on until it is stopped."""

    def __init__(self, namespace, source=None):
        self.source = source or namespace.call(LiveInput, ["vb"])
        self.run = Run(self.source, Settings())
        self.flows = []
        self.thread = threading.Thread(target=namespace.call, args=(self._track,), daemon=True)
        self.thread.start()

    def _track(self):
        for table, block in self.run.blocks():
            if table == "flows":
                self.flows += rows_of(block, table)

    def stop(self):
        self.source.stop()
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive()
        return sorted(self.flows, key=lambda row: row["client_port"])

    def kinds(self):
        return [incident.kind for incident in self.source._report.incidents]


def frames(port):
    return [packet.data for packet in Dialogue(a_port=port).handshake().close().packets]


def told(run, begin):
    """Warnings that begin so; the host's losses are those of all interfaces and stand before them."""
    return [line for line in run.report.warnings if line.startswith(begin)]


def up(namespace, name):
    until(lambda: "LOWER_UP" in namespace.run(["ip", "link", "show", name]), f"{name} stays down")


def test_interface_that_is_set_down_comes_back(cable):
    left, right = cable
    running = Running(right)
    send(left, "va", frames(1000))
    until(lambda: running.source.drops == 0 and running.source.bytes_read, "no packets")
    right.ip("link set vb down")
    until(lambda: running.kinds() == ["down"], "nobody noticed")
    assert running.source.interface_up == {"vb": False}
    right.ip("link set vb up")
    up(left, "va")
    until(lambda: running.kinds() == ["down", "up"], "nobody noticed")
    assert running.source.interface_up == {"vb": True}
    send(left, "va", frames(2000))
    flows = running.stop()
    assert [(row["client_port"], row["close"]) for row in flows] == [(1000, "fin_4way"), (2000, "fin_4way")]
    assert running.run.outcome.complete and received(running.run) == 14
    assert told(running.run, "vb, 20")[0].endswith("it was set down")


def test_short_way_down_and_up_is_told(cable):
    _, right = cable
    running = Running(right)
    right.ip("link set vb down", "link set vb up")
    until(lambda: running.kinds()[:2] == ["down", "up"], "nobody noticed")
    running.stop()


def test_peer_that_goes_takes_the_carrier_along(cable):
    left, right = cable
    running = Running(right)
    left.ip("link set va down")
    until(lambda: running.kinds() == ["no carrier"], "nobody noticed")
    left.ip("link set va up")
    until(lambda: running.kinds() == ["no carrier", "up"], "nobody noticed")
    running.stop()


def test_interface_that_is_made_again(cable):
    """Its packets go on in the same run: numbers, clock and counts with them."""
    left, right = cable
    running = Running(right)
    opening = Dialogue(a_port=1000).handshake()
    send(left, "va", [packet.data for packet in opening.packets])
    until(lambda: running.source.bytes_read, "no packets")
    index = running.source._taps[0].link.index
    right.ip("link delete vb")
    until(lambda: running.kinds() == ["removed"], "nobody noticed")
    with veth(left, "va", right, "vb"):
        until(lambda: "made again" in running.kinds(), "nobody noticed")
        assert running.source.interface_up == {"vb": True} and running.source._taps[0].link.index != index
        opening.close()
        send(left, "va", [packet.data for packet in opening.packets[3:]])
        (link,) = json.loads(right.run(["ip", "-d", "-j", "link", "show", "vb"]))
        assert link["promiscuity"] == 1
        flows = running.stop()
    assert [(row["handshake"], row["close"], row["client_packets"]) for row in flows] == [("complete", "fin_4way", 4)]
    assert received(running.run) == running.run.tracker.stats()["packets"] == 7


def test_interface_of_another_link_layer_takes_the_name(cable):
    """From Ethernet to bare IP."""
    _, right = cable
    running = Running(right)
    right.ip("link delete vb")
    until(lambda: running.kinds() == ["removed"], "nobody noticed")
    try:
        right.run(["ip", "tuntap", "add", "vb", "mode", "tun"])
    except RuntimeError as error:
        running.stop()
        pytest.skip(f"tun interfaces are not allowed here ({error})")
    until(lambda: "made again" in running.kinds(), "nobody noticed")
    assert running.source._taps[0].socket.link_type == 101
    running.stop()


def test_new_interface_that_cannot_be_listened_on(cable, monkeypatch):
    """That is told once, and tried until it can."""
    left, right = cable
    running = Running(right)
    right.ip("link delete vb")
    until(lambda: running.kinds() == ["removed"], "nobody noticed")

    def refuse(*_):
        raise CaptureOpenError("cannot listen on vb: not now", "vb")

    monkeypatch.setattr(packet_socket.PacketSocket, "_make_ring", refuse)
    with veth(left, "va", right, "vb"):
        until(lambda: len(running.kinds()) > 1, "nobody noticed")
        time.sleep(0.3)
        assert running.kinds() == ["removed", "refused"]
        monkeypatch.undo()
        until(lambda: running.kinds() == ["removed", "refused", "made again"], "nobody noticed")
        running.stop()
    assert told(running.run, "vb, ")[1].endswith("UTC: cannot listen on vb: not now")


def carried(namespace, name):
    """Packets that an interface received and sent, as iproute2 says."""
    (found,) = json.loads(namespace.run(["ip", "-s", "-j", "link", "show", name]))
    return found["stats64"]["rx"]["packets"] + found["stats64"]["tx"]["packets"]


def test_what_passes_before_the_new_interface_is_listened_on_is_told(cable, monkeypatch):
    """Exactly, by its own counters: what they have and the ring has not."""
    left, right = cable
    running = Running(right)
    send(left, "va", frames(1000))
    until(lambda: running.source.bytes_read, "no packets")
    right.ip("link delete vb")
    until(lambda: running.kinds() == ["removed"], "nobody noticed")

    def refuse(*_):
        raise CaptureOpenError("cannot listen on vb: not now", "vb")

    monkeypatch.setattr(packet_socket.PacketSocket, "_make_ring", refuse)
    with veth(left, "va", right, "vb"):
        up(left, "va")
        send(left, "va", frames(2000) * 6)
        until(lambda: carried(right, "vb") == 42, "packets that do not come")
        monkeypatch.undo()
        until(lambda: "made again" in running.kinds(), "nobody noticed")
        send(left, "va", frames(3000))
        until(lambda: carried(right, "vb") == 49, "packets that do not come")
        flows = running.stop()
    assert [row["client_port"] for row in flows] == [1000, 3000] and received(running.run) == 14
    assert running.run.report.losses["vb"].interface_unseen == 42
    assert "vb: 42 packets passed before the run listened on the interface that was made again" in running.run.report.warnings
    words = summary_text(summarize(running.run, Servers(), 1.0, [])).split()
    assert "42 while an interface was made again" in " ".join(words)


def test_workers_see_what_passes_or_tell_it(cable, tmp_path):
    """While packets come all the time: each is in a ring, or among those that passed before."""
    left, right = cable
    with sidecar(right, tmp_path, "vb", "--workers", 3, "--json") as (process, _):
        talk = [frame for port in range(1000, 1100) for frame in frames(port)]
        send(left, "va", talk)
        right.ip("link delete vb")
        time.sleep(0.3)
        with veth(left, "va", right, "vb"):
            up(left, "va")
            began = time.monotonic()
            while time.monotonic() - began < 1.5:
                send(left, "va", talk)
            until(lambda: carried(right, "vb") % len(talk) == 0, "packets that do not come")
            total = len(talk) + carried(right, "vb")
            code, out, _ = end(process)
    capture = json.loads(out)["capture"]
    assert code == 0 and capture["holds"] and capture["ring_packets"] > len(talk)
    assert 0 < capture["interface_unseen"] <= total - len(talk)
    assert total <= capture["ring_packets"] + capture["interface_unseen"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("away_s", [0, 1.5])
def test_interface_that_is_moved_away_and_back(cable, tmp_path, workers, away_s):
    """It keeps its number, and no socket that was bound to it receives from it any more."""
    left, right = cable
    ports = range(1000, 1050)
    talk = [frame for port in ports for frame in frames(port)]
    with Namespace() as other, sidecar(right, tmp_path, "vb", "--workers", workers, "--json") as (process, _):
        send(left, "va", talk)
        (before,) = json.loads(right.run(["ip", "-j", "link", "show", "vb"]))
        right.ip(f"link set vb netns {other.path}")
        time.sleep(away_s)
        other.ip(f"link set vb netns {right.path}")
        right.ip("link set vb up")
        (after,) = json.loads(right.run(["ip", "-j", "link", "show", "vb"]))
        assert before["ifindex"] == after["ifindex"]
        up(left, "va")
        time.sleep(2)  # longer than it takes to look
        send(left, "va", talk)
        time.sleep(0.3)
        code, out, _ = end(process)
    found = json.loads(out)
    assert code == 0 and found["capture"]["holds"]
    assert found["packets"] == 2 * len(talk) and found["connections"] == len(ports)


def test_stop_while_a_socket_is_exchanged(cable):
    """A signal may come when the old one is closed already."""
    source = cable[1].call(LiveInput, ["vb"])
    source._taps[0].socket._socket.close()
    source.stop()


def test_packets_before_the_removal_are_tracked(cable):
    left, right = cable
    source = right.call(LiveInput, ["vb"])
    send(left, "va", frames(1000))
    right.ip("link delete vb")
    running = Running(right, source)
    until(lambda: running.kinds() == ["removed"], "nobody noticed")
    assert [row["close"] for row in running.stop()] == ["fin_4way"]
    assert running.run.outcome.complete


def test_many_times(cable):
    """Down and up, removed and made again, thirty times: nothing is left behind, and packets come in the end."""
    left, right = cable
    running = Running(right)
    for _ in range(15):
        right.ip("link set vb down", "link set vb up")
        right.ip("link delete vb")
        left.ip(f"link add va type veth peer name vb netns {right.path}", "link set va up")
        right.ip("link set vb up")
    until(lambda: running.source.interface_up["vb"] and running.source._taps[0].there, "it stays away")
    index = right.call(socket.if_nametoindex, "vb")
    until(lambda: running.source._taps[0].link.index == index, "an old one")
    up(left, "va")
    send(left, "va", frames(1000))
    assert [row["close"] for row in running.stop()] == ["fin_4way"]


def test_run_ends_although_the_interface_is_away(cable):
    _, right = cable
    source = right.call(LiveInput, ["vb"], seconds=0.6)
    right.ip("link delete vb")
    run, began = Run(source, Settings()), time.monotonic()
    assert list(run.blocks()) == [] and 0.4 < time.monotonic() - began < 5
    assert run.outcome.complete and [incident.kind for incident in run.report.incidents] == ["removed"]


def test_waiting_for_an_interface_costs_little(cable):
    _, right = cable
    with right.call(LiveInput, ["vb"]) as source:
        right.ip("link delete vb")
        batch = PacketBatch()
        used, began = time.process_time(), time.monotonic()
        while time.monotonic() - began < 2:
            assert source.fill(batch)
        assert time.process_time() - used < 0.2


class Clock:
    """`time` with a system clock that can be set."""

    def __init__(self):
        self.ahead_ns = 0

    def time_ns(self):
        return time.time_ns() + self.ahead_ns

    def __getattr__(self, name):
        return getattr(time, name)


@pytest.mark.parametrize("step", [-600, 7200])
def test_clock_that_is_set_is_told_and_does_not_move_an_idle_link(cable, monkeypatch, step):
    left, right = cable
    clock, batch = Clock(), PacketBatch()
    monkeypatch.setattr("synfin.sources.live.time", clock)
    with right.call(LiveInput, ["vb"]) as source:
        send(left, "va", frames(1000))
        while len(batch) == 0:
            assert source.fill(batch)
        clock.ahead_ns = step * 10**9
        before, began = source.idle_clock_ns, time.monotonic()
        until(lambda: source.fill(batch) and source.report.incidents, "nobody noticed")
        assert source.fill(batch) and len(batch) == 0
        passed = source.idle_clock_ns - before
        assert 0 < passed <= (time.monotonic() - began) * 1e9 + 1e8
        (incident,) = source.report.incidents
        assert incident.kind == "clock set" and abs(incident.step_ns - step * 10**9) < 10**8
        word = "back by 600.0" if step < 0 else "ahead by 7200.0"
        assert any(f"the system's clock was set {word}" in line for line in source.report.warnings)


def test_other_namespace_than_the_thread_is_watched(cable):
    """The interface is looked for where the run began, whatever namespace the thread that tracks is in."""
    with cable[1].call(LiveInput, ["vb"]) as source:
        assert "vb" not in [name for _, name in socket.if_nameindex()]
        source._look()
        assert source.interface_up == {"vb": True} and source.report.incidents == []
