"""The command `synfin explain`: what is chosen, how it is written, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from small import PACKETS, ROWS

import libpcap
from dialogue import SECOND, Dialogue, merge, write_pcap
from rows import fast
from synfin import read
from synfin.explain.render import Text

GOLDEN = """\
10.0.0.1:40000 (client) and 10.0.0.2:80 (server)
flow {flow_id}, from 2023-11-14 22:13:20.010000 UTC, in {path}

packet   time (s) segment as tcpdump -n -S writes it
                  client        server        what the segment did

     1  +0.000000 IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [S], seq 1000, win 65535, length 0, DF
                  SYN-SENT      LISTEN        client opens with ISN 1000
     2  +1.010000 IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [S], seq 1000, win 65535, length 0, DF
                  SYN-SENT      LISTEN        client resent SYN, 1.01 s after the first
     3  +1.020000 IP 10.0.0.2.80 > 10.0.0.1.40000: Flags [R.], seq 5000, ack 1001, win 65535,
                  length 0, DF
                  CLOSED        LISTEN        server refuses the attempt

Verdicts
  direction = syn                 the client is the end that sent the first SYN  [SPEC 3.3]
  handshake = refused             a RST answered the SYN  [SPEC 3.2, 4]
  syn_count                       2 SYNs with one ISN  [SPEC 3.2]
  rst_by = server                 sent the first accepted RST, with TTL or hop limit 64  [SPEC 4]
  client_state = CLOSED           after the last packet  [SPEC 3.4; docs/states.md]
  server_state = LISTEN           after the last packet  [SPEC 3.4; docs/states.md]
  end_reason = rst                an accepted RST  [SPEC 3.2]
