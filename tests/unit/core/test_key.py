"""Identifiers and addresses of rows, against an own FNV-1a and Python's ipaddress."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialogue import START, Dialogue, ethernet, write_pcap
from rows import compare, fast
from synfin.settings import Settings
from tunnels import OUTER4, OUTER6, wrapped


def fnv1a(data: bytes) -> int:
    """FNV-1a, 64 bits, the top bit cleared."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value % 2**63


def flow_id(ends: list[tuple[str, int]], time_ns: int, seq: int, vlan: int | None = None, part: bytes = b"") -> int:
    """The identifier as SPEC 4 defines it; ``vlan`` and what else is part of the key only where asked for."""
    packed = sorted((ipaddress.ip_address(ip).packed, port) for ip, port in ends)
    data = bytes([4 if len(packed[0][0]) == 4 else 6])
    data += b"".join(address + struct.pack("!H", port) for address, port in packed)
    data += b"" if vlan is None else struct.pack("!H", vlan)
    data += part
    return fnv1a(data + struct.pack("!qI", time_ns, seq))


def test_the_hash_is_fnv_1a():
    """Vectors of the algorithm's authors (their 64-bit values have the top bit set here and there)."""
    vectors = {b"": 0xCBF29CE484222325, b"a": 0xAF63DC4C8601EC8C, b"foobar": 0x85944171F73967E8}
    assert {data: fnv1a(data) for data in vectors} == {data: value % 2**63 for data, value in vectors.items()}


IPV4 = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address).map(str)
#: Addresses with runs of zeros of any length and place, which are written short.
IPV6 = (
    st.lists(st.sampled_from([0, 0, 0, 1, 0x10, 0xDB8, 0xFFFF]), min_size=8, max_size=8)
    .map(lambda groups: ipaddress.IPv6Address(struct.pack("!8H", *groups)))
    .map(str)
)
PORTS = st.integers(0, 65535)


@given(
    st.one_of(st.tuples(IPV4, IPV4), st.tuples(IPV6, IPV6)),
    st.tuples(PORTS, PORTS),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**31 * 10**9),
)
@settings(deadline=None, max_examples=150)
def test_flow_id_and_addresses(tmp_path_factory, ips, ports, seq, time_ns):
    a_port, b_port = ports
    if (ips[0], a_port) == (ips[1], b_port):
        return  # skipped as `same_ends`
    d = Dialogue(a_ip=ips[0], b_ip=ips[1], a_port=a_port, b_port=b_port, a_isn=seq)
    d.syn(d.a, time=time_ns)
    d.synack(d.b, time=time_ns + 1)
    [row], _, _ = fast([write_pcap(tmp_path_factory.getbasetemp() / "key.pcap", d.packets)])
    assert row["flow_id"] == flow_id([(ips[0], a_port), (ips[1], b_port)], time_ns, seq)
    assert [row[name] for name in ("client_port", "server_port")] == [a_port, b_port]
    for name, ip in zip(("client_ip", "server_ip"), ips, strict=True):
        assert ipaddress.ip_address(row[name]) == ipaddress.ip_address(ip)
        if "." not in row[name] or row["ip_version"] == 4:
            assert row[name] == str(ipaddress.ip_address(ip))


