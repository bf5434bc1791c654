"""The columns of all tables and the values of every enumeration, declared once.

The core's column numbers and enumeration codes are generated from here when the extensions are built
(``setup.py``), the Arrow schema is made from here, and ``synfin columns`` prints it. This module imports nothing.

Kinds: ``instant`` is nanoseconds since 1970 UTC (Arrow ``timestamp[ns, UTC]``); ``int16``/``int32``/``int64`` are
signed; ``bool``; ``enum:NAME`` and ``text`` are dictionary-encoded strings. A column named ``*_ns`` is a duration in
nanoseconds. Null always means "not seen"; counts are 0 when there was nothing to count.
"""

from __future__ import annotations

from typing import NamedTuple

SCHEMA_VERSION = 1

#: The eleven states of RFC 9293 section 3.3.2, in the order of their codes.
STATES = (
    "CLOSED", "LISTEN", "SYN-SENT", "SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT",
    "CLOSING", "LAST-ACK", "TIME-WAIT",
)  # fmt: skip

#: Every enumeration, in the order of its codes.
ENUMS: dict[str, tuple[str, ...]] = {
    "record": ("final", "interim"),
    "direction": ("syn", "synack", "server_port", "high_port", "first_packet"),
    "handshake": (
        "complete", "unanswered", "refused", "half_open", "aborted", "unreachable", "not_seen", "pending",
    ),
    "tunnel": ("ipip", "6in4", "4in6", "6in6", "gre", "nvgre", "pptp", "erspan", "vxlan", "geneve", "gtpu"),
    "rtt_quality": ("clean", "matched", "ambiguous", "none"),
    "ecn": ("none", "offered", "agreed", "accecn_offered", "accecn_agreed"),
    "fast_open": ("none", "cookie_request", "data", "data_accepted"),
    "mptcp": ("none", "offered", "agreed"),
    "close": (
        "fin_4way", "fin_3way", "fin_simultaneous", "half_closed", "fin_unanswered", "rst", "rst_after_fin", "open",
    ),
    "side": ("client", "server", "both"),
    "time_wait_end": ("expired", "reused", "reset"),
    "end_reason": ("fin", "rst", "idle", "attempt_timeout", "reuse", "evicted", "end_of_input"),
    "state": STATES,
    "zeek_conn_state": (
        "S0", "S1", "SF", "REJ", "S2", "S3", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH", "SHR", "OTH",
    ),
}  # fmt: skip


class Column(NamedTuple):
    """One column: its name, its kind (see the module), its group in the documents, one sentence, and whether it is
    optional: left out, and nothing kept for it, unless it is asked for by name.
    """

    name: str
    kind: str
    group: str
    doc: str
    optional: bool = False


def _ends(group: str, *columns: tuple[str, str, str]) -> list[Column]:
    """The same columns for the client and for the server, each describing what that end sent."""
    return [
        Column(f"{end}_{name}", kind, group, doc.replace("END", end).replace("PEER", peer))
        for end, peer in (("client", "server"), ("server", "client"))
        for name, kind, doc in columns
    ]


