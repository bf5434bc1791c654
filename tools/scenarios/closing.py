"""How connections close."""

from __future__ import annotations

from dialogue import MS, SECOND, Dialogue
from scenarios import scenario


@scenario({"close": "fin_4way", "closer": "client", "client_state": "TIME-WAIT", "server_state": "CLOSED",
           "time_wait_side": "client", "end_reason": "fin", "close_duration_ns": 30 * MS, "fin_rtt_ns": 10 * MS,
           "half_closed_ns": 20 * MS})  # fmt: skip
def close_in_four_segments():
    """FIN, ACK, FIN, ACK (RFC 9293 Figure 12)."""
    return Dialogue().handshake().close()


@scenario({"close": "fin_3way", "closer": "server", "client_state": "CLOSED", "server_state": "TIME-WAIT",
           "time_wait_side": "server", "close_duration_ns": 20 * MS})  # fmt: skip
def close_in_three_segments():
    """The second FIN carries the acknowledgement of the first."""
    d = Dialogue().handshake()
    d.fin(d.b)
    d.fin(d.a)
    d.ack(d.b)
    return d


@scenario({"close": "fin_simultaneous", "closer": "both", "client_state": "TIME-WAIT", "server_state": "TIME-WAIT",
           "time_wait_side": "both", "end_reason": "fin"})  # fmt: skip
def simultaneous_close():
    """FINs cross (RFC 9293 Figure 13): both ends go through CLOSING to TIME-WAIT."""
    d = Dialogue().handshake()
    d.fin(d.a)
    d.fin(d.b, ack=d.a.nxt - 1)
    d.ack(d.a)
    d.ack(d.b)
    return d


@scenario({"close": "half_closed", "closer": "client", "client_state": "FIN-WAIT-2", "server_state": "CLOSE-WAIT",
           "end_reason": "end_of_input", "server_payload_bytes": 3000, "payload_bytes_after_fin": 3000,
           "server_fin": None})  # fmt: skip
def half_close_with_data_afterwards():
    """The client has said all; the server goes on sending."""
    d = Dialogue().handshake()
    d.fin(d.a)
    d.ack(d.b)
    for _ in range(3):
        d.data(d.b, 1000)
        d.ack(d.a)
    return d


@scenario({"close": "fin_unanswered", "closer": "server", "server_fin_count": 3, "fin_rtt_ns": None,
           "server_state": "FIN-WAIT-1", "client_state": "ESTABLISHED", "end_reason": "idle"}, idle_timeout=20 * SECOND)  # fmt: skip
def fin_that_nobody_acknowledges():
    """The other end is gone: the FIN is sent again and again. That it arrived shows in no segment, so the client stays
    where it was."""
    d = Dialogue().handshake()
    fin = d.b.nxt
    for wait in (0, 1, 2):
        d.fin(d.b, seq=fin, step=wait * SECOND or MS)
    d.icmp(d.packets[0], 0, 0, step=60 * SECOND)
    return d


@scenario({"close": "fin_4way", "client_fin_count": 1, "odd_segments": 1, "client_payload_bytes": 150,
           "client_unique_bytes": 150, "client_state": "TIME-WAIT", "payload_bytes_after_fin": 0})  # fmt: skip
def data_after_its_own_fin():
    """A client sends 50 bytes beyond its acknowledged FIN, and another FIN among what was acknowledged. The latter is
    odd; neither moves a state."""
    d = Dialogue().handshake()
    d.data(d.a, 100)
    d.fin(d.a)
    d.ack(d.b)
    d.data(d.a, 50)
    d.send(d.a, "FA", 0, seq=d.a.nxt - 101)
    d.fin(d.b)
    d.ack(d.a)
    return d


@scenario({"close": "rst", "closer": None, "rst_by": "client", "end_reason": "rst", "close_duration_ns": 0,
           "client_state": "CLOSED", "server_state": "CLOSED", "time_wait_side": None})  # fmt: skip
