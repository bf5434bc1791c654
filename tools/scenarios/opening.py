"""How connections open."""

from __future__ import annotations

import random

from dialogue import MS, SECOND, Captured, Dialogue, merge, options
from scenarios import scenario

OPEN = {"handshake": "complete", "close": "open", "client_state": "ESTABLISHED", "server_state": "ESTABLISHED"}


@scenario({**OPEN, "syn_count": 1, "synack_count": 1, "rtt_server_ns": 10 * MS, "rtt_client_ns": 10 * MS,
           "rtt_handshake_ns": 20 * MS, "rtt_server_quality": "clean", "end_reason": "end_of_input"})  # fmt: skip
def three_way_handshake():
    """SYN, SYN-ACK, ACK (RFC 9293 Figure 6): both round trips, and both ends open."""
    return Dialogue().handshake()


@scenario({"handshake": "complete", "simultaneous_open": True, "syn_count": 1, "synack_count": 2,
           "client_state": "ESTABLISHED", "server_state": "ESTABLISHED", "client_port": 40000})  # fmt: skip
def simultaneous_open():
    """Both ends send a SYN, then both a SYN-ACK (RFC 9293 Figure 7). The client is the end whose SYN came first."""
    d = Dialogue()
    d.syn(d.a)
    d.syn(d.b)
    d.synack(d.a)
    d.synack(d.b)
    return d


@scenario({"handshake": "complete", "simultaneous_open": True, "synack_count": 1, "client_state": "ESTABLISHED",
           "server_state": "ESTABLISHED"})  # fmt: skip
def simultaneous_open_with_one_syn_ack():
    """Both ends send a SYN; one answers with a SYN-ACK, the other with a bare ACK of it: complete all the same."""
    d = Dialogue()
    d.syn(d.a)
    d.syn(d.b)
    d.synack(d.b)
    d.ack(d.a)
    return d


@scenario({"handshake": "complete", "split_open": True, "simultaneous_open": False, "synack_count": 1,
           "client_state": "ESTABLISHED", "server_state": "ESTABLISHED"})  # fmt: skip
def split_handshake():
    """The server sends an ACK and then a bare SYN instead of a SYN-ACK (RFC 793 allowed it); the client's SYN-ACK and
    the server's ACK complete it."""
    d = Dialogue()
    d.syn(d.a)
    d.ack(d.b)
    d.syn(d.b)
    d.synack(d.a)
    d.ack(d.b)
    return d


@scenario({**OPEN, "fast_open": "data_accepted", "syn_payload_bytes": 30, "client_unique_bytes": 30,
           "client_retransmitted_segments": 0})  # fmt: skip
def fast_open_accepted():
    """A SYN with a cookie and data; the SYN-ACK covers the data (RFC 7413)."""
    d = Dialogue()
    d.syn(d.a, 30, opts=options(mss=1460, fast_open=b"cookie12"))
    d.synack(d.b, ack=1031)
    d.data(d.b, 50)
    d.ack(d.a)
    return d


@scenario({**OPEN, "fast_open": "data", "syn_payload_bytes": 30, "client_unique_bytes": 30,
           "client_retransmitted_segments": 1, "client_retransmitted_bytes": 30})  # fmt: skip
def fast_open_refused():
    """The same, but the SYN-ACK covers the SYN alone: the client sends the data again, which is a resend."""
    d = Dialogue()
    d.syn(d.a, 30, opts=options(mss=1460, fast_open=b"cookie12"))
    d.synack(d.b, ack=1001)
    d.ack(d.a, ack=5001, seq=1001)
    d.data(d.a, 30, seq=1001)
    d.ack(d.b)
    return d


@scenario({**OPEN, "fast_open": "cookie_request", "syn_payload_bytes": 0})
def fast_open_cookie_request():
    """A SYN with an empty Fast Open option asks for a cookie."""
    d = Dialogue()
    d.syn(d.a, opts=options(fast_open=b""))
    d.synack(d.b, opts=options(fast_open=b"cookie12"))
    d.ack(d.a)
    return d


@scenario({**OPEN, "mptcp": "agreed"}, {**OPEN, "mptcp": "offered", "client_port": 40001})
def multipath():
    """MP_CAPABLE answered by a server that speaks Multipath TCP, and by one that does not (RFC 8684)."""
    dialogues = [
        Dialogue(a_port=port, start=1_700_000_000 * SECOND + n * SECOND) for n, port in enumerate((40000, 40001))
    ]
    for number, d in enumerate(dialogues):
        d.syn(d.a, opts=options(mptcp=b"\x01\x01"))
        d.synack(d.b, opts=options(mptcp=None if number else b"\x01\x01" + bytes(8)))
        d.ack(d.a)
    return merge(*dialogues)


@scenario({**OPEN, "ecn": "agreed"}, {**OPEN, "ecn": "offered"}, {**OPEN, "ecn": "accecn_agreed"},
          {**OPEN, "ecn": "accecn_offered"}, {**OPEN, "ecn": "none"})  # fmt: skip
