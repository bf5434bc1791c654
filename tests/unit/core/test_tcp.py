"""The TCP header and its options."""

import struct

import pytest
from frames import CLIENT4, CLIENT6, ipv4, ipv6, tcp

from synfin._core.probe import decode

RAW = 101
NOTHING = {
    "kinds": 0,
    "mss": None,
    "window_scale": None,
    "sack_permitted": False,
    "timestamps": None,
    "quick_timestamps": None,
    "fast_open": None,
    "mptcp": False,
}
TIMESTAMPS = b"\x08\x0a\xff\xee\xdd\xcc\x01\x02\x03\x04"
STAMPS = {"timestamps": (0xFFEEDDCC, 0x01020304), "quick_timestamps": (0xFFEEDDCC, 0x01020304)}


def bits(*kinds: int) -> int:
    return sum(1 << kind for kind in kinds)


def options_of(options: bytes) -> dict:
    """The options of a segment whose option bytes are these exactly (a capture that ends with them)."""
    padded = options + bytes(-len(options) % 4)
    packet = ipv4(tcp(options=padded, flags=2))
    return decode(packet[: len(packet) - len(padded) + len(options)], RAW, len(packet))["options"]


def test_fields() -> None:
    segment = decode(ipv4(tcp(b"xyz", seq=0xFFFFFFF0, ack=0x80000001, window=0xFEDC, dst_port=65535)), RAW)
    assert (segment["src_port"], segment["dst_port"]) == (40000, 65535)
    assert (segment["seq"], segment["ack"], segment["window"]) == (0xFFFFFFF0, 0x80000001, 0xFEDC)
    assert (segment["payload_bytes"], segment["raw_options"], segment["options"]) == (3, b"", NOTHING)


@pytest.mark.parametrize("flags", [1 << bit for bit in range(9)] + [0, 0x1FF, 0xC2, 0x12])
def test_flags(flags: int) -> None:
    segment = decode(ipv4(tcp(flags=flags)), RAW)
    assert segment["flags"] == flags
    assert segment["ack"] == (0x0A0B0C0D if flags & 0x10 else 0)


def test_reserved_bits_are_no_flags() -> None:
    assert decode(ipv4(tcp(flags=0xE10)), RAW)["flags"] == 0x10


@pytest.mark.parametrize("offset", range(16))
def test_data_offset(offset: int) -> None:
    segment = decode(ipv4(tcp(bytes(40), offset=offset)), RAW)  # 60 bytes: every offset lies within the payload
    if offset < 5:
        assert segment == "bad_tcp_header"
    else:
        assert (segment["payload_bytes"], len(segment["raw_options"])) == (60 - offset * 4, offset * 4 - 20)
    if offset > 6:
        assert decode(ipv4(tcp(bytes(4), offset=offset)), RAW) == "bad_tcp_header"


@pytest.mark.parametrize("size", range(20))
def test_ip_payload_too_short_for_a_header(size: int) -> None:
    assert decode(ipv4(tcp()[:size]) + bytes(40), RAW) == "bad_tcp_header"
    assert decode(ipv6(tcp()[:size], length=size or None) + bytes(40), RAW) == ("bad_tcp_header")


