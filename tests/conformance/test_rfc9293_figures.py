"""RFC 9293's example dialogues, figures 6 to 13, as tables of the states after each segment.

A line is written as in the RFC: end A's state, the segment, end B's state. The states are those that a tap can know
after the segment: a transition is seen when the segment passes that proves it. Where the RFC, which looks into both
ends, says something else at that line, its two states follow with the reason.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import pytest

from dialogue import SECOND, Dialogue

LINE = re.compile(r"(\S+) +(-->|<--) +(.*?) +(?:-->|<--) +(\S+)(?: +\[RFC: (\S+) (\S+): (.+)\])?")


class Line(NamedTuple):
    """One line of a figure: who sends what, the states as the tap knows them, and what the RFC says."""

    by_a: bool
    flags: str
    seq: int
    ack: int
    data: int
    tap: tuple[str, str]
    rfc: tuple[str, str]


def lines(figure: str) -> list[Line]:
    """The lines of a figure."""
    out = []
    for text in filter(None, map(str.strip, figure.splitlines())):
        match = LINE.fullmatch(text)
        assert match, text
        a, arrow, segment, b, rfc_a, rfc_b, _ = match.groups()
        number = {name: int(value) for name, value in re.findall(r"(SEQ|ACK|DATA)=(\d+)", segment)}
        names = segment.split()[-1].split(",")
        flags = "".join(name[0] for name in names)
        out.append(Line(arrow == "-->", flags, number["SEQ"], number.get("ACK", 0), number.get("DATA", 0),
                        (a, b), (rfc_a or a, rfc_b or b)))  # fmt: skip
    return out


def established() -> Dialogue:
    """The state of affairs that figures 9 to 13 start from: B sends 300 next and A 100."""
    return Dialogue(a_isn=99, b_isn=299).handshake()


def fresh() -> Dialogue:
    """Two ends that have not talked."""
    return Dialogue()


FIGURE_6 = """
SYN-SENT     --> SEQ=100 SYN                   --> LISTEN       [RFC: SYN-SENT SYN-RECEIVED: B's SYN-ACK is the proof]
SYN-SENT     <-- SEQ=300 ACK=101 SYN,ACK       <-- SYN-RECEIVED [RFC: ESTABLISHED SYN-RECEIVED: A's ACK is the proof]
ESTABLISHED  --> SEQ=101 ACK=301 ACK           --> ESTABLISHED
ESTABLISHED  --> SEQ=101 ACK=301 DATA=10 ACK   --> ESTABLISHED
"""

FIGURE_7_AT_A = """
SYN-SENT     --> SEQ=100 SYN                   --> LISTEN       [RFC: SYN-SENT CLOSED: the peer of a SYN is taken to listen]
SYN-SENT     <-- SEQ=300 SYN                   <-- SYN-SENT     [RFC: SYN-RECEIVED SYN-SENT: A's SYN-ACK is the proof]
SYN-RECEIVED --> SEQ=100 ACK=301 SYN,ACK       --> SYN-SENT     [RFC: SYN-RECEIVED SYN-RECEIVED: B's SYN-ACK is the proof]
ESTABLISHED  <-- SEQ=300 ACK=101 SYN,ACK       <-- ESTABLISHED  [RFC: ESTABLISHED SYN-RECEIVED: A's SYN-ACK is on its way; it passes first]
"""

FIGURE_7_AT_B = """
LISTEN       <-- SEQ=300 SYN                   <-- SYN-SENT     [RFC: SYN-SENT SYN-SENT: A's SYN is on its way]
SYN-SENT     --> SEQ=100 SYN                   --> SYN-SENT     [RFC: SYN-RECEIVED SYN-RECEIVED: no SYN-ACK has passed]
SYN-SENT     <-- SEQ=300 ACK=101 SYN,ACK       <-- SYN-RECEIVED [RFC: ESTABLISHED SYN-RECEIVED: A's SYN-ACK is the proof]
ESTABLISHED  --> SEQ=100 ACK=301 SYN,ACK       --> ESTABLISHED
"""

FIGURE_7_CROSSING = """
SYN-SENT     --> SEQ=100 SYN                   --> LISTEN       [RFC: SYN-SENT SYN-SENT: B's SYN is on its way]
SYN-SENT     <-- SEQ=300 SYN                   <-- SYN-SENT     [RFC: SYN-RECEIVED SYN-RECEIVED: no SYN-ACK has passed]
SYN-SENT     <-- SEQ=300 ACK=101 SYN,ACK       <-- SYN-RECEIVED [RFC: ESTABLISHED SYN-RECEIVED: A's SYN-ACK is the proof]
ESTABLISHED  --> SEQ=100 ACK=301 SYN,ACK       --> ESTABLISHED
"""

FIGURE_8_AT_A = """
SYN-SENT     --> SEQ=100 SYN                   --> LISTEN
SYN-SENT     <-- SEQ=300 ACK=91 SYN,ACK        <-- LISTEN       [RFC: SYN-SENT SYN-RECEIVED: the old SYN that it answers passed elsewhere]
SYN-SENT     --> SEQ=91 RST                    --> LISTEN
SYN-SENT     <-- SEQ=400 ACK=101 SYN,ACK       <-- SYN-RECEIVED [RFC: ESTABLISHED SYN-RECEIVED: A's ACK is the proof]
ESTABLISHED  --> SEQ=101 ACK=401 ACK           --> ESTABLISHED
"""

FIGURE_8_AT_B = """
SYN-SENT     --> SEQ=90 SYN                    --> LISTEN       [RFC: SYN-SENT SYN-RECEIVED: B's SYN-ACK is the proof]
SYN-SENT     <-- SEQ=300 ACK=91 SYN,ACK        <-- SYN-RECEIVED
CLOSED       --> SEQ=91 RST                    --> LISTEN       [RFC: SYN-SENT LISTEN: A's new SYN has not passed yet]
SYN-SENT     --> SEQ=100 SYN                   --> LISTEN       [RFC: SYN-SENT SYN-RECEIVED: B's SYN-ACK is the proof]
SYN-SENT     <-- SEQ=400 ACK=101 SYN,ACK       <-- SYN-RECEIVED [RFC: ESTABLISHED SYN-RECEIVED: A's ACK is the proof]
ESTABLISHED  --> SEQ=101 ACK=401 ACK           --> ESTABLISHED
"""

FIGURE_9 = """
ESTABLISHED  --> SEQ=400 SYN                   --> ESTABLISHED  [RFC: SYN-SENT ESTABLISHED: nothing proves yet that this SYN is no old duplicate]
ESTABLISHED  <-- SEQ=300 ACK=100 ACK           <-- ESTABLISHED  [RFC: SYN-SENT ESTABLISHED: likewise]
CLOSED       --> SEQ=100 RST                   --> CLOSED       [RFC: SYN-SENT CLOSED: the old connection ends; A's new SYN is held beside it]
SYN-SENT     --> SEQ=400 SYN                   --> LISTEN       [RFC: SYN-SENT CLOSED: the peer of a SYN is taken to listen]
"""

FIGURE_9_MIDSTREAM = """
SYN-SENT     --> SEQ=400 SYN                   --> LISTEN       [RFC: SYN-SENT ESTABLISHED: the old connection was never seen]
SYN-SENT     <-- SEQ=300 ACK=100 ACK           <-- LISTEN       [RFC: SYN-SENT ESTABLISHED: likewise]
SYN-SENT     --> SEQ=100 RST                   --> LISTEN       [RFC: SYN-SENT CLOSED: likewise; the RST is not of this attempt]
SYN-SENT     --> SEQ=400 SYN                   --> LISTEN       [RFC: SYN-SENT CLOSED: the peer of a SYN is taken to listen]
"""

FIGURE_10 = """
ESTABLISHED  <-- SEQ=300 ACK=100 DATA=10 ACK   <-- ESTABLISHED  [RFC: CLOSED ESTABLISHED: a tap cannot know that A has rebooted]
CLOSED       --> SEQ=100 RST                   --> CLOSED
"""

FIGURE_11 = """
SYN-SENT     --> SEQ=700 SYN                   --> LISTEN       [RFC: LISTEN SYN-RECEIVED: a tap cannot know that the SYN is an old duplicate]
SYN-SENT     <-- SEQ=500 ACK=701 SYN,ACK       <-- SYN-RECEIVED [RFC: LISTEN SYN-RECEIVED: likewise]
CLOSED       --> SEQ=701 RST                   --> LISTEN       [RFC: LISTEN LISTEN: A was taken to have opened actively]
"""

FIGURE_12 = """
FIN-WAIT-1   --> SEQ=100 ACK=300 FIN,ACK       --> ESTABLISHED  [RFC: FIN-WAIT-1 CLOSE-WAIT: B's ACK is the proof]
FIN-WAIT-2   <-- SEQ=300 ACK=101 ACK           <-- CLOSE-WAIT
FIN-WAIT-2   <-- SEQ=300 ACK=101 FIN,ACK       <-- LAST-ACK     [RFC: TIME-WAIT LAST-ACK: A's ACK is the proof]
TIME-WAIT    --> SEQ=101 ACK=301 ACK           --> CLOSED
"""

FIGURE_12_MERGED = """
FIN-WAIT-1   --> SEQ=100 ACK=300 FIN,ACK       --> ESTABLISHED  [RFC: FIN-WAIT-1 CLOSE-WAIT: B's ACK is the proof]
FIN-WAIT-2   <-- SEQ=300 ACK=101 FIN,ACK       <-- LAST-ACK     [RFC: TIME-WAIT LAST-ACK: A's ACK is the proof (figure 5, note 2)]
TIME-WAIT    --> SEQ=101 ACK=301 ACK           --> CLOSED
"""

FIGURE_13_AT_A = """
FIN-WAIT-1   --> SEQ=100 ACK=300 FIN,ACK       --> ESTABLISHED  [RFC: FIN-WAIT-1 FIN-WAIT-1: B's FIN is on its way]
FIN-WAIT-1   <-- SEQ=300 ACK=100 FIN,ACK       <-- FIN-WAIT-1
CLOSING      --> SEQ=101 ACK=301 ACK           --> FIN-WAIT-2   [RFC: CLOSING CLOSING: B's ACK is on its way; this ACK passes first]
TIME-WAIT    <-- SEQ=301 ACK=101 ACK           <-- TIME-WAIT
"""

FIGURE_13_AT_B = """
ESTABLISHED  <-- SEQ=300 ACK=100 FIN,ACK       <-- FIN-WAIT-1   [RFC: FIN-WAIT-1 FIN-WAIT-1: A's FIN is on its way]
FIN-WAIT-1   --> SEQ=100 ACK=300 FIN,ACK       --> FIN-WAIT-1
FIN-WAIT-2   <-- SEQ=301 ACK=101 ACK           <-- CLOSING      [RFC: CLOSING CLOSING: A's ACK is on its way; this ACK passes first]
TIME-WAIT    --> SEQ=101 ACK=301 ACK           --> TIME-WAIT
"""

FIGURE_13_CROSSING = """
FIN-WAIT-1   --> SEQ=100 ACK=300 FIN,ACK       --> ESTABLISHED  [RFC: FIN-WAIT-1 FIN-WAIT-1: B's FIN is on its way]
FIN-WAIT-1   <-- SEQ=300 ACK=100 FIN,ACK       <-- FIN-WAIT-1
FIN-WAIT-2   <-- SEQ=301 ACK=101 ACK           <-- CLOSING      [RFC: CLOSING CLOSING: A's ACK is on its way; this ACK passes first]
TIME-WAIT    --> SEQ=101 ACK=301 ACK           --> TIME-WAIT
"""

#: Name, what came before, the figure, and what the last record's row says in the end.
FIGURES = [
    ("6", fresh, FIGURE_6, {"handshake": "complete", "close": "open"}),
    ("7 tap at A", fresh, FIGURE_7_AT_A, {"handshake": "complete", "simultaneous_open": True}),
    ("7 tap at B", fresh, FIGURE_7_AT_B, {"handshake": "complete", "simultaneous_open": True}),
    ("7 crossing", fresh, FIGURE_7_CROSSING, {"handshake": "complete", "simultaneous_open": True}),
    ("8 tap at A", fresh, FIGURE_8_AT_A, {"handshake": "complete", "odd_syns": 1, "rst_rejected": 1, "server_isn": 400}),
    ("8 tap at B", fresh, FIGURE_8_AT_B, {"handshake": "complete", "odd_syns": 0, "client_isn": 100, "server_isn": 400}),
    ("9", established, FIGURE_9, {"handshake": "pending", "syn_count": 2}),
    ("9 midstream", fresh, FIGURE_9_MIDSTREAM, {"handshake": "pending", "syn_count": 2, "odd_segments": 1, "rst_rejected": 1}),
    ("10", established, FIGURE_10, {"handshake": "complete", "close": "rst", "rst_by": "client"}),
    ("11", fresh, FIGURE_11, {"handshake": "aborted", "close": None}),
    ("12", established, FIGURE_12, {"close": "fin_4way", "closer": "client", "time_wait_side": "client"}),
    ("12 merged", established, FIGURE_12_MERGED, {"close": "fin_3way", "closer": "client", "time_wait_side": "client"}),
    ("13 tap at A", established, FIGURE_13_AT_A, {"close": "fin_simultaneous", "closer": "both", "time_wait_side": "both"}),
    ("13 tap at B", established, FIGURE_13_AT_B, {"close": "fin_simultaneous", "closer": "both", "time_wait_side": "both"}),
    ("13 crossing", established, FIGURE_13_CROSSING, {"close": "fin_simultaneous", "closer": "both", "time_wait_side": "both"}),
]  # fmt: skip


def play(before: Dialogue, figure: str) -> list[Line]:
    """Adds the figure's segments to a dialogue."""
    script = lines(figure)
    for line in script:
        before.send(before.a if line.by_a else before.b, line.flags, line.data, seq=line.seq, ack=line.ack)
    return script


@pytest.mark.parametrize(("before", "figure", "facts"), [f[1:] for f in FIGURES], ids=[f[0] for f in FIGURES])
def test_states_after_each_segment(tap, before, figure, facts):
    d = before()
    skip = len(d.packets)
    script = play(d, figure)
    assert tap.steps(d)[skip:] == [line.tap for line in script]
    row = tap.rows(d)[-1]
    assert {name: row[name] for name in facts} == facts


#: Figures whose last line is the RFC's: where every proof has passed and arrived, tap and RFC agree.
ENDS_AS_THE_RFC = [f for f in FIGURES if f[0] not in ("7 tap at A", "9", "9 midstream", "11")]


@pytest.mark.parametrize("figure", [f[2] for f in ENDS_AS_THE_RFC], ids=[f[0] for f in ENDS_AS_THE_RFC])
def test_the_last_line_is_the_rfc_s(figure):
    last = lines(figure)[-1]
    assert last.tap == last.rfc


#: The RFC's two columns of figures 6 to 13 as they stand, one pair for each segment that passes the tap, to check the remarks
#: above with. Where the RFC names no state, the one before holds; "(Abort!!)" and "(REBOOT)" are CLOSED.
RFC_COLUMNS = {
    "6": "SYN-SENT SYN-RECEIVED, ESTABLISHED SYN-RECEIVED, ESTABLISHED ESTABLISHED, ESTABLISHED ESTABLISHED",
    "7 tap at A": "SYN-SENT CLOSED, SYN-RECEIVED SYN-SENT, SYN-RECEIVED SYN-RECEIVED, ESTABLISHED SYN-RECEIVED",
    "7 tap at B": "SYN-SENT SYN-SENT, SYN-RECEIVED SYN-RECEIVED, ESTABLISHED SYN-RECEIVED, ESTABLISHED ESTABLISHED",
    "8 tap at A": "SYN-SENT LISTEN, SYN-SENT SYN-RECEIVED, SYN-SENT LISTEN, ESTABLISHED SYN-RECEIVED, "
    "ESTABLISHED ESTABLISHED",
    "8 tap at B": "SYN-SENT SYN-RECEIVED, SYN-SENT SYN-RECEIVED, SYN-SENT LISTEN, SYN-SENT SYN-RECEIVED, "
    "ESTABLISHED SYN-RECEIVED, ESTABLISHED ESTABLISHED",
    "9": "SYN-SENT ESTABLISHED, SYN-SENT ESTABLISHED, SYN-SENT CLOSED, SYN-SENT CLOSED",
    "10": "CLOSED ESTABLISHED, CLOSED CLOSED",
    "11": "LISTEN SYN-RECEIVED, LISTEN SYN-RECEIVED, LISTEN LISTEN",
    "12": "FIN-WAIT-1 CLOSE-WAIT, FIN-WAIT-2 CLOSE-WAIT, TIME-WAIT LAST-ACK, TIME-WAIT CLOSED",
    "13 tap at A": "FIN-WAIT-1 FIN-WAIT-1, FIN-WAIT-1 FIN-WAIT-1, CLOSING CLOSING, TIME-WAIT TIME-WAIT",
    "13 tap at B": "FIN-WAIT-1 FIN-WAIT-1, FIN-WAIT-1 FIN-WAIT-1, CLOSING CLOSING, TIME-WAIT TIME-WAIT",
}


@pytest.mark.parametrize("name", RFC_COLUMNS)
def test_the_remarks_quote_the_rfc_s_columns(name):
    figure = next(f[2] for f in FIGURES if f[0] == name)
    assert ", ".join(" ".join(line.rfc) for line in lines(figure)) == RFC_COLUMNS[name]


def test_figure_8_at_b_is_two_attempts_of_which_the_first_is_aborted(tap):
    d = fresh()
    play(d, FIGURE_8_AT_B)
    assert [(row["handshake"], row["client_isn"]) for row in tap.rows(d)] == [("aborted", 90), ("complete", 100)]


def test_figure_9_ends_the_old_record_as_reset_and_moves_the_held_syn_to_the_new_one(tap):
    d = established()
    play(d, FIGURE_9)
    old, new = tap.rows(d)
    assert (old["close"], old["rst_by"], old["end_reason"], old["odd_syns"]) == ("rst", "client", "rst", 0)
    assert (old["client_packets"] + old["server_packets"], new["client_packets"]) == (5, 2)


@pytest.mark.parametrize("figure", [FIGURE_12, FIGURE_13_AT_A, FIGURE_13_AT_B])
def test_after_2_msl_nobody_is_in_time_wait(tap, figure):
    d = established()
    play(d, figure)
    other = Dialogue(a_port=50000, start=d.now + 60 * SECOND + SECOND)
    other.syn(other.a, step=0)
    rows = tap.rows([*d.packets, *other.packets])
    assert (rows[0]["time_wait_end"], rows[0]["end_reason"]) == ("expired", "fin")
    assert tap.intervals[-1]["time_wait"] == 0
    assert tap.intervals[0]["time_wait"] == (1 if figure == FIGURE_12 else 2)
