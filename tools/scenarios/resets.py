"""RSTs that count, and RSTs that do not (RFC 9293 section 3.5.3, RFC 5961)."""

from __future__ import annotations

from dialogue import SECOND, Dialogue
from scenarios import scenario


@scenario({"close": "open", "rst_rejected": 3, "server_rst_count": 3, "rst_by": None, "end_reason": "end_of_input",
           "client_state": "ESTABLISHED"})  # fmt: skip
def blind_rst_outside_the_window():
    """An attacker guesses: below what was acknowledged, far above the window, and just beyond it. The talk goes on."""
    d = Dialogue().handshake()
    d.data(d.b, 100)
    d.ack(d.a)
    d.rst(d.b, seq=5000)
    d.rst(d.b, seq=5101 + 10_000_000)
    d.rst(d.b, seq=5101 + 65535)
    d.data(d.a, 10)
    d.ack(d.b)
    return d


@scenario({"close": "rst", "rst_rejected": 0, "rst_by": "server", "end_reason": "rst"})
def rst_inside_the_window():
    """Above the expected number, but in the window: the tap may have missed data. It is accepted."""
    d = Dialogue().handshake()
    d.data(d.b, 100)
    d.ack(d.a)
    d.rst(d.b, seq=5101 + 65534)
    return d


@scenario({"close": "rst", "rst_by": "server", "server_payload_bytes": 40, "server_unique_bytes": 0,
           "server_rst_count": 1})  # fmt: skip
def rst_with_data():
    """A RST may carry a text that says why (RFC 1122 section 4.2.2.12): payload, but of no sequence account."""
    d = Dialogue().handshake()
    d.send(d.b, "RA", b"go away, this service is not for you....")
    return d


@scenario({"close": "rst", "server_rst_count": 500, "packets_after_close": 499, "end_reason": "rst"})
def rst_storm():
    """Five hundred RSTs in answer to data in flight: one reset."""
    d = Dialogue().handshake()
    for _ in range(500):
        d.rst(d.b, step=1_000_000)
    return d


@scenario(
    {"close": "open", "odd_syns": 1, "rst_rejected": 0, "client_state": "ESTABLISHED", "end_reason": "end_of_input"}
)
def challenge_ack():
    """A SYN with a foreign ISN on an open connection: the server answers with a challenge ACK (RFC 5961 section 4),
    nothing more happens, and the connection goes on."""
    d = Dialogue().handshake()
    d.data(d.a, 100)
    d.ack(d.b)
    d.syn(d.a, seq=3_000_000)
    d.a.nxt = 1101
    d.ack(d.b)
    d.data(d.a, 100)
    d.ack(d.b)
    return d


@scenario({"close": "rst", "rst_by": "client", "end_reason": "rst", "odd_syns": 0, "client_isn": 1000},
          {"handshake": "complete", "client_isn": 3_000_000, "syn_count": 2, "server_isn": 8000})  # fmt: skip
def challenge_ack_answered_by_a_client_that_forgot():
    """The client crashed and opens again from the same port (RFC 9293 Figure 9): SYN, challenge ACK, RST, SYN once
    more. The held SYN begins the new record together with its resend."""
    d = Dialogue().handshake()
    d.data(d.a, 100)
    d.ack(d.b)
    challenge = d.a.nxt
    d.syn(d.a, seq=3_000_000)
    d.ack(d.b, ack=challenge)
    d.rst(d.a, seq=challenge)
    d.reborn(a_isn=3_000_000, b_isn=8000)
    d.wait(SECOND)
    return d.handshake()


@scenario({"close": "rst", "rst_by": "server", "rst_rejected": 1, "server_rst_count": 2})
def rst_across_the_wrap():
    """The window of the client spans 2^32: a RST at 0 is inside, one just below the expected number is not."""
    d = Dialogue(b_isn=2**32 - 11).handshake()
    d.rst(d.b, seq=2**32 - 11)
    d.rst(d.b, seq=0)
    return d
