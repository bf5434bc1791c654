"""IPv4 and IPv6: lengths, fragments, extension headers, and the protocols that are skipped by name."""

import struct

import pytest
from frames import CLIENT4, CLIENT6, ETHERNET, SERVER4, SERVER6, ethernet, ipv4, ipv6, tcp

from synfin._core.probe import decode

RAW = 101


def extension(next_header: int, size: int = 8) -> bytes:
    """A header in the common format of RFC 6564, filled with Pad1."""
    return bytes([next_header, size // 8 - 1]) + bytes(size - 2)


def authentication(next_header: int, words: int = 6) -> bytes:
    """An AH header of `words` 4-byte words (RFC 4302 section 2)."""
    return bytes([next_header, words - 2]) + bytes(words * 4 - 2)


def fragment_header(next_header: int, offset: int = 0, more: int = 1) -> bytes:
    return struct.pack(">BBHI", next_header, 0, offset << 3 | more, 77)


def test_ipv4_fields() -> None:
    segment = decode(ipv4(tcp(b"abc")), RAW)
    assert segment["ip_version"] == 4
    assert segment["src"] == CLIENT4 + bytes(12)
    assert segment["dst"] == SERVER4 + bytes(12)
    assert (segment["ttl"], segment["dont_fragment"]) == (61, 1)
    assert (segment["ip_bytes"], segment["payload_bytes"]) == (43, 3)
    assert decode(ipv4(tcp(), fragment=0), RAW)["dont_fragment"] == 0
    assert decode(ipv4(tcp(), fragment=0x8000), RAW)["dont_fragment"] == 0


def test_ipv6_fields() -> None:
    segment = decode(ipv6(tcp(b"abc")), RAW)
    assert segment["ip_version"] == 6
    assert (segment["src"], segment["dst"]) == (CLIENT6, SERVER6)
    assert (segment["ttl"], segment["dont_fragment"]) == (59, 0)
    assert (segment["ip_bytes"], segment["payload_bytes"]) == (63, 3)


@pytest.mark.parametrize("size", [4, 20, 40])
def test_ipv4_options(size: int) -> None:
    segment = decode(ipv4(tcp(b"abc"), options=b"\x01" * size), RAW)
    assert (segment["payload_bytes"], segment["ip_bytes"], segment["src_port"]) == (3, 43 + size, 40000)


@pytest.mark.parametrize("padding", [0, 1, 6, 400])
def test_padding_is_no_payload(padding: int) -> None:
    for packet, ethertype in ((ipv4(tcp()), 0x0800), (ipv6(tcp()), 0x86DD)):
        segment = decode(ethernet(packet + bytes(padding), ethertype), ETHERNET)
        assert segment["payload_bytes"] == 0
    # Padding is no TCP option either, though the data offset would reach into it.
    assert decode(ipv4(tcp(offset=6)) + bytes(padding), RAW) == "bad_tcp_header"


def test_length_comes_from_ip_not_from_the_capture() -> None:
    for packet in (ipv4(tcp(bytes(1000))), ipv6(tcp(bytes(1000)))):
        header = len(packet) - 1000
        for captured in (header, header + 1, header + 999):
            assert decode(packet[:captured], RAW, len(packet))["payload_bytes"] == 1000
            # Some tools cut packets and write the cut length as the length on the wire.
            assert decode(packet[:captured], RAW)["payload_bytes"] == 1000


def test_total_length_zero_takes_the_length_on_the_wire() -> None:
    frame = ethernet(ipv4(tcp(bytes(100)), total=0))
    assert decode(frame, ETHERNET, 14 + 40 + 65_000)["payload_bytes"] == 65_000
    assert decode(frame, ETHERNET, 14 + 40 + 200_000)["ip_bytes"] == 200_040
    tagged = frame[:12] + b"\x81\x00\x00\x05" + frame[12:]
    assert decode(tagged, ETHERNET, 18 + 40 + 65_000)["payload_bytes"] == 65_000


def test_payload_length_zero_takes_the_length_on_the_wire() -> None:
    frame = ethernet(ipv6(tcp(bytes(100)), length=0), 0x86DD)
    segment = decode(frame, ETHERNET, 14 + 60 + 150_000)
    assert (segment["payload_bytes"], segment["ip_bytes"]) == (150_000, 150_060)


def test_jumbo_option_says_the_length() -> None:
    jumbo = b"\x06\x00\xc2\x04" + struct.pack(">I", 8 + 20 + 150_000)
    packet = ipv6(jumbo + tcp(bytes(100)), next_header=0, length=0)
    segment = decode(packet, RAW, 190_000)  # such as a wire length with a checksum or padding behind
    assert (segment["payload_bytes"], segment["ip_bytes"]) == (150_000, 40 + 8 + 20 + 150_000)
    # Where the payload length is not 0 the option is another's.
    packet = ipv6(jumbo + tcp(b"abc"), next_header=0)
    assert decode(packet, RAW)["payload_bytes"] == 3


def test_no_segment_is_longer_than_the_largest_window() -> None:
    zero = ipv4(tcp(), total=0)
    assert decode(zero, RAW, 1 << 30)["payload_bytes"] == (1 << 30) - 40
    assert decode(zero, RAW, (1 << 30) + 1) == "bad_ip_header"
    assert decode(zero, RAW, 0xFFFFFFFF) == "bad_ip_header"
    assert decode(ipv6(tcp(), length=0), RAW, 0xFFFFFFFF) == "bad_ip_header"
    for length in (1 << 30, 0xFFFFFFD7, 0xFFFFFFD8, 0xFFFFFFFF):
        jumbo = b"\x06\x00\xc2\x04" + struct.pack(">I", length)
        assert decode(ipv6(jumbo + tcp(), next_header=0, length=0), RAW) == "bad_ip_header"


@pytest.mark.parametrize("total", [1, 19, 23])
def test_total_length_below_the_header(total: int) -> None:
    assert decode(ipv4(tcp(), options=bytes(4), total=total), RAW) == "bad_ip_header"


def test_bad_ipv4_headers() -> None:
    good = ipv4(tcp())
    for first in (0x44, 0x40, 0x05, 0x55, 0xF5):
        assert decode(bytes([first]) + good[1:], 228) == "bad_ip_header", hex(first)
    assert decode(ipv4(b"", total=0), RAW) == "bad_tcp_header"  # length 0, and nothing behind the header


def test_headers_cut_at_every_byte() -> None:
    chain = extension(60, 24) + extension(43) + fragment_header(51) + authentication(6)
    for packet in (ipv4(tcp(), options=bytes(12)), ipv6(tcp()), ipv6(chain + tcp(), next_header=0)):
        assert isinstance(decode(packet, RAW), dict)
        for size in range(len(packet)):
            assert decode(packet[:size], RAW, len(packet)) == "header_cut", size


def test_fragments() -> None:
    first = decode(ipv4(tcp(bytes(80)), fragment=0x2000), RAW)
    assert first["payload_bytes"] == 80
    for fragment in (1, 0x2001, 0x1FFF, 0x1000, 0x00B9):
        assert decode(ipv4(bytes(80), fragment=fragment), RAW) == "fragment"
    first = decode(ipv6(fragment_header(6) + tcp(bytes(80)), next_header=44), RAW)
    assert (first["payload_bytes"], first["ip_bytes"]) == (80, 40 + 8 + 20 + 80)
    for offset, more in ((1, 1), (1, 0), (0x1FFF, 1)):
        packet = ipv6(fragment_header(6, offset, more) + bytes(80), next_header=44)
        assert decode(packet, RAW) == "fragment"
    # The reserved bits beside the offset say nothing.
    packet = ipv6(struct.pack(">BBHI", 6, 0, 0x0006, 77) + tcp(), next_header=44)
    assert decode(packet, RAW)["payload_bytes"] == 0


def test_first_fragment_that_ends_within_the_tcp_header() -> None:
    assert decode(ipv4(tcp()[:8], fragment=0x2000), RAW) == "fragment"
    assert decode(ipv4(tcp(options=bytes(12))[:24], fragment=0x2000), RAW) == "fragment"


@pytest.mark.parametrize("protocol", [0, 43, 60, 135, 139, 140])
@pytest.mark.parametrize("size", [8, 16, 2048])
def test_ipv6_extension(protocol: int, size: int) -> None:
    packet = ipv6(extension(6, size) + tcp(b"abcd"), next_header=protocol)
    segment = decode(packet, RAW)
    assert (segment["payload_bytes"], segment["src_port"], segment["ip_bytes"]) == (4, 40000, len(packet))


@pytest.mark.parametrize("words", [3, 4, 6, 257])
def test_authentication_header(words: int) -> None:
    body = authentication(6, words) + tcp(b"abcd")
    assert decode(ipv6(body, next_header=51), RAW)["payload_bytes"] == 4
    assert decode(ipv4(body, protocol=51), RAW)["payload_bytes"] == 4


def test_chains() -> None:
    chain = extension(60) + extension(43, 40) + extension(44) + fragment_header(51) + authentication(60) + extension(6)
    assert decode(ipv6(chain + tcp(b"abcd"), next_header=0), RAW)["payload_bytes"] == 4
    long = extension(60) * 8000 + extension(6) + tcp(b"abcd")
    assert decode(ipv6(long, next_header=60), RAW)["payload_bytes"] == 4
    assert decode(ipv6(extension(60) * 100, next_header=60), RAW) == "bad_ip_header"


@pytest.mark.parametrize(
    "body",
    [
        extension(6)[:7],
        b"\x06\x01" + bytes(6),  # says 16 bytes, the payload has 8
        extension(60) + b"\x06\xff" + bytes(14),
    ],
)
def test_extension_beyond_the_payload(body: bytes) -> None:
    packet = ipv6(body, next_header=60)
    assert decode(packet, RAW) == "bad_ip_header"
    # Captured bytes behind the payload must not be taken for the header.
    assert decode(packet + bytes(2048), RAW) == "bad_ip_header"


@pytest.mark.parametrize("protocol", [2, 17, 47, 50, 59, 132, 253, 255])
def test_not_tcp(protocol: int) -> None:
    assert decode(ipv4(tcp(), protocol=protocol), RAW) == "not_tcp"
    assert decode(ipv6(tcp(), next_header=protocol), RAW) == "not_tcp"
    assert decode(ipv6(extension(protocol) + tcp(), next_header=0), RAW) == "not_tcp"


def test_icmp_errors() -> None:
    quoted = bytes(7) + ipv4(tcp())
    errors = {kind for kind in range(256) if decode(ipv4(bytes([kind]) + quoted, protocol=1), RAW) == "icmp_error"}
    assert errors == {3, 4, 5, 11, 12}
    errors = {kind for kind in range(256) if decode(ipv6(bytes([kind]) + quoted, 58), RAW) == "icmp_error"}
    assert errors == set(range(128))  # RFC 4443 section 2.1
    assert decode(ipv6(extension(58) + b"\x01" + quoted, 0), RAW) == "icmp_error"
    # ICMP of the other version, and a message without a byte.
    assert decode(ipv4(b"\x03" + quoted, protocol=58), RAW) == "not_tcp"
    assert decode(ipv6(b"\x03" + quoted, next_header=1), RAW) == "not_tcp"
    assert decode(ipv4(b"", protocol=1) + b"\x03", RAW) == "not_tcp"
