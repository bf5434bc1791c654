"""The summary: servers with failures, the sum of packets, and text that fits a terminal."""

import json
import math
from collections import Counter

import pytest
from fakes import FakeBlock

from synfin.output import render
from synfin.output.arrow import Layout
from synfin.output.summary import FLOW_COLUMNS, FirstRows, Servers, quantiles

HANDSHAKES = ("complete", "unanswered", "refused", "half_open", "not_seen")


def block(rows):
    return FakeBlock("flows", dict(zip(FLOW_COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))


def test_worst_servers():
    rows = [(f"10.0.0.{k % 7}", 80 + k % 3, HANDSHAKES[k * k % 5]) for k in range(400)]
    servers = Servers()
    servers.add(block(rows[:150]))
    servers.add(block(rows[150:]))
    for failure in ("unanswered", "refused", "half_open"):
        truth = Counter((ip, port) for ip, port, handshake in rows if handshake == failure)
        ranked = sorted(truth.items(), key=lambda item: (-item[1], item[0]))[:5]
        found = [((s["server_ip"], s["server_port"]), s["count"]) for s in servers.worst(failure)]
        assert found == ranked
        assert servers.failing(failure) == len(truth)
    assert servers.error == 0


def test_servers_stay_bounded_and_say_how_far_off():
    servers = Servers(limit=100)
    truth = Counter()
    for start in range(0, 2000, 50):
        rows = [(f"10.1.{k // 250}.{k % 250}", 443, "unanswered") for k in range(start, start + 50)]
        rows += [("10.9.9.9", 22, "unanswered")] * 3
        truth.update(row[:2] for row in rows)
        servers.add(block(rows))
        assert len(servers._counts) <= 100
    worst = servers.worst("unanswered")
    assert worst[0] == {"server_ip": "10.9.9.9", "server_port": 22, "count": 120}
    assert servers.error > 0
    for server in worst:
        true = truth[server["server_ip"], server["server_port"]]
        assert true - servers.error <= server["count"] <= true


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"), (999, "999 ns"), (1_000, "1 µs"), (12_345, "12.3 µs"), (999_999, "999 µs"), (1_234_567, "1.23 ms"),
        (59_999_999_999, "59.9 s"), (131 * 10**9, "2m11s"), (3661 * 10**9, "1h01m"), (183_600 * 10**9, "2d03h"),
    ],
)  # fmt: skip
def test_duration(ns, text):
    assert render.duration(ns) == text


def test_any_instant_has_a_text():
    for ns in (-(2**63), -1, 0, 2**63 - 1, None):
        assert render.instant(ns)
    assert render.instant(-1) == "1969-12-31 23:59:59.999999"


