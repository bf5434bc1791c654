"""Sums beyond 32 bits and durations beyond 4.29 s: what the core keeps in two words, beside arithmetic and the slow tracker."""

from __future__ import annotations

import math

import pytest

from dialogue import SECOND, Captured, Dialogue, options, write_pcap
from rows import compare, fast

HALF = 500_000_000
HEADERS = 14 + 20 + 20


def opened() -> Dialogue:
    """A connection whose ends announce windows of 1 GiB less 16 KiB."""
    d = Dialogue()
    d.a.options = d.b.options = options(mss=1460, scale=14)
    return d.handshake()


def huge(d: Dialogue, end, size: int, **how) -> None:
    """A segment of `size` bytes of payload, as a card takes it before it cuts it: IP's total length is 0."""
    packet = d.send(end, "A", 0, **how)
    data = packet.data[:16] + b"\0\0" + packet.data[18:HEADERS]
    d.packets[-1] = Captured(packet.time_ns, data, HEADERS + size)
    if "seq" not in how:
        end.nxt += size


def row_of(tmp_path, d: Dialogue) -> dict:
    path = write_pcap(tmp_path / "x.pcap", d.packets)
    assert compare([path]) == []
    flows, _, _ = fast([path])
    (row,) = flows
    return row


@pytest.mark.parametrize("acknowledged", [True, False])
def test_more_than_4_gib(tmp_path, acknowledged):
    d = opened()
    for _ in range(19):
        huge(d, d.a, HALF)
        if acknowledged:
            d.ack(d.b)
        else:
            d.send(d.b, "A", 100)
    row = row_of(tmp_path, d)
    total = 19 * HALF
    assert row["client_payload_bytes"] == row["client_unique_bytes"] == total
    assert row["client_ip_bytes"] == total + 19 * 40 + 40 * 2 + 8
    assert row["client_missing_bytes"] == row["client_retransmitted_bytes"] == row["odd_segments"] == 0


def test_repeated_bytes(tmp_path):
    d = opened()
    for _ in range(12):
        first = d.a.nxt
        huge(d, d.a, HALF)
        huge(d, d.a, HALF, seq=first)
        d.ack(d.b)
    row = row_of(tmp_path, d)
    assert row["client_payload_bytes"] == 24 * HALF
    assert row["client_unique_bytes"] == row["client_retransmitted_bytes"] == 12 * HALF
    assert row["client_retransmitted_segments"] == 12


def test_bytes_that_the_tap_missed(tmp_path):
    d = opened()
    huge(d, d.a, 1000)
    d.ack(d.b)
    for _ in range(12):
        d.a.nxt += HALF
        d.ack(d.b)
    row = row_of(tmp_path, d)
    assert row["client_missing_bytes"] == 12 * HALF and row["client_unique_bytes"] == 1000


@pytest.mark.parametrize(
    "waits",
    {
        "long ones": [5 * SECOND, 60 * SECOND, 4_294_967_296],
        "32 bits": [4_294_967_294, 4_294_967_295, 4_294_967_296],
        "40 bits": [(1 << 40) - 2, (1 << 40) - 1, 1 << 40],
        "beyond 40 bits, and short": [3_000_000_000_000, 1_000_000, 1_200_000_000_000],
        "long and short": [250, 9 * SECOND, 1_000_000, 5 * SECOND],
        "squares beyond 64 bits": [4_294_967_000] * 5,
        "squares beyond 80 bits": [1_000_000_000_000] * 3,
        "short ones": [1_000, 2_000, 4_000],
    }.values(),
)
def test_round_trips(tmp_path, waits):
    d = opened()
    for wait in waits:
        d.data(d.a, 10)
        d.wait(wait - d.step)
        d.ack(d.b)
    row = row_of(tmp_path, d)
    mean = sum(waits) // len(waits)
    assert row["server_rtt_samples"] == len(waits)
    assert (row["server_rtt_min_ns"], row["server_rtt_max_ns"]) == (min(waits), max(waits))
    assert row["server_rtt_mean_ns"] == mean
    spread = len(waits) * sum(wait * wait for wait in waits) - sum(waits) ** 2
    assert row["server_rtt_stddev_ns"] == math.isqrt(spread) // len(waits)
