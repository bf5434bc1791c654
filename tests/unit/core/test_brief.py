"""The look at plain packets: it says what the way through all layers says, or nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from frames import CLIENT4, ETHERNET, ethernet, ipv4, ipv6, read_capture, tcp

from synfin._core.probe import plain

EXAMPLES = sorted((Path(__file__).resolve().parents[3] / "examples").glob("*.pcap*"))
TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")


def looked_at(frame: bytes, link_type: int = ETHERNET, **how) -> bool:
    """Whether the packet is plain; then both ways must agree."""
    got = plain(frame, link_type, **how)
    if got is None:
        return False
    assert got[0] == got[1]
    return True


@pytest.mark.parametrize("size", [0, 1, 1400])
@pytest.mark.parametrize("options", [b"", TIMESTAMPS, bytes(40)])
def test_plain_packets_are_looked_at(size, options):
    frame = ethernet(ipv4(tcp(bytes(size), options)))
    assert looked_at(frame) and looked_at(frame, wire_len=len(frame) + 4)
    assert looked_at(frame + b"padding")


def test_both_ways_and_any_flags():
    for flags in range(512):
        assert looked_at(ethernet(ipv4(tcp(flags=flags, src_port=flags, dst_port=511 - flags))))
    assert looked_at(ethernet(ipv4(tcp(src_port=1, dst_port=2), src=CLIENT4, dst=CLIENT4)))
    assert looked_at(ethernet(ipv4(tcp(src_port=2, dst_port=1), src=CLIENT4, dst=CLIENT4)))


@pytest.mark.parametrize(
    "frame",
    {
        "IPv6": ethernet(ipv6(tcp()), 0x86DD),
        "a VLAN": ethernet(b"\0\5\x08\0" + ipv4(tcp()), 0x8100),
        "IP options": ethernet(ipv4(tcp(), options=bytes(4))),
        "the first fragment": ethernet(ipv4(tcp(), fragment=0x2000)),
        "a later fragment": ethernet(ipv4(tcp(), fragment=1)),
        "UDP": ethernet(ipv4(tcp(), protocol=17)),
        "a short data offset": ethernet(ipv4(tcp(offset=4))),
        "a data offset beyond the packet": ethernet(ipv4(tcp(offset=6))),
        "total length 0": ethernet(ipv4(tcp(), total=0)),
        "a total length below the headers": ethernet(ipv4(tcp(), total=39)),
        "equal ends": ethernet(ipv4(tcp(src_port=1, dst_port=1), src=CLIENT4, dst=CLIENT4)),
        "a cut TCP header": ethernet(ipv4(tcp()))[:53],
    }.values(),
)
def test_others_are_left_to_the_layers(frame):
    assert not looked_at(frame)


def test_a_stripped_tag_and_other_link_types():
    frame = ethernet(ipv4(tcp()))
    assert not looked_at(frame, vlan_tci=5)
    assert not looked_at(frame, link_type=0)


def test_changed_bytes():
    """Frames with bytes changed at random, and cut: what is called plain is what the layers make of it."""
    random_bytes, counts = random.Random(1), [0, 0]
    for frame in (ethernet(ipv4(tcp(bytes(30), TIMESTAMPS))), ethernet(ipv4(tcp()))):
        for _ in range(20_000):
            changed = bytearray(frame)
            for _ in range(random_bytes.randrange(4)):
                changed[random_bytes.randrange(12, len(frame))] = random_bytes.randrange(256)
            size = random_bytes.choice([len(frame), len(frame), random_bytes.randrange(40, len(frame))])
            counts[looked_at(bytes(changed[:size]), wire_len=len(frame))] += 1
    assert min(counts) > 1000


def test_recorded_packets():
    packets = [packet for path in EXAMPLES for packet in read_capture(path)]
    assert sum(looked_at(data, link_type, wire_len=wire) for link_type, wire, data in packets) > len(packets) // 2
