"""`zeek_conn_state` and `zeek_history` against what Zeek's own test suite expects of its traces: 24 traces, 70 rows."""

from __future__ import annotations

from collections import Counter

from shared import flow_rows, zeek_traces
from zeek_borders import cut_by_zeek
from zeek_rows import (
    ANALYSER,
    BORDERS,
    EQUAL,
    LIMIT_AND_REASSEMBLED,
    NOT_DECODED,
    REASSEMBLED,
    UNEXPLAINED,
    columns,
    compare,
)

from corpus import needs_captures

pytestmark = needs_captures


def pairs():
    return [
        (path, pair) for path, theirs in zeek_traces() for pair in compare(theirs, flow_rows(path), cut_by_zeek(path))
    ]


#: Every row of Zeek's that is not equal, with the reason that the rules must give; all others must be equal.
DIFFERING = {
    ("globus-url-copy.pcap", "S1 ShADad", ANALYSER): 1,
    ("pop3-pop3.pcap", "REJ Sr", BORDERS): 6,
    ("tunnels-Teredo.pcap", "OTH R", BORDERS): 1,
    ("tunnels-Teredo.pcap", "SHR ^fA", BORDERS): 2,
    ("tunnels-Teredo.pcap", "RSTRH ^r", BORDERS): 1,
    ("tunnels-Teredo.pcap", "SH Fa", BORDERS): 1,
    ("tunnels-Teredo.pcap", "S1 ShADad", NOT_DECODED): 1,
    ("tunnels-gtp-gtp1_gn_normal_incl_fragmentation.pcap", "SF ShADadfgF", REASSEMBLED): 1,
    ("tunnels-gtp-gtp2_different_udp_port.pcap", "S3 ShADadXf", LIMIT_AND_REASSEMBLED): 1,
}


def test_every_row_is_equal_letter_for_letter_or_explained():
    found = pairs()
    counts = Counter(pair.why for _, pair in found)
    print(*(f"{path.name}: {p.theirs['conn_state']} {p.theirs['history']}: {p.why}" for path, p in found), sep="\n")
    assert [(path.name, pair.theirs["history"]) for path, pair in found if pair.why == UNEXPLAINED] == []
    assert sum(counts.values()) == 70
    differing = Counter(
        (path.name, f"{p.theirs['conn_state']} {p.theirs['history']}", p.why) for path, p in found if p.why != EQUAL
    )
    assert differing == Counter(DIFFERING)


def test_packets_bytes_and_durations_of_equal_rows():
    counts, unexplained = Counter(), []
    for path, pair in pairs():
        if pair.why == EQUAL:
            counts.update(columns(pair).items())
            unexplained += [(path.name, pair.theirs, name) for name, why in columns(pair).items() if why == UNEXPLAINED]
    assert unexplained == []
    assert (
        counts["orig_pkts", EQUAL]
        == counts["resp_pkts", EQUAL]
        == sum(count for (name, _), count in counts.items() if name == "duration")
    )
    assert counts["orig_bytes", EQUAL] > 30


def test_zeeks_borders_give_zeeks_rows():
    """Cut where Zeek cuts, the rules give every row of the traces that are decoded, but for what content analysers did."""
    wrong = Counter()
    for path, theirs in zeek_traces():
        cut = cut_by_zeek(path)
        for pair in compare(theirs, flow_rows(path), cut):
            if pair.why in (EQUAL, BORDERS):
                ends = frozenset(
                    (pair.theirs[f"id.{end}_h"], int(pair.theirs[f"id.{end}_p"])) for end in ("orig", "resp")
                )
                wrong[path.name] += cut[ends][pair.theirs["conn_state"], pair.theirs["history"]] == 0
    assert +wrong == Counter()