FLOWS: tuple[Column, ...] = tuple(
    [
        Column("flow_id", "int64", "identity", "Identifier of the record, the same on every run (FNV-1a 64 of the key, the first packet's timestamp and sequence number, top bit clear)."),
        Column("record", "enum:record", "identity", "Always `final` for captures; `interim` marks cumulative rows of a live run."),
        Column("first_seen", "instant", "identity", "Smallest timestamp of the record's packets."),
        Column("last_seen", "instant", "identity", "Largest timestamp of the record's packets."),
        Column("duration_ns", "int64", "identity", "`last_seen` minus `first_seen`."),
        Column("ip_version", "int16", "identity", "4 or 6."),
        Column("client_ip", "text", "identity", "Address of the end that opened the connection (see `direction`)."),
        Column("client_port", "int32", "identity", "Port of the client."),
        Column("server_ip", "text", "identity", "Address of the other end."),
        Column("server_port", "int32", "identity", "Port of the server."),
        Column("direction", "enum:direction", "identity", "The rule that decided which end is the client."),
        Column("first_file", "text", "identity", "File of the record's first packet; null when live."),
        Column("first_packet", "int64", "identity", "Number (from 1) of that packet in that file; null when live."),
        Column("vlan_id", "int32", "identity", "First VLAN ID seen (outermost tag of the outermost frame); null when untagged."),
        Column("vlan_variants", "int32", "identity", "How many different VLAN IDs the record's packets carried."),
        Column("tunnel", "enum:tunnel", "identity", "Kind of the outermost tunnel around the record's first packet; null if none."),
        Column("tunnel_id", "int64", "identity", "Its VNI (VXLAN, GENEVE), VSID (NVGRE), key (GRE), session (ERSPAN), call (PPTP) or TEID (GTP-U); null if it has none."),
        Column("outer_src_ip", "text", "identity", "Source address of that packet's outermost IP header; null without a tunnel."),
        Column("outer_dst_ip", "text", "identity", "Destination address of that header."),
        Column("interface", "text", "identity", "Capture interface of the first packet: its name or number (pcapng, live); null for pcap."),
        Column("community_id", "text", "identity", "Community ID version 1, seed 0, of the two ends.", True),
        Column("handshake", "enum:handshake", "opening", "How the opening ended."),
        Column("icmp_type", "int16", "opening", "Type of the first ICMP or ICMPv6 error that said that the client's SYN did not arrive."),
        Column("icmp_code", "int16", "opening", "Its code."),
        Column("icmp_errors", "int64", "opening", "ICMP and ICMPv6 errors that quote a segment of this record which was in flight."),
        Column("simultaneous_open", "bool", "opening", "Both ends sent a SYN before either answered."),
        Column("split_open", "bool", "opening", "The server sent an ACK and then a bare SYN instead of a SYN-ACK."),
        Column("syn_first", "instant", "opening", "The client's first SYN."),
        Column("syn_last", "instant", "opening", "The client's last SYN."),
        Column("syn_count", "int64", "opening", "SYNs of the client, resends included."),
        Column("synack_first", "instant", "opening", "First acceptable SYN-ACK of either end."),
        Column("synack_last", "instant", "opening", "Last acceptable SYN-ACK of either end."),
        Column("synack_count", "int64", "opening", "Acceptable SYN-ACKs, resends included."),
        Column("synack_isn_variants", "int64", "opening", "Different initial sequence numbers among them; 2 in a simultaneous open in which both ends sent one."),
        Column("handshake_done", "instant", "opening", "The packet after which both SYNs are acknowledged; null if it was not captured."),
        Column("rtt_server_ns", "int64", "opening", "From the tap to the server and back: the client's SYN to its first acknowledgement."),
        Column("rtt_client_ns", "int64", "opening", "From the tap to the client and back: the server's SYN-ACK to its first acknowledgement."),
        Column("rtt_handshake_ns", "int64", "opening", "From the SYN used for `rtt_server_ns` to `handshake_done`."),
        Column("rtt_server_quality", "enum:rtt_quality", "opening", "`clean`: one copy of the SYN; `matched`: resent, and the timestamp echo names the copy; `ambiguous`: not decidable; `none`: no value."),
        Column("rtt_client_quality", "enum:rtt_quality", "opening", "The same for `rtt_client_ns`; also `ambiguous` if the answer carried payload or FIN or acknowledged more than the SYN."),
        Column("syn_backoff_ns", "int64", "opening", "First SYN to the SYN that was answered, else to the last."),
        *_ends(
            "opening",
            ("isn", "int64", "Initial sequence number of the END."),
            ("mss", "int32", "MSS option of the END's SYN or SYN-ACK; null if not sent."),
            ("window_scale", "int16", "Window scale shift that the END offered; null if not offered."),
            ("syn_window", "int32", "Window field of the END's SYN or SYN-ACK."),
            ("sack_permitted", "bool", "The END offered SACK."),
            ("timestamps", "bool", "The END's SYN or SYN-ACK carried the timestamps option."),
            ("option_kinds", "int64", "TCP option kinds of the END's SYN or SYN-ACK: bit k is kind k (0 to 62)."),
            ("ttl", "int16", "TTL or hop limit of the END's SYN or SYN-ACK."),
            ("dont_fragment", "bool", "The DF bit of the END's SYN or SYN-ACK; null for IPv6."),
        ),
        Column("ecn", "enum:ecn", "opening", "Explicit congestion notification (RFC 3168, RFC 9768) offered or agreed."),
        Column("fast_open", "enum:fast_open", "opening", "TCP Fast Open (RFC 7413)."),
        Column("mptcp", "enum:mptcp", "opening", "Multipath TCP (RFC 8684) offered or agreed."),
        Column("syn_payload_bytes", "int64", "opening", "Payload bytes of the client's first SYN."),
        Column("odd_syns", "int64", "opening", "SYNs and SYN-ACKs that belong to no opening of this record: old duplicates, unproven or unacceptable ones."),
        Column("odd_segments", "int64", "opening", "Segments outside the window or outside the attempt; counted, otherwise without effect."),
        Column("close", "enum:close", "closing", "The shape of the close; null unless `handshake` is `complete` or `not_seen`."),
        Column("closer", "enum:side", "closing", "Sender of the first FIN; `both` if simultaneous; null without FIN."),
        Column("client_fin", "instant", "closing", "First FIN of the client."),
        Column("server_fin", "instant", "closing", "First FIN of the server."),
        Column("client_fin_count", "int64", "closing", "FINs of the client, resends included."),
        Column("server_fin_count", "int64", "closing", "FINs of the server, resends included."),
        Column("rst_by", "enum:side", "closing", "Sender of the first accepted RST."),
        Column("rst_seen", "instant", "closing", "First accepted RST."),
        Column("rst_ttl", "int16", "closing", "Its TTL or hop limit; unlike that end's `ttl`, it points at an appliance on the way."),
        Column("client_rst_count", "int64", "closing", "RSTs of the client."),
        Column("server_rst_count", "int64", "closing", "RSTs of the server."),
        Column("rst_rejected", "int64", "closing", "RSTs of either end that were not acceptable (RFC 9293 section 3.5.3) and changed nothing."),
        Column("client_state", "enum:state", "closing", "RFC 9293 state of the client after the record's last packet."),
        Column("server_state", "enum:state", "closing", "RFC 9293 state of the server after the record's last packet."),
        Column("time_wait_side", "enum:side", "closing", "The end that entered TIME-WAIT."),
        Column("time_wait_start", "instant", "closing", "The packet with which TIME-WAIT began."),
        Column("time_wait_end", "enum:time_wait_end", "closing", "How TIME-WAIT ended; null while it lasts."),
        Column("fin_rtt_ns", "int64", "closing", "First FIN to its acknowledgement; null if that FIN was resent."),
        Column("half_closed_ns", "int64", "closing", "First FIN to the other end's first FIN."),
        Column("payload_bytes_after_fin", "int64", "closing", "Payload bytes that the other end sent after the first FIN."),
        Column("close_duration_ns", "int64", "closing", "First FIN or RST to closed."),
        Column("packets_after_close", "int64", "closing", "Packets of the record after it was closed or reset."),
        Column("end_reason", "enum:end_reason", "closing", "Why the record ended."),
        *_ends(
            "data",
            ("packets", "int64", "Packets of the END."),
            ("ip_bytes", "int64", "IP bytes (headers and payload) of the END's packets."),
            ("payload_bytes", "int64", "TCP payload bytes of the END as sent, resends included."),
            ("unique_bytes", "int64", "Payload bytes of the END seen for the first time."),
            ("pure_acks", "int64", "Segments of the END with ACK and nothing else; keep-alives excluded."),
            ("retransmitted_segments", "int64", "Payload segments of the END that touch bytes already seen."),
            ("retransmitted_bytes", "int64", "Those bytes."),
            ("out_of_order_segments", "int64", "Payload segments of the END that fall wholly into a gap."),
            ("missing_bytes", "int64", "Bytes of the END that the PEER acknowledged and the capture does not hold."),
            ("keep_alives", "int64", "Keep-alive probes of the END."),
            ("zero_windows", "int64", "Segments of the END that announce a window of 0 (no SYN, FIN or RST)."),
            ("duplicate_acks", "int64", "Duplicate acknowledgements sent by the END (RFC 5681 section 2)."),
            ("capture_duplicates", "int64", "Copies of the END's packets that the capture point saw twice, counted in its `packets` and `ip_bytes`; null with `--duplicates keep`."),
            ("first_payload", "instant", "The END's first segment with payload."),
            ("rtt_samples", "int64", "Data round trips measured between the tap and the END."),
            ("rtt_min_ns", "int64", "Smallest of them."),
            ("rtt_mean_ns", "int64", "Their mean, rounded down."),
            ("rtt_max_ns", "int64", "Largest of them."),
            ("rtt_stddev_ns", "int64", "Their population standard deviation, rounded down."),
        ),
        Column("first_response_ns", "int64", "data", "The client's first payload to the server's first payload."),
        Column("zeek_conn_state", "enum:zeek_conn_state", "as other tools say it", "`conn_state` of Zeek's conn.log, by Zeek's rules over the record's packets.", True),
        Column("zeek_history", "text", "as other tools say it", "`history` of Zeek's conn.log, likewise, at most 64 letters: upper case for the originator, which need not be the client.", True),
        Column("wireshark_completeness", "int16", "as other tools say it", "`tcp.completeness` of Wireshark over the record's packets: 1 SYN, 2 SYN-ACK, 4 ACK, 8 data, 16 FIN, 32 RST.", True),
        Column("wireshark_initial_rtt_ns", "int64", "as other tools say it", "`tcp.analysis.initial_rtt` of Wireshark: the last SYN to the first ACK after it, of either end.", True),
    ]
)  # fmt: skip

