"""The TCP machine of a passive observer, as rows of data beside RFC 9293 Figure 5 (section 3.3.2).

The rule: a transition whose action is a segment is taken when that end is seen to send it; one with no action is taken
when its event passes towards that end; a transition that is only a user call is never taken. Each end of a connection
has a state of its own. The rows below are expanded into one matrix [event][state] in which every cell is decided:
a move, "stay" (a harmless repeat) or "odd" (does not fit the state; nothing moves). The core looks the cell up and
knows no other transition.
"""

from __future__ import annotations

from typing import NamedTuple

from synfin.schema import STATES

#: What moves an end, in the order in which one segment raises them (RST, then SYN, then ACK, then FIN). The sender's
#: events come first; RCV_* are facts about the peer that hold for as long as its highest acknowledgement covers them.
EVENTS = (
    "SND_RST",  # this end, which opened actively, sent an accepted RST
    "SND_RST_PASSIVE",  # the same, where this end opened passively
    "RCV_RST",  # an accepted RST passed towards this end, which opened actively
    "RCV_RST_PASSIVE",  # the same, where this end opened passively
    "SND_SYN",
    "SND_SYNACK",
    "SND_ACK_OF_SYN",  # this end acknowledged the peer's SYN
    "SND_ACK_OF_FIN",  # this end acknowledged the peer's FIN
    "SND_FIN",
    "RCV_ACK_OF_SYN",  # the peer's highest ACK covers this end's SYN
    "RCV_ACK_OF_FIN",  # the peer's highest ACK covers this end's FIN
    "TIME_2MSL",  # the record's deadline in TIME-WAIT
)

STAY, ODD = 254, 255


class Arrow(NamedTuple):
    """One arrow of Figure 5: its number, states, the figure's label, and the event on which it is taken (None: never)."""

    number: int
    source: str
    label: str
    event: str | None
    target: str
    section: str
    remark: str


#: The twenty arrows of Figure 5.
FIGURE_5: tuple[Arrow, ...] = (
    Arrow(1, "CLOSED", "passive OPEN / create TCB", None, "LISTEN", "3.10.1", "a user call; the peer of a SYN's sender is taken to be in LISTEN"),
    Arrow(2, "LISTEN", "CLOSE / delete TCB", None, "CLOSED", "3.10.4", "a user call"),
    Arrow(3, "CLOSED", "active OPEN / create TCB, snd SYN", "SND_SYN", "SYN-SENT", "3.10.1", "its SYN"),
    Arrow(4, "SYN-SENT", "CLOSE / delete TCB", None, "CLOSED", "3.10.4", "a user call; the attempt's deadline ends the record"),
    Arrow(5, "LISTEN", "SEND / snd SYN", "SND_SYN", "SYN-SENT", "3.10.2", "its SYN; the usual way into a simultaneous open"),
    Arrow(6, "LISTEN", "rcv SYN / snd SYN,ACK", "SND_SYNACK", "SYN-RECEIVED", "3.10.7.2", "its SYN-ACK"),
    Arrow(7, "SYN-SENT", "rcv SYN / snd SYN,ACK", "SND_SYNACK", "SYN-RECEIVED", "3.10.7.3", "its SYN-ACK in a simultaneous open"),
    Arrow(8, "SYN-SENT", "rcv SYN,ACK / snd ACK", "SND_ACK_OF_SYN", "ESTABLISHED", "3.10.7.3", "its ACK of the SYN-ACK"),
    Arrow(9, "SYN-RECEIVED", "rcv ACK of SYN / -", "RCV_ACK_OF_SYN", "ESTABLISHED", "3.10.7.4", "the peer's ACK of its SYN"),
    Arrow(10, "SYN-RECEIVED", "rcv RST (note 1) / -", "RCV_RST_PASSIVE", "LISTEN", "3.10.7.4", "the peer's RST, after a passive open"),
    Arrow(11, "SYN-RECEIVED", "CLOSE / snd FIN", "SND_FIN", "FIN-WAIT-1", "3.10.4", "its FIN"),
    Arrow(12, "ESTABLISHED", "CLOSE / snd FIN", "SND_FIN", "FIN-WAIT-1", "3.10.4", "its FIN"),
    Arrow(13, "ESTABLISHED", "rcv FIN / snd ACK", "SND_ACK_OF_FIN", "CLOSE-WAIT", "3.10.7.4", "its ACK of the peer's FIN"),
    Arrow(14, "FIN-WAIT-1", "rcv ACK of FIN / -", "RCV_ACK_OF_FIN", "FIN-WAIT-2", "3.10.7.4", "the peer's ACK of its FIN"),
    Arrow(15, "FIN-WAIT-1", "rcv FIN / snd ACK", "SND_ACK_OF_FIN", "CLOSING", "3.10.7.4", "its ACK of the peer's FIN"),
    Arrow(16, "FIN-WAIT-2", "rcv FIN / snd ACK", "SND_ACK_OF_FIN", "TIME-WAIT", "3.10.7.4", "its ACK of the peer's FIN"),
    Arrow(17, "CLOSE-WAIT", "CLOSE / snd FIN", "SND_FIN", "LAST-ACK", "3.10.4", "its FIN"),
    Arrow(18, "CLOSING", "rcv ACK of FIN / -", "RCV_ACK_OF_FIN", "TIME-WAIT", "3.10.7.4", "the peer's ACK of its FIN"),
    Arrow(19, "LAST-ACK", "rcv ACK of FIN / -", "RCV_ACK_OF_FIN", "CLOSED", "3.10.7.4", "the peer's ACK of its FIN"),
    Arrow(20, "TIME-WAIT", "Timeout=2MSL / delete TCB", "TIME_2MSL", "CLOSED", "3.10.8", "capture time; the record ends with it"),
)  # fmt: skip

