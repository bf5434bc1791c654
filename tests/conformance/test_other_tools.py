"""The optional columns that say what Zeek, Wireshark and Community ID say, case by case from those tools' rules."""

from __future__ import annotations

import pytest

import synfin
from dialogue import MS, SECOND, Dialogue, snap, write_pcap
from rows import fast, slow
from synfin import schema

EVERY = [column.name for column in schema.FLOWS]


def asked(tmp_path, packets) -> list[dict]:
    """The rows with every column, in the order of their first packets; core and slow tracker must agree."""
    path = write_pcap(tmp_path / "a.pcap", packets)
    rows = sorted(fast([path], columns=EVERY)[0], key=lambda row: row["first_packet"])
    assert rows == sorted(slow([path])[0], key=lambda row: row["first_packet"])
    return rows


def complete(d):
    d.handshake()
    d.data(d.a, 100)
    d.ack(d.b)
    d.data(d.b, 200)
    d.ack(d.a)
    d.close()


def refused(d):
    d.syn(d.a)
    d.rst(d.b, extra="A", seq=0)


def refused_bare(d):
    d.syn(d.a)
    d.rst(d.b, seq=0)


def unanswered(d):
    for _ in range(3):
        d.syn(d.a)
        d.wait(SECOND)


def resent_syn(d):
    d.syn(d.a)
    d.wait(SECOND)
    d.handshake()


def reset_by_client(d):
    d.handshake()
    d.rst(d.a)


def reset_by_server(d):
    d.handshake()
    d.rst(d.b)


def given_up_by_client(d):
    d.syn(d.a)
    d.rst(d.a)


def fin_after_syn(d):
    d.syn(d.a)
    d.fin(d.a, ack=0)


def client_half_closed(d):
    d.handshake()
    d.fin(d.a)
    d.ack(d.b)


def server_half_closed(d):
    d.handshake()
    d.fin(d.b)
    d.ack(d.a)


def zero_windows(d):
    d.handshake()
    for _ in range(11):
        d.ack(d.a, window=0)


def resends(d):
    d.handshake()
    for _ in range(11):
        d.data(d.a, 100, seq=d.a.isn + 1)


def gap(d):
    d.handshake()
    d.data(d.a, 100, captured=False)
    d.data(d.a, 100)
    d.ack(d.b)


def two_gaps(d):
    d.handshake()
    for lost in (True, False, True, False):
        d.data(d.b, 100, captured=not lost)
    for _ in range(2):
        d.ack(d.a)


def filled_in_time(d):
    d.handshake()
    first = d.b.nxt
    d.data(d.b, 100, captured=False)
    d.data(d.b, 100)
    d.data(d.b, 100, seq=first)
    d.ack(d.a)


def no_syn(d):
    d.syn(d.a, captured=False)
    d.synack(d.b)
    d.ack(d.a)


def server_first(d):
    d.syn(d.a, captured=False)
    d.synack(d.b, captured=False)
    d.data(d.b)
    d.data(d.a)


def fin_and_rst(d):
    d.handshake()
    d.send(d.a, "FRA")


def syn_and_fin(d):
    d.send(d.a, "SF")


def split(d):
    d.syn(d.a)
    d.ack(d.b)
    d.synack(d.b)
    d.ack(d.a)


#: Dialogue: conn_state, history, completeness, initial RTT in ms.
CASES = {
    complete: ("SF", "ShADadFf", 31, 20),
    refused: ("REJ", "Sr", 37, 10),
    refused_bare: ("REJ", "Sr", 33, None),
    unanswered: ("S0", "S", 1, None),
    resent_syn: ("S1", "ShA", 7, 20),
    reset_by_client: ("RSTO", "ShAR", 39, 20),
    reset_by_server: ("RSTR", "ShAr", 39, 20),
    given_up_by_client: ("RSTOS0", "SR", 33, None),
    fin_after_syn: ("SH", "SF", 21, 10),
    client_half_closed: ("S2", "ShAFa", 23, 20),
    server_half_closed: ("S3", "ShAf", 23, 20),
    zero_windows: ("S1", "ShAWW", 7, 20),
    resends: ("S1", "ShADTT", 15, 20),
    gap: ("S1", "ShADaG", 15, 20),
    two_gaps: ("S1", "ShAdg", 15, 20),
    filled_in_time: ("S1", "ShAdt", 15, 20),
    no_syn: ("S1", "^hA", 4, None),
    server_first: ("OTH", "^dD", 8, None),
    fin_and_rst: ("RSTO", "ShAI", 55, 20),
    syn_and_fin: ("SH", "Q", 1, None),
    split: ("S1", "SahA", 7, 10),
}


@pytest.mark.parametrize("say", CASES, ids=lambda say: say.__name__)
def test_as_the_tools_say_it(tmp_path, say):
    d = Dialogue()
    say(d)
    (row,) = asked(tmp_path, d.packets)
    state, history, completeness, rtt = CASES[say]
    assert (row["zeek_conn_state"], row["zeek_history"]) == (state, history)
    assert row["wireshark_completeness"] == completeness
    assert row["wireshark_initial_rtt_ns"] == (None if rtt is None else rtt * MS)