def abort():
    """A RST instead of a FIN."""
    d = Dialogue().handshake()
    d.data(d.a, 100)
    d.ack(d.b)
    d.rst(d.a, extra="A")
    return d


@scenario({"close": "rst_after_fin", "closer": "client", "rst_by": "client", "end_reason": "rst",
           "close_duration_ns": 30 * MS, "packets_after_close": 0, "server_payload_bytes": 100})  # fmt: skip
def reset_after_fin():
    """The client closes, the server goes on sending, the client resets: it did not read on."""
    d = Dialogue().handshake()
    d.fin(d.a)
    d.ack(d.b)
    d.data(d.b, 100)
    d.rst(d.a, seq=d.a.nxt)
    return d


@scenario({"close": "fin_4way", "end_reason": "fin", "rst_by": "server", "time_wait_end": "reset",
           "client_state": "CLOSED", "packets_after_close": 1})  # fmt: skip
def reset_in_time_wait():
    """A RST after both FINs were acknowledged ends TIME-WAIT and nothing else."""
    d = Dialogue().handshake().close()
    d.rst(d.b)
    return d


@scenario({"close": "fin_3way", "closer": "client", "client_state": "FIN-WAIT-2", "server_state": "LAST-ACK",
           "end_reason": "idle"})  # fmt: skip
def last_ack_lost():
    """The last ACK never came: LAST-ACK stays, and the record ends 60 s later."""
    d = Dialogue().handshake()
    d.fin(d.a)
    d.fin(d.b)
    d.icmp(d.packets[0], 0, 0, step=100 * SECOND)
    return d


@scenario({"close": "fin_3way", "closer": "client", "client_state": "TIME-WAIT", "server_state": "CLOSED"})
def fins_that_the_tap_swapped():
    """The answer to a FIN is captured before it: the FIN that acknowledges the other cannot have come first."""
    d = Dialogue().handshake()
    fin = d.fin(d.a, captured=False)
    d.fin(d.b)
    d.packets.append(fin._replace(time_ns=d.now + MS))
    d.ack(d.a)
    return d


@scenario({"close": "fin_4way", "client_fin_count": 2, "packets_after_close": 2, "end_reason": "fin",
           "time_wait_end": "expired"}, time_wait=10 * SECOND)  # fmt: skip
def resent_fin_in_time_wait():
    """The last ACK was lost behind the tap: the server's FIN comes again and restarts TIME-WAIT."""
    d = Dialogue().handshake()
    d.fin(d.b)
    d.ack(d.a)
    d.fin(d.a)
    d.ack(d.b)
    d.wait(9 * SECOND)
    d.fin(d.a, seq=d.a.nxt - 1)
    d.ack(d.b)
    d.icmp(d.packets[0], 0, 0, step=30 * SECOND)
    return d


@scenario({"close": "fin_4way", "closer": "client", "client_state": "TIME-WAIT", "server_state": "CLOSED",
           "client_unique_bytes": 100, "server_unique_bytes": 50, "client_missing_bytes": 0, "odd_segments": 0})  # fmt: skip
def fins_that_wrap():
    """The client's FIN is sequence number 2^32 - 1, so that its acknowledgement is 0; the server's FIN is 0."""
    d = Dialogue(a_isn=2**32 - 102, b_isn=2**32 - 51).handshake()
    d.data(d.a, 100)
    d.data(d.b, 50)
    return d.close()


@scenario({"close": "half_closed", "payload_bytes_after_fin": 200, "server_unique_bytes": 200, "odd_segments": 0,
           "server_missing_bytes": 0})  # fmt: skip
def data_that_wraps_after_a_fin():
    """The server's data after the client's FIN pass 2^32."""
    d = Dialogue(b_isn=2**32 - 101).handshake()
    d.fin(d.a)
    d.ack(d.b)
    d.data(d.b, 200)
    d.ack(d.a)
    return d
