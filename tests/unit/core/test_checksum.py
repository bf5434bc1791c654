"""`--checksum verify`, by both decoders: each bit of what a checksum covers counts, and what cannot be verified passes."""

from __future__ import annotations

import struct

import pytest

from dialogue import Dialogue, ethernet, ipv4, ipv6, tcp, write_pcap
from rows import compare, fast
from synfin._core.probe import decode
from synfin.errors import ConfigError
from synfin.reference.decode import decode as slow_decode
from synfin.reference.segment import Skip
from synfin.settings import Settings
from tunnels import AROUND, fits, wrapped

A4, B4, A6, B6 = "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"
RAW = 101


def passes(data: bytes, *, verify: bool = True, wire_len: int | None = None) -> bool:
    """Whether both decoders take a packet; the only reason not to may be its checksum."""
    found = decode(data, RAW, wire_len, verify=verify)
    try:
        slow_decode(data, wire_len or len(data), RAW, verify=verify)
        theirs = True
    except Skip as skip:
        theirs = str(skip)
    ours = True if isinstance(found, dict) else found
    assert ours == theirs and ours in (True, "bad_checksum")
    return ours is True


def four(payload: bytes) -> bytes:
    return ipv4(A4, B4, tcp(A4, B4, 1234, 80, seq=7, ack=9, flags=0x18, payload=payload))


def six(payload: bytes) -> bytes:
    return ipv6(A6, B6, tcp(A6, B6, 1234, 80, seq=7, ack=9, flags=0x18, payload=payload))


@pytest.mark.parametrize("payload", [b"", b"x", b"odd", b"even", bytes(1460), b"\xff" * 1459])
@pytest.mark.parametrize("build", [four, six])
def test_right_ones_pass(build, payload):
    assert passes(build(payload)) and passes(build(payload) + b"padding")


@pytest.mark.parametrize(("build", "harmless"), [(four, ()), (six, (*range(4), 7))])
def test_any_changed_bit_is_found(build, harmless):
    """IPv6's first four bytes and hop limit are under no checksum; lengths, protocol and data offset change the decoding."""
    packet = build(b"payload")
    head = 20 if build is four else 40
    decoding = {0, 2, 3, 6, 7, 9, head + 12} if build is four else {0, 4, 5, 6, head + 12}
    for at in set(range(len(packet))) - decoding:
        changed = packet[:at] + bytes([packet[at] ^ 0x10]) + packet[at + 1 :]
        assert passes(changed) == (at in harmless), at
        assert passes(changed, verify=False), at


def test_what_cannot_be_verified_passes():
    segment = tcp(A4, B4, 1234, 80, seq=7, ack=9, flags=0x18, payload=bytes(100))
    wrong = segment[:16] + b"\0\0" + segment[18:]
    assert not passes(ipv4(A4, B4, wrong))
    assert passes(ipv4(A4, B4, wrong)[:60], wire_len=140)
    assert passes(ipv4(A4, B4, wrong, more=True))
    assert not passes(ipv4(A4, B4, wrong)[:10] + b"\xff\xff" + ipv4(A4, B4, wrong)[12:60], wire_len=140)
    wrong = tcp(A6, B6, 1234, 80, seq=7, ack=9, flags=0x18)[:16] + bytes(4)
    for segments_left in (0, 1):
        routing = struct.pack("!BBBBI", 6, 0, 3, segments_left, 0)
        assert passes(ipv6(A6, B6, routing + wrong, next_header=43)) == bool(segments_left)
    fragment = struct.pack("!BBHI", 6, 0, 1, 9)
    assert passes(ipv6(A6, B6, fragment + wrong, next_header=44))


@pytest.mark.parametrize("name", AROUND)
def test_in_a_tunnel_the_innermost_headers_count(name):
    build = four if fits(name, 4) else six
    assert passes(wrapped(name, build(b"payload")))
    assert not passes(wrapped(name, build(b"payload")[:-1] + b"?"))


def test_rows_and_the_named_skip(tmp_path):
    d = Dialogue().handshake()
    good = d.data(d.a)
    bad = good._replace(data=good.data[:-1] + b"\xff", time_ns=good.time_ns + 1)
    path = write_pcap(tmp_path / "in.pcap", [*d.packets, bad])
    rows, _, stats = fast([path], Settings(checksum="verify"))
    assert stats["skips"] == {"bad_checksum": 1} and rows[0]["client_packets"] == 3
    assert fast([path])[2]["skips"] == {}
    assert compare([path], Settings(checksum="verify")) == []
    with pytest.raises(ConfigError, match="verify"):
        Settings(checksum="on")


def test_a_frame_s_padding_is_not_summed(tmp_path):
    packet = four(b"")
    path = write_pcap(
        tmp_path / "in.pcap", [Dialogue().syn(Dialogue().a)._replace(data=ethernet(packet) + b"\xab" * 6)]
    )
    assert fast([path], Settings(checksum="verify"))[2]["skips"] == {}
