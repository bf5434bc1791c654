"""What a segment did, in words.

Each table holds (name, rule): a rule looks at a Step (the segment, and the tracker's record before and after it) and gives
its words, or None where it has nothing to say. All that fit are said, in the order of the table. Whatever was decided, the
tracker decided: a rule only compares what it holds before with what it holds after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from synfin.explain.steps import Snapshot, Step
from synfin.output.render import duration, number

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

Rule = Callable[[Step], str | None]
Table = tuple[tuple[str, Rule], ...]


def distance(low: int, high: int) -> int:
    """From one sequence number to another, modulo 2**32 (RFC 9293 section 3.4)."""
    return (high - low + 2**31) % 2**32 - 2**31


def _end(step: Step) -> int:
    return step.segment["seq"] + step.segment["payload_bytes"] + bool(step.segment["flags"] & FIN)


def _own(step: Step, name: str) -> int:
    return step.grew(f"{step.sender}_{name}")


def _mine(snapshot: Snapshot | None, step: Step) -> dict[str, Any]:
    return snapshot[step.sender] if snapshot else {}


def _theirs(snapshot: Snapshot | None, step: Step) -> dict[str, Any]:
    return snapshot[step.receiver] if snapshot else {}


def _newly(step: Step, side: str, name: str) -> bool:
    """Whether the segment set a yes-or-no fact of one end."""
    return step.after[side][name] and not (step.before and step.before[side][name])


def _seconds(ns: int) -> str:
    return duration(ns) if ns >= 0 else f"-{duration(-ns)}"


# ------------------------------------------------------------------------------------------------ borders of the record


def _begins(step: Step) -> str | None:
    if step.before is not None:
        return None
    if step.row["first_packet"] != step.number or step.row["first_file"] != step.file:
        held = number(step.row["syn_count"], "SYN")
        return f"proves the held SYN (packet {step.row['first_packet']}): a new record begins with it ({held})"
    text = "begins a new record on the same ends" if step.ended is not None else None
    if step.row["handshake"] == "not_seen":
        midstream = f"no opening was seen (client and server by the rule {step.row['direction']})"
        return f"{text}; {midstream}" if text else midstream
    if step.row["direction"] == "synack":
        return "begins the record: its SYN was not seen" + (", on the same ends as an older one" if text else "")
    return text


def _turned(step: Step) -> str | None:
    if step.before and step.became("direction"):
        return f"tells who the client is ({step.row['direction']})"
    return None


def _late(step: Step) -> str | None:
    if step.had("handshake") == "not_seen" and step.row["handshake"] == "complete":
        return (
            f"comes late: its ISN {step.segment['seq']} is just before where the stream began, so it opened this record"
        )
    return None


def _after_close(step: Step) -> str | None:
    return "after the close" if step.before and step.grew("packets_after_close") > 0 else None


BORDERS: Table = (("begins", _begins), ("turned", _turned), ("late", _late), ("after_close", _after_close))

# ------------------------------------------------------------------------------------------------ SYN


def _held(step: Step) -> str | None:
    held = step.after["held"]
    before = step.before["held"] if step.before else None
    if held is None or held == before:
        return None
    if before and (before["by"], before["isn"]) == (held["by"], held["isn"]):
        return f"the held SYN again, {_seconds(step.time_ns - held['first_ns'])} after the first: still held"
    return f"held beside the record: ISN {held['isn']} is not this connection's, and nothing proves yet that it opens another"


def _odd_syn(step: Step) -> str | None:
    if step.segment["flags"] & ACK or step.grew("odd_syns") <= 0 or step.after["held"]:
        return None
    return "an old SYN: its ISN is known; changes nothing"


def _first_syn(step: Step) -> str | None:
    if step.segment["flags"] & ACK or _mine(step.before, step).get("isn") is not None or _late(step):
        return None
    isn = _mine(step.after, step)["isn"]
    if isn is None:
        return None
    if step.became("simultaneous_open"):
        return f"opens as well, with ISN {isn}: simultaneous open"
    if step.became("split_open"):
        return f"opens with ISN {isn} after a bare ACK: split handshake"
    return f"opens with ISN {isn}"


def _resent_syn(step: Step) -> str | None:
    if step.segment["flags"] & ACK or step.before is None or step.segment["seq"] != _mine(step.before, step)["isn"]:
        return None
    if step.before["phase"] == "closed" or (step.before["phase"] == "reset" and not step.before["attempt"]):
        return None
    again = ", opens the failed attempt again" if step.before["phase"] == "reset" else ""
    first = step.row["syn_first"] if step.sender == "client" else None
    since = "" if first is None else f", {_seconds(step.time_ns - first)} after the first"
    return f"resent SYN{since}{again}"


def _offers(step: Step) -> str | None:
    offers = []
    if step.became("fast_open") in ("cookie_request", "data"):
        offers.append(
            "a Fast Open cookie is asked for" if step.row["fast_open"] == "cookie_request" else "with Fast Open data"
        )
    if str(step.became("ecn")).endswith("offered"):
        offers.append(f"ECN {step.row['ecn']}")
    if step.became("mptcp") == "offered":
        offers.append("Multipath TCP offered")
    return ", ".join(offers) or None


SYNS: Table = (
    ("held", _held),
    ("odd_syn", _odd_syn),
    ("syn", _first_syn),
    ("resent_syn", _resent_syn),
    ("offers", _offers),
)

# ------------------------------------------------------------------------------------------------ SYN-ACK


def _acknowledged_syn(step: Step) -> str | None:
    if not _newly(step, step.receiver, "syn_acknowledged") or not step.segment["flags"] & ACK or _late(step):
        return None
    isn = _theirs(step.after, step)["isn"]
    if isn is None:
        return None
    over = distance(isn + 1, step.segment["ack"])
    more = f" and {number(over, 'byte')} beyond it" if over > 0 else ""
    return f"acknowledges ISN {isn}+1{more}"


def _odd_synack(step: Step) -> str | None:
    if step.grew("odd_syns") <= 0 or not step.segment["flags"] & ACK or step.segment["flags"] & RST:
        return None
    isn = _theirs(step.after, step)["isn"]
    wanted = f"the {step.receiver}'s ISN is {isn}" if isn is not None else f"the {step.receiver} sent no such SYN"
    return f"not acceptable: acknowledges {step.segment['ack']}, {wanted}; changes nothing"


def _synack(step: Step) -> str | None:
    if step.grew("synack_count") <= 0 or _late(step):
        return None
    isn = _mine(step.before, step).get("isn")
    if step.row["simultaneous_open"] or step.row["split_open"]:
        return f"answers the other SYN (SYN-ACK with its own ISN {step.segment['seq']})"
    if isn is None:
        return f"answers with ISN {step.segment['seq']}"
    if step.segment["seq"] != isn and step.grew("synack_isn_variants") > 0:
        return f"answers again, with another ISN: {step.segment['seq']}"
    return f"resent SYN-ACK, {_seconds(step.time_ns - step.row['synack_first'])} after the first"


def _agrees(step: Step) -> str | None:
    agreed = []
    if step.became("fast_open") == "data_accepted":
        agreed.append("accepts the SYN's data")
    if str(step.became("ecn")).endswith("agreed"):
        agreed.append(f"ECN {step.row['ecn']}")
    if step.became("mptcp") == "agreed":
        agreed.append("Multipath TCP agreed")
    return ", ".join(agreed) or None


def _completes(step: Step) -> str | None:
    if step.became("handshake") != "complete" or step.had("handshake") == "not_seen":
        return None
    if step.before and not step.before["answered"] and not step.after["answered"]:
        return "goes on just after its SYN: the handshake was completed, though no SYN-ACK was captured"
    if step.row["handshake_done"] is None:
        return f"goes on: the handshake was completed, though the {step.receiver}'s ACK was not captured"
    return "the handshake is complete"


SYNACKS: Table = (
    ("odd_synack", _odd_synack), ("synack", _synack), ("acknowledges_syn", _acknowledged_syn), ("agrees", _agrees),
    ("completes", _completes),
)  # fmt: skip

# ------------------------------------------------------------------------------------------------ RST


def _rejected(step: Step) -> str | None:
    if step.grew("rst_rejected") <= 0 or step.before is None:
        return None
    target, sender, seq = _theirs(step.before, step), _mine(step.before, step), step.segment["seq"]
    state = step.had(f"{step.receiver}_state")
    if state == "SYN-SENT":
        why = "its ACK does not cover the SYN"
    elif state == "LISTEN":
        why = f"the {step.receiver} listens, there is nothing to reset"
    elif target["ack"] is None:
        why = f"the {step.receiver} is in {state} and has acknowledged nothing"
    elif sender["nxt"] is not None and distance(sender["nxt"], seq) < 0:
        why = f"SEQ is not the {step.receiver}'s highest ACK {target['ack']}, and lies below what its sender has sent"
    else:
        away = distance(target["ack"], seq)
        why = f"SEQ lies {_where(away, target['window'] or 0)} the {step.receiver}'s window of {target['window'] or 0:,} bytes"
    return f"RST rejected: {why}"


def _where(away: int, window: int) -> str:
    return f"{number(-away, 'byte')} below" if away < 0 else f"{number(away - window + 1, 'byte')} beyond"


def _resets(step: Step) -> str | None:
    if _own(step, "rst_count") <= 0 or step.grew("rst_rejected") > 0:
        return None
    if step.after["phase"] != "reset" or (step.before and step.before["phase"] == "reset"):
        return "a further RST"
    return {
        "refused": "refuses the attempt",
        "aborted": "aborts the attempt",
        "rst": "resets the connection",
        "rst_after_fin": "resets the connection after a FIN",
    }.get(step.row["handshake"] if step.after["attempt"] else step.row["close"], "a further RST")


RSTS: Table = (("rst_rejected", _rejected), ("rst", _resets))

# ------------------------------------------------------------------------------------------------ everything else


def _odd(step: Step) -> str | None:
    if step.grew("odd_segments") <= 0:
        return None
    if step.before is None or (step.before["attempt"] and not step.before["answered"]):
        return "does not fit an attempt, in which only an ACK of exactly the SYN does: changes nothing"
    target = _theirs(step.before, step)
    if target["ack"] is not None and target["window_max"] is not None:
        below = distance(_end(step), target["ack"]) - target["window_max"]
        beyond = distance(target["ack"], step.segment["seq"]) - target["window_max"]
        if below > 0:
            return f"not acceptable: ends {number(below, 'byte')} below the {step.receiver}'s window; changes nothing"
        if beyond > 0:
            return (
                f"not acceptable: begins {number(beyond, 'byte')} beyond the {step.receiver}'s window; changes nothing"
            )
    return "not acceptable: a FIN below data that was acknowledged; changes nothing"


def _keep_alive(step: Step) -> str | None:
    return "keep-alive" if _own(step, "keep_alives") > 0 else None


def _data(step: Step) -> str | None:
    size = step.segment["payload_bytes"]
    fresh = _own(step, "unique_bytes")
    if not size or step.grew("odd_segments") > 0 or _own(step, "keep_alives") > 0 or step.segment["flags"] & RST:
        return None
    if again := _own(step, "retransmitted_bytes"):
        return f"resends {number(again, 'byte')}" + (f", sends {number(fresh, 'new byte')}" if fresh else "")
    if _own(step, "out_of_order_segments"):
        return f"sends {number(fresh, 'byte')} that fill a gap"
    if not fresh:
        return None
    first = ", its first data" if step.became(f"{step.sender}_first_payload") is not None else ""
    return f"sends {number(fresh, 'byte')}{first}"


def _gap(step: Step) -> str | None:
    before = {high for _, high in _mine(step.before, step).get("holes", ())}
    opened = [(low, high) for low, high in step.after[step.sender]["holes"] if high not in before]
    nxt = _mine(step.before, step).get("nxt")
    if nxt is None or not opened or opened[-1][0] != nxt:
        return None
    low, high = opened[-1]
    return f"leaves a gap of {number(distance(low, high), 'byte')} that the tap has not seen so far ({low}:{high})"


def _acknowledges(step: Step) -> str | None:
    before, after = _mine(step.before, step).get("ack"), _mine(step.after, step)["ack"]
    if _acknowledged_syn(step) or _fin_acknowledged(step) or before is None or after == before:
        return None
    sent = _theirs(step.before, step).get("nxt")
    unseen = 0 if sent is None else min(distance(sent, after), distance(before, after))
    more = f", {unseen:,} of them not captured so far" if unseen > 0 else ""
    return f"acknowledges {number(distance(before, after), 'byte')}{more}"


def _duplicate_ack(step: Step) -> str | None:
    return "duplicate ACK" if _own(step, "duplicate_acks") > 0 else None


def _window(step: Step) -> str | None:
    if _own(step, "zero_windows") > 0:
        return "window 0"
    closed = _mine(step.before, step).get("window") == 0 and not step.segment["flags"] & (SYN | RST)
    return "opens its window again" if closed and _mine(step.after, step)["window"] else None


def _fin(step: Step) -> str | None:
    if _own(step, "fin_count") <= 0:
        return None
    if _mine(step.before, step).get("fin_seq") is not None:
        first = step.row[f"{step.sender}_fin"]
        same = step.before and _mine(step.before, step)["fin_seq"] == (_end(step) - 1) % 2**32
        return (
            f"resent FIN, {_seconds(step.time_ns - first)} after the first" if same else "another FIN, beyond the first"
        )
    if _theirs(step.after, step)["fin_seq"] is None:
        return "closes (FIN)"
    if step.had("closer") not in (None, step.row["closer"]) and step.row["closer"] == step.sender:
        return "closes (FIN); it was sent before the other end's, which acknowledges it: the tap swapped them"
    return {
        "fin_3way": "closes: merged FIN+ACK",
        "fin_simultaneous": "closes as well, without having acknowledged the other FIN: simultaneous close",
    }.get(step.row["close"] or "", "closes as well (FIN)")


def _fin_acknowledged(step: Step) -> str | None:
    if _newly(step, step.receiver, "fin_acknowledged") and step.segment["flags"] & ACK:
        return "acknowledges the FIN"
    return "its acknowledgement came to the tap before it" if _newly(step, step.sender, "fin_acknowledged") else None


OTHERS: Table = (
    ("odd", _odd),
    ("keep_alive", _keep_alive),
    ("acknowledges_syn", _acknowledged_syn),
    ("completes", _completes),
    ("data", _data),
    ("gap", _gap),
    ("fin", _fin),
    ("acknowledges_fin", _fin_acknowledged),
    ("acknowledges", _acknowledges),
    ("duplicate_ack", _duplicate_ack),
    ("window", _window),
)

# ------------------------------------------------------------------------------------------------ what it led to


def _closed(step: Step) -> str | None:
    if step.after["phase"] == "closed" and (step.before is None or step.before["phase"] != "closed"):
        return "both FINs are acknowledged: closed"
    return None


def _time_wait(step: Step) -> str | None:
    if step.became("time_wait_end") is not None:
        return f"ends TIME-WAIT ({step.row['time_wait_end']})"
    side = step.became("time_wait_side")
    return None if side is None else f"TIME-WAIT at {'both ends' if side == 'both' else f'the {side}'}"


RESULTS: Table = (("closed", _closed), ("time_wait", _time_wait))


def _original(step: Step) -> str:
    file, place = step.copy_of or ("", 0)
    if not place:
        return "a copy of an earlier packet"
    return f"a copy of packet {place}" + (f" of {file}" if file != step.file else "")


def words(step: Step) -> list[tuple[str, str]]:
    """What the segment did, as (name of the rule, words)."""
    if step.copy_of is not None:
        return [("capture_duplicate", f"{_original(step)}: counts in packets, ip_bytes and capture_duplicates only")]
    flags = step.segment["flags"]
    table = RSTS if flags & RST else OTHERS if not flags & SYN else SYNACKS if flags & ACK else SYNS
    said = [(name, rule(step)) for part in (BORDERS, table, RESULTS) for name, rule in part]
    told = [(name, text) for name, text in said if text]
    return told or [
        ("ack", "acknowledges nothing new") if flags & ACK else ("nothing", "changes nothing that the record holds")
    ]


def round_trips(step: Step) -> list[dict[str, Any]]:
    """RTT samples that the segment completed: name, nanoseconds, quality (None for data), words."""
    samples: list[dict[str, Any]] = []
    for side in ("server", "client"):
        if (ns := step.became(f"rtt_{side}_ns")) is not None:
            quality = step.row[f"rtt_{side}_quality"]
            text = f"handshake RTT tap to {side} {duration(ns)} ({quality})"
            samples.append({"name": f"rtt_{side}_ns", "ns": ns, "quality": quality, "words": text})
    for side in ("server", "client"):
        if step.grew(f"{side}_rtt_samples") > 0:
            ns = step.after[side]["rtt_total"] - (step.before[side]["rtt_total"] if step.before else 0)
            text = f"RTT sample tap to {side} {duration(ns)}"
            samples.append({"name": f"{side}_rtt", "ns": ns, "quality": None, "words": text})
    return samples
