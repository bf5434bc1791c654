"""What a record came to, and the rule behind each verdict.

Each entry of VERDICTS looks at the final row, gives its words or None, and names where the rule stands: a section of the
contract (SPEC), an RFC, or one of the documents in docs/.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from synfin.output.render import duration, number

Row = dict[str, Any]

_DIRECTIONS = {
    "syn": "the client is the end that sent the first SYN",
    "synack": "no SYN was captured; the client is the end to which the SYN-ACK went",
    "server_port": "no opening was captured; the server is the end whose port is a known server port",
    "high_port": "no opening was captured; the server is the end whose port lies below 32768",
    "first_packet": "no opening was captured; the client is the sender of the first packet",
}
_HANDSHAKES = {
    "complete": "both SYNs were acknowledged",
    "unanswered": "nothing answered the SYN before its deadline",
    "refused": "a RST answered the SYN",
    "half_open": "a SYN-ACK was seen, its acknowledgement never",
    "aborted": "an end reset the attempt before the handshake was complete",
    "unreachable": "an ICMP error said that the SYN did not arrive, and nothing answered it",
    "not_seen": "the first packet was neither SYN nor SYN-ACK: the connection is older than the capture",
    "pending": "the record ended, with the input or at the cap, before the attempt was decided",
}
_CLOSES = {
    "fin_4way": "when the second FIN came, the first was already acknowledged: FIN, ACK, FIN, ACK",
    "fin_3way": "the second FIN's segment was the first to acknowledge the first FIN",
    "fin_simultaneous": "the second FIN did not acknowledge the first",
    "half_closed": "one FIN, acknowledged; the other end never closed",
    "fin_unanswered": "one FIN, never acknowledged",
    "rst": "an accepted RST, no FIN before it",
    "rst_after_fin": "an accepted RST after a FIN, before both FINs were acknowledged",
    "open": "neither FIN nor accepted RST",
}
_REASONS = {
    "fin": "both FINs were acknowledged",
    "rst": "an accepted RST",
    "idle": "no packet came before the deadline",
    "attempt_timeout": "the attempt's deadline passed",
    "reuse": "a new connection began on the same ends",
    "evicted": "the cap on connections or memory took the record",
    "end_of_input": "the input ended while the record was live",
}
_QUALITIES = {
    "clean": "one copy was sent before the answer",
    "matched": "resent; the timestamp echo names the copy that was answered",
    "ambiguous": "it cannot be told what was measured: resent, or the answer did more than acknowledge",
}
_TIME_WAIT_ENDS = {
    "expired": "ended after the TIME-WAIT timeout",
    "reused": "ended by a new connection on the same ends",
    "reset": "ended by a RST",
    None: "lasted when the record ended, with the input or at the cap",
}


def _named(column: str, texts: dict[Any, str]) -> Callable[[Row], str | None]:
    return lambda row: None if row[column] is None else texts.get(row[column], str(row[column]))


def _rtt(side: str) -> Callable[[Row], str | None]:
    def say(row: Row) -> str | None:
        if row[f"rtt_{side}_ns"] is None:
            return None
        quality = row[f"rtt_{side}_quality"]
        return f"{duration(row[f'rtt_{side}_ns'])}, {quality}: {_QUALITIES.get(quality, quality)}"

    return say


def _duration(column: str, words: str) -> Callable[[Row], str | None]:
    return lambda row: None if row[column] is None else f"{duration(row[column])} {words}"


def _count(column: str, nouns: str, words: str, least: int = 1) -> Callable[[Row], str | None]:
    return lambda row: f"{number(row[column], *nouns.split('/'))} {words}" if (row[column] or 0) >= least else None


def _time_wait(row: Row) -> str | None:
    return None if row["time_wait_side"] is None else _TIME_WAIT_ENDS[row["time_wait_end"]]


def _data(side: str) -> Callable[[Row], str | None]:
    def say(row: Row) -> str | None:
        value = {name: row[f"{side}_{name}"] for name in ("unique_bytes", "retransmitted_bytes", "missing_bytes")}
        parts = [f"{number(value['unique_bytes'], 'byte')} seen for the first time"]
        parts += [f"{number(value[name], 'byte')} {name.split('_')[0]}" for name in list(value)[1:] if value[name]]
        return ", ".join(parts) if row[f"{side}_payload_bytes"] or len(parts) > 1 else None

    return say


#: Column, words, where the rule stands.
VERDICTS: tuple[tuple[str, Callable[[Row], str | None], str], ...] = (
    ("direction", _named("direction", _DIRECTIONS), "SPEC 3.3"),
    ("handshake", _named("handshake", _HANDSHAKES), "SPEC 3.2, 4"),
    ("simultaneous_open", lambda row: "both ends sent a SYN before either answered" if row["simultaneous_open"] else None, "SPEC 3.2; RFC 9293 3.5"),
    ("split_open", lambda row: "the server sent an ACK and then its own SYN" if row["split_open"] else None, "docs/design/0001-open-cases.md 20"),
    ("syn_count", _count("syn_count", "SYN", "with one ISN", 2), "SPEC 3.2"),
    ("rtt_server_ns", _rtt("server"), "SPEC 4"),
    ("rtt_client_ns", _rtt("client"), "SPEC 4"),
    ("odd_syns", _count("odd_syns", "SYN or SYN-ACK/SYNs or SYN-ACKs", "that open nothing in this record"), "SPEC 3.2"),
    ("odd_segments", _count("odd_segments", "segment", "that did not fit and changed nothing"), "SPEC 3.4; RFC 9293 3.10.7.4"),
    ("rst_rejected", _count("rst_rejected", "RST", "rejected"), "SPEC 3.4; RFC 9293 3.5.3, RFC 5961 3"),
    ("close", _named("close", _CLOSES), "SPEC 4"),
    ("closer", lambda row: row["closer"] and "sent the first FIN", "SPEC 4"),
    ("rst_by", lambda row: row["rst_by"] and f"sent the first accepted RST, with TTL or hop limit {row['rst_ttl']}", "SPEC 4"),
    ("half_closed_ns", _duration("half_closed_ns", "from the first FIN to the other end's"), "SPEC 4"),
    ("time_wait_side", _time_wait, "SPEC 3.2, 3.4; RFC 9293 3.6"),
    ("client_state", lambda row: "after the last packet", "SPEC 3.4; docs/states.md"),
    ("server_state", lambda row: "after the last packet", "SPEC 3.4; docs/states.md"),
    ("client_unique_bytes", _data("client"), "SPEC 4"),
    ("server_unique_bytes", _data("server"), "SPEC 4"),
    ("packets_after_close", _count("packets_after_close", "packet", "after the close"), "SPEC 3.2"),
    ("end_reason", _named("end_reason", _REASONS), "SPEC 3.2"),
)  # fmt: skip


def verdicts(row: Row) -> list[dict[str, Any]]:
    """The verdicts that a final row holds: column, its value, words, and where the rule stands."""
    said = [(column, say(row), rule) for column, say, rule in VERDICTS]
    return [
        {"column": column, "value": row.get(column), "words": text, "rule": rule} for column, text, rule in said if text
    ]