def congestion_notification():
    """ECN (RFC 3168) and AccECN (RFC 9768): offered and agreed, by the flags of SYN and SYN-ACK."""
    dialogues = []
    for number, (syn, synack) in enumerate((("EC", "E"), ("EC", ""), ("ECN", "C"), ("ECN", ""), ("", ""))):
        d = Dialogue(a_port=40000 + number, start=1_700_000_000 * SECOND + number * SECOND)
        d.syn(d.a, extra=syn)
        d.synack(d.b, extra=synack)
        d.ack(d.a)
        dialogues.append(d)
    return merge(*dialogues)


@scenario({**OPEN, "client_window_scale": 14, "server_window_scale": 15, "odd_segments": 1})
def window_scale_14():
    """A window of 65535 << 14, the largest (RFC 7323 section 2.3); a shift of 15 counts as 14. Just beyond is odd."""
    d = Dialogue()
    d.syn(d.a, opts=options(scale=14))
    d.synack(d.b, opts=options(scale=15))
    d.ack(d.a)
    window = 65535 << 14
    d.data(d.b, 10, seq=d.b.nxt + window)  # begins at the edge
    d.data(d.b, 10, seq=5001 + window + 11)
    return d


@scenario({**OPEN, "client_isn": 2**32 - 1, "server_isn": 2**32 - 40, "client_unique_bytes": 300,
           "server_unique_bytes": 100, "client_missing_bytes": 0, "server_missing_bytes": 0, "odd_segments": 0,
           "client_retransmitted_segments": 1})  # fmt: skip
def sequence_numbers_wrap():
    """Sequence numbers pass 2^32 in the SYN of one end and in the data of the other."""
    d = Dialogue(a_isn=2**32 - 1, b_isn=2**32 - 40).handshake()
    d.data(d.a, 100)
    d.data(d.b, 100)
    d.data(d.a, 200)
    d.data(d.a, 200, seq=100)
    d.ack(d.b)
    d.ack(d.a)
    return d


@scenario(*({"handshake": "pending", "syn_count": 1} for _ in range(40)),
          {**OPEN, "client_ip": "10.0.0.1", "client_mss": 1460, "server_mss": 1460, "server_window_scale": None,
           "server_sack_permitted": False})  # fmt: skip
def syn_cookies_after_a_flood():
    """SYNs of random addresses fill the queue; the server then answers with SYN cookies, which carry no options but
    the MSS. The real client gets through."""
    rnd, packets = random.Random(1), []
    for number in range(40):
        d = Dialogue(a_ip=f"198.51.100.{number + 1}", a_port=1024 + rnd.randrange(60_000), a_isn=rnd.randrange(2**32))
        packets += [d.syn(d.a, time=1_700_000_000 * SECOND + number * MS)]
    d = Dialogue(start=1_700_000_000 * SECOND + 50 * MS)
    d.syn(d.a, opts=options(mss=1460, scale=7, sack=True))
    d.synack(d.b, opts=options(mss=1460))
    d.ack(d.a)
    return packets + d.packets


@scenario({**OPEN, "synack_isn_variants": 2, "server_isn": 7000, "synack_count": 2})
def two_syn_acks_with_different_isns():
    """Two machines answer one SYN (an address used twice). The ISN that the client acknowledges is the server's."""
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b)
    d.synack(d.b, seq=7000)
    d.ack(d.a, ack=7001)
    return d


@scenario({"handshake": "half_open", "odd_syns": 1, "synack_count": 1, "end_reason": "attempt_timeout"},
          half_open_timeout=5 * SECOND)  # fmt: skip
def syn_ack_that_answers_nothing():
    """A SYN-ACK whose acknowledgement is not the SYN's ISN + 1 is odd."""
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b, ack=999)
    d.synack(d.b)
    d.wait(10 * SECOND)
    return [*d.packets, _later(d)]


@scenario({**OPEN, "client_packets": 4, "client_capture_duplicates": 1, "server_capture_duplicates": 0, "syn_count": 2,
           "synack_count": 1, "vlan_variants": 1, "vlan_id": 10}, duplicates="count")  # fmt: skip
def a_copy_and_a_resend():
    """A span port shows the first SYN on two VLANs, 20 µs apart: the second is a copy, and nothing but its count looks at
    it. The SYN that comes a second later is a resend."""
    d = Dialogue(vlans=(10,))
    d.syn(d.a)
    d.vlans = (20,)
    d.syn(d.a, step=20_000)
    d.vlans = (10,)
    d.syn(d.a, step=SECOND)
    d.synack(d.b)
    d.data(d.a, 10)
    return d


def _later(d: Dialogue) -> Captured:
    """A packet of nobody that moves the clock."""
    return d.icmp(d.packets[0], 0, 0)
