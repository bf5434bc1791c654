"""What `synfin explain` and `synfin extract` share: which connections are asked for, and what is said where none matches."""

from __future__ import annotations

import os
from ipaddress import ip_address

import pytest
from small import ROWS

import libpcap
from dialogue import write_pcap
from synfin.errors import ConfigError
from synfin.settings import parse_end

COMMANDS = ("explain", "extract")


@pytest.fixture
def ask(synfin, tmp_path):
    """Call one of the commands; `extract` writes x.pcapng."""

    def run(command, *arguments):
        return synfin(command, *arguments, *(("-o", tmp_path / "x.pcapng") if command == "extract" else ()))

    return run


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (("--server", "10.0.0.1"), "server 10.0.0.1 (any port)"),
        (("--client", "10.0.0.2:80"), "client 10.0.0.2:80"),
        (("--client", "10.0.0.1:81"), "client 10.0.0.1:81"),
        (("--flow", "1"), "flow 1"),
        (("--client", "10.0.0.1", "--server", "10.0.0.3"), "client 10.0.0.1 (any port) and server 10.0.0.3 (any port)"),
        (("--client", "::ffff:10.0.0.1"), f"client {ip_address('::ffff:10.0.0.1')} (any port)"),
        (("--client", "2001:db8::1:443"), "client 2001:db8::1:443 (any port)"),
        (("--client", "[2001:db8::1]:443"), "client [2001:db8::1]:443"),
    ],
)
def test_where_nothing_matches_the_next_step_is_told(ask, capture, command, arguments, asked):
    told = f"synfin: none of {ROWS} connections matches {asked}; `synfin explain` without --flow, --client and --server lists them\n"
    assert ask(command, capture, *arguments) == (2, "", told)
    assert os.listdir(capture.parent) == ["in.pcap"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "narrowing", [("--to", "1970-01-02"), pytest.param(("--filter", "port 443"), marks=libpcap.needs_libpcap)]
)
def test_where_there_is_no_connection_at_all(ask, capture, command, narrowing):
    told = "synfin: no connection matches client 10.0.0.1 (any port): there is no TCP connection at all\n"
    assert ask(command, capture, "--client", "10.0.0.1", *narrowing) == (2, "", told)
    assert os.listdir(capture.parent) == ["in.pcap"]


@pytest.mark.parametrize("command", COMMANDS)
def test_behind_the_damage_a_connection_may_stand(ask, capture, command):
    capture.write_bytes(capture.read_bytes() + b"\xff" * 40)
    code, out, err = ask(command, capture, "--flow", "1")
    assert (code, out) == (1, "")
    assert [line.split(": ")[2] if i == 0 else line[:21] for i, line in enumerate(err.splitlines())] == [
        f"corrupt at byte offset {capture.stat().st_size - 40}",
        "synfin: none of 5 con",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_length_of_an_interval_is_taken_and_not_offered(ask, capture, command):
    options = ("--interval", "1m", "--reorder", "2s")
    assert ask(command, capture, "--server", "10.0.0.2:81", *options)[0] == 0
    shown = ask(command, "--help")[1]
    assert "--interval" not in shown and "--reorder" in shown
    assert "--interval" in ask("track", "--help")[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_of_many_warnings_the_first_are_told(ask, capture, tmp_path, command):
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i:02}.txt").write_text("no capture")
    (folder / "a.pcap").write_bytes(capture.read_bytes())
    err = ask(command, folder, "--server", "10.0.0.2:81")[2].splitlines()
    assert len(err) == 13 and err[12] == "synfin: and 18 more warnings (`synfin track --json` holds all)"


@pytest.mark.parametrize("text", ["::\n1", "10.0.0.1\n", "", "[]", ":80", "10.0.0.1:65536", "fe80::1]:1"])
def test_what_is_no_end(text):
    with pytest.raises(ConfigError, match="is no address"):
        parse_end(text)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_capture(ask, tmp_path, command):
    empty = write_pcap(tmp_path / "in.pcap", [])
    assert ask(command, empty, "--flow", "1")[0] == 2


def test_extract_writes_no_packets_to_a_terminal(start, capture, tmp_path):
    inside, outside = os.openpty()
    process = start("extract", capture, "--server", "10.0.0.2:81", "-o", "-", stdout=outside)
    os.close(outside)
    _, err = process.communicate(timeout=60)
    os.close(inside)
    assert process.returncode == 2 and b"not for a terminal" in err


def test_extract_to_a_folder_is_refused_before_anything_is_read(synfin, tmp_path):
    code, _, err = synfin("extract", tmp_path / "nothing.pcap", "--flow", "1", "-o", tmp_path)
    assert code == 2 and "is a folder; name the file to write" in err


@pytest.mark.parametrize("text", ["abc", "-1", "1.5", "", str(1 << 63), "²"])
def test_what_is_no_flow_id(ask, capture, text):
    code, _, err = ask("explain", capture, f"--flow={text}")
    assert code == 2 and "is no flow_id" in err and err.count("\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["track", "explain", "extract", "verify", "columns"])
def test_a_full_disk_behind_standard_output(start, capture, command):
    arguments = [] if command == "columns" else [capture]
    arguments += ["--server", "10.0.0.2:81", "-o", "-"] if command == "extract" else []
    with open("/dev/full", "wb") as full:
        process = start(command, *arguments, stdout=full)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert err.decode().splitlines()[-1].startswith("synfin: cannot write standard output: no space left on device")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk(synfin, capture):
    code, out, err = synfin("extract", capture, "--server", "10.0.0.2:81", "-o", "/dev/full")
    assert (code, out) == (1, "") and "cannot write /dev/full: no space left on device" in err
