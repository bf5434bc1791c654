"""Flow rows beside the rows of Zeek's conn.log: which belong together, and why they differ where they do.

Plain functions over rows: ours are dictionaries by column name (``rows.fast``), Zeek's are those of a conn.log, text as it
stands there. Where records begin and end elsewhere, `zeek_borders` cuts the packets as Zeek does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tshark_columns import nanoseconds, our_ends

EQUAL = "equal"
BORDERS = "Zeek begins a new connection with any SYN after a close, and 5 s after a close or a SYN without answer"
ANALYSER = "a content analyser told Zeek to look no further (GridFTP data, encrypted payload)"
LIMIT = "X: a content analyser reached one of its limits"
REASSEMBLED = "G: Zeek joins the fragments of an outer packet, where we see only the payload in the first one"
LIMIT_AND_REASSEMBLED = f"{LIMIT}; {REASSEMBLED}"
NOT_DECODED = "packets that one of the two does not decode (tunnels, fragments)"
UNEXPLAINED = "unexplained"

UNTIL_CLOSED = "Zeek's duration ends with the packet that closes the second side"
ONE_PACKET = "Zeek gives no duration and no bytes where it saw a single packet"
SILENT_END = "with Zeek, an end that sent nothing has no bytes, whatever was acknowledged"
IP_LENGTH = "Zeek adds the IP headers' own lengths, which are 0 where the sender's card cut the segment"
GAPS = "Zeek's bytes go by sequence numbers, gaps included"


class Pair(NamedTuple):
    """A row of Zeek's, the row of ours beside it (None where there is none), and why they are as they are."""

    theirs: dict[str, str]
    ours: dict | None
    why: str


def ends_of(theirs: dict[str, str]) -> frozenset:
    """The two ends of a conn.log row, in no order."""
    return frozenset(
        (theirs[f"id.{end}_h"], int(theirs[f"id.{end}_p"])) for end in ("orig", "resp")
    )  # fmt: skip


def verdict(row: dict | None) -> tuple[str, str] | None:
    """conn_state and history of our row."""
    return (row["zeek_conn_state"], row["zeek_history"]) if row else None


def packets(theirs: dict[str, str]) -> int:
    """Packets of both sides."""
    return int(theirs["orig_pkts"]) + int(theirs["resp_pkts"])


def why_different(theirs: dict[str, str], ours: dict | None, cut: Counter) -> str:
    """Why a row of Zeek's has no row of ours with the same letters. ``cut``: what Zeek's borders give for its ends."""
    if ours is None or ours["client_packets"] + ours["server_packets"] < packets(theirs):
        return NOT_DECODED
    state, history = theirs["conn_state"], theirs["history"]
    if cut[state, history]:
        return BORDERS
    if ours["zeek_history"].startswith(history) and ours["client_packets"] + ours["server_packets"] > packets(theirs):
        return ANALYSER
    if verdict(ours) == (state, history.replace("X", "").replace("x", "")):
        return LIMIT
    if ours["zeek_conn_state"] == state and without_gaps(ours["zeek_history"]) == without_gaps(history):
        return REASSEMBLED
    if ours["zeek_conn_state"] == state and without_gaps(ours["zeek_history"]) == without_gaps(history, "GgXx"):
        return LIMIT_AND_REASSEMBLED
    return UNEXPLAINED


def without_gaps(history: str, letters: str = "Gg") -> str:
    """The letters but G (or these), of either side."""
    return "".join(letter for letter in history if letter not in letters)


def compare(theirs: Sequence[dict[str, str]], ours: Sequence[dict], cut: dict[frozenset, Counter]) -> list[Pair]:
    """Every row of Zeek's with its row of ours and the class of the difference in conn_state and history."""
    waiting: dict[frozenset, list[dict]] = defaultdict(list)
    for row in ours:
        waiting[our_ends(row)].append(row)
    found, rest = [], []
    for row in theirs:
        mine = waiting[ends_of(row)]
        same = [m for m in mine if verdict(m) == (row["conn_state"], row["history"])]
        same.sort(key=lambda m: m["client_packets"] + m["server_packets"] != packets(row))
        if same and same[0]["client_packets"] + same[0]["server_packets"] >= packets(row):
            mine.remove(same[0])
            equal = same[0]["client_packets"] + same[0]["server_packets"] == packets(row)
            found.append(Pair(row, same[0], EQUAL if equal else BORDERS))
        else:
            rest.append(row)
    for row in rest:
        mine = waiting[ends_of(row)] or [m for m in ours if our_ends(m) == ends_of(row)]
        found.append(
            Pair(row, mine[0] if mine else None, why_different(row, mine[0] if mine else None, cut[ends_of(row)]))
        )
    return found


def columns(pair: Pair) -> dict[str, str]:
    """For equal rows: column of conn.log -> class of the difference, for packets, bytes and duration."""
    theirs, ours = pair.theirs, pair.ours
    orig = (theirs["id.orig_h"], int(theirs["id.orig_p"]))
    sides = ("client", "server") if orig == (ours["client_ip"], ours["client_port"]) else ("server", "client")
    found = {}
    for side, name in zip(sides, ("orig", "resp"), strict=True):
        found[f"{name}_pkts"] = EQUAL if ours[f"{side}_packets"] == int(theirs[f"{name}_pkts"]) else UNEXPLAINED
        found[f"{name}_ip_bytes"] = ip_bytes_class(ours[f"{side}_ip_bytes"], theirs, name)
        found[f"{name}_bytes"] = bytes_class(ours, side, theirs[f"{name}_bytes"])
    found["duration"] = duration_class(ours, theirs["duration"])
    return found


def ip_bytes_class(ours: int, theirs: dict[str, str], name: str) -> str:
    value = int(theirs[f"{name}_ip_bytes"])
    if ours == value:
        return EQUAL
    return IP_LENGTH if theirs[f"{name}_bytes"] != "-" and value < int(theirs[f"{name}_bytes"]) < ours else UNEXPLAINED


def bytes_class(ours: dict, side: str, theirs: str) -> str:
    unique, missing = ours[f"{side}_unique_bytes"], ours[f"{side}_missing_bytes"]
    if theirs == "-":
        return ONE_PACKET if ours["client_packets"] + ours["server_packets"] == 1 and not unique else UNEXPLAINED
    if int(theirs) == unique:
        return EQUAL
    if int(theirs) == unique + missing:
        return GAPS
    return SILENT_END if int(theirs) == 0 and not ours[f"{side}_packets"] else UNEXPLAINED


def duration_class(ours: dict, theirs: str) -> str:
    """Zeek logs whole microseconds."""
    if theirs == "-":
        return ONE_PACKET if ours["client_packets"] + ours["server_packets"] == 1 else UNEXPLAINED
    until = nanoseconds(theirs)
    if ours["duration_ns"] // 1000 * 1000 == until:
        return EQUAL
    closes: Iterable[int | None] = (ours["client_fin"], ours["server_fin"], ours["rst_seen"])
    ends = {(instant - ours["first_seen"]) // 1000 * 1000 for instant in closes if instant is not None}
    return UNTIL_CLOSED if until in ends else UNEXPLAINED
