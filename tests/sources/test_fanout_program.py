"""The program that divides packets among workers, run by libpcap's machine and by the core's; live/test_fanout.py runs it
in the kernel.
"""

from __future__ import annotations

import random
import struct
from collections import Counter

import pytest

import libpcap
import tunnels
from dialogue import Dialogue, ethernet, ipv4, ipv6, tcp
from synfin._core.probe import filtered
from synfin.sources import fanout_program as fanout
from synfin.sources.assembler import EQUAL, INSTRUCTION, RETURN, RETURN_A, SET_A, Assembler

pytestmark = libpcap.needs_libpcap

V4, V6 = ("10.1.2.3", "192.168.70.9"), ("2001:db8::1234:5", "2001:db8:9:8:7:6:5:4")


def translated() -> list[tuple[int, int, int, int]]:
    """The program for a machine whose packets begin at the link header and that knows no hardware type."""
    steps = []
    for code, jt, jf, k in INSTRUCTION.iter_unpack(fanout.fanout_program()):
        if k == fanout.HARDWARE_TYPE:
            steps.append((SET_A, 0, 0, 1))
        else:
            steps.append(
                (code, jt, jf, k - fanout.LINK_HEADER if fanout.LINK_HEADER <= k < fanout.NETWORK_HEADER else k)
            )
    return steps


STEPS = translated()
PROGRAM = b"".join(INSTRUCTION.pack(*step) for step in STEPS)


def number_of(frame: bytes) -> int:
    """What the program says of a frame; both machines must agree."""
    number = libpcap.returned(PROGRAM, frame)
    # The core's machine only says whether that is 0: asked for this number and for another one.
    for asked in (number, number ^ 1):
        ending = [(EQUAL, 0, 1, asked), (RETURN, 0, 0, 1), (RETURN, 0, 0, 0)]
        code = b"".join(INSTRUCTION.pack(*step) for step in (*STEPS[:-1], *ending))
        cut_short = number == 0 and libpcap.returned(code, frame) == 0  # a load beyond the packet ended it
        assert filtered(code, frame) == (asked == number and not cut_short)
    return number


def segment(ends, ports=(40_000, 443), *, back=False, **how):
    """An IP packet with a segment from one of the two ends to the other."""
    (src, dst), (sport, dport) = (reversed(pair) if back else pair for pair in (ends, ports))
    how = {"seq": 1, "ack": 1, "flags": 16, **how}
    body = tcp(src, dst, sport, dport, **how)
    return (ipv6 if ":" in src else ipv4)(src, dst, body)


def both(ends, ports=(40_000, 443)):
    return [number_of(ethernet(segment(ends, ports, back=back))) for back in (False, True)]


def test_the_program_is_one_that_machines_take():
    assert libpcap.is_valid(PROGRAM) and len(STEPS) <= 4096
    assert sum(code == RETURN_A for code, *_ in STEPS) == 1 and STEPS[-1][0] == RETURN_A


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ipv4", "ipv6"])
def test_both_directions_and_an_even_share(kind):
    """Ten thousand connections of few hosts and neighbouring ports: as even among 2 to 8 workers as chance would be."""
    chance = random.Random(5)
    numbers = []
    for _ in range(10_000):
        ends = (f"10.0.0.{chance.randrange(1, 9)}", f"10.0.1.{chance.randrange(1, 3)}")
        if kind == "ipv6":
            ends = tuple(f"2001:db8::{end.rpartition('.')[2]}:{end.split('.')[2]}" for end in ends)
        there, back = both(ends, (chance.randrange(32768, 61000), chance.choice((80, 443))))
        assert there == back
        numbers.append(there)
    for workers in (2, 3, 4, 8):
        shares = Counter(number % workers for number in numbers)
        assert max(shares.values()) < 10_000 / workers * 1.1 and len(shares) == workers
    assert len(set(numbers)) > 9000


@pytest.mark.parametrize("ends", [V4, V6], ids=["ipv4", "ipv6"])
def test_ports_count(ends):
    assert len({both(ends, (port, 443))[0] for port in range(1000, 1200)}) == 200


