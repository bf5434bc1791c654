"""`--filter`, `--from` and `--to` of `synfin track`, and the same from Python."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from small import PACKETS, ROWS, dialogues

import libpcap
import rows
from dialogue import SECOND, START, merge, write_pcap
from synfin import ConfigError, read, reference, scan


def summary(synfin, *arguments) -> dict:
    code, out, err = synfin("track", *arguments, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["accounting"]["holds"] is True
    return found


@libpcap.needs_libpcap
def test_a_filter_leaves_packets_out_by_name(synfin, capture):
    found = summary(synfin, capture, "--filter", "tcp port 81 or ip6")
    assert found["connections"] == 2
    assert found["accounting"] == {"packets": PACKETS, "in_records": 5, "filtered": PACKETS - 5, "holds": True}


@libpcap.needs_libpcap
def test_a_filtered_packet_still_moves_the_clock(synfin, capture):
    """The IPv6 connection comes 200 s later: that ends the others, also where it is filtered."""
    assert summary(synfin, capture, "--filter", "ip")["end_reasons"]["attempt_timeout"] == 2


@libpcap.needs_libpcap
@pytest.mark.parametrize("expression", ["tcp poort 80", "port 70000", "wlan type bogus"])
def test_a_bad_expression_is_one_line_and_exit_2(synfin, capture, tmp_path, expression):
    code, out, err = synfin("track", capture, "--filter", expression, "-o", tmp_path / "x.parquet")
    assert (code, out) == (2, "") and err.startswith("synfin: filter ") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.pcap"]


@libpcap.needs_libpcap
def test_an_expression_that_a_later_link_type_does_not_take_leaves_no_half_file(synfin, capture, tmp_path):
    packets = merge(*dialogues())
    write_pcap(tmp_path / "raw.pcap", [(p.time_ns + SECOND, p.data[14:]) for p in packets], link_type=101)
    code, _, err = synfin(
        "track", capture, tmp_path / "raw.pcap", "--filter", "vlan 7 or ip", "-o", tmp_path / "y.parquet"
    )
    assert code == 2 and "link type 101" in err and err.count("\n") == 1
    assert not (tmp_path / "y.parquet").exists() and not list(tmp_path.glob(".*"))


@libpcap.needs_libpcap
def test_each_link_type_has_its_program(synfin, tmp_path):
    """The same packets on Ethernet, as raw IP and on a link type that neither synfin nor libpcap knows."""
    packets = merge(*dialogues())
    write_pcap(tmp_path / "1.pcap", packets)
    write_pcap(tmp_path / "2.pcap", [(p.time_ns + 1000 * SECOND, p.data[14:]) for p in packets], link_type=101)
    write_pcap(tmp_path / "3.pcap", [(p.time_ns, p.data) for p in packets], link_type=147)
    found = summary(synfin, tmp_path, "--filter", "tcp port 81")["accounting"]
    assert found == {
        "packets": 3 * PACKETS, "in_records": 4, "filtered": 2 * (PACKETS - 2), "link_type_147": PACKETS, "holds": True,
    }  # fmt: skip


def test_without_libpcap_one_line_names_the_package(synfin, capture, monkeypatch):
    from synfin.sources import filter as filters

    filters._libpcap.cache_clear()
    monkeypatch.setattr(filters.ctypes.util, "find_library", lambda _: None)
    monkeypatch.setattr(filters.ctypes, "CDLL", lambda _: (_ for _ in ()).throw(OSError("no such file")))
    code, _, err = synfin("track", capture, "--filter", "tcp")
    assert code == 2 and "libpcap0.8" in err and err.count("\n") == 1


def test_a_window_leaves_packets_out_by_name(synfin, capture):
    seconds = START // SECOND
    for arguments in (("--to", str(seconds + 100)), ("--to", datetime.fromtimestamp(seconds + 100, UTC).isoformat())):
        found = summary(synfin, capture, *arguments)
        assert found["connections"] == ROWS - 1
        assert found["accounting"]["outside_window"] == 3
        assert found["end_reasons"].get("attempt_timeout") is None  # the clock never came so far
        assert found["last_time_ns"] < START + 100 * SECOND
    found = summary(synfin, capture, "--from", f"{seconds + 100}.000000001")
    assert found["connections"] == 1 and found["accounting"]["outside_window"] == PACKETS - 3


@pytest.mark.parametrize(
    "arguments", [("--from", "yesterday"), ("--to", "2024-99-01"), ("--from", "2024-01-02", "--to", "2024-01-01")]
)
def test_a_bad_window_is_one_line_and_exit_2(synfin, capture, arguments):
    code, out, err = synfin("track", capture, *arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1


def test_the_summary_names_files_that_were_not_read(synfin, tmp_path):
    packets = merge(*dialogues())
    for number in range(3):
        write_pcap(tmp_path / f"t-{number}.pcap", [(p.time_ns + number * 1000 * SECOND, p.data) for p in packets])
    start = str(START // SECOND + 2000)
    code, out, _ = synfin("track", tmp_path, "--from", start)
    assert code == 0 and "1 file outside the window of time, not read:" in out
    found = summary(synfin, tmp_path, "--from", start)
    assert found["input"]["left_out"] == [str(tmp_path / "t-0.pcap")] and found["packets"] == 2 * PACKETS


def test_the_same_from_python(capture):
    start, end = START + 2 * 10**6, START + 100 * SECOND
    columns = ["flow_id", "client_packets", "server_packets", "handshake"]
    by_number = read(capture, columns=columns, start=start, end=end)
    day = datetime.fromtimestamp(START // SECOND, UTC)
    assert read(capture, columns=columns, start=day.replace(microsecond=2000), end=f"{end // SECOND}") == by_number
    result = reference.track(reference.read([capture]), window=(start, end))
    assert sorted(by_number["flow_id"].to_pylist()) == sorted(row["flow_id"] for row in result.flows)
    stream = scan(capture, start=start, end=end)
    assert sum(batch.num_rows for batch in stream) == len(result.flows) and stream.stats["skips"] == result.skips
    with pytest.raises(ConfigError, match="not an instant"):
        scan(capture, start="soon")


@libpcap.needs_libpcap
def test_a_filter_from_python(capture):
    stream = scan(capture, filter="tcp port 81")
    assert [row["handshake"] for row in stream.to_pylist()] == ["refused"]
    assert stream.stats["skips"] == {"filtered": PACKETS - 2}
    with pytest.raises(ConfigError, match="syntax error"):
        scan(capture, filter="tcp poort 81")
    flows, _, _ = rows.fast([capture])
    assert read(capture, filter="").num_rows == len(flows)


def test_rows_files_say_what_was_left_out(synfin, capture, tmp_path):
    assert synfin("track", capture, "--to", str(START // SECOND + 100), "-o", tmp_path / "x.parquet")[0] == 0
    about = pq.read_metadata(tmp_path / "x.parquet").metadata
    assert json.loads(about[b"accounting"]) == {"packets": PACKETS, "in_records": PACKETS - 3, "outside_window": 3}
