"""Tunnels: the segment inside each of them, by both decoders, against headers built by hand."""

from __future__ import annotations

import random
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialogue import ethernet, ipv4, ipv6, tcp
from synfin import schema
from synfin._core.probe import decode
from synfin.reference.decode import decode as slow_decode
from synfin.reference.segment import Skip
from tunnels import AROUND, OUTER4, fits, header_of, wrapped

A, B = {4: "10.1.1.1", 6: "2001:db8::1"}, {4: "10.2.2.2", 6: "2001:db8::2"}
ETHERNET, RAW = 1, 101
DEEPEST = 16
FIELDS = (
    *("src", "dst", "sport", "dport", "seq", "ack", "flags", "window", "payload", "ip_bytes", "ip_version", "ttl"),
    *("vlan", "options", "tunnel"),
)


def packet(version: int = 4, payload: bytes = b"payload") -> bytes:
    segment = tcp(A[version], B[version], 1234, 80, seq=7, ack=9, flags=0x18, payload=payload)
    return (ipv4 if version == 4 else ipv6)(
        A[version], B[version], segment, **{"ttl" if version == 4 else "hop_limit": 33}
    )


def fast(data: bytes, link_type: int = ETHERNET, wire_len: int | None = None) -> tuple | str:
    """What the core makes of a frame, in the order of FIELDS, or the skip."""
    found = decode(data, link_type, wire_len, after=b"\xff" * 64)
    if isinstance(found, str):
        return found
    size = 4 if found["ip_version"] == 4 else 16
    names = {
        "src_port": "sport",
        "dst_port": "dport",
        "payload_bytes": "payload",
        "vlan_id": "vlan",
        "raw_options": "options",
    }
    found = {names.get(name, name): value for name, value in found.items() if name != "options"}
    found |= {"src": found["src"][:size], "dst": found["dst"][:size]}
    return tuple(found[name] for name in FIELDS)


def slow(data: bytes, link_type: int = ETHERNET, wire_len: int | None = None) -> tuple | str:
    """The same by the slow tracker."""
    try:
        found = slow_decode(data, max(wire_len or 0, len(data)), link_type)
    except Skip as skip:
        return str(skip)
    tunnel = found.tunnel and (found.tunnel.kind, found.tunnel.id, found.tunnel.src, found.tunnel.dst)
    return tuple(tunnel if name == "tunnel" else getattr(found, name) for name in FIELDS)


def both(data: bytes, link_type: int = ETHERNET, wire_len: int | None = None) -> dict | str:
    """What both decoders say."""
    ours, theirs = fast(data, link_type, wire_len), slow(data, link_type, wire_len)
    assert ours == theirs
    return ours if isinstance(ours, str) else dict(zip(FIELDS, ours, strict=True))


def expected(name: str) -> tuple:
    around = AROUND[name]
    return (around.kind, around.id, *(ip_address(end).packed for end in around.outer))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", AROUND)
def test_the_segment_inside(name, version):
    if not fits(name, version):
        return
    bare = both(packet(version), RAW)
    assert bare["tunnel"] is None and (bare["payload"], bare["ttl"]) == (7, 33)
    assert both(ethernet(wrapped(name, packet(version)))) == bare | {"tunnel": expected(name)}


def test_every_kind_is_tried():
    assert {around.kind for around in AROUND.values()} == set(schema.ENUMS["tunnel"])


@pytest.mark.parametrize("name", AROUND)
def test_cut_at_every_byte(name):
    """Up to the last header's last byte; of a UDP packet whose port was not captured, nobody can say that it is a tunnel."""
    version = 4 if fits(name, 4) else 6
    whole = ethernet(wrapped(name, packet(version)))
    port_at = 14 + (20 if AROUND[name].outer is OUTER4 else 40)
    for size in range(len(whole)):
        found = both(whole[:size], ETHERNET, len(whole))
        if AROUND[name].port and port_at <= size < port_at + 4:
            assert found == "not_tcp", size
        elif size < len(whole) - 7:
            assert found == "header_cut", size
        else:
            assert (found["payload"], found["tunnel"]) == (7, expected(name))


