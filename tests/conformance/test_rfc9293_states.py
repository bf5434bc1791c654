"""The transition table against RFC 9293 Figure 5 and section 3.10, transcribed here a second time.

Nothing in the first part of this module is taken from ``synfin.states``: the arrows are read off the figure, the events
follow from their labels by the passive observer's rule, and the grid is written from the text of section 3.10.
"""

from __future__ import annotations

from collections import Counter

import pytest

from synfin import schema, states

#: Figure 5: from, "event / action", to. Read off the drawing from top to bottom.
ARROWS = [
    ("CLOSED", "passive OPEN / create TCB", "LISTEN"),
    ("CLOSED", "active OPEN / create TCB, snd SYN", "SYN-SENT"),
    ("LISTEN", "CLOSE / delete TCB", "CLOSED"),
    ("LISTEN", "rcv SYN / snd SYN,ACK", "SYN-RECEIVED"),
    ("LISTEN", "SEND / snd SYN", "SYN-SENT"),
    ("SYN-SENT", "CLOSE / delete TCB", "CLOSED"),
    ("SYN-SENT", "rcv SYN / snd SYN,ACK", "SYN-RECEIVED"),
    ("SYN-SENT", "rcv SYN,ACK / snd ACK", "ESTABLISHED"),
    ("SYN-RECEIVED", "rcv RST (note 1) / -", "LISTEN"),
    ("SYN-RECEIVED", "rcv ACK of SYN / -", "ESTABLISHED"),
    ("SYN-RECEIVED", "CLOSE / snd FIN", "FIN-WAIT-1"),
    ("ESTABLISHED", "CLOSE / snd FIN", "FIN-WAIT-1"),
    ("ESTABLISHED", "rcv FIN / snd ACK", "CLOSE-WAIT"),
    ("FIN-WAIT-1", "rcv ACK of FIN / -", "FIN-WAIT-2"),
    ("FIN-WAIT-1", "rcv FIN / snd ACK", "CLOSING"),
    ("FIN-WAIT-2", "rcv FIN / snd ACK", "TIME-WAIT"),
    ("CLOSE-WAIT", "CLOSE / snd FIN", "LAST-ACK"),
    ("CLOSING", "rcv ACK of FIN / -", "TIME-WAIT"),
    ("LAST-ACK", "rcv ACK of FIN / -", "CLOSED"),
    ("TIME-WAIT", "Timeout=2MSL / delete TCB", "CLOSED"),
]

#: Arrows that are a user call and send nothing: no tap can see them.
INVISIBLE = {
    ("CLOSED", "passive OPEN / create TCB", "LISTEN"),
    ("LISTEN", "CLOSE / delete TCB", "CLOSED"),
    ("SYN-SENT", "CLOSE / delete TCB", "CLOSED"),
}


def event_of(label: str) -> str | None:
    """The event on which a passive observer takes an arrow with this label."""
    event, _, action = label.partition(" / ")
    sent = action.partition("snd ")[2]
    if sent == "ACK":  # of what was received
        return {"rcv SYN,ACK": "SND_ACK_OF_SYN", "rcv FIN": "SND_ACK_OF_FIN"}[event]
    if sent:
        return "SND_" + sent.replace(",", "")
    if event.startswith("rcv RST"):  # note 1: only after a passive open
        return "RCV_RST_PASSIVE"
    if event.startswith("rcv "):
        return "RCV_" + event.removeprefix("rcv ").replace(" ", "_").upper()
    return {"Timeout=2MSL": "TIME_2MSL"}.get(event)