_GAUGE_DOC = "Ends in {} when the interval ends."
INTERVALS: tuple[Column, ...] = tuple(
    [
        Column("interval_start", "instant", "interval", "Start of the interval, a whole multiple of its length since 1970."),
        Column("interval_ns", "int64", "interval", "Length of the interval."),
        Column("complete", "bool", "interval", "False for an interval that the input's end or a step of the clock cut."),
        Column("syn_sent", "int64", "gauge", _GAUGE_DOC.format("SYN-SENT")),
        Column("syn_received", "int64", "gauge", _GAUGE_DOC.format("SYN-RECEIVED")),
        Column("established", "int64", "gauge", _GAUGE_DOC.format("ESTABLISHED")),
        Column("fin_wait_1", "int64", "gauge", _GAUGE_DOC.format("FIN-WAIT-1")),
        Column("fin_wait_2", "int64", "gauge", _GAUGE_DOC.format("FIN-WAIT-2")),
        Column("close_wait", "int64", "gauge", _GAUGE_DOC.format("CLOSE-WAIT")),
        Column("closing", "int64", "gauge", _GAUGE_DOC.format("CLOSING")),
        Column("last_ack", "int64", "gauge", _GAUGE_DOC.format("LAST-ACK")),
        Column("time_wait", "int64", "gauge", _GAUGE_DOC.format("TIME-WAIT")),
        Column("connections", "int64", "gauge", "Connections that have neither failed nor closed nor been reset."),
        Column("opening", "int64", "gauge", "Connections whose SYN nothing has answered yet."),
        Column("half_open", "int64", "gauge", "Connections with a SYN-ACK whose handshake is not complete."),
        Column("half_closed", "int64", "gauge", "Connections with exactly one FIN, acknowledged."),
        Column("midstream", "int64", "gauge", "Connections whose opening was not seen, not closed."),
        Column("opening_peak", "int64", "gauge", "Highest `opening` at the ends of the interval's ten slices."),
        Column("half_open_peak", "int64", "gauge", "Highest `half_open` at the ends of the ten slices."),
        Column("time_wait_peak", "int64", "gauge", "Highest `time_wait` at the ends of the ten slices."),
        Column("syns", "int64", "count", "SYNs, resends included."),
        Column("syn_resends", "int64", "count", "Resent SYNs."),
        Column("synacks", "int64", "count", "SYN-ACKs, resends included."),
        Column("completed", "int64", "count", "Handshakes completed."),
        Column("refused", "int64", "count", "Attempts refused by a RST."),
        Column("unanswered", "int64", "count", "Attempts that ended without an answer."),
        Column("half_open_expired", "int64", "count", "Half-open connections that ended without completion."),
        Column("aborted", "int64", "count", "Attempts reset by a side before completion."),
        Column("unreachable", "int64", "count", "Attempts whose SYN did not arrive by an ICMP error."),
        Column("closed_fin", "int64", "count", "Connections closed: both FINs acknowledged."),
        Column("closed_rst", "int64", "count", "Connections reset."),
        Column("evicted", "int64", "count", "Records that ended at the cap (`--max-flows`, `--max-memory`), closed and reset ones included."),
        Column("packets", "int64", "count", "Packets of tracked connections."),
        Column("ip_bytes", "int64", "count", "IP bytes of those packets."),
        Column("retransmitted_segments", "int64", "count", "Retransmitted payload segments."),
        Column("capture_duplicates", "int64", "count", "Copies among those packets that the capture point saw twice; null with `--duplicates keep`."),
        Column("capture_drops", "int64", "count", "Packets that the capture says it lost; null where it does not say."),
        *[
            Column(f"rtt_{side}_{q}_ns", "int64", "rtt", f"{text} of the interval's `rtt_{side}_ns` (clean and matched ones); null without samples.")
            for side in ("server", "client")
            for q, text in (("p50", "Median"), ("p90", "90th percentile"), ("p99", "99th percentile"), ("max", "Maximum"))
        ],
    ]
)  # fmt: skip

