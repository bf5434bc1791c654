"""What `synfin explain` says of captures, against `track`, the slow tracker, tcpdump, and dialogues."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dialogue import MS, SECOND, Dialogue, options, pcap_bytes, write_pcap
from explained import Explained, explained, states, words
from rows import fast
from synfin import schema
from synfin.explain.verdicts import VERDICTS, verdicts

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.pcap*"))
examples = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)


def one(tmp_path: Path, dialogue: Dialogue) -> Explained:
    """The only record of a dialogue."""
    (record,) = explained([write_pcap(tmp_path / "in.pcap", dialogue.packets)])
    return record


@examples
def test_the_row_is_track_s_and_every_packet_is_told(path):
    rows = {row["flow_id"]: row for row in fast([path])[0]}
    records = explained([path])
    assert {record.row["flow_id"]: record.row for record in records} == rows
    for record in records:
        assert len(record.steps) == record.row["client_packets"] + record.row["server_packets"]
        assert states(record)[-1] == (record.row["client_state"], record.row["server_state"])


@examples
def test_states_after_each_segment_are_the_slow_tracker_s(path):
    reference = pytest.importorskip("synfin.reference", reason="the slow tracker needs dpkt")
    ((_, packets),) = reference.read([path])
    for record in explained([path]):
        theirs = []
        for step in record.steps:
            rows = reference.track([(str(path), packets[: step.number])]).flows
            (row,) = (row for row in rows if row["flow_id"] == record.row["flow_id"])
            theirs.append((row["client_state"], row["server_state"]))
        assert states(record) == theirs


def tcpdump_lines(path: Path, folder: Path) -> dict[int, str]:
    """tcpdump's line for each packet, by number; times, and what follows the length, cut off."""
    tcpdump = shutil.which("tcpdump")
    if tcpdump is None:
        pytest.skip("tcpdump is not installed")
    if path.suffix == ".gz":
        (folder / "plain").write_bytes(gzip.decompress(path.read_bytes()))
        path = folder / "plain"
    run = subprocess.run([tcpdump, "-n", "-S", "-t", "-r", path], capture_output=True, text=True, check=True)
    lines = re.sub(r"\n[\t ]+", " ", run.stdout).splitlines()
    return {i: re.sub(r"(, length \d+).*", r"\1", line) for i, line in enumerate(lines, 1)}


def assert_like_tcpdump(path: Path, folder: Path) -> None:
    lines = tcpdump_lines(path, folder)
    for record in explained([path]):
        for facts in filter(lambda facts: facts["sender"], record.facts):
            assert facts["segment"].removesuffix(", DF") == lines[facts["packet"]]


@examples
def test_segments_are_written_as_tcpdump_writes_them(path, tmp_path):
    assert_like_tcpdump(path, tmp_path)


ODD_OPTIONS = [
    b"", b"\x01\x01\x01\x00", b"\x00\x01\x01\x01", options(fast_open=b""), options(fast_open=b"12345678"),
    options(mss=9, scale=15, sack=True, ts=(2**32 - 1, 0)), b"\x05\x0a" + bytes(8) + b"\x01\x01",
    b"\x05\x12" + bytes(range(16)) + b"\x01\x01", b"\xc8\x04\xab\xcd", b"\x06\x06abcd\x01\x01",
]  # fmt: skip


def test_flags_and_options_are_written_as_tcpdump_writes_them(tmp_path):
    d = Dialogue(a_isn=2**32 - 2)
    for opts in ODD_OPTIONS:
        d.send(d.a, "S", opts=opts, dont_fragment=False)
    for flags in ("", "F", "SA", "PA", "FPA", "RA", "EC", "SEC", "R"):
        d.send(d.a, flags, 3, seq=2**32 - 2)
    six = Dialogue(a_ip="2001:db8::1", b_ip="2001:db8:0:0:1::")
    six.handshake()
    assert_like_tcpdump(write_pcap(tmp_path / "odd.pcap", [*d.packets, *six.packets]), tmp_path)


