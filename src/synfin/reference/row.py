"""The columns of a finished record (SPEC section 4)."""

from __future__ import annotations

import ipaddress
import math
import struct

from synfin.schema import ENUMS, FLOWS

from .connection import Connection
from .end import End
from .others import other_columns
from .segment import AE, CWR, ECE, Options, parse_options


def flow_id(record: Connection) -> int:
    """FNV-1a 64 of the key and the first packet, top bit cleared."""
    first, key = record.first, record.settings.key
    ends = sorted([(first.src, first.sport), (first.dst, first.dport)])
    data = bytes((first.ip_version,)) + b"".join(address + struct.pack("!H", port) for address, port in ends)
    if "vlan" in key:
        data += struct.pack("!H", 0xFFFF if first.vlan is None else first.vlan)
    if "tunnel" in key:
        kind = ENUMS["tunnel"].index(first.tunnel.kind) if first.tunnel else 0xFF
        data += struct.pack("!Bq", kind, -1 if first.tunnel is None or first.tunnel.id is None else first.tunnel.id)
    data += struct.pack("!qI", first.time, first.seq)
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value & 0x7FFFFFFFFFFFFFFF


def span(later: int | None, earlier: int | None) -> int | None:
    """A duration; null where an instant is missing or it would be negative."""
    return later - earlier if later is not None and earlier is not None and later >= earlier else None


def row(record: Connection) -> dict:
    """Every column of schema.FLOWS, in order."""
    columns = identity(record) | opening(record) | closing(record)
    columns |= other_columns(sorted(record.seen, key=lambda segment: segment.order))
    for name, end, peer in (("client", record.client, record.server), ("server", record.server, record.client)):
        columns |= {f"{name}_{key}": value for key, value in (syn_columns(end) | data_columns(end, peer)).items()}
        columns[f"{name}_capture_duplicates"] = None if record.settings.duplicates == "keep" else end.capture_duplicates
    columns["first_response_ns"] = span(record.server.first_payload, record.client.first_payload)
    return {column.name: columns.pop(column.name) for column in FLOWS}


def identity(record: Connection) -> dict:
    packets = sorted(record.seen, key=lambda segment: segment.order)
    times = [segment.time for segment in packets]
    vlans = [segment.vlan for segment in packets if segment.vlan is not None]
    first = record.first
    tunnel = first.tunnel
    return {
        "flow_id": flow_id(record), "record": "final", "first_seen": min(times), "last_seen": max(times),
        "duration_ns": max(times) - min(times), "ip_version": first.ip_version, "direction": record.direction,
        "client_ip": str(ipaddress.ip_address(record.client.address)), "client_port": record.client.port,
        "server_ip": str(ipaddress.ip_address(record.server.address)), "server_port": record.server.port,
        "first_file": first.file, "first_packet": first.number, "interface": first.interface,
        "vlan_id": vlans[0] if vlans else None, "vlan_variants": len(set(vlans)),
        "tunnel": tunnel.kind if tunnel else None, "tunnel_id": tunnel.id if tunnel else None,
        "outer_src_ip": str(ipaddress.ip_address(tunnel.src)) if tunnel else None,
        "outer_dst_ip": str(ipaddress.ip_address(tunnel.dst)) if tunnel else None,
    }  # fmt: skip


def opening(record: Connection) -> dict:
    client, server = record.client, record.server
    syns, synacks = record.syns, [segment for _, segment in record.synacks]
    answered = client.answered.segment if client.answered else None
    handshake_rtt = None
    if answered and client.rtt is not None and server.rtt is not None:
        handshake_rtt = span(record.handshake_done, answered.time)
    measured = answered or (syns[-1] if syns else None)
    return {
        "handshake": record.handshake(), "icmp_type": record.icmp.type if record.icmp else None,
        "icmp_code": record.icmp.code if record.icmp else None, "icmp_errors": record.icmp_errors,
        "simultaneous_open": record.simultaneous, "split_open": record.split,
        "syn_first": syns[0].time if syns else None, "syn_last": syns[-1].time if syns else None, "syn_count": len(syns),
        "synack_first": synacks[0].time if synacks else None, "synack_last": synacks[-1].time if synacks else None,
        "synack_count": len(synacks), "synack_isn_variants": len({segment.seq for segment in synacks}),
        "handshake_done": record.handshake_done, "rtt_server_ns": client.rtt, "rtt_client_ns": server.rtt,
        "rtt_handshake_ns": handshake_rtt, "rtt_server_quality": client.rtt_quality,
        "rtt_client_quality": server.rtt_quality,
        "syn_backoff_ns": span(measured.time, syns[0].time) if syns else None,
        "ecn": ecn(record), "fast_open": fast_open(record), "mptcp": mptcp(record),
        "syn_payload_bytes": syns[0].payload if syns else 0, "odd_syns": record.odd_syns,
        "odd_segments": record.odd_segments,
    }  # fmt: skip


def server_synacks(record: Connection) -> list:
    return [segment for end, segment in record.synacks if end is record.server]


