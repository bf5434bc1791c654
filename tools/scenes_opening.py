"""Scenes about how connections open: attempts that fail, handshakes with loss, options."""

from __future__ import annotations

import contextlib
import select
import socket
import time

from hosts import Hosts, any_segment, exchange, receive
from scene import Row, Scenes, complete, demand, row
from wire import RST, SYN, Rule, Segment

SCENES = Scenes()

_SOL_TCP, _TCP_INFO, _TCP_FASTOPEN, _MSG_FASTOPEN = 6, 11, 23, 0x20000000
_TCPI_OPT_ECN = 8


def _is_syn(segment: Segment) -> bool:
    return segment.is_syn


def _is_synack(segment: Segment) -> bool:
    return segment.is_synack


def _no_syn(segment: Segment) -> bool:
    return not segment.flags & SYN


def _wait_copies(hosts: Hosts, match: object, count: int) -> None:
    """Wait until ``count`` segments that match have reached the wire."""
    hosts.wire.wait(lambda seen: sum(map(match, seen)) >= count)


@SCENES.add(
    "unanswered", "The client connects to an address from which nothing comes back (every SYN is lost).",
    "SYN resent about once a second; the client's kernel is still in SYN-SENT at the end.",
)  # fmt: skip
def unanswered(hosts: Hosts) -> list[Row]:
    hosts.wire.rules.append(Rule("client", any_segment, drop=True))
    client = hosts.begin_connect(443)
    _wait_copies(hosts, _is_syn, 3)
    return [
        row(client, 443, handshake="pending", syn_count={"min": 3}, synack_count=0, close=None, end_reason="end_of_input",
            in_set={"handshake": "unanswered", "end_reason": "attempt_timeout"})
    ]  # fmt: skip


@SCENES.add(
    "half-open", "Every SYN-ACK is lost on its way to the client; recorded next to the server.",
    "Both sides resend; SYN-SENT at the client, SYN-RECEIVED at the server.", tap="server",
)  # fmt: skip
def half_open(hosts: Hosts) -> list[Row]:
    hosts.wire.rules.append(Rule("server", any_segment, drop=True))
    hosts.listen(443)
    client = hosts.begin_connect(443)
    _wait_copies(hosts, _is_synack, 2)
    return [
        row(client, 443, handshake="pending", syn_count={"min": 2}, synack_count={"min": 2}, close=None,
            end_reason="end_of_input", in_set={"handshake": "half_open", "end_reason": "attempt_timeout"})
    ]  # fmt: skip


@SCENES.add(
    "half-open-ack-lost", "Everything after the client's SYN is lost on its way to the server; recorded there.",
    "The server stays in SYN-RECEIVED and resends its SYN-ACK, as in a SYN flood. The client's kernel says ESTABLISHED, "
    "which no tap at this place can see.", tap="server",
)  # fmt: skip
def half_open_ack_lost(hosts: Hosts) -> list[Row]:
    hosts.wire.rules.append(Rule("client", _no_syn, drop=True))
    hosts.listen(443)
    client = hosts.socket("client")
    client.connect((hosts.server_ip, 443))
    _wait_copies(hosts, _is_synack, 2)
    return [
        row(client, 443, handshake="pending", syn_count=1, synack_count={"min": 2}, close=None, client_state=None,
            end_reason="end_of_input", in_set={"handshake": "half_open", "end_reason": "attempt_timeout"})
    ]  # fmt: skip


@SCENES.add("refused", "The client connects to a port where nobody listens.", "SYN, RST: connection refused.")
def refused(hosts: Hosts) -> list[Row]:
    client = hosts.begin_connect(8443)
    facts = row(client, 8443, handshake="refused", syn_count=1, synack_count=0, rst_by="server", close=None)
    _wait_copies(hosts, lambda segment: segment.flags & RST, 1)
    select.select([], [client], [], 1.0)
    demand(client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 111, "no ECONNREFUSED")
    return [facts]


@SCENES.add(
    "port-scan", "The client tries twelve ports of the server one after the other; two of them answer.",
    "Ten refused attempts and two connections that the client resets at once.",
)  # fmt: skip
def port_scan(hosts: Hosts) -> list[Row]:
    rows = []
    listening = {22, 443}
    for port in listening:
        hosts.listen(port)
    for port in (21, 22, 23, 25, 80, 110, 143, 443, 445, 3306, 5432, 8080):
        client = hosts.socket("client")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.bind((hosts.client_ip, 0))
        if port in listening:
            rows.append(complete(client, port, close="rst", rst_by="client"))
        else:
            rows.append(row(client, port, handshake="refused", syn_count=1, rst_by="server", close=None))
        with contextlib.suppress(ConnectionRefusedError):
            client.connect((hosts.server_ip, port))
        client.close()
    return rows


@SCENES.add(
    "aborted-attempt", "The client gives up (close) before the server's SYN-ACK arrives.",
    "SYN, SYN-ACK, RST from the client: aborted, neither refused nor half-open.", delay=0.06,
)  # fmt: skip
def aborted_attempt(hosts: Hosts) -> list[Row]:
    hosts.client.ip(f"neighbor replace {hosts.server_ip} dev eth0 lladdr {hosts.mac('server')}")
    hosts.server.ip(f"neighbor replace {hosts.client_ip} dev eth0 lladdr {hosts.mac('client')}")
    hosts.listen(443)
    client = hosts.begin_connect(443)
    facts = row(client, 443, handshake="aborted", syn_count=1, synack_count=1, rst_by="client", close=None)
    _wait_copies(hosts, _is_synack, 1)
    client.close()
    _wait_copies(hosts, lambda segment: segment.flags & RST, 1)
    return [facts]


