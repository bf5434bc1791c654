"""The kernel's own word on states, resends and resets, against the rows of a capture of the same connections."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from hosts import Hosts, any_data, exchange, local_port, receive, reset_on_close
from netns import Ends
from wire import Rule, Segment, write_pcap

import synfin

_SOL_TCP, _TCP_SYNCNT, _TCP_LINGER2, _TCP_MAXSEG = 6, 7, 8, 2
#: Where only a listener or nothing is left, the kernel shows no connection, and RFC 9293 allows either name.
_NONE = ("CLOSED", "LISTEN")


def track(hosts: Hosts, folder: Path) -> dict[Ends, dict[str, Any]]:
    """Rows of what the wire recorded, by ports as the client sees them, after checking the account."""
    hosts.wire.close()
    path = folder / "wire.pcap"
    write_pcap(path, hosts.wire.packets)
    stream = synfin.scan(path)
    rows = stream.to_pylist()
    stats = stream.stats
    in_records = sum(row["client_packets"] + row["server_packets"] for row in rows)
    assert len(hosts.wire.packets) == stats["packets"] == in_records + sum(stats["skips"].values())
    by_ports = {Ends(row["client_port"], row["server_port"]): row for row in rows}
    assert len(by_ports) == len(rows)
    return by_ports


def compare_states(rows: dict[Ends, dict[str, Any]], kernel: dict[str, dict[Ends, str]]) -> list[str]:
    """Ends whose state in the rows is not the kernel's."""
    found = []
    for ports, row in rows.items():
        for side, key in (("client", ports), ("server", Ends(ports.peer, ports.local))):
            says = kernel[side].get(key)
            seen = row[f"{side}_state"]
            if seen != says if says else seen not in _NONE:
                found.append(f"{ports} {side}: {seen}, kernel {says or 'none'}")
    known = {side: set(states) for side, states in kernel.items()}
    known["server"] = {Ends(end.peer, end.local) for end in known["server"]}
    return found + [f"no row for {end}" for end in (known["client"] | known["server"]) - rows.keys()]


