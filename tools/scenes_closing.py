"""Scenes about how connections close."""

from __future__ import annotations

import socket
import time

from hosts import Hosts, any_fin, exchange, first_ack_of_fin, local_port, receive, reset_on_close
from scene import Row, Scenes, complete, demand
from wire import ACK, RST, Rule

SCENES = Scenes()


def _close_shape(hosts: Hosts, sender: str, *, merged: bool) -> None:
    """Demand that the first FIN of ``sender`` was acknowledged by the peer's FIN itself, or by an ACK before it."""
    answer = first_ack_of_fin(hosts.wire.seen, sender)
    demand(answer is not None and answer.is_fin == merged, "the other kind of close")


def _four_way(hosts: Hosts, closer: str) -> list[Row]:
    client, server = hosts.open(443)
    facts = complete(
        client, 443, close="fin_4way", closer=closer, client_fin_count=1, server_fin_count=1, end_reason="fin"
    )
    exchange(client, server)
    first, second = (client, server) if closer == "client" else (server, client)
    first.close()
    hosts.wait_fin_acknowledged(closer)
    second.close()
    hosts.wire.settle()
    _close_shape(hosts, closer, merged=False)
    return [{**facts, "fin_rtt_ns": {"min": 1}, "half_closed_ns": {"min": 1}}]


@SCENES.add(
    "close-4way", "Request, response; the client closes, the server acknowledges and closes a little later.",
    "FIN, ACK, FIN, ACK; TIME-WAIT at the client.",
)  # fmt: skip
def close_4way(hosts: Hosts) -> list[Row]:
    return _four_way(hosts, "client")


@SCENES.add("close-4way-server", "The same, but the server closes first.", "TIME-WAIT at the server, where it costs.")
def close_4way_server(hosts: Hosts) -> list[Row]:
    return _four_way(hosts, "server")


@SCENES.add(
    "close-3way", "The server closes at once when it reads the end of the client's stream.",
    "FIN, FIN with ACK, ACK: Linux delays the ACK of a FIN, and the server's own FIN carries it.",
)  # fmt: skip
def close_3way(hosts: Hosts) -> list[Row]:
    client, server = hosts.open(443)
    facts = complete(client, 443, close="fin_3way", closer="client", end_reason="fin")
    exchange(client, server)
    client.close()
    receive(server, 1)
    server.close()
    hosts.wire.settle()
    _close_shape(hosts, "client", merged=True)
    return [facts]


@SCENES.add(
    "simultaneous-close", "Both sides close at the same moment; the FINs cross on the wire.",
    "Each side passes through CLOSING; TIME-WAIT at both (RFC 9293 Figure 13).", delay=0.06,
)  # fmt: skip
def simultaneous_close(hosts: Hosts) -> list[Row]:
    client, server = hosts.open(443)
    facts = complete(client, 443, close="fin_simultaneous", closer="both", end_reason="fin")
    exchange(client, server)
    hosts.wire.settle(0.15)
    client.close()
    server.close()
    hosts.wire.settle(0.2)
    return [facts]


@SCENES.add(
    "close-wait", "The client closes; the server never does.",
    "FIN-WAIT-2 at the client, CLOSE-WAIT at the server: a server that forgot close().",
)  # fmt: skip
def close_wait(hosts: Hosts) -> list[Row]:
    client, server = hosts.open(8080)
    facts = complete(client, 8080, close="half_closed", closer="client", server_fin_count=0, end_reason="end_of_input")
    exchange(client, server)
    client.close()
    hosts.wait_fin_acknowledged("client")
    return [facts]


@SCENES.add(
    "data-after-fin", "The client shuts down its sending side; the server goes on sending 4000 bytes and then closes.",
    "A half-closed connection that is still in use.",
)  # fmt: skip
def data_after_fin(hosts: Hosts) -> list[Row]:
    client, server = hosts.open(443)
    facts = complete(
        client, 443, close="fin_4way", closer="client", payload_bytes_after_fin=4000, server_unique_bytes=4900, end_reason="fin"
    )  # fmt: skip
    exchange(client, server, response=900)
    client.shutdown(socket.SHUT_WR)
    hosts.wait_fin_acknowledged("client")
    for _ in range(4):
        server.sendall(b"r" * 1000)
        time.sleep(0.03)
    server.close()
    receive(client, 4001)
    hosts.wire.settle()
    return [facts]


