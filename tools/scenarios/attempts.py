"""Attempts that do not become connections."""

from __future__ import annotations

from dialogue import MS, SECOND, Dialogue
from scenarios import scenario


@scenario({"handshake": "unanswered", "syn_count": 4, "syn_backoff_ns": 7 * SECOND, "end_reason": "attempt_timeout",
           "close": None, "client_state": "SYN-SENT"})  # fmt: skip
def unanswered():
    """A SYN and its resends after 1, 3 and 7 seconds; nobody answers, and the attempt ends 75 s after the last one."""
    d = Dialogue()
    for wait in (0, 1, 2, 4):
        d.syn(d.a, step=wait * SECOND or 1)
    d.icmp(d.packets[0], 0, 0, step=80 * SECOND)  # an echo reply: moves the clock
    return d


@scenario({"handshake": "pending", "end_reason": "end_of_input", "syn_count": 1})
def pending():
    """A SYN that is still waiting when the capture ends: nobody knows what becomes of it."""
    d = Dialogue()
    d.syn(d.a)
    return d


@scenario({"handshake": "refused", "syn_count": 1, "rst_by": "server", "rst_ttl": 250, "server_ttl": None,
           "rtt_server_ns": None, "close": None, "end_reason": "rst", "client_state": "CLOSED"})  # fmt: skip
def refused():
    """RST with ACK answers the SYN. Its TTL is not the server's: an appliance on the way refused."""
    d = Dialogue()
    d.syn(d.a)
    d.rst(d.b, extra="A", seq=0, ttl=250)
    return d


@scenario({"handshake": "refused", "syn_count": 3, "server_rst_count": 3, "syn_first": 1_700_000_000_010_000_000,
           "end_reason": "rst"})  # fmt: skip
def refused_and_tried_again_with_the_same_isn():
    """Some systems try a refused SYN again, with the same ISN (also behind a NAT that keeps the port): one attempt."""
    d = Dialogue()
    for _ in range(3):
        d.syn(d.a)
        d.rst(d.b, extra="A", seq=0)
        d.wait(500 * MS)
    return d


@scenario({"handshake": "refused", "syn_count": 1, "client_isn": 1000}, {"handshake": "complete", "client_isn": 9000})
def refused_and_tried_again_with_another_isn():
    """A NAT gives the same port to the next attempt: another ISN, another record."""
    d = Dialogue()
    d.syn(d.a)
    d.rst(d.b, extra="A", seq=0)
    d.reborn(a_isn=9000, b_isn=6000)
    d.wait(SECOND)
    return d.handshake()


@scenario({"handshake": "complete", "syn_count": 2, "server_rst_count": 1, "close": "open", "rst_by": "server",
           "end_reason": "end_of_input", "packets_after_close": 0})  # fmt: skip
def refused_and_then_accepted():
    """The second SYN with the same ISN is answered: the refusal does not count for close or end_reason."""
    d = Dialogue()
    d.syn(d.a)
    d.rst(d.b, extra="A", seq=0)
    d.wait(SECOND)
    return d.handshake()


@scenario({"handshake": "half_open", "synack_count": 3, "server_state": "SYN-RECEIVED", "client_state": "SYN-SENT",
           "end_reason": "attempt_timeout", "rtt_server_ns": 10 * MS, "rtt_client_ns": None})  # fmt: skip
def half_open():
    """A SYN-ACK and its resends; the client says nothing more."""
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b)
    d.synack(d.b, step=SECOND)
    d.synack(d.b, step=2 * SECOND)
    d.icmp(d.packets[0], 0, 0, step=80 * SECOND)
    return d


@scenario({"handshake": "aborted", "rst_by": "client", "end_reason": "rst", "close": None},
          {"handshake": "aborted", "rst_by": "client"}, {"handshake": "aborted", "rst_by": "server"})  # fmt: skip
def aborted():
    """A side resets before the handshake is complete: the client after the SYN-ACK (a scan), the client alone, the
    server after its SYN-ACK."""
    scan, alone, server = (Dialogue(a_port=40000 + n, start=1_700_000_000 * SECOND + n * SECOND) for n in range(3))
    scan.syn(scan.a)
    scan.synack(scan.b)
    scan.rst(scan.a)
    alone.syn(alone.a)
    alone.rst(alone.a)
    server.syn(server.a)
    server.synack(server.b)
    server.rst(server.b, extra="A")
    return scan.packets + alone.packets + server.packets


@scenario({"handshake": "unreachable", "icmp_type": 3, "icmp_code": 1, "icmp_errors": 1, "syn_count": 2,
           "end_reason": "attempt_timeout"})  # fmt: skip
def unreachable():
    """A router says that the host cannot be reached; a further SYN gets no answer at all."""
    d = Dialogue()
    d.icmp(d.syn(d.a), 3, 1)
    d.syn(d.a, step=SECOND)
    d.icmp(d.packets[0], 0, 0, step=80 * SECOND)
    return d


@scenario({"handshake": "complete", "client_packets": 2, "synack_count": 0, "server_packets": 0,
           "rtt_server_ns": None, "handshake_done": 1_700_000_000_020_000_000})  # fmt: skip
def only_the_client_is_seen():
    """A tap on one direction: the client goes on at ISN + 1, so its SYN was answered."""
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b, captured=False, step=0)
    d.ack(d.a)
    return d


@scenario({"handshake": "complete", "handshake_done": None, "server_payload_bytes": 100, "rtt_client_ns": None})
def the_servers_data_proves_the_handshake():
    """The tap lost the client's ACK; the server would not send data without it."""
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b)
    d.ack(d.a, captured=False)
    d.data(d.b, 100)
    return d


@scenario({"handshake": "complete", "syn_count": 2, "rtt_server_quality": "ambiguous", "rtt_server_ns": 10 * MS,
           "syn_backoff_ns": SECOND})  # fmt: skip
def resent_syn_without_timestamps():
    """Nothing tells which of two SYNs was answered: the value is of the last one, and marked."""
    d = Dialogue()
    d.syn(d.a)
    d.syn(d.a, step=SECOND)
    d.synack(d.b)
    d.ack(d.a)
    return d
