"""A link whose two directions reach us on two interfaces, in real rings: the rows are those of one interface that sees both.

Two hosts are joined by two cables, and each sends over another one. One ring listens on each cable, and a third one, at the
same time, on all interfaces of the host. Each stamps what arrives for itself, some 200 ns apart, so that times are not compared.
"""

from __future__ import annotations

import contextlib
import mmap
import random
import socket
import struct
import threading
import time

import pytest
from netns import Namespace, veth
from test_ring import rows_by

from synfin._core.batch import PacketBatch
from synfin.schema import FLOWS, INTERVALS
from synfin.sources.ring import Ring, RingMerge

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("namespaces")]

_SOL_PACKET, _RX_RING, _STATISTICS, _VERSION, _V3, _ETH_P_ALL = 263, 5, 6, 10, 2, 3
_BLOCK, _BLOCKS, _TIMEOUT_MS = 1 << 16, 256, 20
_OWN = {c.name for c in FLOWS if c.kind == "instant" or c.name.endswith("_ns")} | {"flow_id", "interface"}
_COUNTS = [c.name for c in INTERVALS[[c.name for c in INTERVALS].index("syns") :] if not c.name.endswith("_ns")]
_ADDRESSES = {4: ("10.8.0.1", "10.8.0.2"), 6: ("2001:db8:8::1", "2001:db8:8::2")}


class Taps:
    """A source of one ring for each name; "" is all interfaces."""

    files: tuple = ()
    report = bytes_total = None
    bytes_read = outside = 0

    def __init__(self, *names):
        self.interfaces = names
        self.sockets, rings = [], []
        for name in names:
            # With a protocol and not bound, a socket receives from everywhere; Python binds to no interface only so.
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0 if name else socket.htons(_ETH_P_ALL))
            sock.setsockopt(_SOL_PACKET, _VERSION, _V3)
            sock.setsockopt(
                _SOL_PACKET,
                _RX_RING,
                struct.pack("7I", _BLOCK, _BLOCKS, 2048, _BLOCK // 2048 * _BLOCKS, _TIMEOUT_MS, 0, 0),
            )
            rings.append(Ring(mmap.mmap(sock.fileno(), _BLOCK * _BLOCKS), _BLOCK, 1))
            if name:
                sock.bind((name, _ETH_P_ALL))
            self.sockets.append(sock)
        self.ring = RingMerge(rings, _TIMEOUT_MS * 1_000_000)
        self.until, self.dropped = None, 0

    @property
    def idle_clock_ns(self):
        return self.ring.clock_ns

    @property
    def drops(self):
        # Reading sets the kernel's counters to zero.
        self.dropped += sum(
            struct.unpack("III", sock.getsockopt(_SOL_PACKET, _STATISTICS, 12))[1] for sock in self.sockets
        )
        return self.dropped

    def fill(self, batch: PacketBatch) -> bool:
        self.ring.begin(batch)
        while True:
            over = self.until is not None and time.monotonic() > self.until
            past = None if over else time.time_ns() - _TIMEOUT_MS * 1_000_000
            if self.ring.walk(batch, past):
                return True
            if over:
                self.ring.settle(batch)
                return len(batch) > 0
            time.sleep(0.002)

    def stop(self):
        self.until = time.monotonic() + 5 * _TIMEOUT_MS / 1000

    def close(self):
        self.ring.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def split():
    """Two hosts: what `left` sends leaves on c1, what it receives arrives on c2."""
    with contextlib.ExitStack() as stack:
        left, right = (stack.enter_context(Namespace()) for _ in range(2))
        for end in ("1", "2"):
            stack.enter_context(veth(left, f"c{end}", right, f"s{end}"))
        for version, (one, other) in _ADDRESSES.items():
            length = 32 if version == 4 else 128
            flags = "" if version == 4 else "nodad"
            left.ip(f"address add {one}/{length} dev c1 {flags}")
            right.ip(f"address add {other}/{length} dev s2 {flags}")
            for here, there, out, into, peer, to in (
                (left, right, "c1", "s1", other, one), (right, left, "s2", "c2", one, other),
            ):  # fmt: skip
                here.sysctl("ipv4/conf/all/rp_filter", 0)
                mac = there.run(["ip", "-br", "link", "show", into]).split()[2]
                here.ip(
                    f"route add {peer}/{length} dev {out} src {to}",
                    f"neigh add {peer} lladdr {mac} dev {out} nud permanent",
                )
        yield left, right


def talk(left, right, version, count, seed):
    """Connections with some data both ways, several at once, closed by either end or not at all."""
    chance = random.Random(seed)
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    opened = []
    with right.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((_ADDRESSES[version][1], 80))
        listener.listen(64)

        def clients():
            for number in range(count):
                client = socket.create_connection((_ADDRESSES[version][1], 80), 10)
                server, _ = listener.accept()
                opened.append((client, server))
                for one, other in [*((client, server), (server, client)) * chance.randrange(4)]:
                    one.sendall(bytes(chance.randrange(1, 4000)))
                    other.recv(5000)
                if number % 3:
                    first, second = opened.pop(chance.randrange(len(opened)))[:: chance.choice((1, -1))]
                    first.close()
                    second.close()

        left.call(clients)
    return opened


def rows_of_taps(taps, done):
    """Track in a thread of its own, as the two sources see the traffic at the same time."""

    def run():
        done.append(rows_by(taps))

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("version", [4, 6])
def test_rows_are_those_of_one_interface(split, version):
    left, right = split
    both, one = left.call(Taps, "c1", "c2"), left.call(Taps, "")
    results = [], []
    threads = [rows_of_taps(taps, done) for taps, done in zip((both, one), results, strict=True)]
    still_open = talk(left, right, version, 600, version)
    for taps in (both, one):
        taps.stop()
    for thread in threads:
        thread.join(60)
    for client, server in still_open:
        client.close()
        server.close()
    ((flows, intervals, stats),), ((flows_of_one, intervals_of_one, stats_of_one),) = results
    assert both.dropped == one.dropped == 0
    assert stats["packets_in_records"] == stats_of_one["packets_in_records"] >= 600 * 6  # others: neighbour discovery
    tcp = [row for row in flows if row["ip_version"] == version]
    assert len(tcp) == 600 and {row["handshake"] for row in tcp} == {"complete"}
    assert {row["close"] for row in tcp} >= {"open", "fin_4way"} and min(row["server_packets"] for row in tcp) > 0
    assert {row["interface"] for row in tcp} == {"c1"} and {row["interface"] for row in flows_of_one} == {""}
    assert compared(flows) == compared(flows_of_one)
    for name in _COUNTS:
        if name not in ("capture_duplicates", "capture_drops"):
            assert sum(row[name] for row in intervals) == sum(row[name] for row in intervals_of_one), name


def compared(rows):
    return sorted(({k: v for k, v in row.items() if k not in _OWN} for row in rows), key=lambda row: row["client_port"])