@pytest.mark.parametrize("ends", [V4, V6], ids=["ipv4", "ipv6"])
def test_headers_before_ip_do_not_count(ends):
    packet = segment(ends)
    (expected,) = set(both(ends))
    kind = struct.pack("!H", 0x86DD if ":" in ends[0] else 0x0800)
    ppp = b"\0\x57" if ":" in ends[0] else b"\0\x21"
    for tags in range(1, fanout.MOST_TAGS + 1):
        assert number_of(ethernet(packet, vlans=range(5, 5 + tags))) == expected
    old = ethernet(packet)[:12] + b"\x91\0\0\5" + kind + packet
    assert number_of(old) == expected
    assert number_of(ethernet(packet, vlans=range(5, 6 + fanout.MOST_TAGS))) == 0
    for labels in range(1, fanout.MOST_LABELS + 2):
        stack = b"".join(struct.pack("!I", 7 << 12 | (i == labels - 1) << 8 | 64) for i in range(labels))
        number = number_of(ethernet(stack + packet, ethertype=0x8847, vlans=(7,)))
        assert number == (expected if labels <= fanout.MOST_LABELS else 0)
    assert number_of(ethernet(bytes((0x11, 0, 0, 1, 0, 0)) + ppp + packet, ethertype=0x8864)) == expected
    for other in (0x0806, 0x88CC, 46):
        assert number_of(ethernet(packet, ethertype=other)) == 0


def test_options_and_fragments_of_ipv4():
    (expected,) = set(both(V4))
    body = tcp(*V4, 40_000, 443, seq=1, ack=0, flags=2, payload=bytes(100))
    addresses = number_of(ethernet(ipv4(*V4, body, protocol=17)))
    assert number_of(ethernet(ipv4(*V4, body, opts=bytes(40)))) == expected
    assert number_of(ethernet(ipv4(*V4, body[:64], more=True))) == expected
    for fragment in (ipv4(*V4, body[64:], offset=8), ipv4(*V4, body[64:96], offset=8, more=True)):
        assert number_of(ethernet(fragment)) == addresses != expected
    assert number_of(ethernet(ipv4(*reversed(V4), body, protocol=17))) == addresses


#: Extension headers: number, and the bytes behind the next header's number.
EXTENSIONS = {
    "hop by hop": (0, "00 0502 0000 0100"),
    "routing": (43, "02 0000 00000000" + 16 * "20"),
    "destination": (60, "01 010c" + 12 * "00"),
    "first fragment": (44, "00 0001 12345678"),
    "whole fragment": (44, "00 0000 12345678"),
    "authentication": (51, "04 0000 00000001 00000001" + 12 * "ab"),
    "mobility": (135, "00 0000 0000 0000"),
    "host identity": (139, "00 0000 0000 0000"),
    "shim6": (140, "00 0000 0000 0000"),
}


def behind(names, body, last=6):
    """`body` behind extension headers, and the number of the first of them."""
    for name in reversed(names):
        number, rest = EXTENSIONS[name]
        body, last = bytes((last,)) + bytes.fromhex(rest) + body, number
    return body, last


def test_extension_headers_of_ipv6():
    (expected,) = set(both(V6))
    body = tcp(*V6, 40_000, 443, seq=1, ack=0, flags=2)
    udp = struct.pack("!HHHH", 40_000, 443, 8, 0)
    addresses = number_of(ethernet(ipv6(*V6, udp, next_header=17)))
    assert addresses != expected
    assert number_of(ethernet(ipv6(*reversed(V6), udp, next_header=17))) == addresses
    chains = [[name] for name in EXTENSIONS] + [
        ["hop by hop", "destination", "routing", "first fragment", "authentication"]
    ]
    chains += [["destination"] * count for count in range(fanout.MOST_EXTENSIONS + 2)]
    for chain in chains:
        whole, first = behind(chain, body)
        within = len(chain) <= fanout.MOST_EXTENSIONS
        assert number_of(ethernet(ipv6(*V6, whole, next_header=first))) == (expected if within else addresses), chain
    later, first = behind(["hop by hop", "first fragment"], body[8:])
    later = later[:10] + struct.pack("!H", 8 << 3) + later[12:]
    assert number_of(ethernet(ipv6(*V6, later, next_header=first))) == addresses