class Fates:
    """Ways of ending a connection; each leaves both kernels in known states."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts

    def idle(self, client: socket.socket, server: socket.socket) -> None:
        pass

    def client_first(self, client: socket.socket, server: socket.socket) -> None:
        client.close()
        receive(server, 1)
        server.close()

    def server_first(self, client: socket.socket, server: socket.socket) -> None:
        server.close()
        receive(client, 1)
        client.close()

    def client_only(self, client: socket.socket, server: socket.socket) -> None:
        client.close()

    def server_half(self, client: socket.socket, server: socket.socket) -> None:
        server.shutdown(socket.SHUT_WR)
        client.sendall(b"more")

    def both(self, client: socket.socket, server: socket.socket) -> None:
        client.close()
        server.close()

    def client_abort(self, client: socket.socket, server: socket.socket) -> None:
        reset_on_close(client)
        client.close()

    def server_abort(self, client: socket.socket, server: socket.socket) -> None:
        reset_on_close(server)
        server.close()

    def client_abort_late(self, client: socket.socket, server: socket.socket) -> None:
        server.close()
        receive(client, 1)
        reset_on_close(client)
        client.close()

    def server_abort_late(self, client: socket.socket, server: socket.socket) -> None:
        client.close()
        receive(server, 1)
        reset_on_close(server)
        server.close()

    def data_to_closed(self, client: socket.socket, server: socket.socket) -> None:
        client.close()
        receive(server, 1)
        server.sendall(b"too late")

    def unread(self, client: socket.socket, server: socket.socket) -> None:
        client.sendall(b"nobody reads this")
        server.recv(1, socket.MSG_PEEK)
        server.close()


@pytest.mark.parametrize("tap", ["client", "server"])
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_states_and_resets(tmp_path: Path, ipv6: bool, tap: str) -> None:
    """Three connections of each fate, SYN-SENT and SYN-RECEIVED among them: both ends' states are those of ``ss``."""
    with Hosts(ipv6=ipv6, tap=tap, delay=0.002) as hosts:
        hosts.wire.rules.append(Rule("server", lambda s: s.is_synack and s.source_port == 81, drop=True))
        listener = hosts.listen(80)
        hosts.listen(81)
        fates = [getattr(Fates(hosts), name) for name in vars(Fates) if not name.startswith("_")]
        for fate in fates * 3:
            client = hosts.socket("client")
            client.connect((hosts.server_ip, 80))
            server = hosts.accept(listener)
            exchange(client, server)
            fate(client, server)
        for _ in range(3):
            hosts.begin_connect(82)  # nobody listens: refused
            if tap == "server":
                hosts.begin_connect(81)  # the client never hears the SYN-ACK: SYN-SENT and SYN-RECEIVED
        hosts.wire.settle(0.2)
        kernel, counters = hosts.states(), {"client": hosts.client.counters(), "server": hosts.server.counters()}
        rows = track(hosts, tmp_path)
    assert len(rows) == 3 * len(fates) + (6 if tap == "server" else 3)
    assert compare_states(rows, kernel) == []
    for side in ("client", "server"):
        assert sum(row[f"{side}_rst_count"] for row in rows.values()) == counters[side]["TcpOutRsts"]
    handshakes = [row["handshake"] for row in rows.values()]
    assert handshakes.count("refused") == counters["client"]["TcpAttemptFails"] == 3
    assert len(rows) == counters["client"]["TcpActiveOpens"]
    assert handshakes.count("complete") == counters["server"]["TcpPassiveOpens"]
    # RFC 4022: from ESTABLISHED or CLOSE-WAIT directly to CLOSED, that is, a reset without a FIN of this end before.
    for side in ("client", "server"):
        reset = [
            row for row in rows.values() if row["close"] in ("rst", "rst_after_fin") and not row[f"{side}_fin_count"]
        ]
        assert len(reset) == counters[side]["TcpEstabResets"]


def _resent(row: dict[str, Any], side: str) -> int:
    opening = row["syn_count"] if side == "client" else row["synack_count"]
    return row[f"{side}_retransmitted_segments"] + max(0, opening - 1) + max(0, row[f"{side}_fin_count"] - 1)