@SCENES.add(
    "abort", "The client aborts after the response (SO_LINGER with time 0).", "RST without FIN; nobody in TIME-WAIT."
)
def abort(hosts: Hosts) -> list[Row]:
    client, server = hosts.open(443)
    facts = complete(client, 443, close="rst", closer=None, rst_by="client", end_reason="rst", time_wait_side=None)
    exchange(client, server)
    reset_on_close(client)
    client.close()
    return [facts]


@SCENES.add(
    "unread-data", "The server closes while data that it has not read lies in its buffer.",
    "Linux sends RST instead of FIN (RFC 2525 section 2.17).",
)  # fmt: skip
def unread_data(hosts: Hosts) -> list[Row]:
    client, server = hosts.open(443)
    facts = complete(client, 443, close="rst", closer=None, rst_by="server", end_reason="rst")
    client.sendall(b"q" * 500)
    hosts.wire.wait(lambda seen: any(s.sender == "server" and not s.is_synack and s.flags & ACK for s in seen))
    server.close()
    return [facts]


@SCENES.add(
    "reset-after-fin", "The client closes; the server sends more data to the closed socket.",
    "FIN, data, RST from the client: rst_after_fin.",
)  # fmt: skip
def reset_after_fin(hosts: Hosts) -> list[Row]:
    client, server = hosts.open(443)
    facts = complete(client, 443, close="rst_after_fin", closer="client", rst_by="client", end_reason="rst")
    exchange(client, server)
    client.close()
    hosts.wait_fin_acknowledged("client")
    server.sendall(b"r" * 700)
    hosts.wire.wait(lambda seen: any(s.flags & RST for s in seen))
    return [facts]


@SCENES.add(
    "fin-resent", "The client's first FIN is lost.",
    "The FIN comes again; its round trip is unknown, because its acknowledgement could mean either copy.",
)  # fmt: skip
def fin_resent(hosts: Hosts) -> list[Row]:
    hosts.wire.rules.append(Rule("client", any_fin, frozenset({1}), drop=True))
    client, server = hosts.open(443)
    facts = complete(
        client, 443, close="fin_4way", closer="client", client_fin_count=2, fin_rtt_ns=None, end_reason="fin"
    )
    exchange(client, server)
    client.close()
    hosts.wait_fin_acknowledged("client")
    server.close()
    hosts.wire.settle()
    _close_shape(hosts, "client", merged=False)
    return [facts]


@SCENES.add(
    "last-ack", "The client's last ACK is lost; recorded next to the server.",
    "The server waits in LAST-ACK and sends its FIN again. The client's kernel is in TIME-WAIT, which no tap at this "
    "place can see.", tap="server",
)  # fmt: skip
def last_ack(hosts: Hosts) -> list[Row]:
    client, server = hosts.open(443)
    facts = complete(client, 443, close="fin_4way", closer="client", client_state=None, time_wait_side=None,
                     server_fin_count={"min": 2})  # fmt: skip
    exchange(client, server)
    client.close()
    hosts.wait_fin_acknowledged("client")
    hosts.wire.rules.append(Rule("client", lambda _: True, drop=True))
    server.close()
    hosts.wire.wait(lambda seen: sum(s.sender == "server" and s.is_fin for s in seen) >= 2)
    return [facts]


@SCENES.add(
    "port-reuse", "The server closes first; the client connects again from the same port while the server is in TIME-WAIT.",
    "Two records of one pair of ends; the new SYN ends the TIME-WAIT.",
)  # fmt: skip
def port_reuse(hosts: Hosts) -> list[Row]:
    listener = hosts.listen(443)
    rows = []
    port = 0
    for _ in range(2):
        client = hosts.socket("client", port)
        client.connect((hosts.server_ip, 443))
        port = local_port(client)
        server = hosts.accept(listener)
        rows.append(complete(client, 443, closer="server", time_wait_side="server", end_reason="fin"))
        exchange(client, server)
        server.close()
        receive(client, 1)
        client.close()
        hosts.wait_state("server", "TIME-WAIT")
        hosts.wire.settle()
        demand(not hosts.client.states(), "the client is not closed yet")
    rows[0] |= {"time_wait_end": "reused", "client_state": "CLOSED", "server_state": "TIME-WAIT"}
    rows[1] |= {"time_wait_end": None}
    return rows