"""


@pytest.fixture(autouse=True)
def _width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def refused(tmp_path):
    """A capture with one connection."""
    d = Dialogue()
    d.syn(d.a)
    d.wait(SECOND)
    d.syn(d.a)
    d.rst(d.b, extra="A")
    return write_pcap(tmp_path / "refused.pcap", d.packets)


def test_the_only_connection(synfin, refused):
    ((row,), *_) = fast([refused])
    code, out, err = synfin("explain", refused)
    start = out.index(", in ") + 5
    path = out[start : out.index("\n", start)]
    assert (code, err, path) == (0, "", str(refused))
    assert out == GOLDEN.format(flow_id=row["flow_id"], path=refused)


def test_several_connections_are_listed(synfin, capture):
    code, out, _ = synfin("explain", capture)
    titles, *lines = out.splitlines()
    assert code == 0 and titles.split() == ["flow", "client", "server", "handshake", "close", "packets"]
    assert len(lines) == ROWS + 2 and "--flow ID" in lines[-1]
    assert [line.split()[0] for line in lines[:ROWS]] == [
        str(row["flow_id"])
        for row in sorted(fast([capture])[0], key=lambda row: (row["first_seen"], row["first_packet"]))
    ]
    listed = json.loads(synfin("explain", capture, "--json")[1])
    assert (listed["total"], [row["flow_id"] for row in listed["listed"]]) == (
        ROWS,
        [int(x.split()[0]) for x in lines[:ROWS]],
    )


@pytest.mark.parametrize(
    ("options", "ports"),
    [
        (["--first", "2"], [40000, 40001]),
        (["--first", "99"], [40000, 40001, 40002, 40003, 40004]),
        (["--client", "10.0.0.1"], [40000, 40001, 40002, 40003]),
        (["--client", "10.0.0.1:40002"], [40002]),
        (["--client", "10.0.0.1", "--first", "1"], [40000]),
        (["--client", "10.0.0.1", "--server", "10.0.0.2:83"], [40003]),
        (["--server", "2001:DB8::2"], [40004]),
        (["--server", "[2001:db8:0::2]:80"], [40004]),
    ],
)
def test_choosing(synfin, capture, options, ports):
    code, out, _ = synfin("explain", capture, "--json", *options)
    assert code == 0
    assert [connection["row"]["client_port"] for connection in json.loads(out)["connections"]] == ports


def test_choosing_by_flow(synfin, capture):
    for row in fast([capture])[0]:
        code, out, _ = synfin("explain", capture, "--json", "--flow", row["flow_id"])
        (connection,) = json.loads(out)["connections"]
        assert (code, connection["flow_id"], connection["row"]) == (0, row["flow_id"], row)


def test_json_holds_every_segment(synfin, capture):
    report = json.loads(synfin("explain", capture, "--first", "9", "--json")[1])
    assert (report["total"], report["matching"], len(report["connections"])) == (ROWS, ROWS, ROWS)
    segments = [segment for connection in report["connections"] for segment in connection["segments"]]
    assert sorted(segment["packet"] for segment in segments) == list(range(1, PACKETS + 1))
    names = {
        "file",
        "packet",
        "time_ns",
        "since_ns",
        "sender",
        "segment",
        "client_state",
        "server_state",
        "words",
        "rtt",
    }
    assert all(set(segment) == names and segment["words"] for segment in segments)
    assert all(connection["verdicts"] for connection in report["connections"])


def test_segments_of_a_long_connection_stay_in_order(synfin, tmp_path):
    d = Dialogue().handshake()
    for _ in range(500):
        d.data(d.a, 10)
    report = json.loads(synfin("explain", write_pcap(tmp_path / "long.pcap", d.packets), "--json")[1])
    assert [segment["packet"] for segment in report["connections"][0]["segments"]] == list(range(1, 504))


def test_only_some_segments(synfin, capture):
    report = json.loads(synfin("explain", capture, "--first", "9", "--json", "--only", "fin,rst")[1])
    flags = [s["segment"].split("[")[1].split("]")[0] for c in report["connections"] for s in c["segments"]]
    assert flags == ["F.", "F.", "R."]
    states = [(s["client_state"], s["server_state"]) for s in report["connections"][0]["segments"]]
    assert states == [("FIN-WAIT-1", "ESTABLISHED"), ("FIN-WAIT-2", "LAST-ACK")]
    assert "SYN-SENT" not in synfin("explain", capture, "--first", "1", "--only", "fin")[1]


def test_matches_beyond_the_first_ones_are_named(synfin, capture):
    out = synfin("explain", capture, "--client", "10.0.0.1", "--first", "3")[1]
    assert out.count("Verdicts") == 3 and "1 more connection like that; --first N" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--client", "nobody"], "'nobody' is no address"),
        (["--client", "10.0.0.1:99999"], "'10.0.0.1:99999' is no address"),
        (["--only", "syn,psh"], "'psh' is none of"),
        (["--first", "0"], "0 is not in the range"),
    ],
)
def test_wrong_calls(synfin, capture, options, message):
    code, out, err = synfin("explain", capture, *options)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err


def test_settings_are_those_of_track(synfin, tmp_path):
    d = Dialogue().handshake().close()
    d.wait(30 * SECOND)
    d.ack(d.a)
    path = write_pcap(tmp_path / "in.pcap", d.packets)
    assert len(json.loads(synfin("explain", path, "--first", "9", "--json")[1])["connections"]) == 1
    short = json.loads(synfin("explain", path, "--first", "9", "--json", "--time-wait", "10s")[1])
    assert [len(connection["segments"]) for connection in short["connections"]] == [7, 1]


@pytest.mark.parametrize("late", [False, True])
def test_a_record_of_a_narrowed_run(synfin, tmp_path, late):
    """Narrowed, the record begins with another packet, and its flow_id is another one."""
    d = Dialogue().handshake()
    d.data(d.a)
    d.close()
    path = write_pcap(tmp_path / "in.pcap", d.packets)
    start = d.packets[3].time_ns
    options = (
        ["--from", f"{start // SECOND}.{start % SECOND:09}"]
        if late
        else ["--to", f"{start // SECOND}.{start % SECOND:09}"]
    )
    (row,) = read(path, **({"start": start} if late else {"end": start})).select(["flow_id"]).to_pylist()
    code, out, _ = synfin("explain", path, "--json", "--flow", row["flow_id"], *options)
    (connection,) = json.loads(out)["connections"]
    assert code == 0
    assert [segment["packet"] for segment in connection["segments"]] == ([4, 5, 6, 7, 8] if late else [1, 2, 3])
    assert (synfin("explain", path, "--flow", row["flow_id"])[0] == 2) == late


@libpcap.needs_libpcap
def test_filtered_packets_are_not_told(synfin, tmp_path):
    d = Dialogue().handshake()
    d.icmp(d.data(d.a))
    d.close()
    path = write_pcap(tmp_path / "in.pcap", d.packets)
    _, out, _ = synfin("explain", path, "--json", "--filter", "tcp[13] & 8 = 0")
    (connection,) = json.loads(out)["connections"]
    assert [segment["packet"] for segment in connection["segments"]] == [1, 2, 3, 6, 7, 8, 9]
    assert connection["row"]["client_payload_bytes"] == 0 and connection["row"]["icmp_errors"] == 0


def test_without_connections(synfin, tmp_path):
    empty = write_pcap(tmp_path / "empty.pcap", [])
    assert synfin("explain", empty) == (0, "No TCP connection.\n", "")
    assert json.loads(synfin("explain", empty, "--json")[1]) == {"total": 0, "matching": 0, "connections": []}


def test_not_a_capture(synfin, tmp_path):
    (tmp_path / "text").write_text("hello, world\n" * 9)
    code, out, err = synfin("explain", tmp_path / "text")
    assert (code, out) == (2, "") and "not a capture" in err


def test_a_broken_capture_is_explained_up_to_the_break(synfin, refused):
    refused.write_bytes(refused.read_bytes() + b"\xff" * 40)
    code, out, err = synfin("explain", refused)
    assert code == 1 and "refuses the attempt" in out
    assert str(refused) in err and "byte" in err


@pytest.mark.parametrize("pipe", [True, False])
def test_standard_input(start, capture, pipe):
    with open(capture, "rb") as file:
        process = start("explain", "-", "--first", "1", stdin=subprocess.PIPE if pipe else file)
        out, err = process.communicate(capture.read_bytes() if pipe else None)
    assert (process.returncode, err) == (0, b"")
    assert out.decode().count("\n     ") >= 9 and ", in -\n" in out.decode()


def test_a_named_pipe_is_refused(start, tmp_path):
    """It cannot be read twice, and nobody need be writing to it."""
    os.mkfifo(tmp_path / "pipe")
    process = start("explain", tmp_path / "pipe")
    try:
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 2 and b"can be read only once, and explain reads twice" in err and err.count(b"\n") == 1


def test_a_pipe_that_is_closed_early(start, tmp_path):
    d = Dialogue().handshake()
    for _ in range(2000):
        d.data(d.a, 10)
    process = start("explain", write_pcap(tmp_path / "long.pcap", d.packets))
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 1
    assert process.stderr.read() == b""


def test_colours_only_on_a_terminal(synfin, refused):
    assert "\x1b[" not in synfin("explain", refused)[1]
    segments = json.loads(synfin("explain", refused, "--json")[1])["connections"][0]["segments"]
    plain, coloured = Text(100).step(segments[2], segments[1]), Text(100, colours=True).step(segments[2], segments[1])
    assert "\x1b[1;31mrefuses" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured).split() == plain.split()


@pytest.mark.parametrize("width", [72, 100, 120])
def test_lines_fit(synfin, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    examples = Path(__file__).resolve().parents[2] / "examples"
    for name in ("09-simultaneous-open.pcap", "12-ipv6.pcapng.gz", "14-resends.pcap", "26-abort.pcap"):
        out = synfin("explain", examples / name, "--first", "3")[1]
        lines = [line for line in out.splitlines() if not line.startswith("flow ")]  # a path stays whole
        assert max(map(len, lines)) <= width


LONG = ("2001:db8:1111:2222:3333:4444:5555:6666", "2001:db8:1111:2222:3333:4444:5555:7777")


@pytest.mark.parametrize("width", [72, 80, 100, 120])
@pytest.mark.parametrize("ends", [("10.0.0.1", "10.0.0.2"), ("192.168.100.101", "192.168.100.102"), LONG])
def test_a_list_fits_and_holds_every_value(synfin, tmp_path, monkeypatch, ends, width):
    monkeypatch.setenv("COLUMNS", str(width))
    talks = [Dialogue(a_ip=ends[0], b_ip=ends[1], a_port=40000 + i).handshake().close() for i in range(3)]
    path = write_pcap(tmp_path / "in.pcap", merge(*talks))
    out = synfin("explain", path)[1]
    assert max(map(len, out.splitlines())) <= width
    words = out.split()
    for row in fast([path])[0]:
        at = words.index(str(row["flow_id"]))
        six = ":" in ends[0]
        client, server = (
            f"[{row[f'{s}_ip']}]:{row[f'{s}_port']}" if six else f"{row[f'{s}_ip']}:{row[f'{s}_port']}"
            for s in ("client", "server")
        )
        assert words[at + 1 : at + 6] == [client, server, "complete", "fin_4way", "7"]
    assert words[:6] == ["flow", "client", "server", "handshake", "close", "packets"]
