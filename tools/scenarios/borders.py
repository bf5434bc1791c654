"""Where one record ends and the next begins on the same two ends."""

from __future__ import annotations

from collections.abc import Callable

from dialogue import MS, SECOND, Captured, Dialogue, options
from scenarios import scenario

START = 1_700_000_000 * SECOND


def around(prepare: Callable[[Dialogue], None], timeout: int, then: Callable[[Dialogue], None]) -> list[Captured]:
    """Two connections, 100 ms apart, whose next packet comes a nanosecond before the deadline, and at it."""
    dialogues = [Dialogue(a_port=40000 + number, start=START + number * 100 * MS) for number in range(2)]
    for number, d in enumerate(dialogues):
        prepare(d)
        d.now += timeout - 1 + number - d.step
        then(d)
    return sorted((p for d in dialogues for p in d.packets), key=lambda p: p.time_ns)


def resend(d: Dialogue) -> None:
    d.syn(d.a)


def data(d: Dialogue) -> None:
    d.data(d.a, 1)


@scenario({"syn_count": 2, "handshake": "pending"}, {"syn_count": 1, "end_reason": "attempt_timeout"}, {"syn_count": 1})
def border_of_an_unanswered_attempt():
    """75 s after the last SYN the attempt has ended; a nanosecond before, its SYN is still a resend."""
    return around(resend, 75 * SECOND, resend)


@scenario({"synack_count": 2, "handshake": "pending"}, {"synack_count": 1, "handshake": "half_open",
           "end_reason": "attempt_timeout"}, {"direction": "synack", "syn_count": 0})  # fmt: skip
def border_of_a_half_open_connection():
    """75 s after the last SYN or SYN-ACK."""

    def prepare(d: Dialogue) -> None:
        d.syn(d.a)
        d.synack(d.b)

    return around(prepare, 75 * SECOND, lambda d: d.synack(d.b))


@scenario({"client_packets": 3, "handshake": "complete"}, {"client_packets": 2, "end_reason": "idle"},
          {"client_packets": 1, "handshake": "not_seen", "direction": "server_port"})  # fmt: skip
def border_of_an_idle_connection():
    """2 h 4 min after the last packet (RFC 5382 REQ-5)."""
    return around(lambda d: d.handshake(), 124 * 60 * SECOND, data)


@scenario({"client_packets": 2, "handshake": "not_seen"}, {"client_packets": 1, "end_reason": "idle"},
          {"client_packets": 1, "handshake": "not_seen"})  # fmt: skip
def border_of_a_one_sided_connection():
    """5 min after the last packet where only one end was seen."""
    return around(data, 300 * SECOND, data)


@scenario({"close": "fin_4way", "end_reason": "fin"}, {"close": "fin_3way", "end_reason": "idle"},
          {"handshake": "not_seen", "client_packets": 1})  # fmt: skip
def border_of_an_unfinished_close():
    """60 s after both FINs while not both are acknowledged."""

    def prepare(d: Dialogue) -> None:
        d.handshake()
        d.fin(d.a)
        if d.a.port == 40000:
            d.ack(d.b)
        d.fin(d.b)

    return around(prepare, 60 * SECOND, lambda d: d.ack(d.a))


@scenario({"packets_after_close": 1}, {"packets_after_close": 0, "time_wait_end": "expired"},
          {"handshake": "not_seen", "client_packets": 1})  # fmt: skip
def border_of_time_wait():
    """60 s after the ACK that closed the connection."""
    return around(lambda d: d.handshake().close(), 60 * SECOND, lambda d: d.ack(d.a))


@scenario({"client_packets": 4, "packets_after_close": 1}, {"client_packets": 3, "packets_after_close": 0},
          {"handshake": "not_seen", "client_packets": 1})  # fmt: skip
def border_of_a_reset_connection():
    """10 s after the RST."""

    def prepare(d: Dialogue) -> None:
        d.handshake()
        d.rst(d.a)

    return around(prepare, 10 * SECOND, lambda d: d.ack(d.a))


@scenario({"close": "fin_4way", "time_wait_end": "reused", "end_reason": "fin"},
          {"handshake": "complete", "client_isn": 900_000})  # fmt: skip
def reuse_in_time_wait_by_a_higher_isn():
    """A new connection on the same ports while the old one is in TIME-WAIT: its ISN is above the last sequence number
    (RFC 9293 section 3.10.7.4)."""
    d = Dialogue().handshake().close()
    d.reborn(a_isn=900_000, b_isn=800_000)
    return d.handshake()