#: Of each table that is the interval table by key: the columns of the key. One row of an interval sums all that have no
#: row of their own: `other` in the first of them.
KEYS: dict[str, tuple[Column, ...]] = {
    "services": (
        Column("server_ip", "text", "interval", "Address of the server; `other`: all services that have no row of their own in this interval, together."),
        Column("server_port", "int32", "interval", "Its port; null in the row `other`."),
    ),
    "clients": (
        Column("client_ip", "text", "interval", "Address of the client; `other`: all clients that have no row of their own in this interval, together."),
    ),
}  # fmt: skip
#: What ``--by`` takes -> the table that it gives.
BY = {"service": "services", "client": "clients"}
OTHER = "other"


def _by_key(key: tuple[Column, ...]) -> tuple[Column, ...]:
    """The interval table's columns with those of a key after the interval itself."""
    drops = "Null: whose packets were lost is not known; the interval table says how many."
    counts = (column._replace(doc=drops) if column.name == "capture_drops" else column for column in INTERVALS[3:])
    return (*INTERVALS[:3], *key, *counts)


TABLES: dict[str, tuple[Column, ...]] = {
    "flows": FLOWS, "intervals": INTERVALS, **{table: _by_key(key) for table, key in KEYS.items()}
}  # fmt: skip
#: Those that a run has without being asked for more.
USUAL_TABLES = ("flows", "intervals")