@pytest.mark.parametrize("name", AROUND)
def test_outer_length_that_ends_inside_the_headers(name):
    """The outer IP header announces less than the tunnel needs: never a read past it, always a name."""
    version = 4 if fits(name, 4) else 6
    whole = wrapped(name, packet(version))
    outer = 20 if AROUND[name].outer is OUTER4 else 40
    for length in range(outer, len(whole) - 7):
        field = struct.pack("!H", length if outer == 20 else length - 40)
        lying = whole[:2] + field + whole[4:] if outer == 20 else whole[:4] + field + whole[6:]
        if outer == 40 and length == 40:
            continue  # 0 is no length for IPv6
        assert both(lying, RAW) in ("bad_tunnel_header", "header_cut", "not_tcp"), length


def test_the_outermost_tunnel_and_the_innermost_segment_count():
    inner = packet(4)
    for name in ("IP in IP", "GRE with key", "VXLAN"):
        inner = wrapped(name, inner)
    found = both(ethernet(wrapped("IPv4 in IPv6", inner)))
    assert (found["tunnel"], found["src"], found["ip_bytes"]) == (expected("IPv4 in IPv6"), bytes([10, 1, 1, 1]), 47)


@pytest.mark.parametrize("name", [name for name in AROUND if fits(name, 4) and AROUND[name].outer is OUTER4])
def test_depth(name):
    """At most 16 are peeled; thousands are no more work than 17."""
    inner = packet(4)
    for _ in range(DEEPEST):
        inner = wrapped(name, inner)
    assert both(inner, RAW)["tunnel"] == expected(name)
    assert both(wrapped(name, inner), RAW) == "tunnel_depth"
    other = ipv4(*OUTER4, bytes(8), protocol=17)
    for _ in range(DEEPEST):
        other = wrapped(name, other)
    assert both(other, RAW) == "not_tcp"  # UDP inside all of them is no further tunnel


def test_thousands_deep():
    inner = packet(4)
    for _ in range(3000):
        inner = ipv4("10.0.0.1", "10.0.0.2", inner, protocol=4)
    assert both(inner, RAW) == "tunnel_depth"
    assert both(ethernet(inner[: 20 * 17])) == "tunnel_depth"
    assert both(ethernet(inner[: 20 * 16])) == "header_cut"


def test_the_vlan_is_the_outer_frame_s():
    inside = ethernet(packet(), vlans=(5,))
    vxlan = header_of(AROUND["VXLAN"], inside) + inside
    outer = ipv4(*OUTER4, vxlan, protocol=17)
    assert both(ethernet(outer))["vlan"] is None
    assert both(ethernet(outer, vlans=(9,)))["vlan"] == 9


def test_an_inner_length_of_0_goes_to_the_end_of_the_outer_packet():
    segment = tcp(A[4], B[4], 1234, 80, seq=7, ack=9, flags=0x18, payload=bytes(3000))
    outer = wrapped("VXLAN", ipv4(A[4], B[4], segment, total=0))
    assert both(ethernet(outer) + bytes(4))["payload"] == 3000
    assert both(ethernet(outer)[:200], ETHERNET, 14 + len(outer))["payload"] == 3000


def test_an_outer_fragment_holds_the_beginning_of_what_is_inside():
    """As a mirroring switch fragments it: the segment counts with the payload that this fragment carries (SPEC 2)."""
    for name in ("VXLAN", "GTP-U", "GENEVE", "GRE with key"):
        whole = wrapped(name, packet(4, bytes(800)))
        first = ipv4(*OUTER4, whole[20:400], protocol=AROUND[name].protocol, dont_fragment=False, more=True)
        carried = 800 - (len(whole) - 400)
        assert (both(first, RAW)["payload"], both(first, RAW)["tunnel"]) == (carried, expected(name))
        later = ipv4(*OUTER4, whole[400:], protocol=AROUND[name].protocol, dont_fragment=False, offset=48)
        assert both(later, RAW) == "not_tcp"
        tiny = ipv4(
            *OUTER4, whole[20 : 20 + (12 if AROUND[name].port else 4)], protocol=AROUND[name].protocol, more=True
        )
        assert both(tiny, RAW) == "fragment"


