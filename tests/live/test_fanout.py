"""The fanout program in the kernel: real connections over a cable, several sockets, and which of them gets what."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import defaultdict

import dpkt
import pytest
from netns import Namespace, veth
from taps import until

import tunnels
from dialogue import Dialogue, ethernet, ipv4, tcp
from synfin.sources.fanout import FanoutGroup

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]

_SOL_PACKET, _PACKET_STATISTICS, _PACKET_AUXDATA, _PACKET_FANOUT, _ETH_P_ALL = 263, 6, 8, 18, 3
_FANOUT_HASH = 0
_SO_RCVBUFFORCE = 33
_CONNECTIONS = 1500  # of each IP version


def listening(interface, kind=socket.SOCK_RAW):
    """A packet socket with room for all that a test sends."""
    sock = socket.socket(socket.AF_PACKET, kind, 0)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 28)
    sock.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    sock.bind((interface, _ETH_P_ALL))
    sock.setblocking(False)
    return sock


def fanned(namespace, interface, workers, group=None, kind=socket.SOCK_RAW):
    """Sockets of one group in the order of the workers."""
    group = group or FanoutGroup(workers)

    def make():
        index = socket.if_nametoindex(interface)
        sockets = []
        for place in range(workers):
            assert group.is_turn(index, place) and not group.is_complete(index)
            sockets.append(listening(interface, kind))
            group.join(sockets[-1], index)
        assert group.is_complete(index)
        return sockets

    return namespace.call(make)


def received(sockets, count=0):
    """What each socket got so far, and until they have so many together; none may have lost anything."""
    everything = [[] for _ in sockets]

    def enough():
        for sock, frames in zip(sockets, everything, strict=True):
            with contextlib.suppress(BlockingIOError):
                while True:
                    frames.append(sock.recv(1 << 16))
        return sum(map(len, everything)) >= count

    until(enough, f"not all of {count} frames came")
    assert all(struct.unpack("II", sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1] == 0 for sock in sockets)
    return everything


def connection(frame):
    """The unordered pair of ends, and the flags; None for what is no TCP."""
    layer = dpkt.ethernet.Ethernet(frame).data
    if not isinstance(layer, (dpkt.ip.IP, dpkt.ip6.IP6)) or not isinstance(layer.data, dpkt.tcp.TCP):
        return None
    return frozenset(((layer.src, layer.data.sport), (layer.dst, layer.data.dport)))


def places(everything):
    """Connection -> the numbers of the sockets that got packets of it; and how many packets of TCP there were."""
    found, count = defaultdict(set), 0
    for which, frames in enumerate(everything):
        for frame in frames:
            if (key := connection(frame)) is not None:
                found[key].add(which)
                count += 1
    return found, count


@pytest.fixture(scope="module")
def cable():
    """Two namespaces and a cable; IPv4 and IPv6 on it."""
    with Namespace() as left, Namespace() as right, veth(left, "va", right, "vb"):
        for namespace, name, number in ((left, "va", 1), (right, "vb", 2)):
            namespace.ip(
                f"address add 10.9.0.{number}/24 dev {name}",
                f"address add 2001:db8:9::{number}/64 dev {name} nodad",
            )
        yield left, right


@pytest.fixture
def bare_cable():
    """A cable on which nothing talks by itself."""
    with Namespace() as left, Namespace() as right:
        for namespace in (left, right):
            namespace.sysctl("ipv6/conf/default/disable_ipv6", 1)
        with veth(left, "va", right, "vb"):
            yield left, right


def talk(left, right, count):
    """Open, use and close connections of both IP versions, until the last segment has come; how many there were."""
    for family, own, address in ((socket.AF_INET, "10.9.0.1", "10.9.0.2"), (socket.AF_INET6, "2001:db8:9::1", "2001:db8:9::2")):
        with right.socket(family, socket.SOCK_STREAM) as listener:
            listener.bind((address, 0))
            listener.listen(16)

            def clients(listener=listener, own=own):
                for port in range(10_000, 10_000 + count):  # left to itself, the kernel takes some of them twice
                    with socket.create_connection(listener.getsockname()[:2], 10, (own, port)) as client:
                        server, _ = listener.accept()
                        with server:
                            client.sendall(b"question")
                            server.recv(100)
                            server.sendall(b"answer")
                            client.recv(100)

            left.call(clients)
    until(lambda: over(left) and over(right), "connections that do not close")
    return 2 * count


def over(namespace):
    """Whether no end of a connection has anything more to send, or to wait for."""
    return set(namespace.states().values()) <= {"TIME-WAIT"}


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_every_connection_reaches_one_socket(cable, workers):
    """On both ends of the cable at once: the packets that a host sends and those that reach it stand otherwise in the
    kernel's buffers. Both ends must choose the same worker, as two interfaces of one tap must.
    """
    left, right = cable
    with contextlib.ExitStack() as stack:
        ends = [[stack.enter_context(sock) for sock in fanned(*end, workers)] for end in ((left, "va"), (right, "vb"))]
        plain = stack.enter_context(left.call(listening, "va"))
        total = talk(left, right, _CONNECTIONS)
        found, seen = zip(*(places(received(end)) for end in ends), strict=True)
        all_frames, all_count = places(received([plain]))
    assert len(all_frames) == total and seen == (all_count, all_count) and all_count >= 8 * total
    assert found[0] == found[1] and set(found[0]) == set(all_frames)
    assert {len(where) for where in found[0].values()} == {1}
    for worker in range(workers):
        share = sum(where == {worker} for where in found[0].values()) / total
        assert abs(share - 1 / workers) < 0.05


@pytest.mark.parametrize("vlans", [(5,), (7, 5), (1, 2, 3)], ids=["802.1Q", "QinQ", "three"])
def test_tagged_connections(cable, bare_cable, vlans):
    """Frames of real connections with tags: the kernel takes the first one off where they arrive, not where they leave."""
    with contextlib.ExitStack() as stack:
        untagged = [stack.enter_context(sock) for sock in fanned(cable[0], "va", 3)]
        total = talk(*cable, 300)
        everything = received(untagged)
        left, right = bare_cable
        ends = [[stack.enter_context(sock) for sock in fanned(*end, 3)] for end in ((left, "va"), (right, "vb"))]
        tags = b"".join(struct.pack("!HH", 0x8100 if tag == vlans[-1] else 0x88A8, tag) for tag in vlans)
        with left.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
            sender.bind(("va", 0))
            sent = [frame for frames in everything for frame in frames if connection(frame)]
            for frame in sent:
                sender.send(frame[:12] + tags + frame[12:])
        out, arrived = (received(end, len(sent)) for end in ends)
    assert sum(map(len, out)) == sum(map(len, arrived)) == len(sent)
    expected, _ = places(everything)
    assert len(expected) == total
    for frames, offset in ((out, 4 * len(vlans)), (arrived, 4 * (len(vlans) - 1))):
        found, _ = places([[frame[:12] + frame[12 + offset :] for frame in part] for part in frames])
        assert found == expected


def sent_to(bare_cable, frames, workers=4):
    """Which socket each frame reached, on the way out and in; the frames must differ."""
    left, right = bare_cable
    with contextlib.ExitStack() as stack:
        ends = [[stack.enter_context(sock) for sock in fanned(*end, workers)] for end in ((left, "va"), (right, "vb"))]
        with left.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
            sender.bind(("va", 0))
            for frame in frames:
                sender.send(frame)
        got = [{frame: which for which, part in enumerate(received(end, len(frames))) for frame in part} for end in ends]
    assert [got[0][frame] for frame in frames] == [got[1][frame] for frame in frames]
    return [got[0][frame] for frame in frames]


def test_fragments_errors_and_tunnels(bare_cable):
    """What cannot be asked of real hosts here: 64 connections each with a first fragment and an ICMP error, in tunnels."""
    normal, fragments, errors = [], [], []
    for port in range(2000, 2064):
        packets = [packet.data for packet in Dialogue(a_port=port).handshake().packets]
        normal.append(packets[0])
        body = tcp("10.0.0.1", "10.0.0.2", port, 80, seq=5, ack=5, flags=16, payload=bytes(64))
        fragments.append(ethernet(ipv4("10.0.0.1", "10.0.0.2", body[:64], more=True)))
        errors.append(ethernet(ipv4("172.16.0.1", "10.0.0.1", b"\x03\x01" + bytes(6) + packets[0][14:42], protocol=1)))
    assert connection(normal[0]) == frozenset({(b"\x0a\0\0\x01", 2000), (b"\x0a\0\0\x02", 80)})
    where = sent_to(bare_cable, [*normal, *fragments, *errors])
    assert where[:64] == where[64:128] == where[128:] and len(set(where)) == 4
    for name in tunnels.AROUND:
        if tunnels.fits(name, 4):
            there = [ethernet(tunnels.wrapped(name, frame[14:])) for frame in normal[:8]]
            assert len(set(sent_to(bare_cable, there))) == 1, name


def test_interface_without_link_header(cable):
    """A tun interface has IP packets alone: there the network header is where to begin."""
    import fcntl
    import os

    with Namespace() as namespace, contextlib.ExitStack() as stack:
        try:
            tun = namespace.call(os.open, "/dev/net/tun", os.O_RDWR)
            stack.callback(os.close, tun)
            fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))
        except OSError as error:
            pytest.skip(f"tun interfaces are not allowed here ({error.strerror})")
        namespace.sysctl("ipv6/conf/tun0/disable_ipv6", 1)
        namespace.ip("link set tun0 up")
        sockets = [stack.enter_context(sock) for sock in fanned(namespace, "tun0", 4, kind=socket.SOCK_DGRAM)]
        frames = [p.data for port in range(2000, 2100) for p in Dialogue(a_port=port).handshake().packets]
        for frame in frames:
            os.write(tun, frame[14:])
        found, count = places([[bytes(12) + b"\x08\0" + packet for packet in part] for part in received(sockets, len(frames))])
    assert count == len(frames) and len(found) == 100
    assert {len(where) for where in found.values()} == {1} and len({min(where) for where in found.values()}) == 4


def test_groups_of_others_are_left_alone(bare_cable):
    """Numbers that the kernel chooses are nobody else's."""
    left, _ = bare_cable
    with contextlib.ExitStack() as stack:
        first, second = (FanoutGroup(2), FanoutGroup(2))
        sockets = [stack.enter_context(s) for group in (first, second) for s in fanned(left, "va", 2, group)]
        numbers = [sock.getsockopt(_SOL_PACKET, _PACKET_FANOUT) & 0xFFFF for sock in sockets]
        assert numbers[0] == numbers[1] != numbers[2] == numbers[3]