@pytest.mark.parametrize(
    ("ip", "text"),
    [
        ("::", "::"),
        ("::1", "::1"),
        ("1::", "1::"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("fe80::ABCD:00EF", "fe80::abcd:ef"),
    ],
)
def test_addresses_are_written_as_rfc_5952_wants(tmp_path, ip, text):
    d = Dialogue(a_ip=ip, b_ip="2001:db8::99")
    d.syn(d.a)
    [row], _, _ = fast([write_pcap(tmp_path / "t.pcap", d.packets)])
    assert row["client_ip"] == text


def test_ipv4_and_mapped_ipv6_are_different(tmp_path):
    four, mapped = Dialogue(), Dialogue(a_ip="::ffff:10.0.0.1", b_ip="::ffff:10.0.0.2")
    four.syn(four.a)
    mapped.syn(mapped.a)
    rows, _, _ = fast([write_pcap(tmp_path / "t.pcap", four.packets + mapped.packets)])
    assert [row["ip_version"] for row in rows] == [4, 6]
    assert len({row["flow_id"] for row in rows}) == 2


@pytest.mark.parametrize("vlan", [0, 1, 4094])
def test_the_vlan_is_part_of_the_identifier_only_where_it_is_part_of_the_key(tmp_path, vlan):
    d = Dialogue(vlans=[vlan])
    d.syn(d.a, time=START)
    path, ends = write_pcap(tmp_path / "t.pcap", d.packets), [(d.a.ip, d.a.port), (d.b.ip, d.b.port)]
    [plain], _, _ = fast([path])
    [keyed], _, _ = fast([path], Settings(key=("vlan",)))
    assert plain["flow_id"] == flow_id(ends, START, d.a.isn)
    assert keyed["flow_id"] == flow_id(ends, START, d.a.isn, vlan)


def test_the_same_ends_on_two_vlans_are_one_connection_unless_asked(tmp_path):
    packets = []
    for vlan in (10, 20):
        d = Dialogue(vlans=[vlan])
        packets += d.handshake().packets
    path = write_pcap(tmp_path / "t.pcap", packets)
    [row], _, _ = fast([path])
    assert (row["vlan_id"], row["vlan_variants"], row["syn_count"]) == (10, 2, 2)
    rows, _, _ = fast([path], Settings(key=("vlan",)))
    assert sorted(row["vlan_id"] for row in rows) == [10, 20]


def in_tunnel(dialogue: Dialogue, name: str, vlans: tuple[int, ...] = ()) -> list:
    """Its packets in a tunnel, the outer frame tagged."""
    inner = 14 + 4 * len(dialogue.vlans)
    return [p._replace(data=ethernet(wrapped(name, p.data[inner:]), vlans=vlans)) for p in dialogue.packets]


def test_the_columns_of_a_tunnel(tmp_path):
    path = write_pcap(tmp_path / "in.pcap", in_tunnel(Dialogue().handshake(), "VXLAN"))
    [row], _, _ = fast([path])
    assert (row["tunnel"], row["tunnel_id"], row["outer_src_ip"], row["outer_dst_ip"]) == ("vxlan", 0x123456, *OUTER4)
    assert (row["handshake"], row["client_ip"], row["vlan_id"]) == ("complete", "10.0.0.1", None)
    assert compare([path]) == []
    path = write_pcap(tmp_path / "six.pcap", in_tunnel(Dialogue().handshake(), "IPv4 in IPv6"))
    [row], _, _ = fast([path])
    assert (row["tunnel"], row["tunnel_id"], row["outer_src_ip"], row["outer_dst_ip"]) == ("4in6", None, *OUTER6)
    [row], _, _ = fast([write_pcap(tmp_path / "none.pcap", Dialogue().handshake().packets)])
    assert [row[name] for name in ("tunnel", "tunnel_id", "outer_src_ip", "outer_dst_ip")] == [None] * 4


@pytest.mark.parametrize(("name", "kind", "tunnel_id"), [("GRE with key", 4, 0xFEDCBA98), ("IP in IP", 0, -1), (None, 0xFF, -1)])
def test_the_tunnel_is_part_of_the_identifier_only_where_it_is_part_of_the_key(tmp_path, name, kind, tunnel_id):
    d = Dialogue(vlans=[7])
    d.syn(d.a)
    path = write_pcap(tmp_path / "in.pcap", in_tunnel(d, name, (7,)) if name else d.packets)
    ends, time_ns = [(d.a.ip, d.a.port), (d.b.ip, d.b.port)], d.packets[0].time_ns
    [plain], [keyed], [full] = (fast([path], Settings(key=key))[0] for key in ((), ("tunnel",), ("tunnel", "vlan")))
    assert plain["flow_id"] == flow_id(ends, time_ns, d.a.isn)
    part = struct.pack("!Bq", kind, tunnel_id)
    assert keyed["flow_id"] == flow_id(ends, time_ns, d.a.isn, part=part)
    assert full["flow_id"] == flow_id(ends, time_ns, d.a.isn, part=struct.pack("!H", 7) + part)


def test_the_same_ends_in_several_tunnels_are_one_connection_unless_asked(tmp_path):
    """A tenant's addresses come again in another network; the id tells them apart, its kind, too, and no tunnel at all."""
    talks = [Dialogue(start=START + i) for i in range(4)]
    packets = in_tunnel(talks[0].handshake(), "VXLAN") + in_tunnel(talks[2].handshake(), "GRE") + talks[3].handshake().packets
    other = in_tunnel(talks[1].handshake(), "VXLAN")
    packets += [p._replace(data=p.data.replace(b"\x12\x34\x56\0", b"\x12\x34\x57\0")) for p in other]
    path = write_pcap(tmp_path / "in.pcap", sorted(packets, key=lambda packet: packet.time_ns))
    [row], _, _ = fast([path])
    assert (row["tunnel"], row["syn_count"]) == ("vxlan", 4)
    rows, _, _ = fast([path], Settings(key=("tunnel",)))
    assert [(row["tunnel"], row["tunnel_id"]) for row in rows] == [("vxlan", 0x123456), ("vxlan", 0x123457), ("gre", None), (None, None)]
    assert {(row["handshake"], row["syn_count"]) for row in rows} == {("complete", 1)} and len({row["flow_id"] for row in rows}) == 4
    assert compare([path]) == compare([path], Settings(key=("tunnel",))) == compare([path], Settings(key=("vlan", "tunnel"))) == []


def test_a_record_that_a_held_syn_begins_has_the_tunnel_of_that_syn(tmp_path):
    old, new = Dialogue().handshake(), Dialogue(a_isn=90_000, start=START + 10**9)
    new.syn(new.a)
    new.synack(new.b)
    packets = in_tunnel(old, "VXLAN") + in_tunnel(new, "GRE with key")[:1] + new.packets[1:]
    path = write_pcap(tmp_path / "in.pcap", packets)
    rows, _, _ = fast([path])
    assert [(row["tunnel"], row["end_reason"]) for row in rows] == [("vxlan", "reuse"), ("gre", "end_of_input")]
    assert compare([path]) == []