def test_a_tcp_header_that_a_later_fragment_finishes():
    segment = packet()[20:]
    for size in (0, 8, 16):
        assert both(ipv4(A[4], B[4], segment[:size], more=True), RAW) == "fragment"
        assert both(ipv6(A[6], B[6], b"\x06\0\0\1" + bytes(4) + segment[:size], next_header=44), RAW) == "fragment"
    assert both(ipv4(A[4], B[4], segment[:8]), RAW) == "bad_tcp_header"


def udp(port: int, body: bytes, length: int | None = None) -> bytes:
    head = struct.pack("!HHHH", port, port, 8 + len(body) if length is None else length, 0)
    return ipv4(*OUTER4, head + body, protocol=17)


FRAME = ethernet(packet())
NO_TUNNEL = {
    "text on VXLAN's port": udp(4789, b"GET / HTTP/1.1\r\n\r\n" * 4),
    "zeros on VXLAN's port": udp(4789, bytes(80)),
    "short on VXLAN's port": udp(4789, b"\x08\0\0"),
    "ARP in VXLAN": udp(4789, bytes.fromhex("08000000 00000100") + ethernet(bytes(28), ethertype=0x0806)),
    "no IP header in VXLAN": udp(4789, bytes.fromhex("08000000 00000100") + ethernet(bytes(40), ethertype=0x0800)),
    "UDP's length beyond the packet": udp(4789, bytes.fromhex("08000000 00000100") + FRAME, 900),
    "UDP's length below its header": udp(4789, bytes.fromhex("08000000 00000100") + FRAME, 7),
    "the port of the sender": ipv4(*OUTER4, struct.pack("!HHHH", 4789, 53, 16, 0) + bytes(8), protocol=17),
    "GENEVE, version 1": udp(6081, bytes.fromhex("40006558 00000100") + FRAME),
    "GENEVE, options beyond the packet": udp(6081, bytes.fromhex("3f006558 00000100") + bytes(40)),
    "GENEVE, protocol 0": udp(6081, bytes.fromhex("00000000 00000100") + packet()),
    "GTP-U, echo": udp(2152, bytes.fromhex("3201 0004 00000000 0001 0000")),
    "GTP-U, version 2": udp(2152, bytes.fromhex("50ff 002f 00000001") + packet()),
    "GTP': protocol type 0": udp(2152, bytes.fromhex("20ff 002f 00000001") + packet()),
    "GTP-U, length beyond the packet": udp(2152, bytes.fromhex("30ff 0130 00000001") + packet()),
    "GTP-U, extension of length 0": udp(2152, bytes.fromhex("34ff 0037 00000001 0000 00 85 00 000000") + packet()),
    "GTP-U, extensions without end": udp(2152, bytes.fromhex("34ff 0054 00000001 0000 00 85") + bytes.fromhex("01000085") * 20),
    "GTP-U, PPP": udp(2152, bytes.fromhex("30ff 0006 00000001 ff03c0210101")),
    "GRE, keep-alive": ipv4(*OUTER4, bytes(4), protocol=47),
    "GRE, CDP": ipv4(*OUTER4, bytes.fromhex("00002000") + bytes(40), protocol=47),
    "GRE, source route": ipv4(*OUTER4, bytes.fromhex("4000080000000000") + packet(), protocol=47),
    "Ethernet over IP, MikroTik's version 1": ipv4(*OUTER4, bytes.fromhex("20016400 0036 1900") + FRAME, protocol=47),
    "PPTP, acknowledgement": ipv4(*OUTER4, bytes.fromhex("2081880b 0000 0007 00000001"), protocol=47),
    "PPTP, LCP": ipv4(*OUTER4, bytes.fromhex("3001880b 0006 0007 00000001 ff03c0210101"), protocol=47),
    "ERSPAN III, frame type 4": ipv4(*OUTER4, bytes.fromhex("100022eb 00000001 2064 0005 00000001 0000 1000") + FRAME, protocol=47),
    "ARP in Ethernet over GRE": ipv4(*OUTER4, bytes.fromhex("00006558") + ethernet(bytes(28), ethertype=0x0806), protocol=47),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_TUNNEL)