SUMMARY = {
    "complete": True, "reason": None, "file": None, "offset": None, "seconds": 12.5, "files": 400,
    "bytes_read": 12_345_678_901, "packets": 18_934_222_111, "packets_per_second": 2_345_678, "ip_bytes": 10**13,
    "first_time_ns": 1_700_000_000_123_456_789, "last_time_ns": 1_700_099_999_000_000_000, "connections": 123_456_789,
    "capture_drops": None,
    "handshakes": dict.fromkeys(HANDSHAKES, 123_456_789),
    "closes": dict.fromkeys(("fin_4way", "fin_3way", "fin_simultaneous", "half_closed", "rst_after_fin"), 98_765_432),
    "closers": {"client": 5, "server": 6, "both": 0}, "syn_resends": 5, "retransmitted_segments": 70_000,
    "icmp": {"errors": 9, "rejected": 2}, "suspects": 5_000_000_000,
    "evicted": dict.fromkeys(("unanswered", "half_open", "lingering", "open"), 30_000_000), "cap": 100_000_000,
    "at_end": {"half_open": 1, "time_wait": 22, "close_wait": 3, "connections": 44},
    "half_open_peak": {"value": 900, "time_ns": 1_700_000_001_000_000_000},
    "time_wait_peak": {"value": 0, "time_ns": None},
    "rtt": {
        "server": {"count": 1_000_000, "p50": 123_456, "p90": 1_234_567, "p99": 12_345_678, "max": 123_456_789},
        "client": {"count": 0, "p50": None, "p90": None, "p99": None, "max": None},
    },
    "worst_servers": {
        "unanswered": [{"server_ip": "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff", "server_port": 65535, "count": 123_456}],
        "refused": [], "half_open": [{"server_ip": "10.0.0.1", "server_port": 443, "count": 7}],
    },
    "failing_servers": {"unanswered": 1, "refused": 0, "half_open": 4}, "worst_servers_error": 12, "input": {"warnings": ["x.pcap: skipped: text"] * 20},
    "accounting": {
        "packets": 18_934_222_111, "in_records": 18_000_000_000, "not_tcp": 934_222_000, "fragment": 111, "holds": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("count", [1, 2, 10, 11, 99, 100, 101])
def test_a_quantile_of_the_last_rank_is_the_largest_value(count):
    """Nearest rank over `count` values of which the buckets' middles are known, and the largest exactly."""
    middles = {name: 100 + math.ceil(count * percent / 100) for name, percent in (("p50", 50), ("p90", 90), ("p99", 99))}
    top = 100 + count + 7
    wanted = {name: top if middle == 100 + count else middle for name, middle in middles.items()}
    assert quantiles({"count": count, **middles, "max": top}) == {"count": count, **wanted, "max": top}
    assert quantiles({"count": count, **dict.fromkeys(middles, 500), "max": 400})["p50"] == 400


def test_losses_are_told_where_they_are_known():
    assert "lost" not in render.summary_text(SUMMARY) and "lost" not in render.summary_text({**SUMMARY, "capture_drops": 0})
    text = render.summary_text({**SUMMARY, "capture_drops": 1234})
    assert "1,234 packets lost while capturing" in text
    text = render.summary_text({**SUMMARY, "files": 0, "interfaces": ["eth0"], "capture_drops": 0})
    assert "on eth0" in text and "0 packets dropped by the kernel" in text


def test_text_fits_and_tells():
    text = render.summary_text(SUMMARY)
    assert max(map(len, text.splitlines())) <= 80
    for part in (
        "18,934,222,111 = 18,000,000,000 in connections + 934,222,000 not_tcp",
        "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535",
        "refused 123,456,789", "half-open 900 at 2023-11-14 22:13:21", "12.3 ms", "and 8 more warnings", "may be low by up to 12",
        "and 3 more servers", "ICMP errors about segments in flight 9, about none that was sent 2",
        "copies? 5,000,000,000 (27.7 %) look captured twice: --duplicates count|drop tells",
    ):  # fmt: skip
        assert part in " ".join(text.split())
    assert "\0" not in text
    json.dumps(SUMMARY)


@pytest.mark.parametrize(("suspects", "told"), [(None, False), (0, False), (180_000_000, False), (180_000_001, True)])
def test_suspects_are_told_above_one_in_a_hundred(suspects, told):
    text = render.summary_text({**SUMMARY, "suspects": suspects})
    assert ("copies?" in text) == told


def test_evictions_are_told_with_what_they_mean():
    text = " ".join(render.summary_text({**SUMMARY, "connections": 400, "evicted": {"half_open": 99, "open": 1}, "cap": 7}).split())
    assert "evicted 100 (25.0 %) at the cap of 7 at once: half-open 99, open 1; what open ones sent later began new records" in text
    harmless = render.summary_text({**SUMMARY, "evicted": {"unanswered": 5}})
    assert "evicted" in harmless and "later" not in harmless
    assert "evicted" not in render.summary_text({**SUMMARY, "evicted": {}, "cap": None})


def test_text_says_incomplete():
    text = render.summary_text({**SUMMARY, "complete": False, "reason": "corrupt block", "file": "a.pcap", "offset": 4096})
    assert "INCOMPLETE: corrupt block (a.pcap, byte 4,096)" in text


def test_broken_identity_is_loud():
    text = render.summary_text({**SUMMARY, "accounting": {"packets": 2, "in_records": 1, "holds": False}})
    assert "DOES NOT HOLD" in text


ROW = {
    "first_seen": 1_700_000_000_123_456_789, "duration_ns": 10**9, "client_ip": "192.168.100.100", "client_port": 40000,
    "server_ip": "10.0.0.1", "server_port": 443, "handshake": "complete", "close": "fin_4way", "closer": "client",
    "client_state": "TIME-WAIT", "server_state": "CLOSED", "rtt_server_ns": 1_234_567, "client_packets": 12,
    "server_packets": 10,
}  # fmt: skip


def test_first_rows_are_those_that_began_first():
    began = [(7 * k % 40) // 2 for k in range(40)]
    first = FirstRows(9)
    for part in (began[:3], began[3:25], began[25:]):
        columns = {name: [None] * len(part) for name in render.HEAD_COLUMNS}
        columns |= {"first_seen": part, "first_packet": [began.index(t) + 1 for t in part]}
        first.add(Layout.choose("flows", render.HEAD_COLUMNS, "lakehouse").batch(FakeBlock("flows", columns)))
    assert [row["first_seen"] for row in first.rows] == sorted(began)[:9]


@pytest.mark.parametrize("width", [40, 80, 100, 120, 200])
def test_first_rows_fit(width):
    nothing = {**ROW, "close": None, "closer": None, "rtt_server_ns": None, "handshake": "unanswered"}
    lines = render.first_rows([ROW, nothing], width).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= max(width, 55)
    assert "192.168.100.100:40000" in lines[1]
    assert ("fin_4way" in lines[1]) == (width >= 80)
    assert ("22:13:20.123" in lines[1]) == (width >= 120)


def test_accounting_names_only_what_occurred():
    from synfin.run import accounting

    stats = {"packets": 5, "packets_in_records": 3, "skips": {"not_ip": 2, "not_tcp": 0}}
    assert accounting(stats) == {"packets": 5, "in_records": 3, "not_ip": 2}