#: Every event in every state: the next state, ``.`` (nothing changes) or ``x`` (does not fit, nothing changes).
#:
#: SND_RST, SND_RST_PASSIVE: section 3.5.2 as kernels do it (the end has no connection any more), back to LISTEN where the
#:   end listened (3.10.7.4, first check of SYN-RECEIVED); an end without a connection has none to lose.
#: RCV_RST: 3.10.7.3 second, 3.10.7.4 second: "connection reset" or "refused", enter CLOSED; RCV_RST_PASSIVE: in
#:   SYN-RECEIVED after a passive OPEN back to LISTEN; LISTEN and CLOSED ignore a RST (3.10.7.1, 3.10.7.2).
#: SND_SYN, SND_SYNACK, SND_FIN, and the ACKs: the arrows; what is behind the state is a repeat; what the state has not
#:   come to yet does not fit. A FIN is never sent from LISTEN or SYN-SENT (3.10.4: CLOSE there deletes the TCB). An ACK of
#:   a FIN is an ACK of the SYN before, so it never meets SYN-SENT or SYN-RECEIVED without having moved the end on.
#: TIME_2MSL: 3.10.8, TIME-WAIT only.
GRID = """
                 CLOSED LISTEN SYN-SENT SYN-RECEIVED ESTABLISHED FIN-WAIT-1 FIN-WAIT-2 CLOSE-WAIT CLOSING LAST-ACK TIME-WAIT
SND_RST             .      .    CLOSED     CLOSED      CLOSED      CLOSED     CLOSED     CLOSED   CLOSED   CLOSED   CLOSED
SND_RST_PASSIVE     .      .       x       LISTEN      CLOSED      CLOSED     CLOSED     CLOSED   CLOSED   CLOSED   CLOSED
RCV_RST             .      .    CLOSED     CLOSED      CLOSED      CLOSED     CLOSED     CLOSED   CLOSED   CLOSED   CLOSED
RCV_RST_PASSIVE     .      .       x       LISTEN      CLOSED      CLOSED     CLOSED     CLOSED   CLOSED   CLOSED   CLOSED
SND_SYN          SYN-SENT SYN-SENT .          .           .           .          .          .        .        .        .
SND_SYNACK          x SYN-RECEIVED SYN-RECEIVED .         .           .          .          .        .        .        .
SND_ACK_OF_SYN      .      .  ESTABLISHED     .           .           .          .          .        .        .        .
SND_ACK_OF_FIN      .      x       x          x       CLOSE-WAIT   CLOSING   TIME-WAIT      .        .        .        .
SND_FIN             .      x       x      FIN-WAIT-1  FIN-WAIT-1      .          .      LAST-ACK     .        .        .
RCV_ACK_OF_SYN      .      .       .      ESTABLISHED     .           .          .          .        .        .        .
RCV_ACK_OF_FIN      .      x       x          x           x      FIN-WAIT-2      .          x   TIME-WAIT CLOSED       .
TIME_2MSL           .      .       .          .           .           .          .          .        .        .     CLOSED
"""
_HEAD, *_ROWS = GRID.strip().splitlines()
EXPECTED = {
    (name, state): cell
    for name, *cells in map(str.split, _ROWS)
    for state, cell in zip(_HEAD.split(), cells, strict=True)
}


def test_figure_5_has_its_twenty_arrows_each_exactly_once():
    assert len(ARROWS) == len(set(ARROWS)) == 20
    ours = Counter((arrow.source, arrow.label, arrow.target) for arrow in states.FIGURE_5)
    assert ours == Counter(ARROWS)
    assert sorted(arrow.number for arrow in states.FIGURE_5) == list(range(1, 21))


def test_exactly_the_user_calls_that_send_nothing_are_invisible():
    assert {arrow for arrow in ARROWS if event_of(arrow[1]) is None} == INVISIBLE
    assert {(a.source, a.label, a.target) for a in states.FIGURE_5 if a.event is None} == INVISIBLE


@pytest.mark.parametrize("arrow", states.FIGURE_5, ids=lambda arrow: f"{arrow.source}-{arrow.target}-{arrow.number}")
def test_an_arrow_is_taken_on_the_event_that_its_label_means(arrow):
    assert arrow.event == event_of(arrow.label)


def test_no_two_arrows_leave_a_state_on_one_event():
    visible = [(event_of(label), source) for source, label, _ in ARROWS if event_of(label)]
    assert len(visible) == len(set(visible)) == 17


def test_the_grid_holds_every_visible_arrow():
    for source, label, target in ARROWS:
        if event := event_of(label):
            assert EXPECTED[event, source] == target


def test_every_cell_is_decided_and_as_the_grid_says():
    assert set(EXPECTED) == {(event, state) for event in states.EVENTS for state in schema.STATES}
    matrix = states.matrix()
    assert len(matrix) == len(EXPECTED) == 12 * 11
    decided = {}
    for i, cell in enumerate(matrix):
        event, state = states.EVENTS[i // 11], schema.STATES[i % 11]
        decided[event, state] = {states.STAY: ".", states.ODD: "x"}.get(cell) or schema.STATES[cell]
    assert {cell: (got, EXPECTED[cell]) for cell, got in decided.items() if got != EXPECTED[cell]} == {}


def test_no_cell_is_both_a_move_and_a_repeat():
    moves = {(a.event, a.source) for a in states.FIGURE_5 if a.event} | {reset[:2] for reset in states.RESETS}
    stays = {(event, state) for event, names in states.STAYS.items() for state in names}
    assert moves & stays == set()


def test_the_state_names_are_the_rfc_s():
    assert set(schema.STATES) == {state for source, _, target in ARROWS for state in (source, target)}