def test_df_is_added(tmp_path):
    d = Dialogue()
    d.syn(d.a)
    d.syn(d.a, dont_fragment=False)
    assert [facts["segment"].endswith(", DF") for facts in one(tmp_path, d).facts] == [True, False]


# ------------------------------------------------------------------------------------------------ words


def test_a_close_in_four_segments(tmp_path):
    d = Dialogue().handshake()
    d.data(d.a, 100)
    d.data(d.b, 1000)
    d.close()
    record = one(tmp_path, d)
    assert words(record) == [
        "client opens with ISN 1000",
        "server answers with ISN 5000; acknowledges ISN 1000+1",
        "client acknowledges ISN 5000+1; the handshake is complete",
        "client sends 100 bytes, its first data",
        "server sends 1,000 bytes, its first data; acknowledges 100 bytes",
        "client closes (FIN); acknowledges 1,000 bytes",
        "server acknowledges the FIN",
        "server closes as well (FIN)",
        "client acknowledges the FIN; both FINs are acknowledged: closed; TIME-WAIT at the client",
    ]
    samples = [(sample["name"], sample["ns"], sample["quality"]) for facts in record.facts for sample in facts["rtt"]]
    assert samples == [
        ("rtt_server_ns", 10 * MS, "clean"), ("rtt_client_ns", 10 * MS, "clean"), ("server_rtt", 10 * MS, None),
        ("client_rtt", 10 * MS, None),
    ]  # fmt: skip


def test_a_merged_close(tmp_path):
    d = Dialogue().handshake()
    d.fin(d.b)
    d.fin(d.a)
    d.ack(d.b)
    assert words(one(tmp_path, d))[3:] == [
        "server closes (FIN)",
        "client closes: merged FIN+ACK; acknowledges the FIN",
        "server acknowledges the FIN; both FINs are acknowledged: closed; TIME-WAIT at the server",
    ]


def test_a_simultaneous_close_with_a_resent_fin(tmp_path):
    d = Dialogue().handshake()
    d.fin(d.a)
    d.fin(d.b, ack=1001)
    d.fin(d.a, seq=1001, ack=5001, step=SECOND)
    assert words(one(tmp_path, d))[3:] == [
        "client closes (FIN)",
        "server closes as well, without having acknowledged the other FIN: simultaneous close",
        "client resent FIN, 1.01 s after the first",
    ]


def test_a_refused_attempt_tried_again(tmp_path):
    d = Dialogue()
    d.syn(d.a)
    d.rst(d.b, extra="A")
    d.wait(500 * MS)
    d.syn(d.a)
    d.rst(d.b, extra="A")
    assert words(one(tmp_path, d)) == [
        "client opens with ISN 1000",
        "server refuses the attempt",
        "client resent SYN, 520 ms after the first, opens the failed attempt again",
        "server refuses the attempt",
    ]


def test_resent_openings(tmp_path):
    d = Dialogue()
    d.syn(d.a)
    d.syn(d.a, step=1020 * MS)
    d.synack(d.b)
    d.synack(d.b, step=SECOND)
    d.synack(d.b, seq=7000)
    d.ack(d.a)
    assert words(one(tmp_path, d)) == [
        "client opens with ISN 1000",
        "client resent SYN, 1.02 s after the first",
        "server answers with ISN 5000; acknowledges ISN 1000+1",
        "server resent SYN-ACK, 1 s after the first",
        "server answers again, with another ISN: 7000",
        "client acknowledges ISN 7000+1; the handshake is complete",
    ]


def test_a_simultaneous_open(tmp_path):
    d = Dialogue()
    d.syn(d.a)
    d.syn(d.b)
    d.synack(d.a)
    d.synack(d.b)
    assert words(one(tmp_path, d)) == [
        "client opens with ISN 1000",
        "server opens as well, with ISN 5000: simultaneous open",
        "client answers the other SYN (SYN-ACK with its own ISN 1000); acknowledges ISN 5000+1",
        "server answers the other SYN (SYN-ACK with its own ISN 5000); acknowledges ISN 1000+1; the handshake is complete",
    ]


