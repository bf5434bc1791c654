"""What begins a record, SYNs and SYN-ACKs in words; see `words`."""

from __future__ import annotations

from synfin.explain.changes import ACK, RST, Table, distance, mine, newly, seconds, theirs
from synfin.explain.steps import Step
from synfin.output.render import number

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
        return f"the held SYN again, {seconds(step.time_ns - held['first_ns'])} after the first: still held"
    return f"held beside the record: ISN {held['isn']} is not this connection's, and nothing proves yet that it opens another"


def _odd_syn(step: Step) -> str | None:
    if step.segment["flags"] & ACK or step.grew("odd_syns") <= 0 or step.after["held"]:
        return None
    return "an old SYN: its ISN is known; changes nothing"


def _first_syn(step: Step) -> str | None:
    if step.segment["flags"] & ACK or mine(step.before, step).get("isn") is not None or _late(step):
        return None
    isn = mine(step.after, step)["isn"]
    if isn is None:
        return None
    if step.became("simultaneous_open"):
        return f"opens as well, with ISN {isn}: simultaneous open"
    if step.became("split_open"):
        return f"opens with ISN {isn} after a bare ACK: split handshake"
    return f"opens with ISN {isn}"


def _resent_syn(step: Step) -> str | None:
    if step.segment["flags"] & ACK or step.before is None or step.segment["seq"] != mine(step.before, step)["isn"]:
        return None
    if step.before["phase"] == "closed" or (step.before["phase"] == "reset" and not step.before["attempt"]):
        return None
    again = ", opens the failed attempt again" if step.before["phase"] == "reset" else ""
    first = step.row["syn_first"] if step.sender == "client" else None
    since = "" if first is None else f", {seconds(step.time_ns - first)} after the first"
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


def acknowledged_syn(step: Step) -> str | None:
    if not newly(step, step.receiver, "syn_acknowledged") or not step.segment["flags"] & ACK or _late(step):
        return None
    isn = theirs(step.after, step)["isn"]
    if isn is None:
        return None
    over = distance(isn + 1, step.segment["ack"])
    more = f" and {number(over, 'byte')} beyond it" if over > 0 else ""
    return f"acknowledges ISN {isn}+1{more}"


def _odd_synack(step: Step) -> str | None:
    if step.grew("odd_syns") <= 0 or not step.segment["flags"] & ACK or step.segment["flags"] & RST:
        return None
    isn = theirs(step.after, step)["isn"]
    wanted = f"the {step.receiver}'s ISN is {isn}" if isn is not None else f"the {step.receiver} sent no such SYN"
    return f"not acceptable: acknowledges {step.segment['ack']}, {wanted}; changes nothing"


def _synack(step: Step) -> str | None:
    if step.grew("synack_count") <= 0 or _late(step):
        return None
    isn = mine(step.before, step).get("isn")
    if step.row["simultaneous_open"] or step.row["split_open"]:
        return f"answers the other SYN (SYN-ACK with its own ISN {step.segment['seq']})"
    if isn is None:
        return f"answers with ISN {step.segment['seq']}"
    if step.segment["seq"] != isn and step.grew("synack_isn_variants") > 0:
        return f"answers again, with another ISN: {step.segment['seq']}"
    return f"resent SYN-ACK, {seconds(step.time_ns - step.row['synack_first'])} after the first"


def _agrees(step: Step) -> str | None:
    agreed = []
    if step.became("fast_open") == "data_accepted":
        agreed.append("accepts the SYN's data")
    if str(step.became("ecn")).endswith("agreed"):
        agreed.append(f"ECN {step.row['ecn']}")
    if step.became("mptcp") == "agreed":
        agreed.append("Multipath TCP agreed")
    return ", ".join(agreed) or None


def completes(step: Step) -> str | None:
    if step.became("handshake") != "complete" or step.had("handshake") == "not_seen":
        return None
    if step.before and not step.before["answered"] and not step.after["answered"]:
        return "goes on just after its SYN: the handshake was completed, though no SYN-ACK was captured"
    if step.row["handshake_done"] is None:
        return f"goes on: the handshake was completed, though the {step.receiver}'s ACK was not captured"
    return "the handshake is complete"


SYNACKS: Table = (
    ("odd_synack", _odd_synack), ("synack", _synack), ("acknowledges_syn", acknowledged_syn), ("agrees", _agrees),
    ("completes", completes),
)  # fmt: skip