_SYNCHRONIZED = ("ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT")

#: Moves by RST beside Figure 5 (its note 3 and section 3.5.2): an end that sends an accepted RST has no connection any
#: more and goes to CLOSED at once, as kernels do, never to TIME-WAIT; after a passive open to LISTEN.
RESETS: tuple[tuple[str, str, str], ...] = (
    ("SND_RST", "SYN-SENT", "CLOSED"),
    ("SND_RST", "SYN-RECEIVED", "CLOSED"),
    ("SND_RST_PASSIVE", "SYN-RECEIVED", "LISTEN"),
    *((event, state, "CLOSED") for event in ("SND_RST", "SND_RST_PASSIVE") for state in _SYNCHRONIZED),
    *(("RCV_RST", state, "CLOSED") for state in ("SYN-SENT", "SYN-RECEIVED", *_SYNCHRONIZED)),
    *(("RCV_RST_PASSIVE", state, "CLOSED") for state in _SYNCHRONIZED),
)

#: Harmless repeats: the event says again what the state already holds (resent SYN, FIN, ACK; standing facts).
STAYS: dict[str, tuple[str, ...]] = {
    "SND_RST": ("CLOSED", "LISTEN"),
    "SND_RST_PASSIVE": ("CLOSED", "LISTEN"),
    "RCV_RST": ("CLOSED", "LISTEN"),
    "RCV_RST_PASSIVE": ("CLOSED", "LISTEN"),
    "SND_SYN": ("SYN-SENT", "SYN-RECEIVED", *_SYNCHRONIZED),
    "SND_SYNACK": ("SYN-RECEIVED", *_SYNCHRONIZED),
    "SND_ACK_OF_SYN": ("LISTEN", "SYN-RECEIVED", *_SYNCHRONIZED, "CLOSED"),
    "SND_ACK_OF_FIN": ("CLOSE-WAIT", "CLOSING", "LAST-ACK", "TIME-WAIT", "CLOSED"),
    "SND_FIN": ("FIN-WAIT-1", "FIN-WAIT-2", "CLOSING", "LAST-ACK", "TIME-WAIT", "CLOSED"),
    "RCV_ACK_OF_SYN": ("LISTEN", "SYN-SENT", *_SYNCHRONIZED, "CLOSED"),
    "RCV_ACK_OF_FIN": ("FIN-WAIT-2", "TIME-WAIT", "CLOSED"),
    "TIME_2MSL": tuple(state for state in STATES if state != "TIME-WAIT"),
}


def matrix() -> bytes:
    """The machine as ``len(EVENTS) * len(STATES)`` bytes: the next state's code, STAY or ODD."""
    cells = {(arrow.event, arrow.source): arrow.target for arrow in FIGURE_5 if arrow.event}
    for event, source, target in RESETS:
        cells[event, source] = target
    rows = bytearray()
    for event in EVENTS:
        for state in STATES:
            target = cells.get((event, state))
            if target is not None:
                rows.append(STATES.index(target))
            else:
                rows.append(STAY if state in STAYS[event] else ODD)
    return bytes(rows)
