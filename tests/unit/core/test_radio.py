"""IEEE 802.11 and rarer networks, by both decoders, against headers built by hand."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialogue import ipv4, tcp
from synfin import schema
from synfin._core.probe import decode
from synfin.reference.decode import decode as slow_decode
from synfin.reference.segment import Skip

PACKET = ipv4(
    "10.0.0.1", "10.0.0.2", tcp("10.0.0.1", "10.0.0.2", 1234, 80, seq=7, ack=9, flags=0x18, payload=b"payload")
)
SNAP = bytes.fromhex("aaaa03 000000 0800")
ADDRESSES = bytes(range(18))
WLAN, PRISM, RADIOTAP, AVS, PPI = 105, 119, 127, 163, 192


def both(data: bytes, link_type: int, wire_len: int | None = None) -> tuple | str:
    """(source port, sequence number, payload) or the skip, as both decoders say."""
    found = decode(data, link_type, wire_len, after=b"\xff" * 64)
    ours = found if isinstance(found, str) else (found["src_port"], found["seq"], found["payload_bytes"])
    try:
        segment = slow_decode(data, max(wire_len or 0, len(data)), link_type)
        theirs = (segment.sport, segment.seq, segment.payload)
    except Skip as skip:
        theirs = str(skip)
    assert ours == theirs
    return ours


def wlan(first: int = 0x08, flags: int = 0x01, *, fragment: int = 0, qos: bytes = b"", fourth: bytes = b"") -> bytes:
    """An IEEE 802.11 header: frame control, duration, three addresses, sequence control, and what else is given."""
    return bytes((first, flags)) + b"\x2c\0" + ADDRESSES + struct.pack("<H", 0x1230 | fragment) + fourth + qos


QOS, FOURTH = b"\x05\0", bytes(range(6))
HEADERS = {
    "to the access point": (WLAN, wlan()),
    "from the access point": (WLAN, wlan(flags=0x02)),
    "between stations": (WLAN, wlan(flags=0)),
    "more flags": (WLAN, wlan(flags=0x01 | 0x04 | 0x08 | 0x10 | 0x20)),
    "four addresses": (WLAN, wlan(flags=0x03, fourth=FOURTH)),
    "QoS": (WLAN, wlan(0x88, qos=QOS)),
    "QoS, four addresses": (WLAN, wlan(0x88, 0x03, fourth=FOURTH, qos=QOS)),
    "QoS and HT control": (WLAN, wlan(0x88, 0x81, qos=QOS + bytes(4))),
    "order without QoS": (WLAN, wlan(flags=0x81)),
    "data with an acknowledgement": (WLAN, wlan(0x18)),
    "radiotap, no fields": (RADIOTAP, bytes.fromhex("0000 0800 00000000") + wlan()),
    "radiotap, flags": (RADIOTAP, bytes.fromhex("0000 0900 02000000 10") + wlan(0x88, qos=QOS)),
    "radiotap, time and padded": (RADIOTAP, bytes.fromhex("0000 1100 03000000 1122334455667788 20") + wlan(0x88, qos=QOS + bytes(2))),
    "radiotap, three words": (
        RADIOTAP,
        bytes.fromhex("0000 1900 030000a0 00000080 00000000 1122334455667788 20") + wlan(0x88, qos=QOS + bytes(2)),
    ),
    "radiotap, two words, aligned": (
        RADIOTAP,
        bytes.fromhex("0000 1900 03000080 00000000 ffffffff 1122334455667788 20") + wlan(0x88, qos=QOS + bytes(2)),
    ),
    "radiotap, flags of the second word": (RADIOTAP, bytes.fromhex("0000 1400 00000080 02000000 20ff000000000000") + wlan(0x88, qos=QOS)),
    "Prism": (PRISM, bytes.fromhex("44000000 90000000") + bytes(136) + wlan()),
    "AVS": (AVS, bytes.fromhex("80211001 00000040") + bytes(56) + wlan()),
    "AVS as Prism": (PRISM, bytes.fromhex("80211002 00000050") + bytes(72) + wlan(0x88, qos=QOS)),
    "PPI": (PPI, bytes.fromhex("0000 0c00 69000000 deadbeef") + wlan()),
    "FDDI": (10, b"\x50" + bytes(12)),
    "Token Ring": (6, b"\x10\x40" + bytes(12)),
    "Token Ring, source route": (6, b"\x10\x40" + bytes(6) + b"\x80" + bytes(5) + bytes.fromhex("0600 1234 5670")),
}  # fmt: skip
BARE = {
    "ARCNET, RFC 1051": (129, bytes.fromhex("01020000f0")),
    "ARCNET, RFC 1201": (129, bytes.fromhex("01020000d4 00 0001")),
    "IP over InfiniBand": (242, bytes(40) + bytes.fromhex("0800 0000")),
    "PPI, raw": (PPI, bytes.fromhex("0000 0800 65000000")),
    "PPP of pppd": (166, bytes.fromhex("0103 0021")),
    "PPP with direction": (204, bytes.fromhex("01 ff03 0021")),
    "netfilter log": (
        239,
        bytes.fromhex("02000001 0800 0100 0800 0300 0500 0a00 78000000") + struct.pack("<HH", 4 + len(PACKET), 9),
    ),
    "netfilter log, big-endian": (
        239,
        bytes.fromhex("02000001 0008 0001 0000 0300") + struct.pack(">HH", 4 + len(PACKET), 9),
    ),
    "backbone bridge": (1, bytes(12) + bytes.fromhex("88e7 00123456") + bytes(12) + b"\x08\0"),
}
WHOLE = {name: (link_type, header + SNAP) for name, (link_type, header) in HEADERS.items()} | BARE


@pytest.mark.parametrize("name", WHOLE)
def test_the_segment_behind_each_header_and_every_cut(name):
    link_type, header = WHOLE[name]
    whole = header + PACKET
    assert both(whole, link_type) == (1234, 7, 7)
    for size in range(len(whole) - 7):
        assert both(whole[:size], link_type, len(whole)) == "header_cut", size
    assert both(whole[:-7], link_type, len(whole)) == (1234, 7, 7)


SKIPPED = {
    "beacon": (WLAN, b"\x80\0" + bytes(60), "not_ip"),
    "acknowledgement": (WLAN, b"\xd4\0" + bytes(8), "not_ip"),
    "no data": (WLAN, wlan(0x48), "not_ip"),
    "QoS without data": (WLAN, wlan(0xC8, qos=QOS), "not_ip"),
    "protected": (WLAN, wlan(flags=0x41) + SNAP + PACKET, "encrypted"),
    "protected QoS": (WLAN, wlan(0x88, 0x41, qos=QOS) + bytes(8) + SNAP + PACKET, "encrypted"),
    "protected management": (WLAN, b"\xb0\x40" + bytes(60), "not_ip"),
    "later fragment": (WLAN, wlan(fragment=1) + PACKET, "fragment"),
    "A-MSDU": (WLAN, wlan(0x88, qos=b"\x80\0") + bytes(14) + SNAP + PACKET, "aggregate"),
    "version 1": (WLAN, wlan(0x09) + SNAP + PACKET, "bad_link_header"),
    "ARP": (WLAN, wlan() + SNAP[:6] + b"\x08\x06" + bytes(28), "not_ip"),
    "radiotap, version 1": (RADIOTAP, bytes.fromhex("0100 0800 00000000") + wlan() + SNAP + PACKET, "bad_link_header"),
    "radiotap, length 7": (RADIOTAP, bytes.fromhex("0000 0700 00000000") + wlan() + SNAP + PACKET, "bad_link_header"),
    "radiotap, length beyond": (RADIOTAP, bytes.fromhex("0000 ffff 00000000") + wlan() + SNAP + PACKET, "header_cut"),
    "radiotap, words without end": (RADIOTAP, bytes.fromhex("0000 2000 020000ff") + b"\xff" * 24 + wlan() + SNAP + PACKET, (1234, 7, 7)),
    "AVS without its magic": (AVS, bytes(8) + wlan() + SNAP + PACKET, "bad_link_header"),
    "AVS of length 4": (AVS, bytes.fromhex("80211001 00000004") + wlan() + SNAP + PACKET, "bad_link_header"),
    "PPI of length 4": (PPI, bytes.fromhex("0000 0400 69000000") + PACKET, "bad_link_header"),
    "PPI with what is not read": (PPI, bytes.fromhex("0000 0800 dc000000") + PACKET, "not_ip"),
    "PPI with a large number": (PPI, bytes.fromhex("0000 0800 65000100") + PACKET, "not_ip"),
    "FDDI, station management": (10, b"\x41" + bytes(12) + SNAP + PACKET, "not_ip"),
    "Token Ring, MAC frame": (6, b"\x10\x00" + bytes(12) + SNAP + PACKET, "not_ip"),
    "ARCNET, ARP": (129, bytes.fromhex("01020000d5 00 0001") + bytes(28), "not_ip"),
    "ARCNET, a part": (129, bytes.fromhex("01020000d4 03 0001") + PACKET, "not_ip"),
    "netfilter log, attribute of 3": (239, bytes.fromhex("02000001 0300 0100") + PACKET, "bad_link_header"),
    "netfilter log, ARP": (239, bytes.fromhex("07000001 0800 0100 0806 0300 2000 0900") + bytes(28), "not_ip"),
    "netfilter log, IPX": (239, bytes.fromhex("07000001 2000 0900") + bytes(28), "bad_ip_header"),
}  # fmt: skip


@pytest.mark.parametrize("name", SKIPPED)
def test_skips(name):
    link_type, frame, reason = SKIPPED[name]
    assert both(frame, link_type) == reason
    assert isinstance(reason, tuple) or reason in dict(schema.SKIPS)


def test_ppi_within_ppi_is_not_read():
    assert both(bytes.fromhex("0000 0800 c0000000") * 900, PPI) == "not_ip"


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(sorted(WHOLE)), st.integers(0, 2**32 - 1), st.integers(1, 4), st.booleans())
def test_both_decoders_agree_on_damaged_headers(name, seed, damages, cut):
    rnd, (link_type, header) = random.Random(seed), WHOLE[name]
    frame = bytearray(header + PACKET)
    for _ in range(damages):
        frame[rnd.randrange(min(len(frame), len(header) + 20))] = rnd.choice(
            [0, 1, 2, 4, 8, 0x20, 0x40, 0x80, 0xFF, rnd.randrange(256)]
        )
    both(bytes(frame[: rnd.randrange(len(frame))] if cut else frame), link_type, len(frame))
