"""Connections that other tools report wrongly; docs/wrong-elsewhere.md shows what they say."""

from __future__ import annotations

from dialogue import MS, SECOND, Dialogue, options
from scenarios import scenario


@scenario({"handshake": "complete", "syn_count": 2, "synack_count": 2, "rtt_server_ns": 1100 * MS,
           "rtt_server_quality": "matched", "rtt_client_ns": 10 * MS, "rtt_client_quality": "clean",
           "rtt_handshake_ns": 1110 * MS})  # fmt: skip
def resent_syn_whose_first_copy_is_answered():
    """A path of 1.1 s: the client's SYN is resent after 1 s, and 0.1 s later comes the answer to the first copy, as its
    timestamp echo says (RFC 7323 section 4.3). A second later the server answers the second copy with the same segment."""
    d = Dialogue()
    d.syn(d.a, opts=options(ts=(1000, 0)))
    d.syn(d.a, opts=options(ts=(2000, 0)), step=SECOND)
    d.synack(d.b, opts=options(ts=(500_000, 1000)), step=100 * MS)
    d.ack(d.a, opts=options(ts=(2110, 500_000)))
    d.synack(d.b, opts=options(ts=(501_000, 1000)), step=990 * MS)
    d.ack(d.a, opts=options(ts=(3110, 501_000)))
    return d


@scenario({"handshake": "complete", "rtt_server_ns": 0, "rtt_client_ns": 0, "rtt_handshake_ns": 0,
           "rtt_server_quality": "clean", "rtt_client_quality": "clean", "duration_ns": 5 * SECOND})  # fmt: skip
def handshake_within_one_tick():
    """A clock that ticks in milliseconds (or a handshake within one host) gives the three segments one timestamp; the
    client's first request follows 5 s later."""
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b, step=0)
    d.ack(d.a, step=0)
    d.data(d.a, 10, step=5 * SECOND)
    d.ack(d.b, step=0)
    return d


@scenario({"handshake": "complete", "direction": "syn", "client_port": 40000, "close": "fin_4way",
           "client_packets": 6, "server_packets": 5, "rtt_server_ns": 10 * MS})  # fmt: skip
def silent_for_ten_minutes():
    """Nobody says anything for ten minutes, then the server speaks first. RFC 5382 REQ-5 asks for 2 hours and 4 minutes
    before such a connection may be forgotten."""
    d = Dialogue().handshake()
    d.data(d.a, 100)
    d.ack(d.b)
    d.wait(600 * SECOND)
    d.data(d.b, 100)
    d.ack(d.a)
    return d.close()
