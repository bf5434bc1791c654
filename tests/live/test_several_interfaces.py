"""Several interfaces of one tap in one run, and several workers on one interface."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from netns import veth
from taps import TIMEOUT, drain, received, send, until
from test_interfaces import compared

from dialogue import Dialogue, merge
from rows import rows_of
from synfin._core.batch import PacketBatch
from synfin.errors import ConfigError
from synfin.run import Run
from synfin.settings import Settings
from synfin.sources.fanout import FanoutGroup
from synfin.sources.live import LiveInput

pytestmark = [pytest.mark.kernel]


@pytest.fixture
def two_cables(cable):
    left, right = cable
    with veth(left, "vc", right, "vd"):
        yield left, right


def dialogues(count):
    made = []
    for number in range(count):
        d = Dialogue(a_port=1000 + number).handshake()
        for _ in range(number % 4):
            d.data(d.a, 300)
            d.data(d.b, 900)
        if number % 3:
            d.close(d.a if number % 2 else d.b)
        else:
            d.rst(d.b)
        made.append(d)
    return made


def from_client(packet):
    return packet.data[34:36] > packet.data[36:38]


def send_by(namespace, packets, way):
    """Send packets, each on the interface that `way` says, in their order."""
    with contextlib.ExitStack() as stack:
        senders = {}
        for packet in packets:
            name = way(packet)
            if name not in senders:
                senders[name] = stack.enter_context(namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
                senders[name].bind((name, 0))
            senders[name].send(packet.data)


def by_direction(packet):
    return "va" if from_client(packet) else "vc"


def test_directions_of_one_tap(two_cables):
    """Each direction on an interface of its own gives the rows of both on one, at any moment of arrival."""
    left, right = two_cables
    packets = [packet for d in dialogues(60) for packet in d.packets]
    split = right.call(LiveInput, ["vb", "vd"])
    send_by(left, packets, by_direction)
    flows, _, run = drain(split)
    assert {name: lost.ring_packets for name, lost in run.report.losses.items() if name} == {
        "vb": sum(map(from_client, packets)), "vd": sum(not from_client(packet) for packet in packets),
    }  # fmt: skip
    one = right.call(LiveInput, ["vb"])
    send(left, "va", [packet.data for packet in packets])
    alone, _, _ = drain(one)
    assert len(flows) == len(alone) == 60
    assert compared(flows) == compared(alone)
    assert {row["interface"] for row in flows} == {"vb"} and received(run) == len(packets)


def test_busy_beside_idle_interface(two_cables):
    """Packets wait for the other direction as long as a block may, and no longer; and waiting sleeps."""
    left, right = two_cables
    batch, frame = PacketBatch(), Dialogue().handshake().packets[0].data
    with right.call(LiveInput, ["vb", "vd"], block_timeout_ms=50) as source:
        waited, used = [], time.process_time()
        for _ in range(10):
            got, began = 0, time.monotonic()
            send(left, "va", [frame] * 5)
            while got < 5:
                assert source.fill(batch)
                got += len(batch)
                assert time.monotonic() < began + TIMEOUT
            waited.append(time.monotonic() - began)
        assert max(waited) < 1 and time.process_time() - used < 0.5


def test_one_of_two_goes_away(two_cables):
    left, right = two_cables
    source = right.call(LiveInput, ["vb", "vd"])
    run, flows = Run(source, Settings()), []

    def track():
        for table, block in run.blocks():
            if table == "flows":
                flows.extend(rows_of(block, table))

    thread = threading.Thread(target=right.call, args=(track,), daemon=True)
    thread.start()
    kinds = lambda: [(incident.kind, incident.interface) for incident in source._report.incidents]  # noqa: E731
    right.ip("link delete vd")
    until(lambda: kinds() == [("removed", "vd")], "nobody noticed")
    assert source.interface_up == {"vb": True, "vd": False}
    first, second = dialogues(3)[1:]
    send(left, "va", [packet.data for packet in first.packets])
    with veth(left, "vc", right, "vd"):
        until(lambda: ("made again", "vd") in kinds(), "nobody noticed")
        send_by(left, second.packets, by_direction)
        time.sleep(0.2)
        source.stop()
        thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert sorted((row["client_port"], row["handshake"], row["close"]) for row in flows) == [
        (1001, "complete", "fin_4way"), (1002, "complete", "fin_4way"),
    ]  # fmt: skip


def test_names_are_named_once(cable):
    for names in ([], ["vb", "vb"]):
        with pytest.raises(ConfigError, match="name each interface once, and at least one"):
            cable[1].call(LiveInput, names)


def test_nothing_stays_open_when_one_is_not_there(cable):
    from synfin.errors import CaptureOpenError

    with pytest.raises(CaptureOpenError, match="there is no interface 'eth7'"):
        cable[1].call(LiveInput, ["vb", "eth7"])
    sockets = cable[1].run(["cat", "/proc/thread-self/net/packet"]).splitlines()[1:]
    assert sockets == []


class Team:
    """Workers on the interfaces of a namespace, each with a tracker, in threads."""

    def __init__(self, namespace, interfaces, workers):
        self.group = FanoutGroup(workers)
        self.sources = [namespace.call(LiveInput, interfaces, fanout=self.group) for _ in range(workers)]
        self.runs = [Run(source, Settings()) for source in self.sources]
        self.flows = [[] for _ in range(workers)]
        self.threads = [
            threading.Thread(target=namespace.call, args=(self._track, number), daemon=True) for number in range(workers)
        ]
        for thread in self.threads:
            thread.start()
        until(self.accept, "not all have joined")

    def accept(self):
        return all(tap.accepts for source in self.sources for tap in source._taps)

    def _track(self, number):
        for table, block in self.runs[number].blocks():
            if table == "flows":
                self.flows[number] += rows_of(block, table)

    def stop(self):
        for source in self.sources:
            source.stop()
        for thread in self.threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive()
        return [row for rows in self.flows for row in rows]


def test_workers_share_an_interface(cable):
    """Each packet comes to one worker, and each connection to one alone."""
    left, right = cable
    packets = merge(*dialogues(200))
    team = Team(right, ["vb"], 3)
    send(left, "va", [packet.data for packet in packets])
    flows = team.stop()
    assert sum(map(received, team.runs)) == len(packets)
    assert sorted(row["client_port"] for row in flows) == list(range(1000, 1200))
    assert {row["handshake"] for row in flows} == {"complete"}
    assert all(len(rows) > 20 for rows in team.flows)


def test_workers_of_an_interface_that_is_made_again(cable):
    left, right = cable
    team = Team(right, ["vb"], 3)
    right.ip("link delete vb")
    until(lambda: not any(source.interface_up["vb"] for source in team.sources), "nobody noticed")
    with veth(left, "va", right, "vb"):
        until(lambda: all(source.interface_up["vb"] for source in team.sources) and team.accept(), "they stay away")
        packets = merge(*dialogues(100))
        send(left, "va", [packet.data for packet in packets])
        flows = team.stop()
    assert sum(map(received, team.runs)) == len(packets)
    assert sorted(row["client_port"] for row in flows) == list(range(1000, 1100))


def test_workers_after_the_interface_was_down(cable):
    """The kernel takes the sockets out of their group, and joins them again in the order in which they were made."""
    left, right = cable
    team = Team(right, ["vb"], 3)
    ds = dialogues(100)
    openings = [packet for d in ds for packet in d.packets[:3]]
    send(left, "va", [packet.data for packet in openings])
    time.sleep(0.1)
    right.ip("link set vb down", "link set vb up")
    until(lambda: "LOWER_UP" in left.run(["ip", "link", "show", "va"]), "va stays down")
    send(left, "va", [packet.data for d in ds for packet in d.packets[3:]])
    flows = team.stop()
    assert sorted(row["client_port"] for row in flows) == list(range(1000, 1100))


def test_two_interfaces_and_two_workers(two_cables):
    """Both directions of a connection, on an interface each, come to the same worker."""
    left, right = two_cables
    team = Team(right, ["vb", "vd"], 2)
    packets = [packet for d in dialogues(100) for packet in d.packets]
    send_by(left, packets, by_direction)
    flows = team.stop()
    assert sum(map(received, team.runs)) == len(packets)
    assert sorted(row["client_port"] for row in flows) == list(range(1000, 1100))
    assert {row["handshake"] for row in flows} == {"complete"} and all(len(rows) > 20 for rows in team.flows)
