"""Flow rows against tshark's: packets, payload bytes, SYNs, SYN-ACKs, FINs and RSTs each way, summed over each tuple.

What lies in a tunnel that synfin does not open (L2TP, CAPWAP, WireGuard) is left out. What differs must follow from a rule of ours that the rows themselves show; whatever is
left stands in a list, each with its reason.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from corpus import ROOT, captures, needs_captures

from rows import fast
from synfin._core.probe import decode
from synfin.sources.captures import CaptureInput

pytestmark = needs_captures

COUNTS = {"packets": "pkts", "payload_bytes": "bytes", "syn": "syn", "synack": "synack", "fin": "fin", "rst": "rst"}
FIN, SYN, RST = 1, 2, 4

#: What tshark's path may name where every segment of a stream is ours.
DECODED = {
    *("eth", "ethertype", "llc", "vlan", "ieee8021ad", "ieee8021ah", "sll", "null", "raw", "ppp", "chdlc", "pppoes", "mpls"),
    *("wlan", "radiotap", "wlan_radio", "ppi", "fddi", "tr", "arcnet", "ipoib", "nflog"),
    *("ip", "ipv6", "ah", "udp", "gre", "erspan", "vxlan", "geneve", "gtp"),
}

IP_LENGTH = "IP announces more than the frame's length on the wire, which tshark takes: the capture was cut unsaid"
OF_ONE_VENDOR = "a tunnel that is not opened: MikroTik's Ethernet over IP, GRE version 1 with protocol 0x6400"
COMPRESSED = "IPComp (RFC 3173): tshark unpacks the packets inside"
WRONG_TYPE = "an IPv6 header behind the Ethernet type of IPv4: no receiver takes it, tshark does"
#: capture: (the counts that differ, why).
EXCEPTIONS = {
    "AlexeyVasilev+PcapFlowLab/examples__showcase__pcap_flow_lab_showcase.pcap": ({"packets", "syn"}, OF_ONE_VENDOR),
    "Srinivas11789+PcapXray/Source__Module__examples__torExample.pcap": ({"packets", "fin"}, WRONG_TYPE),
    "didier-barvaux+rohc/non_regression__rfc6846__inputs__ipv6__tcp__afl18-bad-urg-data-ptr__source.pcap": (
        {"payload_bytes"}, IP_LENGTH,
    ),
    "the-tcpdump-group+libpcap/filter__AH-IPcomp-IPv6.pcap": ({"packets", "payload_bytes"}, COMPRESSED),
    "snabbco+snabb/src__program__ipfix__tests__sanitized4k_truncated128.pcap": ({"payload_bytes"}, IP_LENGTH),
}  # fmt: skip

Way = tuple[str, int, str, int]  # address and port of the sender, then of the other end


@cache
def tshark(sha256: str) -> tuple[Counter, set[Way], set[Way]]:
    """Its counts by way, the ways behind what we do not decode, and those with headers that are cut or wrong."""
    counts, undecoded, bad = Counter(), set(), set()
    with gzip.open(ROOT / "ref" / f"{sha256}.tsv.gz", "rt", encoding="utf-8") as file:
        for row in csv.DictReader((line for line in file if not line.startswith("#")), delimiter="\t"):
            if row["layer"] != "seg":
                continue
            a, b = (row["src"], int(row["sport"])), (row["dst"], int(row["dport"]))
            layers = re.sub(r"ipv6\.\w+", "ah", row["path"]).split(":")
            for side, way in (("a", a + b), ("b", b + a)):
                counts.update({(way, ours): int(row[f"{theirs}_{side}"]) for ours, theirs in COUNTS.items()})
                if not set(layers) <= DECODED:
                    undecoded.add(way)
                if row["bad_hdr"] != "0":
                    bad.add(way)
    return counts, undecoded, bad


@cache
def synfin(path: Path) -> tuple[Counter, Counter]:
    """The same counts from flow rows; and, by way, what explains a count that is lower than tshark's."""
    counts, remarks = Counter(), Counter()
    flows, _, stats = fast([path])
    assert stats["packets"] == stats["packets_in_records"] + sum(stats["skips"].values())
    for row in flows:
        client, server = (row["client_ip"], row["client_port"]), (row["server_ip"], row["server_port"])
        for side, way in (("client", client + server), ("server", server + client)):
            counts[way, "packets"] += row[f"{side}_packets"]
            counts[way, "payload_bytes"] += row[f"{side}_payload_bytes"]
            counts[way, "fin"] += row[f"{side}_fin_count"]
            counts[way, "rst"] += row[f"{side}_rst_count"]
            for remark in ("odd_segments", "odd_syns"):
                remarks[way, remark] += row[remark]
            remarks[way, "both_opened"] += row["simultaneous_open"] or row["split_open"]
        counts[client + server, "syn"] += row["syn_count"]
        counts[server + client, "synack"] += row["synack_count"]
    return counts, remarks