def test_a_held_syn_that_is_proven(tmp_path):
    d = Dialogue().handshake()
    d.syn(d.a, seq=9000)
    d.syn(d.a, seq=9000, step=SECOND)
    d.synack(d.b, seq=20000, ack=9001)
    old, new = explained([write_pcap(tmp_path / "in.pcap", d.packets)])
    assert words(old)[3:] == [
        "client held beside the record: ISN 9000 is not this connection's, and nothing proves yet that it opens another",
        "client the held SYN again, 1 s after the first: still held",
    ]
    assert states(old)[3:] == [("ESTABLISHED", "ESTABLISHED")] * 2
    assert words(new) == [
        "server proves the held SYN (packet 4): a new record begins with it (2 SYNs); answers with ISN 20000; "
        "acknowledges ISN 9000+1"
    ]
    assert states(new) == [("SYN-SENT", "SYN-RECEIVED")]
    assert (old.row["end_reason"], new.row["syn_count"], new.row["first_packet"]) == ("reuse", 2, 4)


def test_resets_that_are_rejected(tmp_path):
    d = Dialogue()
    d.syn(d.a)
    d.rst(d.b, extra="A", ack=1000)
    d.synack(d.b)
    d.ack(d.a, window=1000)
    d.data(d.a, 10)
    d.rst(d.b, seq=6001)
    d.rst(d.b, seq=4000)
    d.rst(d.b, seq=6000)
    assert words(one(tmp_path, d))[1:] == [
        "server RST rejected: its ACK does not cover the SYN",
        "server answers with ISN 5000; acknowledges ISN 1000+1",
        "client acknowledges ISN 5000+1; the handshake is complete",
        "client sends 10 bytes, its first data",
        "server resets the connection",
        "server after the close; RST rejected: SEQ is not the client's highest ACK 5001, and lies below what its sender "
        "has sent",
        "server after the close; a further RST",
    ]


def test_where_a_rejected_reset_lies(tmp_path):
    d = Dialogue(a_isn=1000)
    d.a.window = 1000
    d.handshake()
    d.rst(d.b, seq=6001)
    d.rst(d.b, seq=4901)
    assert words(one(tmp_path, d))[3:] == [
        "server RST rejected: SEQ lies 1 byte beyond the client's window of 1,000 bytes",
        "server RST rejected: SEQ is not the client's highest ACK 5001, and lies below what its sender has sent",
    ]


def test_data_that_is_lost_resent_and_out_of_order(tmp_path):
    d = Dialogue().handshake()
    d.data(d.a, 100, captured=False)
    d.data(d.a, 100)
    d.ack(d.b, ack=1001)
    d.ack(d.b, ack=1001)
    d.data(d.a, 100, seq=1001)
    d.data(d.a, 250, seq=1001)
    d.ack(d.b, window=0)
    d.keep_alive(d.a)
    d.ack(d.b)
    assert words(one(tmp_path, d))[3:] == [
        "client sends 100 bytes, its first data; leaves a gap of 100 bytes that the tap has not seen so far (1001:1101)",
        "server duplicate ACK",
        "server duplicate ACK",
        "client sends 100 bytes that fill a gap",
        "client resends 200 bytes, sends 50 new bytes",
        "server acknowledges 250 bytes; window 0",
        "client keep-alive",
        "server opens its window again",
    ]