def default_names(table: str) -> list[str]:
    """The columns of a table that are there without being asked for."""
    return [column.name for column in TABLES[table] if not column.optional]


#: Packets that belong to no record are counted under one of these names (the accounting identity of every run).
#: A link type that is not decoded counts under `link_type_N` instead.
SKIPS: tuple[tuple[str, str], ...] = (
    ("not_ip", "The link layer carries something other than IPv4 or IPv6 (ARP, LLDP, spanning tree, ...)."),
    ("not_tcp", "IP carries something other than TCP, or a tunnel that carries no IP."),
    ("icmp_error", "An ICMP or ICMPv6 error message."),
    ("fragment", "A fragment without the whole TCP header: mostly a later one; the first one carries the header and is tracked."),
    ("header_cut", "The capture cut the packet inside a link, IP, tunnel or TCP header (snap length)."),
    ("bad_link_header", "A link header that contradicts itself."),
    ("bad_ip_header", "An IP header that contradicts itself (version, header length, total length, extension chain)."),
    ("bad_tcp_header", "A TCP header that contradicts itself (data offset below 5 or beyond the IP payload)."),
    ("same_ends", "Both ends are the same address and port."),
    ("bad_tunnel_header", "A tunnel header that contradicts itself (GRE, ERSPAN: version, length)."),
    ("tunnel_depth", "More than 16 tunnels inside one another."),
    ("encrypted", "A protected IEEE 802.11 frame."),
    ("aggregate", "An IEEE 802.11 A-MSDU: several packets in one frame."),
    ("bad_checksum", "A wrong IPv4 header or TCP checksum, only with `--checksum verify`."),
    ("filtered", "The filter expression (`--filter`) does not match the packet."),
    ("outside_window", "The packet lies outside the window of time (`--from`, `--to`)."),
    ("capture_duplicate", "A copy of a packet that the capture point saw twice (`--duplicates drop`; with `count`, one whose connection has no record any more)."),
)
