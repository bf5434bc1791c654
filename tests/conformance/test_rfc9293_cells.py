"""Each cell of the transition table through real segments: an end is brought into a state, one segment raises the event.

The expected next state is the grid of test_rfc9293_states.py, which was written from the RFC. Each dialogue runs with the
ends' addresses in both orders and with sequence numbers that wrap.
"""

from __future__ import annotations

import pytest
from tap import CLOSED
from test_rfc9293_states import EXPECTED

from dialogue import Dialogue, End

SYNCHRONIZED = ("ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT")
FINISHED = ("CLOSED", "TIME-WAIT")

# ---------------------------------------------------------------------------------------- into a state


def close_into(d: Dialogue, x: End, state: str) -> None:
    """From ESTABLISHED on: the usual way of an end into a state of the close."""
    y = d.peer(x)
    if state in ("FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "TIME-WAIT"):
        d.fin(x)
        if state in ("FIN-WAIT-2", "TIME-WAIT"):
            d.ack(y)
        if state == "CLOSING":
            d.fin(y, ack=x.nxt - 1)
            d.ack(x)
        if state == "TIME-WAIT":
            d.fin(y)
            d.ack(x)
    elif state in ("CLOSE-WAIT", "LAST-ACK", "CLOSED"):
        d.fin(y)
        d.ack(x)
        if state != "CLOSE-WAIT":
            d.fin(x)
        if state == "CLOSED":
            d.ack(y)


def active(d: Dialogue, state: str) -> End:
    """End a, which opens actively, in a state."""
    if state == "SYN-SENT":
        d.syn(d.a)
    elif state == "SYN-RECEIVED":
        simultaneous(d)
    else:
        d.handshake()
        close_into(d, d.a, state)
    return d.a


def passive(d: Dialogue, state: str) -> End:
    """End b, which opens passively, in a state."""
    d.syn(d.a)
    if state == "LISTEN":
        return d.b
    d.synack(d.b)
    if state != "SYN-RECEIVED":
        d.ack(d.a)
        close_into(d, d.b, state)
    return d.b


def simultaneous(d: Dialogue) -> End:
    """End a in SYN-RECEIVED after an active open."""
    d.syn(d.a)
    d.syn(d.b)
    d.synack(d.a)
    return d.a


def refused_half_open(d: Dialogue) -> End:
    """End b in LISTEN again: a RST answered its SYN-ACK. The record is failed, and goes on counting."""
    passive(d, "SYN-RECEIVED")
    d.rst(d.a)
    return d.b


# ---------------------------------------------------------------------------------------- events


def send_rst(d: Dialogue, x: End) -> None:
    d.rst(x, extra="A", ack=d.peer(x).nxt)


def receive_rst(d: Dialogue, x: End) -> None:
    send_rst(d, d.peer(x))


def send_syn(d: Dialogue, x: End) -> None:
    d.syn(x)


def send_synack(d: Dialogue, x: End) -> None:
    d.synack(x, ack=d.peer(x).isn + 1)


def send_ack_of_syn(d: Dialogue, x: End) -> None:
    d.ack(x, ack=d.peer(x).isn + 1)


def send_ack(d: Dialogue, x: End) -> None:
    d.ack(x)


def receive_ack_of_syn(d: Dialogue, x: End) -> None:
    d.ack(d.peer(x), ack=x.isn + 1)


def receive_ack(d: Dialogue, x: End) -> None:
    d.ack(d.peer(x))


def send_fin_again(d: Dialogue, x: End) -> None:
    d.fin(x, seq=x.nxt - 1)


# ---------------------------------------------------------------------------------------- routes

#: (event, state): builds everything up to the segment that raises the event, sends it last, and returns the end.
ROUTES = {}


def usual(event: str, opener, states, send) -> None:
    """Routes of one event from several states, reached in the usual way."""
    for state in states:

        def route(d: Dialogue, state: str = state) -> End:
            x = opener(d, state)
            send(d, x)
            return x

        ROUTES[event, state] = route


def route(event: str, state: str):
    """Declares the route of one cell that needs its own."""

    def declare(function):
        ROUTES[event, state] = function
        return function

    return declare


usual("SND_RST", active, ("CLOSED", "SYN-SENT", "SYN-RECEIVED", *SYNCHRONIZED), send_rst)
usual("SND_RST_PASSIVE", passive, ("CLOSED", "LISTEN", "SYN-RECEIVED", *SYNCHRONIZED), send_rst)
usual("RCV_RST", active, ("CLOSED", "SYN-SENT", "SYN-RECEIVED", *SYNCHRONIZED), receive_rst)
usual("RCV_RST_PASSIVE", passive, ("CLOSED", "LISTEN", "SYN-RECEIVED", *SYNCHRONIZED), receive_rst)
usual("SND_SYN", active, ("SYN-SENT", "SYN-RECEIVED", *SYNCHRONIZED), send_syn)
usual("SND_SYN", passive, ("LISTEN",), send_syn)
usual("SND_SYNACK", passive, ("LISTEN", "SYN-RECEIVED", *SYNCHRONIZED), send_synack)
usual("SND_ACK_OF_SYN", passive, ("LISTEN", "SYN-RECEIVED", *SYNCHRONIZED, "CLOSED"), send_ack_of_syn)
usual("SND_ACK_OF_FIN", active, ("CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT", "CLOSED"), send_ack)
usual("SND_FIN", active, ("ESTABLISHED", "CLOSE-WAIT", "SYN-RECEIVED"), lambda d, x: d.fin(x))
usual("SND_FIN", active, ("FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "LAST-ACK", "TIME-WAIT", "CLOSED"), send_fin_again)
usual("RCV_ACK_OF_SYN", active, (*SYNCHRONIZED, "CLOSED"), receive_ack_of_syn)
usual("RCV_ACK_OF_SYN", passive, ("SYN-RECEIVED",), receive_ack_of_syn)
usual("RCV_ACK_OF_FIN", active, ("FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "LAST-ACK", "TIME-WAIT", "CLOSED"), receive_ack)


@route("SND_SYN", "CLOSED")
def _(d):
    """Arrow 3: the first packet of all."""
    d.syn(d.a)
    return d.a


@route("SND_SYNACK", "CLOSED")
def _(d):
    """The SYN-ACK of a simultaneous open comes after both ends were reset."""
    d.syn(d.a)
    d.syn(d.b)
    d.rst(d.b, extra="A")
    d.synack(d.a)
    return d.a


@route("SND_SYNACK", "SYN-SENT")
def _(d):
    """Arrow 7."""
    d.syn(d.a)
    d.syn(d.b)
    d.synack(d.a)
    return d.a


@route("SND_ACK_OF_SYN", "SYN-SENT")
def _(d):
    """Arrow 8."""
    d.syn(d.a)
    d.synack(d.b)
    d.ack(d.a)
    return d.a


@route("SND_ACK_OF_FIN", "LISTEN")
def _(d):
    """After the reset of its attempt, the client still closes; the listener's kernel acknowledges."""
    x = refused_half_open(d)
    d.fin(d.a)
    d.ack(x)
    return x


@route("SND_ACK_OF_FIN", "ESTABLISHED")
def _(d):
    d.handshake()
    d.fin(d.b)
    d.ack(d.a)
    return d.a


@route("SND_ACK_OF_FIN", "FIN-WAIT-1")
def _(d):
    d.handshake()
    d.fin(d.a)
    d.fin(d.b, ack=d.a.nxt - 1)
    d.ack(d.a)
    return d.a


@route("SND_ACK_OF_FIN", "FIN-WAIT-2")
def _(d):
    d.handshake()
    d.fin(d.a)
    d.ack(d.b)
    d.fin(d.b)
    d.ack(d.a)
    return d.a


@route("SND_ACK_OF_FIN", "SYN-RECEIVED")
def _(d):
    """Fast Open, and a client's FIN without ACK: the server's SYN is not acknowledged, so it cannot have moved on."""
    d.syn(d.a, 10)
    d.synack(d.b)
    d.send(d.a, "F")
    d.ack(d.b)
    return d.b


@route("SND_FIN", "LISTEN")
def _(d):
    """A server whose SYN-ACK the tap lost."""
    d.syn(d.a)
    d.send(d.b, "FA", seq=d.b.isn + 1)
    return d.b


@route("SND_FIN", "SYN-SENT")
def _(d):
    d.syn(d.a)
    d.synack(d.b)
    d.send(d.a, "F", seq=d.a.isn + 1)
    return d.a


@route("RCV_ACK_OF_SYN", "LISTEN")
def _(d):
    x = refused_half_open(d)
    d.ack(d.a)
    return x


@route("RCV_ACK_OF_SYN", "SYN-SENT")
def _(d):
    """The SYN-ACK acknowledges the SYN; the end has not shown yet that it got it."""
    d.syn(d.a)
    d.synack(d.b)
    return d.a


@route("RCV_ACK_OF_FIN", "LISTEN")
def _(d):
    x = refused_half_open(d)
    d.fin(x)
    d.ack(d.a)
    return x


@route("RCV_ACK_OF_FIN", "SYN-SENT")
def _(d):
    """Fast Open: the server may have sent early, so its ACK of the client's FIN proves no handshake."""
    d.syn(d.a, 10)
    d.synack(d.b)
    d.send(d.a, "F")
    d.ack(d.b)
    return d.a


#: Cells that no packets reach, and why.
UNREACHABLE = {
    **{(e, "LISTEN"): "an end is taken to be in LISTEN only as the passive one" for e in ("SND_RST", "RCV_RST")},
    **{
        (e, "SYN-SENT"): "who sends a SYN opens actively, whatever it was before"
        for e in ("SND_RST_PASSIVE", "RCV_RST_PASSIVE")
    },
    ("SND_ACK_OF_FIN", "SYN-SENT"): "it acknowledges the SYN, too, and has moved on before",
    ("RCV_ACK_OF_FIN", "SYN-RECEIVED"): "the SYN is acknowledged, too: the end has moved on before",
    **{
        ("RCV_ACK_OF_FIN", state): "who sent a FIN, even before the handshake was complete, has left the state"
        for state in ("ESTABLISHED", "CLOSE-WAIT")
    },
    **{
        ("TIME_2MSL", state): "no packet: the row keeps the states that the last packet left; "
        "test_rfc9293_figures.py sees TIME-WAIT end in the gauges"
        for _, state in EXPECTED
        if _ == "TIME_2MSL"
    },
}


def test_every_cell_is_either_reached_or_said_to_be_unreachable():
    assert set(ROUTES) | set(UNREACHABLE) == set(EXPECTED)
    assert set(ROUTES) & set(UNREACHABLE) == set()


def dialogues() -> list[Dialogue]:
    """Ends in both orders of their addresses, sequence numbers in the middle and about to wrap on either side."""
    return [
        Dialogue(),
        Dialogue(a_ip="10.0.0.2", b_ip="10.0.0.1"),
        Dialogue(a_isn=2**32 - 1, b_isn=2**32 - 2, a_ip="2001:db8::2", b_ip="2001:db8::1"),
    ]


@pytest.mark.parametrize(("event", "state"), ROUTES, ids=["-".join(cell) for cell in ROUTES])
def test_cell(tap, event, state):
    cell = EXPECTED[event, state]
    expected = state if cell in (".", "x") else cell
    for d in dialogues():
        x = ROUTES[event, state](d)
        which = 0 if x is d.a else 1
        before = tap.states(d, len(d.packets) - 1)[which]
        after = tap.states(d)[which]
        assert (before, after) == (state, expected)


@pytest.mark.parametrize("state", ["CLOSED", "TIME-WAIT"])
def test_a_resent_syn_after_the_close_is_put_aside_before_it_reaches_the_table(tap, state):
    """Why SND_SYN leaves TIME-WAIT and a closed connection alone: the SYN is an old duplicate (SPEC 3.2)."""
    d = Dialogue()
    x = active(d, state)
    d.syn(x)
    row = tap.row(d)
    assert (row["client_state"], row["odd_syns"], row["syn_count"]) == (state, 1, 1)


def test_every_state_is_reached():
    assert {state for _, state in ROUTES} == {state for _, state in EXPECTED}
    assert CLOSED in {state for _, state in ROUTES}