def test_a_wrong_guess_is_what_the_outer_packet_is(name):
    assert both(ethernet(NO_TUNNEL[name])) == "not_tcp"


BAD = {
    "GRE, version 2": (ipv4(*OUTER4, bytes.fromhex("00020800") + packet(), protocol=47), "bad_tunnel_header"),
    "GRE beyond the packet": (ipv4(*OUTER4, bytes.fromhex("2000 0800 0000"), protocol=47), "bad_tunnel_header"),
    "PPTP without key": (ipv4(*OUTER4, bytes.fromhex("1001880b") + bytes(20), protocol=47), "bad_tunnel_header"),
    "ERSPAN II, version 0": (ipv4(*OUTER4, bytes.fromhex("100088be") + bytes(60), protocol=47), "bad_tunnel_header"),
    "ERSPAN III, version 1": (ipv4(*OUTER4, bytes.fromhex("100022eb 00000001 1064") + bytes(60), protocol=47), "bad_tunnel_header"),
    "IPv6 as IPv4 in IP": (ipv4(*OUTER4, packet(6), protocol=4), "bad_ip_header"),
    "UDP inside": (wrapped("VXLAN", ipv4(A[4], B[4], bytes(8), protocol=17)), "not_tcp"),
    "ICMP error inside": (wrapped("VXLAN", ipv4(A[4], B[4], b"\3" + bytes(35), protocol=1)), "icmp_error"),
    "fragment inside": (wrapped("VXLAN", ipv4(A[4], B[4], bytes(40), offset=3)), "fragment"),
    "ICMP error that quotes a tunnel": (ipv4(A[4], B[4], b"\3" + bytes(7) + wrapped("IP in IP", packet()), protocol=1), "icmp_error"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_skips(name):
    frame, reason = BAD[name]
    assert both(ethernet(frame)) == reason
    assert reason in dict(schema.SKIPS)


def test_an_extension_header_chain_that_never_ends():
    chain = (b"\x3c\0" + bytes(6)) * 8000
    assert both(ipv6(A[6], B[6], chain, next_header=60), RAW) == "bad_ip_header"
    assert both(ipv6(A[6], B[6], chain, next_header=60)[:30_000], RAW, 64_040) == "header_cut"


@settings(max_examples=600, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(AROUND)), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
    st.integers(0, 4),
    st.booleans(),
)
def test_both_decoders_agree_on_damaged_tunnels(names, seed, damages, cut):
    """Bytes changed and frames cut anywhere, behind the outer Ethernet header."""
    rnd = random.Random(seed)
    inner, version = packet(), 4
    for name in names:
        if fits(name, version):
            inner, version = wrapped(name, inner), 4 if AROUND[name].outer is OUTER4 else 6
    frame = bytearray(ethernet(inner))
    for _ in range(damages):
        frame[rnd.randrange(14, len(frame))] = rnd.choice(
            [0, 1, 4, 6, 8, 0x11, 0x2F, 0x45, 0x60, 0x80, 0xFF, rnd.randrange(256)]
        )
    both(bytes(frame[: rnd.randrange(14, len(frame))] if cut else frame), ETHERNET, len(frame))


def test_udp_s_length_ends_the_tunnel():
    """What follows UDP's length inside the outer packet is no part of an inner packet that does not tell its own length."""
    segment = tcp(A[4], B[4], 1234, 80, seq=7, ack=9, flags=0x18, payload=b"payload")
    inside = bytes.fromhex("08000000 00000100") + ethernet(ipv4(A[4], B[4], segment, total=0))
    whole = udp(4789, inside + b"trailer", 8 + len(inside))
    assert both(ethernet(whole))["payload"] == 7
    assert both(ethernet(udp(4789, inside + b"trailer", 0)))["payload"] == 14
