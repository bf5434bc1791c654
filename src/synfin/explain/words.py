"""What a segment did, in words.

Each table holds (name, rule): a rule looks at a Step (the segment, and the tracker's record before and after it) and gives
its words, or None where it has nothing to say. All that fit are said, in the order of the table. Whatever was decided, the
tracker decided: a rule only compares what it holds before with what it holds after.
"""

from __future__ import annotations

from typing import Any

from synfin.explain.changes import ACK, RST, SYN, Table, distance, end_of, mine, newly, own, seconds, theirs
from synfin.explain.openings import BORDERS, SYNACKS, SYNS, acknowledged_syn, completes
from synfin.explain.steps import Step
from synfin.output.render import duration, number

# ------------------------------------------------------------------------------------------------ RST


def _rejected(step: Step) -> str | None:
    if step.grew("rst_rejected") <= 0 or step.before is None:
        return None
    target, sender, seq = theirs(step.before, step), mine(step.before, step), step.segment["seq"]
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
    if own(step, "rst_count") <= 0 or step.grew("rst_rejected") > 0:
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
    target = theirs(step.before, step)
    if target["ack"] is not None and target["window_max"] is not None:
        below = distance(end_of(step), target["ack"]) - target["window_max"]
        beyond = distance(target["ack"], step.segment["seq"]) - target["window_max"]
        if below > 0:
            return f"not acceptable: ends {number(below, 'byte')} below the {step.receiver}'s window; changes nothing"
        if beyond > 0:
            return (
                f"not acceptable: begins {number(beyond, 'byte')} beyond the {step.receiver}'s window; changes nothing"
            )
    return "not acceptable: a FIN below data that was acknowledged; changes nothing"


def _keep_alive(step: Step) -> str | None:
    return "keep-alive" if own(step, "keep_alives") > 0 else None


def _data(step: Step) -> str | None:
    size = step.segment["payload_bytes"]
    fresh = own(step, "unique_bytes")
    if not size or step.grew("odd_segments") > 0 or own(step, "keep_alives") > 0 or step.segment["flags"] & RST:
        return None
    if again := own(step, "retransmitted_bytes"):
        return f"resends {number(again, 'byte')}" + (f", sends {number(fresh, 'new byte')}" if fresh else "")
    if own(step, "out_of_order_segments"):
        return f"sends {number(fresh, 'byte')} that fill a gap"
    if not fresh:
        return None
    first = ", its first data" if step.became(f"{step.sender}_first_payload") is not None else ""
    return f"sends {number(fresh, 'byte')}{first}"


def _gap(step: Step) -> str | None:
    before = {high for _, high in mine(step.before, step).get("holes", ())}
    opened = [(low, high) for low, high in step.after[step.sender]["holes"] if high not in before]
    nxt = mine(step.before, step).get("nxt")
    if nxt is None or not opened or opened[-1][0] != nxt:
        return None
    low, high = opened[-1]
    return f"leaves a gap of {number(distance(low, high), 'byte')} that the tap has not seen so far ({low}:{high})"


def _acknowledges(step: Step) -> str | None:
    before, after = mine(step.before, step).get("ack"), mine(step.after, step)["ack"]
    if acknowledged_syn(step) or _fin_acknowledged(step) or before is None or after == before:
        return None
    sent = theirs(step.before, step).get("nxt")
    unseen = 0 if sent is None else min(distance(sent, after), distance(before, after))
    more = f", {unseen:,} of them not captured so far" if unseen > 0 else ""
    return f"acknowledges {number(distance(before, after), 'byte')}{more}"


def _duplicate_ack(step: Step) -> str | None:
    return "duplicate ACK" if own(step, "duplicate_acks") > 0 else None


def _window(step: Step) -> str | None:
    if own(step, "zero_windows") > 0:
        return "window 0"
    closed = mine(step.before, step).get("window") == 0 and not step.segment["flags"] & (SYN | RST)
    return "opens its window again" if closed and mine(step.after, step)["window"] else None


def _fin(step: Step) -> str | None:
    if own(step, "fin_count") <= 0:
        return None
    if mine(step.before, step).get("fin_seq") is not None:
        first = step.row[f"{step.sender}_fin"]
        same = step.before and mine(step.before, step)["fin_seq"] == (end_of(step) - 1) % 2**32
        return (
            f"resent FIN, {seconds(step.time_ns - first)} after the first" if same else "another FIN, beyond the first"
        )
    if theirs(step.after, step)["fin_seq"] is None:
        return "closes (FIN)"
    if step.had("closer") not in (None, step.row["closer"]) and step.row["closer"] == step.sender:
        return "closes (FIN); it was sent before the other end's, which acknowledges it: the tap swapped them"
    return {
        "fin_3way": "closes: merged FIN+ACK",
        "fin_simultaneous": "closes as well, without having acknowledged the other FIN: simultaneous close",
    }.get(step.row["close"] or "", "closes as well (FIN)")


def _fin_acknowledged(step: Step) -> str | None:
    if newly(step, step.receiver, "fin_acknowledged") and step.segment["flags"] & ACK:
        return "acknowledges the FIN"
    return "its acknowledgement came to the tap before it" if newly(step, step.sender, "fin_acknowledged") else None


OTHERS: Table = (
    ("odd", _odd),
    ("keep_alive", _keep_alive),
    ("acknowledges_syn", acknowledged_syn),
    ("completes", completes),
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