def test_segments_that_do_not_fit(tmp_path):
    d = Dialogue()
    d.syn(d.a)
    d.ack(d.b, ack=77)
    d.synack(d.b, ack=77)
    d.synack(d.b)
    d.ack(d.a)
    d.data(d.b, 10, seq=5001 + 65535 + 3)
    d.data(d.b, 10, seq=5001 - 65535 - 13)
    assert words(one(tmp_path, d))[1:] == [
        "server does not fit an attempt, in which only an ACK of exactly the SYN does: changes nothing",
        "server not acceptable: acknowledges 77, the client's ISN is 1000; changes nothing",
        "server answers with ISN 5000; acknowledges ISN 1000+1",
        "client acknowledges ISN 5000+1; the handshake is complete",
        "server not acceptable: begins 3 bytes beyond the client's window; changes nothing",
        "server not acceptable: ends 3 bytes below the client's window; changes nothing",
    ]


def test_what_the_tap_missed(tmp_path):
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b, captured=False)
    d.data(d.a, 10)
    late = Dialogue(a_port=40001, start=d.now)
    late.synack(late.b, ack=1001)
    late.a.nxt = 1001
    late.data(late.b, 10)
    late.data(late.a, 10)
    late.syn(late.a)
    first, second = explained([write_pcap(tmp_path / "in.pcap", [*d.packets, *late.packets])])
    assert words(first)[1] == (
        "client goes on just after its SYN: the handshake was completed, though no SYN-ACK was captured; "
        "sends 10 bytes, its first data"
    )
    assert words(second)[:2] == [
        "server begins the record: its SYN was not seen; answers with ISN 5000",
        "server goes on: the handshake was completed, though the client's ACK was not captured; "
        "sends 10 bytes, its first data",
    ]


def test_a_record_that_is_turned_round(tmp_path):
    d = Dialogue(a_port=61000, b_port=61001)
    d.b.nxt, d.a.nxt = 5001, 1001
    d.data(d.b, 10)
    d.data(d.a, 10)
    d.syn(d.a)
    record = one(tmp_path, d)
    assert record.row["direction"] == "syn" and record.row["client_port"] == 61000
    assert [facts["sender"] for facts in record.facts] == ["server", "client", "client"]
    assert (
        words(record)[0]
        == "server no opening was seen (client and server by the rule first_packet); sends 10 bytes, its first data"
    )
    assert words(record)[2] == (
        "client tells who the client is (syn); comes late: its ISN 1000 is just before where the stream began, so it "
        "opened this record"
    )


def test_a_record_that_is_turned_round_keeps_its_ends_apart(tmp_path):
    d = Dialogue(a_port=61000, b_port=61001)
    d.b.nxt, d.a.nxt = 5001, 1001
    d.fin(d.b, 10)
    d.ack(d.a)
    d.syn(d.a)
    record = one(tmp_path, d)
    assert states(record) == [("ESTABLISHED", "FIN-WAIT-1"), ("CLOSE-WAIT", "FIN-WAIT-2"), ("CLOSE-WAIT", "FIN-WAIT-2")]
    assert [[sample["name"] for sample in facts["rtt"]] for facts in record.facts] == [[], ["client_rtt"], []]
    assert [step.row["closer"] for step in record.steps] == ["server"] * 3


def test_each_sample_is_its_own(tmp_path):
    d = Dialogue().handshake()
    for wait in (1, 30, 7):
        d.data(d.a)
        d.ack(d.b, step=wait * MS)
    samples = [sample["ns"] for facts in one(tmp_path, d).facts[3:] for sample in facts["rtt"]]
    assert samples == [1 * MS, 30 * MS, 7 * MS]


# ------------------------------------------------------------------------------------------------ verdicts


@examples
def test_every_verdict_is_of_the_row(path):
    for record in explained([path]):
        said = verdicts(record.row)
        assert {"direction", "handshake", "client_state", "end_reason"} <= {verdict["column"] for verdict in said}
        assert all(verdict["value"] == record.row[verdict["column"]] for verdict in said)
        assert (record.row["close"] is None) == ("close" not in {verdict["column"] for verdict in said})