@SCENES.add(
    "retried-syn", "The first SYN is lost.",
    "The SYN comes again after a second; the timestamp echo tells which copy was answered, so the round trip is known.",
)  # fmt: skip
def retried_syn(hosts: Hosts) -> list[Row]:
    hosts.wire.rules.append(Rule("client", _is_syn, frozenset({1}), drop=True))
    client, server = hosts.open(443)
    exchange(client, server)
    return [
        complete(client, 443, syn_count=2, syn_backoff_ns={"min": 900_000_000}, rtt_server_quality="matched", close="open")
    ]  # fmt: skip


@SCENES.add(
    "retried-synack", "The first SYN-ACK is lost on its way to the client; recorded next to the server.",
    "SYN-ACK and SYN are both sent again, with the same sequence numbers.", tap="server",
)  # fmt: skip
def retried_synack(hosts: Hosts) -> list[Row]:
    hosts.wire.rules.append(Rule("server", _is_synack, frozenset({1}), drop=True))
    client, server = hosts.open(443)
    exchange(client, server)
    return [complete(client, 443, syn_count={"min": 1}, synack_count={"min": 2}, synack_isn_variants=1, close="open")]


@SCENES.add(
    "simultaneous-open", "Both hosts call connect() towards each other from bound ports; the SYNs cross on the wire.",
    "Two SYNs and no listener (RFC 9293 Figure 7).", delay=0.06,
)  # fmt: skip
def simultaneous_open(hosts: Hosts) -> list[Row]:
    client = hosts.socket("client", 7001)
    server = hosts.socket("server", 7002)
    for sock in (client, server):
        sock.setblocking(False)
    client.connect_ex((hosts.server_ip, 7002))
    server.connect_ex((hosts.client_ip, 7001))
    for side in ("client", "server"):
        hosts.wait_state(side, "ESTABLISHED")
    return [row(client, 7002, handshake="complete", simultaneous_open=True, close="open")]


@SCENES.add(
    "fast-open", "Two connections with TCP Fast Open: the first gets a cookie, the second sends its request in the SYN.",
    "RFC 7413: cookie_request, then data_accepted.",
)  # fmt: skip
def fast_open(hosts: Hosts) -> list[Row]:
    demand(hosts.sysctl("ipv4/tcp_fastopen", 3), "this kernel has no Fast Open")
    listener = hosts.listen(443)
    listener.setsockopt(_SOL_TCP, _TCP_FASTOPEN, 8)
    rows = []
    for kind, size in (("cookie_request", 0), ("data_accepted", 200)):
        client = hosts.socket("client")
        client.bind((hosts.client_ip, 0))
        rows.append(
            complete(client, 443, fast_open=kind, syn_payload_bytes=size, client_unique_bytes=200, close="fin_3way")
        )
        client.settimeout(None)  # connect() inside sendto() wants a blocking socket
        client.sendto(b"q" * 200, _MSG_FASTOPEN, (hosts.server_ip, 443))
        server = hosts.accept(listener)
        receive(server, 200)
        client.close()
        receive(server, 1)
        server.close()
        hosts.wire.settle()
    demand(hosts.server.counters()["TcpExtTCPFastOpenPassive"] == 1, "the cookie was not taken")
    return rows


@SCENES.add(
    "ecn", "Both hosts ask for explicit congestion notification.", "A SYN with ECE and CWR is a SYN (RFC 3168)."
)
def ecn(hosts: Hosts) -> list[Row]:
    hosts.sysctl("ipv4/tcp_ecn", 1)
    client, server = hosts.open(443)
    exchange(client, server)
    for sock in (client, server):
        demand(sock.getsockopt(_SOL_TCP, _TCP_INFO, 8)[5] & _TCPI_OPT_ECN, "ECN was not agreed")
    return [complete(client, 443, ecn="agreed", close="open")]


@SCENES.add(
    "ipv6", "Request, response and close over IPv6, written as gzipped pcapng.",
    "The same rows from another IP version and another file format.", ipv6=True, suffix="pcapng.gz",
)  # fmt: skip
def ipv6(hosts: Hosts) -> list[Row]:
    client, server = hosts.open(443)
    facts = complete(client, 443, close="fin_4way", closer="client", client_dont_fragment=None)
    exchange(client, server)
    client.close()
    hosts.wait_fin_acknowledged("client")
    server.close()
    return [facts]


@SCENES.add(
    "busy-service", "Twenty connections of one client to three ports at the same time, closed by either side.",
    "What a table of many connections looks like.", delay=0.008,
)  # fmt: skip
def busy_service(hosts: Hosts) -> list[Row]:
    listeners = {port: hosts.listen(port) for port in (80, 443, 5432)}
    open_now = []
    for number in range(20):
        port = (443, 80, 443, 5432)[number % 4]
        client = hosts.socket("client")
        client.connect((hosts.server_ip, port))
        open_now.append((client, hosts.accept(listeners[port]), port))
    rows = []
    for number, (client, server, port) in enumerate(open_now):
        exchange(client, server, 120 + 10 * number, 300)
        first, second = (server, client) if number % 5 == 0 else (client, server)
        closer = "server" if number % 5 == 0 else "client"
        rows.append(complete(client, port, closer=closer, close={"in": ["fin_3way", "fin_4way"]}))
        first.close()
        receive(second, 1)
        if number % 3 == 0:
            time.sleep(0.06)
        second.close()
    return rows
