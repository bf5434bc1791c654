"""Whole runs over hostile packets: named counters, the accounting identity, bounded memory, the slow tracker's rows."""

from __future__ import annotations

import random
import struct
from collections import Counter

import pytest

import libpcap
from dialogue import MS, SECOND, Captured, Dialogue, End, ethernet, ipv4, ipv6, write_pcap
from rows import compare, fast, rows_of
from synfin.run import Run
from synfin.settings import Settings
from synfin.sources import filter as filters
from synfin.sources.captures import CaptureInput
from tunnels import AROUND, fits, wrapped

ENDS = {4: {}, 6: {"a_ip": "2001:db8::1", "b_ip": "2001:db8::2"}}
IP_BYTES = {4: 20, 6: 40}


def dialogue(version: int) -> Dialogue:
    return Dialogue(**ENDS[version])


def message(end: End, router: str, quote: bytes) -> bytes:
    """The frame of an ICMP error to `end`: host or address unreachable."""
    if ":" in end.ip:
        return ethernet(ipv6(router, end.ip, b"\1" + bytes(7) + quote, next_header=58))
    return ethernet(ipv4(router, end.ip, b"\3\1" + bytes(6) + quote, protocol=1))


def run(tmp_path, packets: list[Captured], settings: Settings | None = None) -> tuple[list[dict], dict]:
    """Rows and account of packets; both trackers agree, and the identity holds."""
    path = write_pcap(tmp_path / "hostile.pcap", packets)
    assert compare([path], settings) == []
    flows, _, stats = fast([path], settings)
    assert stats["packets"] == len(packets)
    return flows, stats


# ------------------------------------------------------------------------------------------------ ICMP


@pytest.mark.parametrize("version", [4, 6])
def test_a_quote_cut_at_every_byte(tmp_path, version):
    """It names its segment once both ports and the sequence number are there; a cut error is a named skip all the same."""
    d = dialogue(version)
    syn, size = d.syn(d.a), IP_BYTES[version]
    whole = d.icmp(syn, 1 if version == 6 else 3)
    cut = [Captured(whole.time_ns, whole.data[:length], len(whole.data)) for length in range(len(whole.data) + 1)]
    (row,), stats = run(tmp_path, [syn, *cut])
    assert row["icmp_errors"] == sum(len(packet.data) >= 14 + size + 8 + size + 8 for packet in cut)
    assert row["handshake"] == "unreachable"
    expected = Counter(
        "header_cut" if length < 14 + size else "not_tcp" if length == 14 + size else "icmp_error"
        for length in range(len(cut))
    )
    assert stats["skips"] == expected


@pytest.mark.parametrize("version", [4, 6])
def test_an_error_whose_length_ends_within_the_quote(tmp_path, version):
    """What follows the announced length is no quote, though it was captured."""
    d = dialogue(version)
    syn, size = d.syn(d.a), IP_BYTES[version]
    whole = d.icmp(syn, 1 if version == 6 else 3).data
    lying = []
    for length in range(size + 1, len(whole) - 14 + 1):
        at, field = (16, length) if version == 4 else (18, length - 40)
        lying.append(Captured(d.now, whole[:at] + struct.pack("!H", field) + whole[at + 2 :]))
    (row,), stats = run(tmp_path, [syn, *lying])
    assert row["icmp_errors"] == sum(length >= size + 8 + size + 8 for length in range(size + 1, len(whole) - 14 + 1))
    assert stats["skips"] == {"icmp_error": len(lying)}


@pytest.mark.parametrize("version", [4, 6])
def test_what_a_quote_may_not_be(tmp_path, version):
    """Another error, thousands deep; a tunnel; a later fragment; headers that lie: counted as errors, about no record."""
    d = dialogue(version)
    syn = d.syn(d.a)
    packet, router = syn.data[14:], "2001:db8::ff" if version == 6 else "10.0.0.254"
    nested = packet
    for _ in range(1000):
        nested = message(d.a, router, nested)[14:]
    quotes = [nested, b"", b"\x45", bytes(60), b"\xff" * 60]
    quotes += [wrapped(name, packet) for name in AROUND if fits(name, version)]
    if version == 4:
        quotes += [bytes((0x40 | words,)) + packet[1:] for words in (0, 4, 15)]
        quotes += [packet[:6] + b"\x00\x01" + packet[8:], packet[:2] + b"\x00\x13" + packet[4:]]
    else:
        quotes += [ipv6(d.a.ip, d.b.ip, (b"\x3c\0" + bytes(6)) * 7000, next_header=60)]
        quotes += [ipv6(d.a.ip, d.b.ip, bytes((6, 0, 0, 8, 0, 0, 0, 1)) + packet[40:], next_header=44)]
    errors = [Captured(d.now, message(d.a, router, quote)) for quote in quotes]
    (row,), stats = run(tmp_path, [syn, *errors])
    assert (row["icmp_errors"], row["handshake"]) == (0, "pending")
    assert stats["skips"] == {"icmp_error": len(errors)}
    assert stats["icmp"] == {"errors": 0, "rejected": 0}


def test_a_quote_behind_extension_headers(tmp_path):
    d = dialogue(6)
    syn = d.syn(d.a)
    chain = bytes((60, 0, *bytes(6))) + bytes((6, 1, *bytes(14)))
    quote = ipv6(d.a.ip, d.b.ip, chain + syn.data[54:], next_header=0)
    (row,), _ = run(tmp_path, [syn, Captured(d.now, message(d.a, "2001:db8::ff", quote))])
    assert (row["icmp_errors"], row["handshake"]) == (1, "unreachable")