def test_every_value_of_an_enumeration_has_its_words():
    kinds = {column.name: column.kind.removeprefix("enum:") for column in schema.FLOWS}
    empty = dict.fromkeys(kinds)
    for column, say, _ in VERDICTS:
        if column in ("direction", "handshake", "close", "end_reason"):
            for value in schema.ENUMS[kinds[column]]:
                assert len(say({**empty, column: value}).split()) > 2, (column, value)


def test_verdicts_name_columns():
    assert {column for column, _, _ in VERDICTS} <= {column.name for column in schema.FLOWS}


def test_a_capture_that_repeats_itself_has_its_records_told_apart(tmp_path):
    d = Dialogue().handshake().close()
    path = tmp_path / "in.pcap"
    other = Dialogue(a_port=40001, start=d.now + 200 * SECOND)
    other.syn(other.a)
    path.write_bytes(pcap_bytes([*d.packets, *other.packets, *d.packets]))
    first, second, _ = explained([path])
    assert first.row["flow_id"] == second.row["flow_id"]
    assert (len(first.steps), len(second.steps)) == (7, 7)
    assert words(second)[0] == "client opens with ISN 1000"


def test_what_is_kept_aside_comes_back_in_order():
    from synfin.explain.render import Spool

    spool = Spool()
    texts = ["ä" * 3, "", "second\n" * 1000, "µs"]
    places = [spool.put(text) for text in texts]
    assert [spool.get(place) for place in places] == texts
    assert spool.get(places[0]) == texts[0]
    assert spool.get(spool.put("last")) == "last"


#: Dialogues of which each rule of a kind speaks once: what is said of the last segment.
SINGLE = {
    "split": (lambda d: (d.syn(d.a), d.ack(d.b), d.syn(d.b)), "opens with ISN 5000 after a bare ACK: split handshake"),
    "data in a SYN": (
        lambda d: (d.syn(d.a, 100, opts=options(fast_open=b"12345678")), d.synack(d.b)),
        "answers with ISN 5000; acknowledges ISN 1000+1 and 100 bytes beyond it; accepts the SYN's data",
    ),
    "offers": (
        lambda d: d.syn(d.a, extra="EC", opts=options(mptcp=b"\x00\x01", fast_open=b"")),
        "opens with ISN 1000; a Fast Open cookie is asked for, ECN offered, Multipath TCP offered",
    ),
    "abort": (lambda d: (d.syn(d.a), d.rst(d.a)), "aborts the attempt"),
    "old SYN": (
        lambda d: (d.handshake().close(), d.syn(d.a)),
        "after the close; an old SYN: its ISN is known; changes nothing",
    ),
    "end of TIME-WAIT": (
        lambda d: (d.handshake().close(), d.rst(d.b)),
        "after the close; a further RST; ends TIME-WAIT (reset)",
    ),
    "reset after FIN": (lambda d: (d.handshake(), d.fin(d.a), d.rst(d.b)), "resets the connection after a FIN"),
    "half-closed data": (
        lambda d: (d.handshake(), d.fin(d.a), d.ack(d.b), d.data(d.b, 7)),
        "sends 7 bytes, its first data",
    ),
    "data with FIN": (
        lambda d: (d.handshake(), d.fin(d.a, 7)),
        "sends 7 bytes, its first data; closes (FIN)",
    ),
    "swapped FINs": (
        lambda d: (d.handshake(), d.fin(d.b, ack=1002), d.fin(d.a, seq=1001, ack=5001)),
        "closes (FIN); it was sent before the other end's, which acknowledges it: the tap swapped them; "
        "its acknowledgement came to the tap before it",
    ),
    "ACK beyond": (
        lambda d: (d.handshake(), d.data(d.a, 100), d.ack(d.b, ack=1151)),
        "acknowledges 150 bytes, 50 of them not captured so far",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SINGLE)
def test_what_one_segment_did(tmp_path, name):
    play, said = SINGLE[name]
    d = Dialogue()
    play(d)
    assert words(one(tmp_path, d))[-1].partition(" ")[2] == said