def test_syn_and_syn_ack_in_the_wrong_order_change_places(tmp_path):
    d = Dialogue(b_port=9999)  # no port of a server to Zeek: the first packet's sender is the originator at first
    d.handshake()
    d.packets[:2] = [
        d.packets[1]._replace(time_ns=d.packets[0].time_ns),
        d.packets[0]._replace(time_ns=d.packets[1].time_ns),
    ]
    (row,) = asked(tmp_path, d.packets)
    assert (row["zeek_conn_state"], row["zeek_history"]) == ("S1", "Hs^A")


def test_payload_that_the_snap_length_cut_is_a_gap(tmp_path):
    d = Dialogue()
    d.handshake()
    d.data(d.a, 1000)
    d.ack(d.b)
    assert asked(tmp_path, d.packets)[0]["zeek_history"] == "ShADa"
    assert asked(tmp_path, snap(d.packets, 60))[0]["zeek_history"] == "ShADaG"


def test_history_ends_after_64_letters(tmp_path):
    d = Dialogue()
    d.handshake()
    for number in range(70):
        d.rst(d.a, seq=d.a.nxt + number)
    (row,) = asked(tmp_path, d.packets)
    assert row["zeek_history"] == "ShA" + 61 * "R"


def test_many_pieces_out_of_order(tmp_path):
    """More than are remembered, from above and from below: both trackers forget the same."""
    for order in (range(1, 60, 2), range(59, 0, -2), [*range(1, 60, 4), *range(3, 60, 4), *range(0, 60, 8)]):
        d = Dialogue()
        d.handshake()
        start = d.b.nxt
        for number in order:
            d.data(d.b, 100, seq=start + 100 * number)
        d.ack(d.a, ack=start + 3000)
        d.ack(d.a, ack=start + 6000)
        (row,) = asked(tmp_path, d.packets)
        assert row["zeek_history"].startswith("ShAd") and "g" in row["zeek_history"]


@pytest.mark.parametrize("proven", [False, True])
def test_a_held_syn_belongs_to_the_record_that_it_turns_out_to_be_of(tmp_path, proven):
    """With the SYN in it, Zeek takes the old connection's further payload for resent; without, it does not."""
    d = Dialogue()
    d.handshake()
    d.data(d.a, 100)
    d.syn(d.a, seq=d.a.isn + 100_000)
    d.data(d.a, 100, seq=d.a.isn + 101)
    if not proven:
        (row,) = asked(tmp_path, d.packets)
        assert (row["odd_syns"], row["zeek_history"]) == (1, "ShADT")
        return
    d.reborn(a_isn=d.a.isn + 100_000, b_isn=900_000)
    d.a.nxt += 1
    d.synack(d.b)
    d.ack(d.a)
    old, new = asked(tmp_path, d.packets)
    assert (old["zeek_history"], old["wireshark_completeness"]) == ("ShAD", 15)
    assert (new["zeek_conn_state"], new["zeek_history"], new["wireshark_completeness"]) == ("S1", "ShA", 7)
    assert new["wireshark_initial_rtt_ns"] == 30 * MS


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [  # the vectors of the Community ID specification
        (("128.232.110.120", 34855), ("66.35.250.204", 80), "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
        (("1.2.3.4", 1122), ("5.6.7.8", 3344), "1:wCb3OG7yAFWelaUydu0D+125CLM="),
    ],
)
def test_community_id(tmp_path, a, b, expected):
    for one, other in ((a, b), (b, a)):
        d = Dialogue(a_ip=one[0], a_port=one[1], b_ip=other[0], b_port=other[1]).handshake()
        assert asked(tmp_path, d.packets)[0]["community_id"] == expected


def test_community_id_of_ipv6_and_of_equal_addresses(tmp_path):
    for ends in (("2001:db8::2", "2001:db8::1"), ("10.0.0.1", "10.0.0.1")):
        one = asked(tmp_path, Dialogue(a_ip=ends[0], b_ip=ends[1]).handshake().packets)
        other = asked(tmp_path, Dialogue(a_ip=ends[1], b_ip=ends[0], a_port=80, b_port=40000).handshake().packets)
        assert one[0]["community_id"] == other[0]["community_id"]


def test_nothing_is_kept_for_them_unless_they_are_asked_for(tmp_path):
    path = write_pcap(tmp_path / "a.pcap", Dialogue().handshake().packets)
    rows, _, stats = fast([path])
    assert {column.name for column in schema.FLOWS if column.optional}.isdisjoint(rows[0])
    assert stats["memory"]["others"] == stats["memory"]["held_others"] == 0
    _, _, stats = fast([path], columns=["community_id"])
    assert stats["memory"]["others"] == 0
    _, _, stats = fast([path], columns=["zeek_history"])
    assert stats["memory"]["others"] > 0


def test_in_python(tmp_path):
    path = write_pcap(tmp_path / "a.pcap", Dialogue().handshake().packets)
    table = synfin.read(path, columns=["+zeek_history", "community_id"])
    assert table.schema.names == [*schema.default_names("flows"), "zeek_history", "community_id"]
    assert table["zeek_history"].to_pylist() == ["ShA"]
    for batch in synfin.scan(path, columns=["zeek_conn_state", "community_id"], profile="lakehouse"):
        assert batch.to_pylist() == [{"zeek_conn_state": "S1", "community_id": table["community_id"][0].as_py()}]
