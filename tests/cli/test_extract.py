"""`synfin extract`: the packets of single connections."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from small import dialogues

import extraction
from dialogue import SECOND, START, Dialogue, merge, pcapng_bytes, write_pcap
from synfin import reference
from synfin.settings import Selection

EXAMPLES = sorted(Path(__file__).parents[2].joinpath("examples").glob("*.pcap*"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name.split(".")[0])
def test_every_record_of_the_examples_comes_back(synfin, tmp_path, path):
    flows, stats = extraction.track(path)
    whole = extraction.packets(path)
    for row in flows:
        out = tmp_path / "one.pcapng"
        assert synfin("extract", path, "--flow", row["flow_id"], "-o", out)[0] == 0
        found = extraction.packets(out)
        assert len(found) == row["client_packets"] + row["server_packets"]
        assert extraction.is_part(found, whole)
        extraction.add_clock(out, stats["clock_ns"])
        (again,), _ = extraction.track(out)
        assert extraction.differing(row, again) == {}


def names(path) -> set[tuple]:
    return {(packet.link_type, packet.interface) for _, found in reference.read([path]) for packet in found}


def test_client_and_server_with_and_without_ports(synfin, capture, tmp_path):
    flows, _ = extraction.track(capture)
    out = tmp_path / "x.pcapng"
    for arguments, wanted in (
        (("--client", "10.0.0.1"), {80, 81, 82, 83}),
        (("--client", "10.0.0.1:40001"), {81}),
        (("--server", "10.0.0.2:83"), {83}),
        (("--client", "10.0.0.1:40002", "--server", "10.0.0.2"), {82}),
        (("--server", "[2001:db8::2]:80"), {80}),
        (("--client", "2001:db8::1"), {80}),
    ):
        code, said, _ = synfin("extract", capture, *arguments, "-o", out)
        found, _ = extraction.track(out)
        assert code == 0 and {row["server_port"] for row in found} == wanted
        count = sum(row["client_packets"] + row["server_packets"] for row in found)
        assert (
            said == f"{count} packet{'s' * (count != 1)} of {len(found)} connection{'s' * (len(found) != 1)}: {out}\n"
        )
    assert len(flows) == 5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-", "--flow", "1", "-o", "x.pcapng"), "can be read only once"),
        (("in.pcap", "--flow", "1", "-o", "in.pcap"), "both input and output"),
        (("in.pcap", "--flow", "1", "-o", "x.pcap"), "pcapng"),
        (("in.pcap", "-o", "x.pcapng"), "--flow ID"),
        (("in.pcap", "--client", "10.0.0.1:70000", "-o", "x.pcapng"), "no address"),
        (("in.pcap", "--client", "[2001:db8::1:443", "-o", "x.pcapng"), "no address"),
        (("in.pcap", "--client", "host", "-o", "x.pcapng"), "no address"),
        (("in.pcap", "--flow", "-1", "-o", "x.pcapng"), "flow"),
    ],
)
def test_wrong_calls_are_told_in_one_line(synfin, capture, monkeypatch, arguments, told):
    monkeypatch.chdir(capture.parent)
    code, _, err = synfin("extract", *arguments)
    assert code == 2 and told in err and err.count("\n") == 1
    assert os.listdir(capture.parent) == ["in.pcap"]


def test_a_pipe_is_refused_before_it_is_read(synfin, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    code, _, err = synfin("extract", tmp_path / "pipe", "--flow", "1", "-o", tmp_path / "x.pcapng")
    assert code == 2 and "only once" in err


@pytest.mark.parametrize("captures", [".", "*.pcap*", "linked"])
def test_a_file_that_a_folder_or_a_glob_brings_is_not_written(synfin, capture, monkeypatch, captures):
    monkeypatch.chdir(capture.parent)
    out = capture.parent / "x.pcapng"
    assert synfin("extract", capture, "--server", "10.0.0.2:81", "-o", out)[0] == 0
    (capture.parent / "linked").symlink_to(capture.parent)
    before = out.read_bytes()
    code, _, err = synfin("extract", captures, "--server", "10.0.0.2:80", "-o", out)
    assert code == 2 and "both input and output" in err and out.read_bytes() == before
    assert synfin("extract", captures, "--server", "10.0.0.2:80", "-o", "y.pcapng")[0] == 0


def test_standard_output(start, capture, tmp_path):
    process = start("extract", capture, "--server", "10.0.0.2:81", "-o", "-")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and b"2 packets of 1 connection" in err
    tmp_path.joinpath("x.pcapng").write_bytes(out)
    assert len(extraction.packets(tmp_path / "x.pcapng")) == 2


def test_held_syns_go_to_the_record_that_they_open(synfin, tmp_path):
    """Held: a SYN that nothing proves, then one that is resent and answered, with a segment of the old connection between."""
    d = Dialogue().handshake()
    d.data(d.a, 100)
    late = d.b.nxt
    d.syn(d.a, seq=700_000)
    d.reborn(a_isn=5_000_000, b_isn=6_000_000)
    d.syn(d.a)
    old_data = d.data(d.b, 50, seq=late)
    d.wait(SECOND)
    d.syn(d.a, seq=5_000_000)
    d.a.nxt, d.b.nxt = 5_000_001, 6_000_000
    d.synack(d.b)
    d.ack(d.a)
    path = write_pcap(tmp_path / "in.pcap", d.packets)
    flows = sorted(extraction.track(path)[0], key=lambda row: row["first_seen"])
    assert [(row["end_reason"], row["odd_syns"], row["syn_count"]) for row in flows] == [
        ("reuse", 1, 1),
        ("end_of_input", 0, 2),
    ]
    for row in flows:
        assert extraction.count(path, Selection(row["flow_id"])) == (1, row["client_packets"] + row["server_packets"])
        out = tmp_path / "one.pcapng"
        assert synfin("extract", path, "--flow", row["flow_id"], "-o", out)[0] == 0
        (again,), _ = extraction.track(out)
        assert extraction.differing(row, again) == {}
        assert (old_data.data in [packet[1] for packet in extraction.packets(out)]) == (row["end_reason"] == "reuse")


def test_link_types_interfaces_lengths_and_resolution_are_kept(synfin, tmp_path):
    """Two taps of one connection: Ethernet with nanoseconds and a snap length, and raw IP from a named interface."""
    d = Dialogue(start=START + 123_456_789).handshake()
    d.data(d.a, 1000)
    packets = merge(d)
    write_pcap(tmp_path / "a.pcap", [(p.time_ns, p.data[:60], len(p.data)) for p in packets[::2]])
    raw = [(p.time_ns, p.data[14:]) for p in packets[1::2]]
    (tmp_path / "b.pcapng").write_bytes(pcapng_bytes(raw, link_type=101, interface="tun0"))
    out = tmp_path / "x.pcapng"
    assert synfin("extract", tmp_path / "a.pcap", tmp_path / "b.pcapng", "--client", "10.0.0.1", "-o", out)[0] == 0
    expected = [
        (p.time_ns, p.data[:60], len(p.data), 1) if i % 2 == 0 else (p.time_ns, p.data[14:], len(p.data) - 14, 101)
        for i, p in enumerate(packets)
    ]
    assert extraction.packets(out) == expected
    assert {name for link_type, name in names(out) if link_type == 101} == {"tun0"}


def test_a_lone_timestamp_stays_as_captured(synfin, tmp_path):
    d = Dialogue().handshake()
    d.data(d.a, 10)
    d.ack(d.b)
    d.ack(d.a)
    packets = [tuple(p) for p in d.packets]
    packets[3] = (packets[3][0] + 10_000 * SECOND, *packets[3][1:])
    path = write_pcap(tmp_path / "in.pcap", packets)
    assert synfin("extract", path, "--client", "10.0.0.1", "-o", tmp_path / "x.pcapng")[0] == 0
    assert extraction.packets(tmp_path / "x.pcapng") == extraction.packets(path)


def test_a_broken_capture_gives_what_was_read_and_exit_1(synfin, tmp_path):
    data = write_pcap(tmp_path / "in.pcap", merge(*dialogues())).read_bytes()
    (tmp_path / "in.pcap").write_bytes(data + b"\xff" * 40)
    code, _, err = synfin("extract", tmp_path / "in.pcap", "--server", "10.0.0.2:81", "-o", tmp_path / "x.pcapng")
    assert code == 1 and "corrupt" in err
    assert len(extraction.packets(tmp_path / "x.pcapng")) == 2


def test_no_half_file_where_the_output_cannot_be_written(synfin, capture, tmp_path):
    code, _, err = synfin("extract", capture, "--server", "10.0.0.2:81", "-o", tmp_path / "no" / "x.pcapng")
    assert code == 1 and "create the folder first" in err
    assert os.listdir(tmp_path) == ["in.pcap"]


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_tshark_reads_the_same_frames(synfin, tmp_path):
    """The frames of one connection as tshark shows them in the input and in the extract."""
    path = next(p for p in EXAMPLES if "resends." in p.name)
    (row, *_), _ = extraction.track(path)
    ends = f"(ip.addr=={row['client_ip']} && tcp.port=={row['client_port']})"
    out = tmp_path / "x.pcapng"
    assert synfin("extract", path, "--flow", row["flow_id"], "-o", out)[0] == 0

    def shown(capture: Path, display: str) -> bytes:
        fields = [
            part
            for name in ("frame.time_epoch", "frame.len", "frame.cap_len", "tcp.seq_raw", "tcp.checksum")
            for part in ("-e", name)
        ]
        return subprocess.run(
            ["tshark", "-r", capture, "-Y", display, "-T", "fields", *fields], capture_output=True, check=True
        ).stdout

    assert shown(path, ends) == shown(out, "tcp") != b""