@scenario({"close": "fin_4way", "time_wait_end": "reused"}, {"handshake": "complete", "client_isn": 10})
def reuse_in_time_wait_by_timestamp():
    """The new ISN is below the old numbers, but its timestamp is above (RFC 6191)."""
    d = Dialogue()
    d.a.options = options(ts=(1000, 0))
    d.handshake().close()
    d.reborn(a_isn=10, b_isn=800_000)
    d.a.options = options(ts=(2000, 0))
    return d.handshake()


@scenario({"close": "fin_4way", "odd_syns": 1, "end_reason": "fin", "client_isn": 1000})
def old_duplicate_syn_after_the_close():
    """The connection's own SYN comes again after the close: an old duplicate."""
    d = Dialogue().handshake().close()
    d.syn(d.a)
    return d


@scenario({"end_reason": "reuse", "close": "open", "odd_syns": 0},
          {"handshake": "complete", "syn_count": 2, "syn_first": START + 40 * MS})  # fmt: skip
def held_syn_proven_by_a_syn_ack():
    """A SYN with a new ISN on an open connection; the server, which lost its state, answers it."""
    d = Dialogue().handshake()
    d.reborn(a_isn=900_000, b_isn=800_000)
    d.syn(d.a)
    d.syn(d.a, step=SECOND)
    d.synack(d.b)
    d.ack(d.a)
    return d


@scenario({"end_reason": "reuse", "close": "open", "server_rst_count": 0}, {"handshake": "refused", "syn_count": 1})
def held_syn_proven_by_a_rst():
    """The server refuses the new SYN: the old connection was gone."""
    d = Dialogue().handshake()
    d.reborn(a_isn=900_000, b_isn=0)
    d.syn(d.a)
    d.rst(d.b, extra="A", seq=0, ack=900_001)
    return d


@scenario({"end_reason": "reuse"}, {"handshake": "complete", "synack_count": 0, "client_isn": 900_000})
def held_syn_proven_by_its_sender():
    """The tap missed the SYN-ACK; the client goes on at its new ISN + 1."""
    d = Dialogue().handshake()
    d.reborn(a_isn=900_000, b_isn=800_000)
    d.syn(d.a)
    d.synack(d.b, captured=False)
    d.data(d.a, 100)
    return d


@scenario({"end_reason": "end_of_input", "close": "open", "odd_syns": 2, "client_payload_bytes": 100})
def held_syn_never_proven():
    """A stray SYN and its resend; the old connection goes on."""
    d = Dialogue().handshake()
    d.syn(d.a, seq=900_000)
    d.syn(d.a, seq=900_000, step=SECOND)
    d.a.nxt = 1001
    d.data(d.a, 100)
    d.ack(d.b)
    return d


@scenario({"handshake": "not_seen", "direction": "server_port", "server_port": 80, "client_state": "ESTABLISHED"})
def midstream_with_data():
    """The capture begins in the middle; port 80 is the server's."""
    d = Dialogue()
    d.data(d.b, 100)
    d.ack(d.a)
    return d


@scenario({"handshake": "not_seen", "direction": "high_port", "client_port": 51515, "server_port": 12001})
def midstream_between_ports_that_nobody_registered():
    """Neither port stands in the list; the one from the ephemeral range is the client's."""
    d = Dialogue(a_port=12001, b_port=51515)
    d.data(d.a, 100)
    d.ack(d.b)
    return d


@scenario({"handshake": "complete", "direction": "synack", "syn_count": 0, "syn_first": None, "synack_count": 1,
           "rtt_server_ns": None, "rtt_client_ns": 10 * MS, "client_isn": None, "client_port": 40000})  # fmt: skip
def midstream_with_a_syn_ack():
    """The capture begins with the SYN-ACK: the handshake goes on."""
    d = Dialogue()
    d.syn(d.a, captured=False)
    d.synack(d.b)
    d.ack(d.a)
    return d


@scenario({"handshake": "not_seen", "close": "fin_4way", "closer": "client", "client_state": "TIME-WAIT"})
def midstream_with_a_fin():
    """The capture begins with the close."""
    d = Dialogue()
    d.a.nxt, d.b.nxt = 2000, 9000
    return d.close()


@scenario({"handshake": "not_seen", "close": "rst", "client_state": "CLOSED", "server_state": "CLOSED",
           "end_reason": "rst"})  # fmt: skip
def midstream_with_a_rst():
    """The capture begins with a RST."""
    d = Dialogue()
    d.rst(d.b)
    return d


@scenario({"handshake": "complete", "direction": "syn", "syn_count": 1, "handshake_done": None, "rtt_server_ns": None})
def syn_out_of_order():
    """The tap shows the SYN after the client's first data: it belongs to the record, but measures nothing."""
    d = Dialogue()
    syn = d.syn(d.a, captured=False)
    d.synack(d.b, captured=False)
    d.data(d.a, 100)
    d.packets.append(syn._replace(time_ns=d.now + MS))
    d.ack(d.b)
    return d
