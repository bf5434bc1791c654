"""Clocks that are wrong."""

from __future__ import annotations

from dialogue import MS, SECOND, Dialogue
from scenarios import scenario

YEAR = 365 * 86_400 * SECOND


@scenario({"handshake": "complete", "rtt_server_ns": None, "rtt_client_ns": 25 * MS, "duration_ns": 30 * MS,
           "first_seen": 1_700_000_000_000_000_000})  # fmt: skip
def time_runs_backwards():
    """The SYN-ACK carries an earlier instant than the SYN: no round trip; instants stay as captured."""
    d = Dialogue()
    d.syn(d.a)
    d.synack(d.b, time=1_700_000_000 * SECOND + 5 * MS - 5 * MS)
    d.now += 5 * MS
    d.ack(d.a)
    d.ack(d.b, time=d.now + 5 * MS)
    return d


@scenario(
    {"handshake": "complete", "last_seen": 1_700_000_000_050_000_000, "client_packets": 3, "duration_ns": 40 * MS}
)
def a_lone_timestamp_years_ahead():
    """One packet claims to come from the future: the source's clock takes its place."""
    d = Dialogue().handshake()
    d.data(d.a, 10, time=1_700_000_000 * SECOND + 20 * YEAR)
    d.now += 10 * MS
    d.ack(d.b)
    return d


@scenario({"handshake": "complete", "end_reason": "idle", "client_packets": 2, "first_file": "1.pcap"},
          {"handshake": "not_seen", "first_file": "2.pcap", "client_packets": 1})  # fmt: skip
def a_gap_of_years_between_files():
    """The next file begins three years later: the connection ended in between."""
    d = Dialogue().handshake()
    first = list(d.packets)
    d.wait(3 * YEAR)
    d.data(d.a, 10)
    d.ack(d.b)
    return {"1.pcap": first, "2.pcap": d.packets[len(first) :]}
