"""Scenes about what happens between opening and closing: loss, reordering, waiting."""

from __future__ import annotations

import socket
import time

from hosts import Hosts, any_data, receive
from scene import Row, Scenes, complete, demand
from wire import Rule

SCENES = Scenes()

_SOL_TCP = 6
_TCP_MAXSEG, _TCP_KEEPIDLE, _TCP_KEEPINTVL = 2, 4, 5
_BYTES = 10_480  # twenty segments of 524 bytes: MSS 536 less the timestamps option


def _upload(hosts: Hosts, **facts: object) -> Row:
    """Send small segments to the server and wait until all of them are acknowledged."""
    listener = hosts.listen(443)
    client = hosts.socket("client")
    client.setsockopt(_SOL_TCP, _TCP_MAXSEG, 536)
    client.connect((hosts.server_ip, 443))
    server = hosts.accept(listener)
    client.sendall(b"d" * _BYTES)
    receive(server, _BYTES)
    hosts.wire.settle(0.3)
    return complete(client, 443, client_unique_bytes=_BYTES, client_missing_bytes=0, close="open", **facts)


@SCENES.add(
    "resends", "Three of twenty segments of an upload are lost, among them the last; recorded next to the sender.",
    "Lost segments and their resends both pass the tap: retransmitted_segments is what the sender's kernel counts.",
)  # fmt: skip
def resends(hosts: Hosts) -> list[Row]:
    hosts.wire.rules.append(Rule("client", any_data, frozenset({5, 6, 20}), drop=True))
    facts = _upload(hosts, client_out_of_order_segments=0)
    sent_again = hosts.client.counters()["TcpRetransSegs"]
    demand(sent_again >= 3, "fewer resends than losses")
    return [{**facts, "client_retransmitted_segments": sent_again, "client_payload_bytes": _BYTES + 524 * sent_again}]


@SCENES.add(
    "resends-behind-loss", "Two of twenty segments of an upload are lost; recorded next to the receiver, whose tap they never passed.",
    "The resends fill gaps: they are out of order, not seen twice.", tap="server",
)  # fmt: skip
def resends_behind_loss(hosts: Hosts) -> list[Row]:
    hosts.wire.rules.append(Rule("client", any_data, frozenset({5, 11}), drop=True))
    facts = _upload(hosts)
    return [{**facts, "client_out_of_order_segments": {"min": 2}, "server_duplicate_acks": {"min": 1}}]


@SCENES.add(
    "reordered", "One segment of an upload is overtaken by others; recorded next to the receiver.",
    "out_of_order_segments without any loss.", tap="server",
)  # fmt: skip
def reordered(hosts: Hosts) -> list[Row]:
    # The last but one of the first window, by less than a quarter of the round trip: no loss for RACK (RFC 8985).
    hosts.wire.rules.append(Rule("client", any_data, frozenset({9}), delay=0.0015))
    facts = _upload(hosts, client_out_of_order_segments=1)
    demand(hosts.client.counters()["TcpRetransSegs"] == 0, "the sender took reordering for loss")
    return [{**facts, "client_retransmitted_segments": 0}]


@SCENES.add(
    "doubled", "The network delivers one segment twice; recorded next to the receiver.",
    "A tap cannot tell a copy from a resend: one retransmitted segment, though the sender's kernel resent nothing.",
    tap="server",
)  # fmt: skip
def doubled(hosts: Hosts) -> list[Row]:
    hosts.wire.rules.append(Rule("client", any_data, frozenset({5}), copies=1))
    facts = _upload(hosts, client_retransmitted_segments=1, client_retransmitted_bytes=524)
    demand(hosts.client.counters()["TcpRetransSegs"] == 0, "the sender resent, too")
    return [facts]


@SCENES.add(
    "keep-alives", "An idle connection on which the client probes every second (SO_KEEPALIVE).",
    "Segments one byte below the next sequence number, each answered by an ACK.",
)  # fmt: skip
def keep_alives(hosts: Hosts) -> list[Row]:
    client, server = hosts.open(443)
    client.sendall(b"q" * 100)
    receive(server, 100)
    for option in (_TCP_KEEPIDLE, _TCP_KEEPINTVL):
        client.setsockopt(_SOL_TCP, option, 1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    time.sleep(2.5)
    hosts.wire.settle()
    probes = hosts.client.counters()["TcpExtTCPKeepAlive"]
    demand(probes >= 2, "fewer than two probes")
    return [complete(client, 443, client_keep_alives=probes, client_retransmitted_segments=0, close="open")]


@SCENES.add(
    "zero-window", "The server does not read for a while; then it reads everything.",
    "The server announces a window of 0; the client probes until it opens again.",
)  # fmt: skip
def zero_window(hosts: Hosts) -> list[Row]:
    listener = hosts.listen(443)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client = hosts.socket("client")
    client.connect((hosts.server_ip, 443))
    server = hosts.accept(listener)
    client.sendall(b"d" * 12_000)
    time.sleep(0.8)
    closed_windows = hosts.server.counters()["TcpExtTCPToZeroWindowAdv"]
    demand(closed_windows >= 1, "the window did not close")
    receive(server, 12_000)
    hosts.wire.settle()
    return [
        complete(client, 443, server_zero_windows={"min": closed_windows}, client_unique_bytes=12_000, close="open")
    ]
