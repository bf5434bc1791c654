"""What is told of each service or client: which columns of the tables, under which heads. A declaration, and nothing that is
slow to load.
"""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """A number of each service or client.

    name : what `--sort` calls it.
    kind : "gauge": as it stands at the end; "rate": a count per second; "time": the highest of the window (ns).
    of : the columns of the table whose sum it is.
    heads : the two lines above it.
    rank : it is shown where there is room for all of lower or the same rank.
    """

    name: str
    kind: str
    of: tuple[str, ...]
    heads: tuple[str, str]
    rank: int


FAILED = ("refused", "unanswered", "half_open_expired", "aborted", "unreachable")
#: In the order in which they stand beside each other.
KEY_COLUMNS = (
    Column("connections", "gauge", ("connections",), ("", "conns"), 1),
    Column("opening", "gauge", ("opening",), ("open-", "ing"), 4),
    Column("half-open", "gauge", ("half_open",), ("half-", "open"), 1),
    Column("close-wait", "gauge", ("close_wait",), ("CLOSE-", "WAIT"), 5),
    Column("time-wait", "gauge", ("time_wait",), ("TIME-", "WAIT"), 1),
    Column("syns", "rate", ("syns",), ("SYNs", "/s"), 3),
    Column("new", "rate", ("completed",), ("new", "/s"), 1),
    Column("failed", "rate", FAILED, ("failed", "/s"), 1),
    Column("refused", "rate", ("refused",), ("refu-", "sed /s"), 3),
    Column("unanswered", "rate", ("unanswered", "half_open_expired"), ("no an-", "swer/s"), 3),
    Column("resets", "rate", ("closed_rst",), ("resets", "/s"), 1),
    Column("syn-resends", "rate", ("syn_resends",), ("SYN re", "sent/s"), 5),
    Column("resends", "rate", ("retransmitted_segments",), ("resent", "/s"), 1),
    Column("packets", "rate", ("packets",), ("pkts", "/s"), 6),
    Column("bytes", "rate", ("ip_bytes",), ("bytes", "/s"), 2),
    Column("server-p50", "time", ("rtt_server_p50_ns",), ("server", "p50"), 3),
    Column("server-p99", "time", ("rtt_server_p99_ns",), ("server", "p99"), 1),
    Column("client-p50", "time", ("rtt_client_p50_ns",), ("client", "p50"), 6),
    Column("client-p99", "time", ("rtt_client_p99_ns",), ("client", "p99"), 2),
)