# ------------------------------------------------------------------------------------------------ duplicates

FLOOD_AT = 1_700_000_000 * SECOND


def flood(count: int, ident: int | None = None) -> list[Captured]:
    """ACKs of one end and one instant that differ in the sequence number; IPv4 IDs count up or are all the same."""
    d = Dialogue()
    frame = bytearray(d.ack(d.a).data)
    out = []
    for number in range(count):
        struct.pack_into("!H", frame, 18, 1 + number % 65535 if ident is None else ident)
        struct.pack_into("!I", frame, 38, number)
        out.append(Captured(FLOOD_AT, bytes(frame)))
    return out


def test_copies_are_found_in_a_flood(tmp_path):
    """20,000 packets at one instant: each has one copy, in any order, and none is taken for another."""
    firsts = flood(20_000)
    again = list(firsts)
    random.Random(1).shuffle(again)
    path = write_pcap(tmp_path / "flood.pcap", firsts + again)
    flows, _, stats = fast([path], Settings(duplicates="drop"))
    assert stats["skips"] == {"capture_duplicate": len(again)}
    assert sum(row["client_packets"] for row in flows) == len(firsts)


def test_one_packet_repeated_is_one_entry_or_many(tmp_path):
    """With an ID each is a copy of the first. Without, each takes the entry over, and leaving entries do not hide it."""
    same = flood(1, 7) * 3000
    _, stats = run(tmp_path, same, Settings(duplicates="drop"))
    assert stats["skips"] == {"capture_duplicate": 2999}
    bare = flood(1, 0)[0]
    tagged = bare.data[:12] + b"\x81\x00\x00\x05" + bare.data[12:]
    packets = [bare._replace(time_ns=FLOOD_AT + number * MS) for number in range(500)]
    _, stats = run(tmp_path, [*packets, Captured(packets[-1].time_ns, tagged)], Settings(duplicates="drop"))
    assert stats["skips"] == {"capture_duplicate": 1}


@pytest.mark.slow
def test_what_is_remembered_is_bounded(tmp_path):
    """More packets at one instant than are remembered: the oldest are forgotten, memory stays at its bound."""
    block = write_pcap(tmp_path / "block.pcap", flood(4096, 0)).read_bytes()
    path, sizes = tmp_path / "flood.pcap", []
    for blocks in (520, 560):  # 2^21 packets are remembered: 512 blocks
        path.write_bytes(block[:24] + block[24:] * blocks)
        _, _, stats = fast([path], Settings(duplicates="drop"))
        assert stats["packets_in_records"] == stats["packets"] == 4096 * blocks
        sizes.append(stats["memory"]["firsts"])
    assert sizes[0] == sizes[1] < 200 << 20


# ------------------------------------------------------------------------------------------------ cut and random packets


def some_packets() -> list[bytes]:
    d = Dialogue().handshake()
    frames = [ethernet(wrapped(name, d.packets[0].data[14:])) for name in AROUND if fits(name, 4)]
    return [*frames, d.packets[1].data, dialogue(6).handshake().packets[0].data]


@libpcap.needs_libpcap
@pytest.mark.parametrize("expression", ["tcp", "udp port 4789", "ip6 or tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420"])
def test_a_filter_over_cut_packets(tmp_path, expression):
    """Cut at every byte: what libpcap's own machine rejects is the skip, no more and no less."""
    cut = [Captured(FLOOD_AT, frame[:size], len(frame)) for frame in some_packets() for size in range(0, len(frame), 3)]
    path = write_pcap(tmp_path / "cut.pcap", cut)
    chosen = filters.Filter(expression)
    tracked = Run(CaptureInput([str(path)]), Settings(), filter=chosen)
    flows = [row for table, block in tracked.blocks() if table == "flows" for row in rows_of(block, table)]
    stats = tracked.tracker.stats()
    assert stats["skips"]["filtered"] == sum(not libpcap.passes(chosen(1), p.data, p.wire_len) for p in cut) > 0
    assert stats["packets"] == len(cut) == stats["packets_in_records"] + sum(stats["skips"].values())
    assert stats["packets_in_records"] == sum(row["client_packets"] + row["server_packets"] for row in flows)


@pytest.mark.parametrize("duplicates", ["keep", "drop"])
@pytest.mark.parametrize("verify", ["ignore", "verify"])
def test_damaged_packets_in_one_run(tmp_path, duplicates, verify):
    """Frames of every tunnel, cut and damaged at random: the same rows, skips and intervals by both trackers."""
    rnd, packets = random.Random(11), []
    whole = some_packets()
    for number in range(3000):
        frame = bytearray(rnd.choice(whole))
        for _ in range(rnd.randrange(4)):
            frame[rnd.randrange(len(frame))] = rnd.choice([0, 1, 4, 6, 0x45, 0x60, 0xFF, rnd.randrange(256)])
        data = bytes(frame[: rnd.randrange(len(frame))] if rnd.random() < 0.2 else frame)
        packets.append(Captured(FLOOD_AT + number * MS, data, len(frame)))
    flows, stats = run(tmp_path, packets, Settings(duplicates=duplicates, checksum=verify))
    assert flows and {"header_cut", "bad_tunnel_header", "bad_ip_header", "not_tcp"} <= stats["skips"].keys()