class Counted:
    """A socket of a kernel that numbers new groups from 0 on, as Linux does after its start."""

    groups = 0
    UNIQUE_ID = 0x2000

    def setsockopt(self, level, option, value):
        if option == _PACKET_FANOUT:
            number, kind = struct.unpack("HH", value)
            if kind & self.UNIQUE_ID:
                number, Counted.groups = self.groups, self.groups + 1
            self.number = number

    def getsockopt(self, level, option):
        return self.number


def test_the_first_group_of_a_kernel_has_number_0(monkeypatch):
    monkeypatch.setattr(Counted, "groups", 0)
    group, sockets = FanoutGroup(3), [Counted() for _ in range(6)]
    for index in (7, 8):
        for sock in sockets[3 * (index - 7) :][:3]:
            group.join(sock, index)
    assert [sock.number for sock in sockets] == [0] * 3 + [1] * 3


def test_an_interface_that_comes_back_under_its_number_is_joined_anew(monkeypatch):
    monkeypatch.setattr(Counted, "groups", 5)
    group, sockets = FanoutGroup(2), [Counted() for _ in range(4)]
    for sock in sockets[:2]:
        group.join(sock, 7)
    group.leave(7)
    assert not group.is_turn(7, 0) and not group.is_complete(7)  # one of them has not seen that it went
    group.leave(7)
    for place, sock in enumerate(sockets[2:]):
        assert group.is_turn(7, place)
        group.join(sock, 7)
    assert group.is_complete(7) and [sock.number for sock in sockets] == [5, 5, 6, 6]


def test_places_are_given_once():
    group = FanoutGroup(2)
    assert [group.take_place(), group.take_place()] == [0, 1]
    with pytest.raises(ValueError, match="only 2 workers"):
        group.take_place()


def test_what_the_kernels_own_hash_does(cable, record_property):
    """Only a report: it promises nothing, and may well keep these connections together."""
    left, right = cable
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(left.call(listening, "va")) for _ in range(4)]
        for sock in sockets:
            sock.setsockopt(_SOL_PACKET, _PACKET_FANOUT, _FANOUT_HASH << 16 | 99)
        total = talk(left, right, 500)
        found, _ = places(received(sockets))
    assert len(found) == total
    split = sum(len(where) > 1 for where in found.values())
    record_property("connections that PACKET_FANOUT_HASH split", split)
    print(f"PACKET_FANOUT_HASH split {split} of {total} connections over 4 sockets")
