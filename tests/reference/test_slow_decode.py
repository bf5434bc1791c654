"""Link layers, IP and TCP headers of the slow tracker: what is a segment, and what is skipped under which name."""

import struct

import pytest

from dialogue import ethernet, ipv4, ipv6, options, tcp
from synfin.reference.decode import decode
from synfin.reference.segment import Skip, parse_options
from synfin.schema import SKIPS

A4, B4, A6, B6 = "10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"
SEGMENT4 = tcp(A4, B4, 1234, 80, seq=7, ack=9, flags=0x18, payload=b"hello")
SEGMENT6 = tcp(A6, B6, 1234, 80, seq=7, ack=9, flags=0x18, payload=b"hello")
IP4, IP6 = ipv4(A4, B4, SEGMENT4), ipv6(A6, B6, SEGMENT6)
ETHERNET, SLL, SLL2 = 1, 113, 276


def segment(data: bytes, link_type: int = ETHERNET, wire_len: int | None = None):
    found = decode(data, wire_len or len(data), link_type)
    assert (found.sport, found.dport, found.seq, found.ack, found.flags) == (1234, 80, 7, 9, 0x18)
    return found


def skip(data: bytes, link_type: int = ETHERNET, wire_len: int | None = None) -> str:
    with pytest.raises(Skip) as caught:
        decode(data, wire_len or len(data), link_type)
    return str(caught.value)


LINKS = {
    "ethernet": (ETHERNET, ethernet(IP4)),
    "ethernet, IPv6": (ETHERNET, ethernet(IP6)),
    "QinQ, three deep": (ETHERNET, ethernet(IP4, vlans=(1, 2, 3))),
    "Linux cooked": (SLL, bytes(14) + b"\x08\0" + IP4),
    "Linux cooked, tagged": (SLL, bytes(14) + b"\x81\0\0\x05\x08\0" + IP4),
    "Linux cooked v2": (SLL2, b"\x86\xdd" + bytes(18) + IP6),
    "raw": (101, IP4),
    "raw, IPv6": (12, IP6),
    "IPv4": (228, IP4),
    "IPv6": (229, IP6),
    "null, little-endian": (0, b"\2\0\0\0" + IP4),
    "null, big-endian": (0, b"\0\0\0\x1e" + IP6),
    "loop": (108, b"\0\0\0\x18" + IP6),
    "PPP": (9, b"\xff\3\0\x21" + IP4),
    "PPP, compressed": (9, b"\x57" + IP6),
    "PPP serial, Cisco HDLC": (50, b"\x0f\0\x08\0" + IP4),
    "PPPoE": (ETHERNET, ethernet(struct.pack("!BBHHH", 0x11, 0, 1, len(IP4) + 2, 0x21) + IP4, ethertype=0x8864)),
    "MPLS": (ETHERNET, ethernet(b"\0\1\0\x40" + b"\0\2\1\x40" + IP6, ethertype=0x8847)),
    "Cisco FabricPath": (ETHERNET, ethernet(b"\0\x60" + ethernet(IP6), ethertype=0x8903)),
}


@pytest.mark.parametrize("name", LINKS)
def test_link_layers(name):
    link_type, frame = LINKS[name]
    found = segment(frame, link_type)
    assert found.payload == 5 and found.ip_bytes == (45 if found.ip_version == 4 else 65)
    for length in range(len(frame) - 5 - 20):
        assert skip(frame[:length], link_type, len(frame)) == "header_cut", length


def test_the_vlan_is_the_outermost_tag_s():
    assert segment(ethernet(IP4, vlans=(0xE005, 9))).vlan == 5
    assert segment(ethernet(IP4)).vlan is None