def ecn(record: Connection) -> str:
    """RFC 3168 section 6.1.1, RFC 9768 table 2."""
    offer = record.syns[0].flags & (AE | CWR | ECE) if record.syns else 0
    accurate, classic = offer == AE | CWR | ECE, offer == CWR | ECE
    for segment in server_synacks(record):  # the first that agrees decides
        answer = segment.flags & (AE | CWR | ECE)
        if accurate and answer in {CWR, CWR | ECE, AE, AE | CWR}:
            return "accecn_agreed"
        if (accurate or classic) and answer & ECE and not answer & CWR:
            return "agreed"
    return "accecn_offered" if accurate else "offered" if classic else "none"


def first_syn_options(record: Connection) -> Options:
    return parse_options(record.syns[0].options) if record.syns else Options()


def fast_open(record: Connection) -> str:
    """RFC 7413; as with ECN and Multipath TCP, the first SYN makes the offer: resent ones fall back."""
    if record.data_accepted():
        return "data_accepted"
    if record.syns and record.syns[0].payload:
        return "data"
    return "cookie_request" if first_syn_options(record).fast_open == "request" else "none"


def mptcp(record: Connection) -> str:
    """RFC 8684 section 3.1."""
    if not first_syn_options(record).mptcp:
        return "none"
    return "agreed" if any(parse_options(synack.options).mptcp for synack in server_synacks(record)) else "offered"


def syn_columns(end: End) -> dict:
    """What an end's SYN or SYN-ACK said: of the copy that was answered, else of its first."""
    copy = end.described
    if copy is None:
        names = ("isn", "mss", "window_scale", "syn_window", "sack_permitted", "timestamps", "option_kinds", "ttl")
        return dict.fromkeys((*names, "dont_fragment"))
    options, segment = copy.options, copy.segment
    return {
        "isn": segment.seq, "mss": options.mss, "window_scale": options.window_scale, "syn_window": segment.window,
        "sack_permitted": options.sack_permitted, "timestamps": options.timestamps is not None,
        "option_kinds": options.kinds, "ttl": segment.ttl, "dont_fragment": segment.dont_fragment,
    }  # fmt: skip


def closing(record: Connection) -> dict:
    client, server = record.client, record.server

    def side(end: End | None) -> str | None:
        return None if end is None else "client" if end is client else "server"

    first = record.first_fin
    second = record.other(first) if first else None
    rst_by, rst = record.rst or (None, None)
    close = record.close()
    closed = None
    if record.finished == "fin" or record.shape == "rst_after_fin":
        closed = span(record.finished_time, first.fin_time)
    elif record.finished:
        closed = 0
    return {
        "close": close, "closer": "both" if record.shape == "fin_simultaneous" else side(first),
        "client_fin": client.fin_time, "server_fin": server.fin_time,
        "client_fin_count": client.fin_count, "server_fin_count": server.fin_count,
        "rst_by": side(rst_by), "rst_seen": rst.time if rst else None, "rst_ttl": rst.ttl if rst else None,
        "client_rst_count": client.rst_count, "server_rst_count": server.rst_count,
        "rst_rejected": record.rst_rejected, "client_state": client.state, "server_state": server.state,
        "time_wait_side": "both" if len(record.time_wait) > 1 else side(next(iter(record.time_wait), None)),
        "time_wait_start": record.time_wait_start, "time_wait_end": record.time_wait_end,
        "fin_rtt_ns": record.fin_rtt, "half_closed_ns": span(second.fin_time, first.fin_time) if first else None,
        "payload_bytes_after_fin": record.payload_after_fin, "close_duration_ns": closed,
        "packets_after_close": record.after_close, "end_reason": record.end_reason,
    }  # fmt: skip


def data_columns(end: End, peer: End) -> dict:
    """Counts of what an end sent; its ``rtt_*`` are of the other end's data, which it acknowledged."""
    rtts = peer.rtts
    number, total, squares = len(rtts), sum(rtts), sum(rtt * rtt for rtt in rtts)
    acked = end.acked - end.fin_acked
    return {
        "packets": end.packets, "ip_bytes": end.ip_bytes, "payload_bytes": end.payload_bytes,
        "unique_bytes": end.unique, "pure_acks": end.pure_acks,
        "retransmitted_segments": end.retransmitted_segments, "retransmitted_bytes": end.retransmitted_bytes,
        "out_of_order_segments": end.out_of_order_segments, "missing_bytes": max(0, acked - end.unique),
        "keep_alives": end.keep_alives, "zero_windows": end.zero_windows, "duplicate_acks": end.duplicate_acks,
        "first_payload": end.first_payload, "rtt_samples": number,
        "rtt_min_ns": min(rtts, default=None), "rtt_max_ns": max(rtts, default=None),
        "rtt_mean_ns": total // number if number else None,
        "rtt_stddev_ns": math.isqrt((number * squares - total * total) // (number * number)) if number else None,
    }  # fmt: skip
