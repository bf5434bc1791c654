"""Link headers: the same TCP segment behind each of them, and what a header may not do."""

import struct

import pytest
from frames import ETHERNET, MACS, ethernet, ipv4, ipv6, tcp

from synfin._core.probe import decode

V4 = ipv4(tcp(b"payload"))
V6 = ipv6(tcp(b"payload"))
VERSION = {4: V4, 6: V6}
SNAP = bytes.fromhex("aaaa03000000")
COOKED = bytes.fromhex("0000 0001 0006 020304050607 0000")  # host, Ethernet, 6 address bytes
COOKED2 = bytes.fromhex("0000 00000003 0001 04 06 020304050607 0000")  # reserved, index 3, Ethernet, outgoing


def tags(*pairs: tuple[int, int]) -> bytes:
    """An Ethernet header without its type, then (TPID, TCI) tags."""
    return MACS + b"".join(struct.pack(">HH", tpid, tci) for tpid, tci in pairs)


def label(value: int, bottom: int) -> bytes:
    return struct.pack(">I", value << 12 | bottom << 8 | 64)


def length_frame(llc: bytes, body: bytes) -> bytes:
    return MACS + struct.pack(">H", len(llc + body)) + llc + body


# name: (link type, link header up to the IP header, IP version, VLAN ID)
HEADERS = {
    "ethernet ipv4": (1, MACS + b"\x08\x00", 4, None),
    "ethernet ipv6": (1, MACS + b"\x86\xdd", 6, None),
    "vlan": (1, tags((0x8100, 0x6064)) + b"\x08\x00", 4, 100),
    "vlan 4095 with all priority bits": (1, tags((0x8100, 0xFFFF)) + b"\x86\xdd", 6, 4095),
    "priority tag": (1, tags((0x8100, 0xE000)) + b"\x08\x00", 4, 0),
    "802.1ad": (1, tags((0x88A8, 7), (0x8100, 8)) + b"\x08\x00", 4, 7),
    "0x9100": (1, tags((0x9100, 9), (0x9100, 10), (0x8100, 11)) + b"\x86\xdd", 6, 9),
    "2000 tags": (1, tags((0x8100, 1), *[(0x8100, 2)] * 1999) + b"\x08\x00", 4, 1),
    "802.3 with SNAP": (1, MACS + struct.pack(">H", 8 + len(V4)) + SNAP + b"\x08\x00", 4, None),
    "802.3 with SNAP of 802.1H": (1, MACS + b"\x05\xdc" + bytes.fromhex("aaaa030000f886dd"), 6, None),
    "802.3 with IP's own SAP": (1, MACS + b"\x00\x40\x06\x06\x03", 4, None),
    "vlan, then 802.3 with SNAP": (1, tags((0x8100, 5)) + b"\x00\x40" + SNAP + b"\x86\xdd", 6, 5),
    "cooked": (113, COOKED + b"\x08\x00", 4, None),
    "cooked ipv6": (113, COOKED + b"\x86\xdd", 6, None),
    "cooked vlan": (113, COOKED + b"\x81\x00\x00\x2a\x08\x00", 4, 42),
    "cooked 802.2": (113, COOKED + b"\x00\x04" + SNAP + b"\x08\x00", 4, None),
    "cooked v2": (276, b"\x08\x00" + COOKED2, 4, None),
    "cooked v2 ipv6": (276, b"\x86\xdd" + COOKED2, 6, None),
    "cooked v2 vlan": (276, b"\x81\x00" + COOKED2 + b"\x00\x2b\x86\xdd", 6, 43),
    "null little-endian": (0, b"\x02\0\0\0", 4, None),
    "null big-endian": (0, b"\0\0\0\x02", 4, None),
    "loop": (108, b"\0\0\0\x02", 4, None),
    "loop ipv6": (108, b"\0\0\0\x18", 6, None),
    "ppp": (9, b"\xff\x03\x00\x21", 4, None),
    "ppp ipv6": (9, b"\xff\x03\x00\x57", 6, None),
    "ppp without address and control": (9, b"\x00\x21", 4, None),
    "ppp with a compressed protocol": (9, b"\x21", 4, None),
    "ppp with address and a compressed protocol": (9, b"\xff\x03\x57", 6, None),
    "ppp mpls": (9, b"\xff\x03\x02\x81" + label(16, 1), 4, None),
    "ppp in hdlc": (50, b"\xff\x03\x00\x21", 4, None),
    "cisco hdlc in ppp": (50, b"\x0f\x00\x08\x00", 4, None),
    "cisco hdlc": (104, b"\x8f\x00\x86\xdd", 6, None),
    "ppp with direction": (204, b"\x01\xff\x03\x00\x21", 4, None),
    "pppoe": (1, MACS + b"\x88\x64\x11\x00\x00\x01\x00\x42\x00\x21", 4, None),
    "pppoe behind a vlan": (1, tags((0x8100, 6)) + b"\x88\x64\x11\x00\x00\x01\x00\x42\x00\x57", 6, 6),
    "pppoe as link type": (51, b"\x11\x00\x00\x01\x00\x42\x00\x21", 4, None),
    "mpls": (1, MACS + b"\x88\x47" + label(1000, 0) + label(17, 1), 4, None),
    "mpls multicast type": (1, MACS + b"\x88\x48" + label(2, 1), 6, None),
    "mpls as link type": (219, label(2, 0) + label(2, 1), 6, None),
    "ethernet pseudowire": (1, MACS + b"\x88\x47" + label(16, 1) + bytes(4) + tags((0x8100, 3)) + b"\x08\x00", 4, 3),
    "cisco fabricpath": (1, MACS + b"\x89\x03\x00\x60" + tags((0x8100, 12)) + b"\x08\x00", 4, 12),
    **{f"raw {number} ipv{version}": (number, b"", version, None) for number in (101, 12, 14) for version in (4, 6)},
    "raw 228": (228, b"", 4, None),
    "raw 229": (229, b"", 6, None),
    **{
        f"null family {number} {order}": (0, number.to_bytes(4, order), 6, None)
        for number in (10, 23, 24, 26, 28, 30)
        for order in ("little", "big")
    },
}


