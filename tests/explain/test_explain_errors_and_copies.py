"""What `synfin explain` says of ICMP errors and of capture duplicates."""

from __future__ import annotations

import pytest

from dialogue import MS, SECOND, Captured, Dialogue, write_pcap
from explained import explained, words
from synfin.settings import Settings


def said(tmp_path, dialogue: Dialogue, settings: Settings | None = None) -> tuple[dict, list[str]]:
    (record,) = explained([write_pcap(tmp_path / "in.pcap", dialogue.packets)], settings)
    return record.row, words(record)


def test_an_error_that_quotes_the_syn(tmp_path):
    d = Dialogue()
    syn = d.syn(d.a)
    d.icmp(syn, 3, 1)
    d.icmp(syn, 3, 13)
    (record,) = explained([write_pcap(tmp_path / "in.pcap", d.packets)])
    assert (record.row["handshake"], record.row["icmp_errors"], len(record.steps)) == ("unreachable", 2, 1)
    _, first, second = record.facts
    assert first["segment"] == (
        "IP 10.0.0.254 > 10.0.0.1: ICMP host unreachable [3/1], about 10.0.0.1.40000 > 10.0.0.2.80, seq 1000"
    )
    assert (first["packet"], first["sender"], first["client_state"]) == (2, None, "SYN-SENT")
    assert [word["rule"] for facts in (first, second) for word in facts["words"]] == ["icmp_unreachable"] * 2
    assert "prohibited by a filter [3/13]" in second["segment"]
    assert words(record)[1:] == [
        "ICMP the client's SYN did not arrive: unreachable, unless something answers it yet",
        "ICMP the client's SYN did not arrive, as was said before",
    ]


def test_ipv6(tmp_path):
    d = Dialogue(a_ip="2001:db8::1", b_ip="2001:db8::2")
    d.icmp(d.syn(d.a), 1, 0)
    (record,) = explained([write_pcap(tmp_path / "in.pcap", d.packets)])
    assert record.facts[1]["segment"] == (
        "IP6 2001:db8::ffff > 2001:db8::1: ICMP6 no route [1/0], about 2001:db8::1.40000 > 2001:db8::2.80, seq 1000"
    )


def test_an_error_in_a_connection_is_counted_and_no_more(tmp_path):
    d = Dialogue().handshake()
    d.icmp(d.data(d.a, 1448), 3, 4)
    row, lines = said(tmp_path, d)
    assert row["icmp_errors"] == 1
    assert lines[-1] == "ICMP quotes what the client had in flight: counts in icmp_errors and changes nothing else"


@pytest.mark.parametrize(
    ("seq", "why"),
    [(1201, "100 bytes beyond what the client has sent"), (1001, "100 bytes below what the server has acknowledged")],
)
def test_an_error_that_is_rejected_says_why(tmp_path, seq, why):
    d = Dialogue().handshake()
    d.data(d.a, 100)
    d.ack(d.b)
    d.icmp(d.send(d.a, "A", seq=seq, captured=False))
    row, lines = said(tmp_path, d)
    assert row["icmp_errors"] == 0
    assert lines[-1] == f"ICMP not counted: quotes SEQ {seq}, {why}; changes nothing"


def test_an_error_below_the_isn(tmp_path):
    d = Dialogue()
    d.syn(d.a)
    d.icmp(d.send(d.a, "S", seq=998, captured=False))
    assert (
        said(tmp_path, d)[1][-1] == "ICMP not counted: quotes SEQ 998, 2 bytes below the client's ISN; changes nothing"
    )


def test_an_error_about_other_ends_is_not_told(tmp_path):
    d, other = Dialogue(), Dialogue(a_port=40001)
    d.syn(d.a)
    d.packets.append(other.icmp(other.syn(other.a)))
    assert len(said(tmp_path, d)[1]) == 1


def again(packet: Captured, after: int) -> Captured:
    """The packet behind one more router."""
    data = bytearray(packet.data)
    data[14 + 8] -= 1
    return Captured(packet.time_ns + after, bytes(data))


@pytest.fixture
def mirrored() -> Dialogue:
    """A connection of which the server's packets are captured twice."""
    d = Dialogue().handshake()
    d.data(d.a, 100)
    d.ack(d.b)
    first, second = d.packets[1], d.packets[4]
    d.packets[2:2] = [again(first, MS)]
    d.packets.append(again(second, 2 * MS))
    return d


def test_copies_that_are_counted_are_told_with_their_original(tmp_path, mirrored):
    row, lines = said(tmp_path, mirrored, Settings(duplicates="count"))
    assert (row["server_packets"], row["server_capture_duplicates"], row["synack_count"]) == (4, 2, 1)
    told = "counts in packets, ip_bytes and capture_duplicates only"
    assert [(place, line) for place, line in enumerate(lines, 1) if "copy" in line] == [
        (3, f"server a copy of packet 2: {told}"), (7, f"server a copy of packet 6: {told}"),
    ]  # fmt: skip


def test_copies_that_are_dropped_are_not_told(tmp_path, mirrored):
    (record,) = explained([write_pcap(tmp_path / "in.pcap", mirrored.packets)], Settings(duplicates="drop"))
    assert [step.number for step in record.steps] == [1, 2, 4, 5, 6]


def test_copies_that_are_kept_are_segments_like_others(tmp_path, mirrored):
    _, lines = said(tmp_path, mirrored)
    assert lines[2] == "server resent SYN-ACK, 1 ms after the first" and lines[6] == "server acknowledges nothing new"


def test_a_copy_from_another_interface_names_the_file(tmp_path):
    d = Dialogue().handshake()
    paths = [
        write_pcap(tmp_path / name, [p._replace(time_ns=p.time_ns + late) for p in d.packets])
        for name, late in (("a.pcap", 0), ("b.pcap", MS))
    ]
    (record,) = explained(paths, Settings(duplicates="count"))
    assert words(record)[1].startswith(f"client a copy of packet 1 of {paths[0]}: ")


def test_a_late_error(tmp_path):
    d = Dialogue()
    syn = d.syn(d.a)
    d.wait(75 * SECOND - d.step)
    d.icmp(syn)
    assert said(tmp_path, d)[1][-1] == "ICMP not counted: it came after the record's deadline; changes nothing"