def icmp_error(quoted: bytes, kind: int) -> bytes:
    """An ICMP error from a router on the way, which quotes a packet's beginning."""
    body = bytes((kind, 1)) + bytes(6) + quoted
    if quoted[0] >> 4 == 6:
        return ipv6("2001:db8:ffff::1", V6[0], body, next_header=58)
    return ipv4("172.16.0.1", V4[0], body, protocol=1, opts=bytes(4))


@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
def test_icmp_errors_go_with_what_they_quote(back):
    for ends, errors, others in ((V4, (3, 4, 5, 11, 12), (0, 8, 13)), (V6, (1, 2, 3, 4), (128, 129, 135))):
        (expected,) = set(both(ends))
        quoted = segment(ends, back=back)
        quoted = quoted[: (40 if ends == V6 else 20) + 8]
        for kind in errors:
            assert number_of(ethernet(icmp_error(quoted, kind))) == expected
        for kind in others:
            assert number_of(ethernet(icmp_error(quoted, kind))) != expected
    whole, first = behind(["hop by hop", "destination"], tcp(*V6, 40_000, 443, seq=1, ack=0, flags=2))
    (expected,) = set(both(V6))
    assert number_of(ethernet(icmp_error(ipv6(*V6, whole, next_header=first), 1))) == expected
    (expected,) = set(both(V4))
    optioned = ipv4(*V4, tcp(*V4, 40_000, 443, seq=1, ack=0, flags=2), opts=bytes(8))
    assert number_of(ethernet(icmp_error(optioned, 3), vlans=(9,))) == expected


@pytest.mark.parametrize("name", tunnels.AROUND)
def test_tunnels_go_by_their_outer_addresses(name):
    """Whatever is inside, in both directions; sums of the outer addresses say nothing of the inner ones."""
    around = tunnels.AROUND[name]
    numbers = set()
    for ends in (V4, V6):
        for port in (40_000, 40_001):
            if tunnels.fits(name, 6 if ends == V6 else 4):
                there = tunnels.wrapped(name, segment(ends, (port, 443)))
                swapped = there[:12] + there[16:20] + there[12:16] + there[20:]
                if there[0] >> 4 == 6:
                    swapped = there[:8] + there[24:40] + there[8:24] + there[40:]
                numbers |= {number_of(ethernet(there)), number_of(ethernet(swapped))}
    plain = ipv6 if ":" in around.outer[0] else ipv4
    other = plain(*around.outer, bytes(8), **({"next_header": 59} if plain is ipv6 else {"protocol": 132}))
    assert numbers == {number_of(ethernet(other))}


def test_cut_and_random_packets_end():
    chance = random.Random(11)
    whole, first = behind(list(EXTENSIONS)[:4], tcp(*V6, 1, 2, seq=1, ack=0, flags=2))
    frames = [p.data for p in Dialogue().handshake().packets]
    frames += [
        ethernet(ipv6(*V6, whole, next_header=first)),
        ethernet(icmp_error(segment(V4), 3)),
        ethernet(icmp_error(segment(V6), 1)),
    ]
    for frame in frames:
        for length in range(len(frame)):
            number_of(frame[:length])
        for _ in range(300):
            at = chance.randrange(12, len(frame))
            number_of(frame[:at] + bytes((chance.randrange(256),)) + frame[at + 1 :])
    for _ in range(2000):
        number_of(ethernet(bytes((chance.choice((0x45, 0x60, 0x4F)),)) + chance.randbytes(chance.randrange(1, 120))))


def test_assembler_refuses_jumps_that_cannot_be():
    for distance, fits in ((255, True), (256, False)):
        a = Assembler()
        a.when(EQUAL, 1, "there")
        for _ in range(distance):
            a.do(RETURN, 0)
        a.label("there")
        a.do(RETURN, 1)
        if fits:
            assert libpcap.is_valid(a.code())
        else:
            with pytest.raises(ValueError, match="no jump from instruction 0 to there"):
                a.code()
    a = Assembler()
    a.label("back")
    with pytest.raises(ValueError, match="label back stands twice"):
        a.label("back")
    a.go("back")
    with pytest.raises(ValueError, match="no jump from instruction 0 to back"):
        a.code()