@pytest.mark.parametrize("name", HEADERS)
def test_segment_behind_header(name: str) -> None:
    link_type, header, version, vlan_id = HEADERS[name]
    bare = decode(VERSION[version], 101)
    assert bare["payload_bytes"] == 7
    assert decode(header + VERSION[version], link_type) == bare | {"vlan_id": vlan_id}


@pytest.mark.parametrize("name", HEADERS)
def test_header_cut_at_every_byte(name: str) -> None:
    link_type, header, version, _ = HEADERS[name]
    whole = header + VERSION[version]
    for size in range(max(0, len(header) - 60), len(header)):
        assert decode(whole[:size], link_type, len(whole)) == "header_cut", size


def test_tag_beside_the_bytes_is_the_outermost() -> None:
    assert decode(ethernet(V4), ETHERNET, vlan_tci=0x3123)["vlan_id"] == 0x123
    inner = tags((0x8100, 8)) + b"\x08\x00" + V4
    assert decode(inner, ETHERNET, vlan_tci=7)["vlan_id"] == 7
    assert decode(inner, ETHERNET)["vlan_id"] == 8


@pytest.mark.parametrize(
    ("link_type", "data"),
    [
        (1, ethernet(bytes(46), 0x0806)),  # ARP
        (1, ethernet(bytes(46), 0x88CC)),  # LLDP
        (1, ethernet(SNAP + b"\x08\x00" + V4, 0x05DD)),  # between length and type
        (1, ethernet(SNAP + b"\x08\x00" + V4, 0x05FF)),
        (1, ethernet(V4, 0x8863)),  # PPPoE discovery
        (1, tags((0x8100, 1)) + b"\x08\x06" + bytes(28)),
        (1, length_frame(bytes.fromhex("424203"), bytes(35))),  # spanning tree
        (1, length_frame(bytes.fromhex("ffff03"), V4)),
        (1, length_frame(bytes.fromhex("aaaa0300000c2000"), bytes(30))),  # Cisco discovery
        (1, length_frame(bytes.fromhex("aaaa030000000040"), V4)),  # SNAP with a length for a type
        (113, COOKED + b"\x08\x06" + bytes(28)),
        (113, COOKED + b"\x00\x01" + V4),  # Novell without 802.2
        (276, b"\x00\x0c" + COOKED2 + V4),  # CAN
        (0, b"\x07\0\0\0" + V4),
        (9, b"\xff\x03\xc0\x21" + bytes(20)),  # LCP
        (9, b"\xff\x03\x00\x2d" + bytes(20)),  # compressed TCP/IP headers
        (9, b"\x2f" + bytes(20)),
        (50, b"\x8f\x00\x00\x02" + bytes(20)),
        (51, b"\x11\x00\x00\x01\x00\x06\xc0\x21" + bytes(20)),
        (51, b"\x11\xa7\x00\x01\x00\x42\x00\x21" + V4),  # PADT
        (1, ethernet(label(16, 1) + b"\x10" + bytes(30), 0x8847)),  # associated channel
        (1, ethernet(label(16, 1) + b"\x70" + bytes(30), 0x8847)),
    ],
)
def test_not_ip(link_type: int, data: bytes) -> None:
    assert decode(data, link_type) == "not_ip"


@pytest.mark.parametrize("first", [0x12, 0x21, 0x00, 0x45])
def test_pppoe_of_another_version_or_type(first: int) -> None:
    assert decode(bytes([first]) + b"\x00\x00\x01\x00\x42\x00\x21" + V4, 51) == "bad_link_header"


@pytest.mark.parametrize(("link_type", "data"), [(101, b"\x50" + V4[1:]), (228, V6), (229, V4), (1, ethernet(V6))])
def test_wrong_ip_version(link_type: int, data: bytes) -> None:
    assert decode(data, link_type) == "bad_ip_header"


@pytest.mark.parametrize("link_type", [2, 3, 7, 107, 147, 197, 220, 253, 258, 0xFFFF])
def test_link_types_that_are_not_decoded(link_type: int) -> None:
    assert decode(ethernet(V4), link_type) == f"link_type_{link_type}"
    assert decode(b"", link_type) == f"link_type_{link_type}"


def test_labels_without_bottom_end_with_the_packet() -> None:
    assert decode(ethernet(label(5, 0) * 300, 0x8847), ETHERNET) == "header_cut"


def test_pseudowires_within_pseudowires_end_with_the_packet() -> None:
    layer = MACS + b"\x88\x47" + label(16, 1) + bytes(4)
    assert decode(layer * 500, ETHERNET) == "header_cut"
    assert decode(layer * 500 + ethernet(V4), ETHERNET)["payload_bytes"] == 7
