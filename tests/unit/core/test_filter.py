"""The core's filter machine against libpcap's, on expressions, on random programs and on programs that must be refused."""

from __future__ import annotations

import random
import struct

import pytest

import libpcap
from dialogue import Dialogue, ethernet, ipv4, tcp
from synfin._core.probe import filtered
from synfin.errors import ConfigError
from synfin.sources import filter as filters

pytestmark = libpcap.needs_libpcap

EXPRESSIONS = (
    "", "tcp", "udp", "tcp port 80", "tcp src port 40000 or udp", "ip6", "host 10.0.0.2", "net 10.0.0.0/8", "not net 10.0.0.0/24",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "tcp[13] = 2", "ip[8] < 64", "ip6[7] = 64", "len > 60", "less 60",
    "ether host 02:00:00:00:00:01", "vlan", "vlan 7", "vlan 7 and tcp port 80", "vlan and vlan 9", "(ip[2:2] - ((ip[0] & 0xf) << 2)) > 100",
    "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420", "ip[0] % 5 = 4", "ip[0] ^ 1 = 0x44", "ip[0] / 2 = 34", "tcp port 80 and greater 200",
    "portrange 70-90", "icmp", "arp", "mpls", "pppoes",
)  # fmt: skip


def frames() -> list[bytes]:
    """Frames of several kinds, whole and cut at several lengths."""
    d = Dialogue().handshake()
    d.data(d.a, b"GET / HTTP/1.1\r\n" + bytes(150))
    d.close()
    six = Dialogue(a_ip="2001:db8::1", b_ip="2001:db8::2").handshake()
    segment = tcp("10.0.0.1", "10.0.0.2", 40000, 80, seq=1, ack=0, flags=2)
    packet = ipv4("10.0.0.1", "10.0.0.2", segment)
    whole = [p.data for p in (*d.packets, *six.packets)]
    whole += [
        ethernet(packet, vlans=[7]),
        ethernet(packet, vlans=[8, 9]),
        ethernet(ipv4("10.0.0.1", "10.0.0.2", bytes(20), protocol=17)),
    ]
    whole.append(ethernet(bytes(28), ethertype=0x0806))
    return whole + [frame[:length] for frame in whole for length in (0, 1, 11, 14, 20, 33, 35, 46, 53)]


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("link_type", [1, 101, 113])
def test_expressions_let_through_what_libpcap_does(expression, link_type):
    try:
        code = filters.Filter(expression)(link_type)
    except ConfigError as error:
        pytest.skip(str(error))
    head = {1: 0, 101: 14, 113: 14}[link_type]
    for frame in frames():
        data = (bytes(14) + frame[12:14] if link_type == 113 and len(frame) >= 14 else b"") + frame[head:]
        assert filtered(code, data, len(data) + 5) == libpcap.passes(code, data, len(data) + 5), data.hex()


def test_some_expressions_pass_and_some_reject():
    """So that equality above is not the equality of two machines that say no."""
    packet = frames()[3]
    assert filtered(filters.Filter("tcp port 80")(1), packet) and not filtered(filters.Filter("tcp port 81")(1), packet)


CODES = [
    0x00, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x60, 0x80, 0x01, 0x61, 0x81, 0xB1, 0x02, 0x03, 0x06, 0x16, 0x07, 0x87,
    *(0x04 | operation | operand for operation in range(0, 0xB0, 0x10) for operand in (0, 8) if operation | operand != 0x88),
    *(0x05 | condition | operand for condition in range(0x10, 0x50, 0x10) for operand in (0, 8)), 0x05,
]  # fmt: skip