SKIPPED = {
    "ARP": (ethernet(bytes(28), ethertype=0x0806), "not_ip"),
    "802.3": (ethernet(bytes(40), ethertype=40), "not_ip"),
    "UDP": (ethernet(ipv4(A4, B4, bytes(8), protocol=17)), "not_tcp"),
    "ICMP echo": (ethernet(ipv4(A4, B4, b"\x08" + bytes(7), protocol=1)), "not_tcp"),
    "ICMP unreachable": (ethernet(ipv4(A4, B4, b"\x03" + bytes(35), protocol=1)), "icmp_error"),
    "ICMPv6 too big": (ethernet(ipv6(A6, B6, b"\x02" + bytes(47), next_header=58)), "icmp_error"),
    "ICMPv6 neighbour": (ethernet(ipv6(A6, B6, b"\x87" + bytes(23), next_header=58)), "not_tcp"),
    "later fragment": (ethernet(ipv4(A4, B4, SEGMENT4, offset=3)), "fragment"),
    "later fragment, IPv6": (ethernet(ipv6(A6, B6, b"\x06\0\0\x09" + bytes(4) + SEGMENT6, next_header=44)), "fragment"),
    "PPPoE version": (ethernet(b"\x21" + bytes(40), ethertype=0x8864), "bad_link_header"),
    "IP version": (ethernet(b"\x65" + IP4[1:], ethertype=0x0800), "bad_ip_header"),
    "IP header length": (ethernet(b"\x44" + IP4[1:]), "bad_ip_header"),
    "IP total length": (ethernet(ipv4(A4, B4, SEGMENT4, total=19)), "bad_ip_header"),
    "TCP beyond the packet": (ethernet(ipv4(A4, B4, SEGMENT4, total=39)), "bad_tcp_header"),
    "TCP offset 4": (ethernet(ipv4(A4, B4, SEGMENT4[:12] + b"\x40" + SEGMENT4[13:])), "bad_tcp_header"),
    "TCP offset 15": (ethernet(ipv4(A4, B4, SEGMENT4[:12] + b"\xf0" + SEGMENT4[13:])), "bad_tcp_header"),
    "same ends": (ethernet(ipv4(A4, A4, tcp(A4, A4, 5, 5, seq=1, ack=0, flags=2))), "same_ends"),
    "extension beyond the packet": (ethernet(ipv6(A6, B6, b"\x06\x09" + bytes(6), next_header=0)), "bad_ip_header"),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_skips(name):
    frame, reason = SKIPPED[name]
    assert skip(frame) == reason
    assert reason in dict(SKIPS)


def test_a_link_type_that_is_not_decoded_is_named():
    assert skip(ethernet(IP4), 220) == "link_type_220"


def test_extension_headers_and_a_first_fragment():
    chain = b"\x2b\0" + bytes(6) + b"\x3c\0" + bytes(6) + b"\x2c\0" + bytes(6) + b"\x06\0\0\1" + bytes(4) + SEGMENT6
    found = segment(ethernet(ipv6(A6, B6, chain, next_header=0)))
    assert (found.payload, found.ip_bytes) == (5, 40 + 32 + 25)
    found = segment(ethernet(ipv4(A4, B4, SEGMENT4, more=True)))
    assert found.payload == 5


def test_lengths_come_from_the_ip_header():
    padded = ethernet(IP4) + bytes(6)
    assert segment(padded).payload == 5
    assert segment(ethernet(IP4)[:54], wire_len=59).payload == 5
    assert segment(ethernet(ipv4(A4, B4, SEGMENT4, total=0))).payload == 5
    cut = segment(ethernet(ipv4(A4, B4, SEGMENT4, total=0))[:54], wire_len=1514)
    assert (cut.payload, cut.ip_bytes) == (1460, 1500)
    assert segment(ethernet(ipv6(A6, B6, SEGMENT6, length=0))).payload == 5


def test_cut_options_leave_what_was_captured():
    opts = options(mss=1400, ts=(1, 2))
    frame = ethernet(ipv4(A4, B4, tcp(A4, B4, 1234, 80, seq=7, ack=9, flags=0x18, opts=opts, payload=b"x")))
    found = segment(frame[:60], wire_len=len(frame))
    assert found.payload == 1
    assert (parse_options(found.options).mss, parse_options(found.options).timestamps) == (1400, None)


def test_options():
    found = parse_options(options(mss=1460, scale=7, sack=True, ts=(3, 4), fast_open=b"", mptcp=b"\0\1"))
    assert (found.mss, found.window_scale, found.sack_permitted, found.timestamps) == (1460, 7, True, (3, 4))
    assert (found.fast_open, found.mptcp) == ("request", True)
    assert parse_options(b"\xfe\x04\xf9\x89").fast_open == "request"
    assert parse_options(b"\xfe\x08\xf9\x89abcd").fast_open == "cookie"
    assert parse_options(b"\0\2\4\5\xb4").kinds == 1  # nothing after the end of the list
    for broken in (b"\2", b"\2\0", b"\2\1", b"\2\4\5"):
        assert parse_options(broken).kinds == 0
