"""A handful of simple real captures: the slow tracker's rows against what tshark says of the same file.

The captures and tshark's rows (``ref/<sha256>.tsv.gz``) lie in the folder that SYNFIN_CAPTURES names.
"""

import csv
import gzip
import hashlib
import ipaddress
import os
from collections import Counter
from pathlib import Path

import pytest

from synfin.reference import read, track

FOLDER = os.environ.get("SYNFIN_CAPTURES")
pytestmark = pytest.mark.skipif(not FOLDER, reason="SYNFIN_CAPTURES names no folder of captures")

# What each is for: cut packets, offload, sequence wrap, extension headers, link layers, resends, resets, half-open.
CAPTURES = (
    "LibtraceTeam+libtrace/traces__100_packets.pcapng",
    "jmhIcoding+flowcontainer/ssh.pcap",
    "seladb+PcapPlusPlus/Tests__Pcap++Test__PcapExamples__one_tcp_stream_max_seq.pcap",
    "zeek+zeek/ipv6-http-atomic-frag.pcap",
    "google+gopacket/pcap__test_loopback.pcap",
    "CESNET+ipfixprobe/functional__inputs__mqtt.pcap",
    "simsong+tcpflow/bug8.pcap",
    "cisagov+icsnpp-opcua-binary/pcaps__open62541_discover_getendpoints_discover_urls.pcap",
    "emanuele-f+PCAPdroid/app__src__main__jni__tests__pcap__metadata.pcap",
    "EricssonResearch+spindump/trace_tcp_short_sack.pcap",
    "idlab-discover+RustiFlow/rustiflow__tests__data__nmap_tcp_syn_version.pcap",
    "skydive-project+skydive/flow__pcaptraces__eth-ipv4-tcp-http-ooo.pcap",
    "deepflowio+deepflow/datatype__meta_packet_test.pcap",
    "blitz+tcptrace/input__bad_ack_code.dmp.gz",
)
COUNTS = {"packets": "pkts", "payload_bytes": "bytes", "fin_count": "fin", "rst_count": "rst"}


def end(address: str, port: str) -> tuple[str, int]:
    return str(ipaddress.ip_address(address)), int(port)


def tshark(path: Path) -> list[dict]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with gzip.open(Path(FOLDER) / "ref" / f"{digest}.tsv.gz", "rt") as lines:
        rows = csv.DictReader((line for line in lines if not line.startswith("#")), delimiter="\t")
        return [row for row in rows if row["layer"] == "seg"]


@pytest.mark.parametrize("name", CAPTURES)
def test_counts_of_each_end_equal_tshark_s(name):
    path = Path(FOLDER) / name
    found = track(read([path]))
    assert found.packets == sum(r["client_packets"] + r["server_packets"] for r in found.flows) + sum(
        found.skips.values()
    )
    ours, theirs = Counter(), Counter()
    for row in found.flows:
        ends = [(row[f"{side}_ip"], row[f"{side}_port"]) for side in ("client", "server")]
        for side, this, other in (("client", *ends), ("server", *reversed(ends))):
            for column in COUNTS:
                ours[this, other, column] += row[f"{side}_{column}"]
    for row in tshark(path):
        ends = [end(row["src"], row["sport"]), end(row["dst"], row["dport"])]
        for side, this, other in (("a", *ends), ("b", *reversed(ends))):
            for column, theirs_name in COUNTS.items():
                theirs[this, other, column] += int(row[f"{theirs_name}_{side}"] or 0)
    assert +ours == +theirs
    assert ours


@pytest.mark.parametrize("name", CAPTURES)
def test_syns_equal_tshark_s_where_both_see_one_connection(name):
    streams = {}
    for row in tshark(Path(FOLDER) / name):
        pair = frozenset((end(row["src"], row["sport"]), end(row["dst"], row["dport"])))
        streams.setdefault(pair, []).append(row)
    rows = {}
    for row in track(read([Path(FOLDER) / name])).flows:
        pair = frozenset(((row["client_ip"], row["client_port"]), (row["server_ip"], row["server_port"])))
        rows.setdefault(pair, []).append(row)
    for pair, (row, *more) in rows.items():
        if more or len(streams[pair]) > 1 or row["syn_count"] == 0:
            continue
        stream = streams[pair][0]
        sides = "ab" if end(stream["src"], stream["sport"]) == (row["client_ip"], row["client_port"]) else "ba"
        for name_, side in (("client", sides[0]), ("server", sides[1])):
            for column, theirs in (("isn", "isn"), ("mss", "mss"), ("window_scale", "ws")):
                expected = int(stream[f"{theirs}_{side}"]) if stream[f"{theirs}_{side}"] else None
                assert row[f"{name_}_{column}"] == expected, (pair, column)
        assert row["syn_count"] == int(stream[f"syn_{sides[0]}"])