@pytest.mark.parametrize("tap", ["client", "server"])
def test_resends_under_loss(tmp_path: Path, tap: str) -> None:
    """Eight uploads and downloads, about one data segment in thirty lost: the host beside the tap resent what the rows
    say, and every byte is accounted for.
    """
    size = 52_400
    chance = random.Random(7)

    def unlucky(segment: Segment) -> bool:
        return any_data(segment) and chance.random() < 1 / 30

    with Hosts(
        tap=tap, delay=0.002, rules=(Rule("client", unlucky, drop=True), Rule("server", unlucky, drop=True))
    ) as hosts:
        listener = hosts.listen(80)
        for number in range(8):
            client = hosts.socket("client")
            client.setsockopt(_SOL_TCP, _TCP_MAXSEG, 536)
            client.connect((hosts.server_ip, 80))
            server = hosts.accept(listener)
            sender, receiver = (client, server) if number % 2 else (server, client)
            sender.sendall(b"d" * size)
            assert len(receive(receiver, size)) == size
            sender.close()
            receiver.close()
        hosts.wire.settle(0.5)
        kernel = hosts.states()
        counted = getattr(hosts, tap).counters()["TcpRetransSegs"]
        lost = [segment for segment in hosts.wire.dropped if segment.sender == tap]
        rows = track(hosts, tmp_path)
    assert len(lost) > 5
    assert counted >= len(lost)
    assert sum(_resent(row, tap) for row in rows.values()) == counted
    assert sum(row[f"{tap}_unique_bytes"] for row in rows.values()) == 4 * size
    assert [row for row in rows.values() if row["client_missing_bytes"] or row["server_missing_bytes"]] == []
    assert compare_states(rows, kernel) == []


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_resends_are_no_capture_duplicates(tmp_path: Path, ipv6: bool) -> None:
    """Downloads over a short path with loss: the kernel resends within milliseconds, and no resend is a copy."""
    size, chance = 300_000, random.Random(11)

    def unlucky(segment: Segment) -> bool:
        return any_data(segment) and chance.random() < 1 / 40

    with Hosts(ipv6=ipv6, tap="server", delay=0.001, rules=(Rule("server", unlucky, drop=True),)) as hosts:
        listener = hosts.listen(80)
        for _ in range(4):
            client = hosts.socket("client")
            client.connect((hosts.server_ip, 80))
            server = hosts.accept(listener)
            server.sendall(b"d" * size)
            assert len(receive(client, size)) == size
            server.close()
            client.close()
        hosts.wire.settle(0.5)
        counted = hosts.server.counters()["TcpRetransSegs"]
        kept = track(hosts, tmp_path)
    rows = {
        Ends(row["client_port"], row["server_port"]): row
        for row in synfin.scan(tmp_path / "wire.pcap", duplicates="count").to_pylist()
    }
    assert counted > 5
    assert sum(_resent(row, "server") for row in rows.values()) == counted
    for ends, row in rows.items():
        for side in ("client", "server"):
            assert row.pop(f"{side}_capture_duplicates") == 0
            assert kept[ends].pop(f"{side}_capture_duplicates") is None
    assert rows == kept


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_both_ends_of_the_wire_captured(tmp_path: Path, ipv6: bool) -> None:
    """Two taps see every packet, SYN-ACKs and RSTs with ID 0 among them: merged, one of each two is a copy."""
    with Hosts(ipv6=ipv6, tap="client", delay=0.002) as hosts:
        far = hosts.server.call(Recorder, "eth0")
        listener = hosts.listen(80)
        fates = [getattr(Fates(hosts), name) for name in vars(Fates) if not name.startswith("_")]
        for fate in fates:
            client = hosts.socket("client")
            client.connect((hosts.server_ip, 80))
            server = hosts.accept(listener)
            exchange(client, server)
            fate(client, server)
        hosts.begin_connect(82)  # refused
        hosts.wire.settle(0.3)
        copies = far.packets()
        write_pcap(tmp_path / "far.pcap", copies)
        alone = track(hosts, tmp_path)
    near_ns, far_ns = _stamps(hosts.wire.packets), _stamps(copies)
    apart_ns = max(
        abs(one - other) for packet, times in near_ns.items() for one, other in zip(times, far_ns[packet], strict=False)
    )
    if apart_ns > 50_000_000:  # what is further apart counts as sent again (docs/accounting.md)
        pytest.skip(f"a busy machine: the two copies of a packet lie {apart_ns / 1e6:.0f} ms apart")
    taps = [tmp_path / "wire.pcap", tmp_path / "far.pcap"]
    stream = synfin.scan(taps, duplicates="count")
    rows = {Ends(row["client_port"], row["server_port"]): row for row in stream.to_pylist()}
    assert rows.keys() == alone.keys()
    for ends, row in rows.items():
        for side in ("client", "server"):
            packets = alone[ends][f"{side}_packets"]
            assert (row[f"{side}_packets"], row[f"{side}_capture_duplicates"]) == (2 * packets, packets), (ends, side)
            assert row[f"{side}_state"] == alone[ends][f"{side}_state"]
            assert row[f"{side}_unique_bytes"] == alone[ends][f"{side}_unique_bytes"]
            assert row[f"{side}_retransmitted_segments"] == alone[ends][f"{side}_retransmitted_segments"]
    dropped = synfin.scan(taps, duplicates="drop")
    assert sum(row["client_packets"] + row["server_packets"] for row in dropped.to_pylist()) == sum(
        row["client_packets"] + row["server_packets"] for row in alone.values()
    )
    assert dropped.stats["skips"]["capture_duplicate"] == sum(
        row["client_packets"] + row["server_packets"] for row in alone.values()
    )


