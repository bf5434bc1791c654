"""What is tracked as usual, and what looks like it and is not: the rules must see it."""

from __future__ import annotations

import pytest

from dialogue import MS, SECOND, START, Captured, Dialogue, write_pcap
from rows import compare, fast
from synfin import schema
from synfin.settings import Settings


def test_in_order_but_beyond_the_window(tmp_path):
    """The window is 500 bytes and nothing is acknowledged: the segment at 600 is odd, and the next one goes on from it."""
    d = Dialogue()
    d.b.window = 500
    d.handshake()
    for _ in range(10):
        d.data(d.a, 100)
    path = write_pcap(tmp_path / "x.pcap", d.packets)
    assert compare([path]) == []
    ((row,), _, _) = fast([path])
    assert (row["odd_segments"], row["client_payload_bytes"], row["client_unique_bytes"]) == (1, 1000, 900)


#: Openings and closes whose segments are usual ones as long as nothing is changed: the end and the flags of each.
SCRIPTS = {
    "four segments": "aS bSA aA aPA bPA aFA bA bFA aA",
    "three segments": "aS bSA aA aPA bPA bFA aFA bA",
    "at the same time": "aS bSA aA aPA bPA aFA bFA aA bA",
    "half closed": "aS bSA aA aFA bA bPA aA bPA aA bFA aA",
    "nothing said": "aS bSA aA bFA aA aFA bA aA",
}
#: What one segment says otherwise than it should: relative sequence and acknowledgement numbers, or a fixed window, ...
CHANGES = {
    "as it is": {},
    "one byte ahead": {"seq": 1},
    "one byte behind": {"seq": -1},
    "acknowledges too much": {"ack": 1},
    "acknowledges too little": {"ack": -1},
    "zero window": {"window": 0},
    "another window": {"window": 777},
    "a byte of payload": {"payload": 1},
    "pushes": {"flags": "P"},
    "ends": {"flags": "F"},
    "earlier than the one before": {"earlier_by": 15 * MS},
    "at the time of the one before": {"earlier_by": 10 * MS},
    "again": {"times": 2},
    "lost": {"captured": False},
    "18 minutes later": {"later_by": 1_100 * SECOND},
}


def changed(script: str, place: int, change: dict, port: int, start: int, *, six: bool) -> list[Captured]:
    """The script with one segment changed; after a change of flags or payload the ends go on as if it had been so."""
    ips = {"a_ip": "2001:db8::1", "b_ip": "2001:db8::2"} if six else {}
    d = Dialogue(a_port=port, start=start, a_isn=2**32 - 1, **ips)
    for number, (end, *flags) in enumerate(script.split()):
        sender = getattr(d, end)
        how = change if number == place else {}
        d.wait(how.get("later_by", 0))
        given = {"window": how.get("window"), "captured": how.get("captured", True)}
        if "seq" in how:
            given["seq"] = ((sender.isn if "S" in flags else sender.nxt) + how["seq"]) % 2**32
        if "ack" in how and "A" in flags:
            given["ack"] = (d.peer(sender).nxt + how["ack"]) % 2**32
        if "earlier_by" in how:
            given["time"] = d.now + d.step - how["earlier_by"]
        payload = how.get("payload", 100 if "P" in flags else 0)
        sent = d.send(sender, "".join(sorted({*flags, *how.get("flags", "")})), payload, **given)
        d.packets += [sent] * (how.get("times", 1) - 1)
    return d.packets


@pytest.mark.parametrize("six", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=list(SCRIPTS))
def test_opening_and_close_with_one_segment_changed(tmp_path, script, six):
    """Tracked as usual, by the rules alone (with the optional columns), and by the slow tracker."""
    packets: list[Captured] = []
    port = 10_000
    for change in CHANGES.values():
        for place in range(len(script.split())):
            port += 1
            packets += changed(script, place, change, port, START + (port - 10_000) * SECOND, six=six)
    packets.sort(key=lambda packet: packet.time_ns)
    path = write_pcap(tmp_path / "x.pcap", packets)
    assert compare([path]) == []
    rules = [column.name for column in schema.FLOWS]
    assert fast([path])[2]["suspects"] == fast([path], columns=rules)[2]["suspects"]


def test_a_close_in_order_under_a_cap(tmp_path):
    """Where records also stand in the order of eviction, a close moves them in it: the same rows, and nothing is evicted."""
    path = write_pcap(tmp_path / "x.pcap", Dialogue().handshake().close().packets)
    assert compare([path], Settings(max_flows=2)) == []
    ((row,), _, stats) = fast([path], Settings(max_flows=2))
    assert (row["close"], row["end_reason"], stats["counts"]["evicted"]) == ("fin_4way", "fin", 0)
