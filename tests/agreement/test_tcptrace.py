"""`synfin verify` beside tcptrace: what it reads of tcptrace's text, and what it must not explain away."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
from suite import settled

from synfin.verify import run, tools
from synfin.verify.lives import Life, synfin_rows
from synfin.verify.tcptrace import tcptrace
from synfin.verify.tcptrace_rules import Header, Rules

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LOSS = ("14-resends.pcap", "15-resends-behind-loss.pcap")
needs_tcptrace = pytest.mark.skipif(tools.version(tools.TCPTRACE) is None, reason="tcptrace is not on the PATH")


def unexplained(path: Path) -> list[tuple]:
    joined = settled(str(path), run.with_tcptrace(str(path), synfin_rows(str(path)).lives))
    return [(one.column, one.way, one.ours, one.theirs) for one in joined.differences if not one.explained]


@needs_tcptrace
@pytest.mark.parametrize("name", LOSS)
def test_real_loss_by_packets(name):
    """Packets, bytes and instants are equal; so is every resend, for resends here are of payload."""
    path = str(EXAMPLES / name)
    joined = settled(path, run.with_tcptrace(path, synfin_rows(path).lives))
    assert joined.matched == joined.mine == joined.others == 1
    exact = ("packets", "payload_bytes", "first_seen", "last_seen", "retransmitted", "out_of_order", "syns", "mss")
    assert {column: joined.equal[column] for column in exact} == {column: joined.compared[column] for column in exact}
    assert unexplained(EXAMPLES / name) == []


@needs_tcptrace
@pytest.mark.parametrize(
    "column", ["packets", "payload_bytes", "syns", "retransmitted", "out_of_order", "zero_windows"]
)
@pytest.mark.parametrize("name", LOSS)
def test_a_changed_count_is_unexplained(monkeypatch, name, column):
    def doctored(path: str) -> list[Life]:
        lives = tcptrace(path)
        lives[0].ways[0][column] += 1
        return lives

    monkeypatch.setattr(run, "tcptrace", doctored)
    assert [one[0] for one in unexplained(EXAMPLES / name)] == [column]


@needs_tcptrace
@pytest.mark.parametrize(("column", "value"), [("rtt_min", "7.7"), ("rtt_syn", "7.7"), ("rtt_samples", 77), ("mss", 1)])
def test_a_changed_value_is_unexplained(monkeypatch, column, value):
    def doctored(path: str) -> list[Life]:
        lives = tcptrace(path)
        lives[0].ways[0][column] = value
        return lives

    monkeypatch.setattr(run, "tcptrace", doctored)
    assert [one[0] for one in unexplained(EXAMPLES / "20-close-4way.pcap")] == [column]


A, B = (bytes(4), 1), (bytes(4), 2)


def header(number: int, src, flags: int, seq: int, ack: int, *, length: int = 0, window: int = 100) -> Header:
    """One packet a millisecond."""
    return Header(number, number * 10**6, src, B if src == A else A, flags, seq % 2**32, ack, length, window)


def test_rules_of_resends_holes_and_round_trips():
    """A loss: the second of three segments is missing, comes late, and is sent again; the sequence numbers wrap."""
    start = 2**32 - 50
    packets = [
        header(1, A, 2, start - 1, 0), header(2, B, 18, 500, start), header(3, A, 16, start, 501),
        header(4, A, 24, start, 501, length=100), header(5, A, 24, start + 200, 501, length=100), header(7, B, 16, 501, 50),
        header(9, A, 24, start + 100, 501, length=100), header(10, A, 24, start + 100, 501, length=100),
        header(14, B, 16, 501, 250), header(20, A, 24, start + 300, 501, length=10), header(23, B, 16, 501, 260, window=0),
        header(24, A, 16, start + 310, 501, length=1), header(25, A, 16, start + 310, 501, length=1),
    ]  # fmt: skip
    rules = Rules((A, B))
    marks = {one.number: rules.take(one) for one in packets}
    assert {number: set(found) for number, found in marks.items() if found} == {
        9: {"out_of_order"}, 10: {"retransmission"}, 23: {"zero_window"},
    }  # fmt: skip
    sender = rules.senders[A]
    assert (sender.samples, sender.syn_sample) == (3, 10**6)  # the SYN, the first segment, the one after the loss
    assert (sender.smallest, sender.largest) == (10**6, 3 * 10**6)


def row(**changed: str) -> dict[str, str]:
    """A row as tcptrace prints it, as far as it is read."""
    values = {"conn_#": "1", "host_a": ":0001", "host_b": "2001:0db8::5", "port_a": "40000", "port_b": "80"}
    values |= {"first_packet": "1700000000.5", "last_packet": "1700000001.012345"}
    for way in ("a2b", "b2a"):
        for name in (
            "total_packets",
            "actual_data_bytes",
            "resets_sent",
            "rexmt_data_pkts",
            "outoforder_pkts",
            "zero_win_adv",
        ):
            values[f"{name}_{way}"] = "3"
        for name in ("RTT_samples", "RTT_min", "RTT_max", "RTT_from_3WHS"):
            values[f"{name}_{way}"] = "2"
        values |= {f"SYN/FIN_pkts_sent_{way}": "1/2", f"req_1323_ws/ts_{way}": "Y/N", f"adv_wind_scale_{way}": "7"}
        values |= {f"req_sack_{way}": "Y", f"mss_requested_{way}": "4294967255"}
    return values | changed


def test_oddities_of_the_text_are_undone(monkeypatch):
    values = row()
    printed = f"# one connection\n{','.join(values)}\n\n{' ,  '.join(values.values())}\n"
    monkeypatch.setattr("synfin.verify.tcptrace.run", lambda _: printed)
    (life,) = tcptrace("capture.pcap")
    assert life.pair == ((ip_address("::1").packed, 40000), (ip_address("2001:db8::5").packed, 80))
    assert life.whole["first_seen"] == 1_700_000_000_000_005_000  # five microseconds, not half a second
    assert life.whole["last_seen"] == 1_700_000_001_012_345_000
    assert (life.ways[0]["mss"], life.ways[0]["window_scale"], life.ways[0]["timestamps"]) == (65495, 7, False)
    assert (life.ways[1]["syns"], life.ways[1]["fin"]) == (1, 2)


@pytest.mark.parametrize(
    "script, message", [("kill -SEGV $$", "crashes"), ("exit 1", "cannot read"), ("sleep 9", "come to an end")]
)
def test_a_tool_that_fails_is_a_note(monkeypatch, tmp_path, script, message):
    monkeypatch.delitem(tools._ENVIRONMENT, "LD_PRELOAD", raising=False)  # a sanitizer would tell of it in its own way
    program = tmp_path / tools.TCPTRACE
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setitem(tools._SECONDS, tools.TCPTRACE, 1)
    with pytest.raises(tools.ToolError, match=message):
        tcptrace("capture.pcap")