def _stamps(packets: list[tuple[int, bytes]]) -> dict[bytes, list[int]]:
    # Of TCP packets, by what is behind the Ethernet header.
    found = defaultdict(list)
    for time_ns, frame in packets:
        if frame[20 if frame[12:14] == b"\x86\xdd" else 23] == socket.IPPROTO_TCP:
            found[frame[14:]].append(time_ns)
    return found


class Recorder:
    """A second tap: everything that an interface of this namespace sends and receives, with the kernel's timestamps."""

    _SO_TIMESTAMPNS = 35  # asm-generic/socket.h

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((interface, 3))
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, self._SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)

    def packets(self) -> list[tuple[int, bytes]]:
        """(nanoseconds, frame) of what has come so far; the tap ends."""
        found = []
        with self._socket, contextlib.suppress(BlockingIOError):
            while True:
                frame, extra, _, _ = self._socket.recvmsg(65536, 64)
                seconds, nanoseconds = struct.unpack("qq", extra[0][2][:16])
                found.append((seconds * 10**9 + nanoseconds, frame))
        return found


#: An address that leads to the server's host and is not its own: it drops what comes, without an answer.
_SILENT_IP = "10.20.0.81"


def _connect(hosts: Hosts, address: str, port: int) -> tuple[socket.socket, Ends]:
    client = hosts.socket("client")
    client.setsockopt(_SOL_TCP, _TCP_SYNCNT, 1)
    client.setblocking(False)
    client.connect_ex((address, port))
    return client, Ends(local_port(client), port)


def _give_up_connecting(hosts: Hosts) -> Ends:
    return _connect(hosts, _SILENT_IP, 90)[1]


def _close_while_connecting(hosts: Hosts) -> Ends:
    client, ends = _connect(hosts, _SILENT_IP, 90)
    client.close()
    return ends


def _forget_half_open(hosts: Hosts) -> Ends:
    hosts.listen(91)
    _, ends = _connect(hosts, hosts.server_ip, 91)
    hosts.wait_state("server", "SYN-RECEIVED")
    return ends


def _leave_fin_wait_2(hosts: Hosts) -> Ends:
    client, server = hosts.open(92)
    exchange(client, server)
    client.setsockopt(_SOL_TCP, _TCP_LINGER2, 1)
    ends = Ends(local_port(client), 92)
    client.close()
    hosts.wait_state("client", "FIN-WAIT-2")
    return ends


#: States that a kernel leaves without sending a segment: no tap can see that, and the row keeps the state. Beside
#: these, TIME-WAIT ends after 60 s, which the row's own deadline follows.
SILENT = {
    "connect() gives up after its last SYN": (_give_up_connecting, "client", "SYN-SENT"),
    "close() before anything answered the SYN": (_close_while_connecting, "client", "SYN-SENT"),
    "the listener drops an attempt after its last SYN-ACK": (_forget_half_open, "server", "SYN-RECEIVED"),
    "an orphan's wait for the peer's FIN ends (tcp_fin_timeout)": (_leave_fin_wait_2, "client", "FIN-WAIT-2"),
}


def test_states_left_without_a_segment(tmp_path: Path) -> None:
    with Hosts(tap="server", delay=0.002) as hosts:
        hosts.client.ip(f"neighbor replace {_SILENT_IP} dev eth0 lladdr {hosts.mac('server')}")
        hosts.server.sysctl("ipv4/tcp_synack_retries", 0)
        hosts.wire.rules.append(Rule("server", lambda s: s.source_port == 91, drop=True))
        ends = {name: make(hosts) for name, (make, _, _) in SILENT.items()}
        deadline = time.monotonic() + 10
        while any(state != "CLOSE-WAIT" for states in hosts.states().values() for state in states.values()):
            assert time.monotonic() < deadline, hosts.states()
            time.sleep(0.1)
        rows = track(hosts, tmp_path)
    for name, (_, side, state) in SILENT.items():
        assert rows[ends[name]][f"{side}_state"] == state, name