@cache
def overruled(path: Path) -> Counter:
    """By way, FINs on a SYN or RST, and SYNs and SYN-ACKs on a RST: flags are judged RST, SYN, FIN (SPEC 3.4)."""
    counts = Counter()
    with CaptureInput([str(path)]) as source:
        for batch in source:
            for data, *_, link_type, wire_len, _ in batch.packets():
                segment = decode(data, link_type, wire_len)
                if isinstance(segment, str) or segment["flags"] & (FIN | SYN | RST) in (0, FIN, SYN, RST):
                    continue
                size, flags = (4 if segment["ip_version"] == 4 else 16), segment["flags"]
                src, dst = (str(ip_address(segment[end][:size])) for end in ("src", "dst"))
                way = (src, segment["src_port"], dst, segment["dst_port"])
                counts[way, "fin"] += bool(flags & FIN)
                if flags & RST and flags & SYN:
                    counts[way, "synack" if flags & 0x10 else "syn"] += 1
    return counts


def follows_from_a_rule(path: Path, way: Way, what: str, missing: int, remarks: Counter) -> bool:
    """Whether our count may be lower than tshark's by ``missing``."""
    missing -= overruled(path)[way, what]
    if what == "fin":  # a FIN that does not fit the window is odd and counts in no FIN column
        return 0 <= missing <= remarks[way, "odd_segments"]
    if what in ("syn", "synack") and remarks[way, "both_opened"]:
        return True  # the columns are the client's SYNs and both ends' SYN-ACKs; the sum is checked apart
    if what in ("syn", "synack"):  # unproven and unacceptable ones, and a SYN-ACK does not say whose it is
        return 0 <= missing <= remarks[way, "odd_syns"]
    return missing == 0


def differing(capture: dict[str, str]) -> tuple[set[str], int]:
    """The counts in which a way differs without a rule, and the number of packets compared."""
    path = ROOT / capture["path"]
    theirs, undecoded, bad = tshark(capture["sha256"])
    ours, remarks = synfin(path)
    found, compared = set(), 0
    for way, what in theirs.keys() | ours.keys():
        if way in undecoded or way in bad:
            continue
        compared += ours[way, what] if what == "packets" else 0
        missing = theirs[way, what] - ours[way, what]
        if missing and not follows_from_a_rule(path, way, what, missing, remarks):
            found.add(what)
    return found, compared


def with_rows_of_tshark() -> list[dict[str, str]]:
    return [row for row in captures() if (ROOT / "ref" / f"{row['sha256']}.tsv.gz").exists()]


def test_counts_each_way():
    found, compared = {}, 0
    for capture in with_rows_of_tshark():
        differs, packets = differing(capture)
        compared += packets
        if differs:
            found[capture["path"]] = differs
    assert found == {name: what for name, (what, _) in EXCEPTIONS.items()}
    assert compared > 250_000


def test_every_syn_and_syn_ack_is_counted_somewhere():
    """By pair of ends: `syn_count`, `synack_count` and `odd_syns` together are all that tshark saw, exactly.

    Where both ends opened, no column counts the server's SYNs; those pairs are left out.
    """
    compared = 0
    for capture in with_rows_of_tshark():
        path = ROOT / capture["path"]
        theirs, undecoded, bad = tshark(capture["sha256"])
        ours, remarks = synfin(path)
        for way in {way for way, _ in ours} - undecoded - bad:
            back = way[2:] + way[:2]
            if remarks[way, "both_opened"] or (way > back and ours[back, "packets"]):
                continue
            kinds = [(w, what) for w in (way, back) for what in ("syn", "synack")]
            missing = sum(theirs[kind] - ours[kind] for kind in kinds) - remarks[way, "odd_syns"]
            assert missing == (sum(overruled(path)[kind] for kind in kinds) if missing else 0), (path, way)
            compared += sum(ours[kind] for kind in kinds)
    assert compared > 20_000