def test_options_cut_by_the_snap_length() -> None:
    packet = ipv4(tcp(b"abcd", options=b"\x02\x04\x05\xb4\x01\x01" + TIMESTAMPS))
    for captured in range(40, len(packet)):
        segment = decode(packet[:captured], RAW, len(packet))
        assert segment["payload_bytes"] == 4
        assert segment["raw_options"] == packet[40 : min(captured, 56)]
        assert segment["options"]["mss"] == (1460 if captured >= 44 else None)
        assert segment["options"]["timestamps"] == (STAMPS["timestamps"] if captured >= 56 else None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (b"\x01\x01\x01", {"kinds": bits(1)}),
        (b"\x00\x02\x04\x05\xb4", {"kinds": bits(0)}),  # nothing counts behind the end of options
        (b"\x02\x04\x05\xb4", {"kinds": bits(2), "mss": 1460}),
        (b"\x02\x04\x00\x00", {"kinds": bits(2), "mss": 0}),
        (b"\x03\x03\x0f", {"kinds": bits(3), "window_scale": 15}),
        (b"\x04\x02", {"kinds": bits(4), "sack_permitted": True}),
        (TIMESTAMPS, {"kinds": bits(8), **STAMPS}),
        (b"\x01\x01" + TIMESTAMPS, {"kinds": bits(1, 8), **STAMPS}),
        (TIMESTAMPS + b"\x01\x01", {"kinds": bits(1, 8), **STAMPS}),
        (b"\x01\x01" + TIMESTAMPS + b"\x05\x0a" + bytes(8), {"kinds": bits(1, 5, 8), **STAMPS}),
        (b"\x04\x02" + TIMESTAMPS + b"\x01", {"kinds": bits(1, 4, 8), "sack_permitted": True, **STAMPS}),
        (b"\x1e\x0c" + bytes(10), {"kinds": bits(30), "mptcp": True}),
        (b"\x1e\x02", {"kinds": bits(30)}),  # Multipath TCP has a subtype always
        (b"\x22\x02", {"kinds": bits(34), "fast_open": "cookie_request"}),
        (b"\x22\x0a" + bytes(8), {"kinds": bits(34), "fast_open": "cookie"}),
        (b"\x22\x06" + bytes(4), {"kinds": bits(34), "fast_open": "cookie"}),
        (b"\x22\x12" + bytes(16), {"kinds": bits(34), "fast_open": "cookie"}),
        (b"\x22\x14" + bytes(18), {"kinds": bits(34)}),
        (b"\x22\x05" + bytes(3), {"kinds": bits(34)}),
        (b"\x22\x04" + bytes(2), {"kinds": bits(34)}),
        (b"\xfe\x04\xf9\x89", {"fast_open": "cookie_request"}),
        (b"\xfe\x0c\xf9\x89" + bytes(8), {"fast_open": "cookie"}),
        (b"\xfe\x04\xf9\x88", {}),
        (b"\xfe\x02", {}),
        (b"\xfd\x04\xf9\x89", {}),
        (b"\x3e\x02\x3f\x02\x40\x02", {"kinds": bits(62)}),  # 63 and 64 have no bit
        (b"\x02\x03\x05", {"kinds": bits(2)}),  # a length that MSS does not have
        (b"\x03\x02\x04\x03\x00\x08\x04\x00\x00", {"kinds": bits(3, 4, 8)}),
        (b"\x02\x04\x05\xb4\x02\x04\x02\x18", {"kinds": bits(2), "mss": 536}),
        (b"\x02\x04\x05\xb4\x03\x00\x04\x02", {"kinds": bits(2), "mss": 1460}),  # length 0 stops
        (b"\x02\x04\x05\xb4\x03\x01\x04\x02", {"kinds": bits(2), "mss": 1460}),
        (b"\x04\x02\x03\x04\x07", {"kinds": bits(4), "sack_permitted": True}),  # past the end stops
        (b"\x04\x02\x02", {"kinds": bits(4), "sack_permitted": True}),
        (b"\x04\xff", {}),
        (
            b"\x02\x04\x05\xb4\x04\x02" + TIMESTAMPS + b"\x01\x03\x03\x07",
            {"kinds": bits(1, 2, 3, 4, 8), "mss": 1460, "sack_permitted": True, "window_scale": 7, **STAMPS},
        ),
    ],
)
def test_options(options: bytes, expected: dict) -> None:
    assert options_of(options) == NOTHING | expected


def test_quick_timestamps_agree_where_the_usual_form_repeats() -> None:
    twice = b"\x01\x01" + TIMESTAMPS + b"\x01\x01\x08\x0a" + struct.pack(">II", 5, 6)
    assert options_of(twice) == NOTHING | {
        "kinds": bits(1, 8),
        "timestamps": (5, 6),
        "quick_timestamps": (5, 6),
    }


def test_same_ends() -> None:
    assert decode(ipv4(tcp(src_port=9, dst_port=9), src=CLIENT4, dst=CLIENT4), RAW) == "same_ends"
    assert decode(ipv6(tcp(src_port=9, dst_port=9), src=CLIENT6, dst=CLIENT6), RAW) == "same_ends"
    assert decode(ipv4(tcp(src_port=9, dst_port=8), src=CLIENT4, dst=CLIENT4), RAW)["src_port"] == 9
    assert decode(ipv4(tcp(src_port=9, dst_port=9)), RAW)["src_port"] == 9
    last = CLIENT6[:15] + b"\xff"
    assert decode(ipv6(tcp(src_port=9, dst_port=9), src=CLIENT6, dst=last), RAW)["dst"] == last
