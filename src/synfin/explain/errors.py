"""ICMP errors about a record: what each says, and what the tracker made of it."""

from __future__ import annotations

from synfin._core import probe
from synfin.explain.changes import distance
from synfin.explain.steps import IcmpError
from synfin.output.render import number

_UNREACHABLE = {
    0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
    4: "fragmentation needed", 9: "network prohibited", 10: "host prohibited", 13: "prohibited by a filter",
}  # fmt: skip
_UNREACHABLE_6 = {
    0: "no route", 1: "prohibited by a filter", 2: "beyond the scope of the source", 3: "address unreachable",
    4: "port unreachable",
}  # fmt: skip
#: IP version -> type -> name, or names by code (RFC 792, RFC 1812 section 5.2.7.1, RFC 4443 section 3).
_NAMES: dict[int, dict[int, str | dict[int, str]]] = {
    4: {3: _UNREACHABLE, 4: "source quench", 5: "redirect", 11: "time exceeded", 12: "parameter problem"},
    6: {1: _UNREACHABLE_6, 2: "packet too big", 3: "time exceeded", 4: "parameter problem"},
}


def error_text(error: IcmpError) -> str:
    """An ICMP error on one line: whose it is, what it says (type and code in brackets), and about which segment."""
    quote = error.segment
    version, kind, code = quote["ip_version"], quote["icmp_type"], quote["icmp_code"]
    names = _NAMES[version].get(kind, "error")
    name = names if isinstance(names, str) else names.get(code, "unreachable")
    ends = (probe.address_text(version, quote[side]) for side in ("from", "to"))
    source, target = (f"{error.address(side)}.{quote[f'{side}_port']}" for side in ("src", "dst"))
    six = "6" if version == 6 else ""
    return (
        f"IP{six} {' > '.join(ends)}: ICMP{six} {name} [{kind}/{code}], about {source} > {target}, seq {quote['seq']}"
    )


def error_words(error: IcmpError) -> tuple[str, str]:
    """What the tracker made of an ICMP error, as (name of the rule, words)."""
    if error.grew("icmp_errors") <= 0:
        return "icmp_rejected", f"not counted: {_why_not(error)}; changes nothing"
    if error.became("handshake") == "unreachable":
        return (
            "icmp_unreachable",
            f"the {error.sender}'s SYN did not arrive: unreachable, unless something answers it yet",
        )
    again = error.row["handshake"] == "unreachable" and error.segment["unreachable"] and error.sender == "client"
    if again and error.segment["seq"] == error.after["client"]["isn"]:
        return "icmp_unreachable", "the client's SYN did not arrive, as was said before"
    return "icmp_error", f"quotes what the {error.sender} had in flight: counts in icmp_errors and changes nothing else"


def _why_not(error: IcmpError) -> str:
    sender, receiver, seq = error.after[error.sender], error.after[error.receiver], error.segment["seq"]
    if sender["nxt"] is not None and (beyond := distance(sender["nxt"], seq)) > 0:
        return f"quotes SEQ {seq}, {number(beyond, 'byte')} beyond what the {error.sender} has sent"
    if receiver["ack"] is not None and (below := distance(seq, receiver["ack"])) > 0:
        return f"quotes SEQ {seq}, {number(below, 'byte')} below what the {error.receiver} has acknowledged"
    if receiver["ack"] is None and sender["isn"] is not None and (below := distance(seq, sender["isn"])) > 0:
        return f"quotes SEQ {seq}, {number(below, 'byte')} below the {error.sender}'s ISN"
    return "it came after the record's deadline"