def random_program(chance: random.Random) -> bytes:
    """A program in which every word of the scratch memory is written first (libpcap leaves it as it finds it)."""
    steps = [(0x02, 0, 0, word) for word in range(16)]
    length = chance.randint(1, 40)
    for at in range(length):
        code, left = chance.choice(CODES), length - at
        k = chance.choice([chance.randrange(16), chance.randrange(70), chance.getrandbits(32)])
        if code & 0x07 in (0x02, 0x03) or code in (0x60, 0x61):
            k %= 16
        elif code == 0x05:
            k = chance.randrange(left)
        elif code in (0x34, 0x94):
            k = max(k, 1)
        elif code in (0x64, 0x74):
            k %= 32
        jt, jf = (chance.randrange(left), chance.randrange(left)) if code & 0x07 == 0x05 and code != 0x05 else (0, 0)
        if code in (0x06, 0x16) and chance.random() < 0.8:
            code = 0x07
        steps.append((code, jt, jf, k))
    steps.append((0x16, 0, 0, 0))
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def test_random_programs_end_as_with_libpcap():
    chance = random.Random(20260801)
    packets = [chance.randbytes(chance.choice([0, 1, 14, 15, 16, 60, 300])) for _ in range(40)]
    passed = 0
    for _ in range(3000):
        code, data = random_program(chance), chance.choice(packets)
        wire = len(data) + chance.randrange(3)
        assert libpcap.is_valid(code)
        found = filtered(code, data, wire)
        assert found == libpcap.passes(code, data, wire), code.hex()
        passed += bool(found)
    assert 300 < passed < 2700


RETURN = (0x06, 0, 0, 1)


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [(0x00, 0, 0, 1)],  # does not end in a return
        [(0x15, 1, 0, 0), RETURN],  # jumps behind the end
        [(0x15, 0, 1, 0), RETURN],
        [(0x05, 0, 0, 1), RETURN],
        [(0x05, 0, 0, 0xFFFFFFFF), RETURN],
        [(0x02, 0, 0, 16), RETURN],  # beyond the scratch memory
        [(0x60, 0, 0, 16), RETURN],
        [(0x34, 0, 0, 0), RETURN],  # a division by zero
        [(0x94, 0, 0, 0), RETURN],
        [(0x64, 0, 0, 32), RETURN],  # a shift that C leaves undefined
        [(0xFF, 0, 0, 0), RETURN],  # no such instruction
        [(0xB4, 0, 0, 0), RETURN],
        [(0x55, 0, 0, 0), RETURN],
        [(0x8C, 0, 0, 0), RETURN],
    ],
)
def test_unsound_programs_are_refused(steps):
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    assert filtered(code, bytes(100)) is None


def test_a_program_of_any_length_is_refused_beyond_the_bound():
    step = struct.pack("HBBI", 0x07, 0, 0, 0)
    assert filtered(step * 65535 + struct.pack("HBBI", *RETURN), b"") is True
    assert filtered(step * 65536 + struct.pack("HBBI", *RETURN), b"") is None


@pytest.mark.parametrize(
    "expression",
    ["vlan 7", "vlan 7 and tcp port 80", "vlan 8", "not vlan", "tcp port 80", "len = 58", "ether proto 0x8100"],
)
def test_a_stripped_vlan_tag_stands_in_its_place(expression):
    """Live, the kernel takes the tag out of the frame: the filter must see the frame that was on the wire."""
    packet = ipv4("10.0.0.1", "10.0.0.2", tcp("10.0.0.1", "10.0.0.2", 40000, 80, seq=1, ack=0, flags=2))
    tagged, stripped = ethernet(packet, vlans=[7]), ethernet(packet)
    code = filters.Filter(expression)(1)
    for length in range(len(stripped) + 1):
        whole = libpcap.passes(code, tagged[: length + 4] if length >= 12 else tagged[:length], len(tagged))
        assert filtered(code, stripped[:length], len(stripped), vlan_tci=7) == whole, length


def test_a_bad_expression_is_told_in_one_line():
    with pytest.raises(ConfigError, match="syntax error") as error:
        filters.Filter("tcp poort 80")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="NUL"):
        filters.Filter("tcp\0")


def test_an_expression_for_another_link_layer_is_told_when_its_packets_come():
    by_station = filters.Filter("wlan host 02:00:00:00:00:01")  # for 802.11 alone
    assert by_station(105)
    with pytest.raises(ConfigError, match="link type 101"):
        by_station(101)


def test_without_libpcap_the_package_is_named(monkeypatch):
    filters._libpcap.cache_clear()
    monkeypatch.setattr(filters.ctypes.util, "find_library", lambda _: None)
    monkeypatch.setattr(filters.ctypes, "CDLL", lambda _: (_ for _ in ()).throw(OSError("no such file")))
    with pytest.raises(ConfigError, match=r"libpcap0\.8"):
        filters.Filter("tcp")
    filters._libpcap.cache_clear()
