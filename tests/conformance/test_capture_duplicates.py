"""Capture duplicates (SPEC 2): each clause of the rule, and that nothing but three counts looks at a copy.

Every capture is tracked by the core and by the slow tracker, which must agree in every column.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from dialogue import MS, SECOND, Captured, Dialogue, checksum, ipv6, pcapng_block, pcapng_option, tcp, write_pcap
from rows import compare, fast, order
from synfin.settings import Settings

KEEP, COUNT, DROP = (Settings(duplicates=how) for how in ("keep", "count", "drop"))
ID_AT, TTL_AT, SUM_AT = 14 + 4, 14 + 8, 14 + 10


def four(**how) -> Dialogue:
    return Dialogue(**how)


def six(**how) -> Dialogue:
    return Dialogue(a_ip="2001:db8::1", b_ip="2001:db8::2", **how)


def numbered(packets: list[Captured], first: int = 1) -> list[Captured]:
    """The same IPv4 packets with IDs that count up from `first`."""
    out = []
    for ident, packet in enumerate(packets, first):
        data = bytearray(packet.data)
        struct.pack_into("!H", data, ID_AT, ident)
        out.append(packet._replace(data=bytes(data)))
    return out


def copy(packet: Captured, after: int = MS, *, ttl: int | None = None, vlan: int | None = None,
         ident: int | None = None) -> Captured:  # fmt: skip
    """A packet as the capture point sees it again, `after` nanoseconds later: behind a router, on another VLAN."""
    data = bytearray(packet.data)
    six = data[14] >> 4 == 6
    if ttl is not None:
        data[14 + 7 if six else TTL_AT] = ttl
    if ident is not None:
        struct.pack_into("!H", data, ID_AT, ident)
    if not six:
        data[SUM_AT : SUM_AT + 2] = b"\0\0"
        struct.pack_into("!H", data, SUM_AT, checksum(bytes(data[14:34])))
    if vlan is not None:
        data[12:12] = struct.pack("!HH", 0x8100, vlan)
    return Captured(packet.time_ns + after, bytes(data), packet.wire_len)


@pytest.fixture
def track(tmp_path):
    """(flow rows, interval rows, account) of packets or files, checked against the slow tracker."""

    def run(packets: list[Captured] | list[Path], settings: Settings = COUNT) -> tuple[list[dict], list[dict], dict]:
        paths = packets if isinstance(packets[0], Path) else [write_pcap(tmp_path / "both.pcap", packets)]
        assert compare(paths, settings) == []
        flows, intervals, stats = fast(paths, settings)
        return sorted(flows, key=order), intervals, stats

    return run


def copies(result) -> int:
    return sum(row[f"{end}_capture_duplicates"] for row in result[0] for end in ("client", "server"))


def in_order(*packets: Captured) -> list[Captured]:
    return sorted(packets, key=lambda packet: packet.time_ns)


#: What becomes of a SYN-ACK's second look, by what differs and when: its name -> (IPv6 or ID, copy, is it one?).
CLAUSES = {
    "ID, exact": (7, copy, True),
    "ID, after 50 ms": (7, lambda p: copy(p, 50 * MS), True),
    "ID, a nanosecond later": (7, lambda p: copy(p, 50 * MS + 1), False),
    "ID, 50 ms before": (7, lambda p: copy(p, -50 * MS), True),
    "ID, a nanosecond earlier": (7, lambda p: copy(p, -50 * MS - 1), False),
    "ID, TTL differs": (7, lambda p: copy(p, ttl=63), True),
    "ID, VLAN differs": (7, lambda p: copy(p, vlan=5), True),
    "another ID": (7, lambda p: copy(p, ident=8), False),
    "no ID, exact": (0, copy, False),
    "no ID, TTL differs": (0, lambda p: copy(p, ttl=63), True),
    "no ID, VLAN differs": (0, lambda p: copy(p, vlan=5), True),
    "no ID, VLAN 0": (0, lambda p: copy(p, vlan=0), True),
    "no ID, TTL differs, after 50 ms": (0, lambda p: copy(p, 50 * MS, ttl=63), True),
    "no ID, TTL differs, later": (0, lambda p: copy(p, 50 * MS + 1, ttl=63), False),
    "IPv6, exact": ("six", copy, False),
    "IPv6, hop limit differs": ("six", lambda p: copy(p, ttl=63), True),
    "IPv6, VLAN differs": ("six", lambda p: copy(p, vlan=5), True),
}


@pytest.mark.parametrize("clause", CLAUSES)
def test_rule(track, clause):
    which, again, is_copy = CLAUSES[clause]
    d = six() if which == "six" else four()
    d.syn(d.a)
    d.synack(d.b)
    packets = d.packets if which == "six" else numbered(d.packets)
    if isinstance(which, int):
        packets[1] = copy(packets[1], 0, ident=which)
    # A later packet brings the clock on where the second look comes with an earlier timestamp.
    result = track([*packets, again(packets[1])])
    assert copies(result) == is_copy
    row = result[0][0]
    assert (row["synack_count"], row["server_packets"]) == (1 if is_copy else 2, 2)
    dropped = track([*packets, again(packets[1])], DROP)
    assert dropped[2]["skips"] == ({"capture_duplicate": 1} if is_copy else {})
    assert dropped[0][0]["server_packets"] == 2 - is_copy


def changed(packet: Captured, at: int, value: int) -> Captured:
    data = bytearray(packet.data)
    data[at] ^= value
    return Captured(packet.time_ns + MS, bytes(data))


#: Byte of an Ethernet frame with IPv4 and TCP (or IPv6) -> whether a change of it leaves the packet a copy.
BYTES4 = {
    "type of service": (15, False), "DF": (20, False), "TTL": (22, True), "IP checksum": (24, True),
    "IP checksum, low": (25, True), "TCP sequence": (41, False), "acknowledgement": (45, False), "flags": (47, False),
    "reserved bits": (46, False), "window": (49, False), "TCP checksum": (50, True), "TCP checksum, low": (51, True),
    "urgent pointer": (52, False), "urgent pointer, low": (53, False), "options": (58, False),
    "last option byte": (65, False), "payload": (70, True), "destination MAC": (3, True),
}  # fmt: skip
BYTES6 = {
    "traffic class": (15, False), "flow label": (17, False), "hop limit": (21, True), "source": (37, False),
    "destination": (50, False), "sequence": (61, False), "TCP checksum": (70, True), "options": (80, False),
}  # fmt: skip
OPTIONS = b"\x01\x01\x08\x0a\0\0\0\x09\0\0\0\x05"


@pytest.mark.parametrize("field", BYTES4)
def test_which_bytes_make_a_copy(track, field):
    at, is_copy = BYTES4[field]
    d = four().handshake()
    d.data(d.a, 100, opts=OPTIONS)
    packets = numbered(d.packets)
    assert copies(track([*packets, changed(packets[-1], at, 0x01)])) == is_copy


@pytest.mark.parametrize("field", BYTES6)
def test_which_bytes_make_a_copy_of_ipv6(track, field):
    at, is_copy = BYTES6[field]
    d = six().handshake()
    d.data(d.a, 100, opts=OPTIONS)
    again = copy(changed(d.packets[-1], at, 0x10), 0, vlan=9)
    assert copies(track([*d.packets, again])) == is_copy


def test_payload_length_and_options_length_differ(track):
    d = four().handshake()
    d.data(d.a, 100, seq=1001)
    d.data(d.a, 101, seq=1001)
    d.data(d.a, 92, seq=1001, opts=b"\x01" * 8)
    packets = numbered(d.packets)
    packets[3:] = [copy(p, 0, ident=9) for p in packets[3:]]
    packets[4:] = [p._replace(time_ns=packets[3].time_ns + MS) for p in packets[4:]]
    assert copies(track(packets)) == 0


def test_extension_headers_belong_to_the_header(track):
    """A destination options header (RFC 8200 section 4.6) whose padding differs makes another packet."""
    d = six()
    segment = tcp("2001:db8::1", "2001:db8::2", 40000, 80, seq=1, ack=0, flags=2)

    def packet(time: int, padding: int, vlan: int) -> Captured:
        header = bytes((6, 0, 1, 4)) + bytes((0, 0, 0, padding))
        frame = b"\2" * 12 + struct.pack("!HHH", 0x8100, vlan, 0x86DD)
        return Captured(time, frame + ipv6("2001:db8::1", "2001:db8::2", header + segment, next_header=60))

    assert copies(track([packet(d.now, 0, 1), packet(d.now + MS, 0, 2)])) == 1
    assert copies(track([packet(d.now, 0, 1), packet(d.now + MS, 1, 2)])) == 0


def test_a_third_copy_is_measured_from_the_first(track):
    d = four()
    d.syn(d.a)
    first = numbered(d.packets)[0]
    looks = [first, copy(first, 30 * MS), copy(first, 50 * MS), copy(first, 60 * MS)]
    result = track(looks)
    assert copies(result) == 2  # the last one is no copy: 60 ms from the first
    assert result[0][0]["syn_count"] == 2


def test_a_real_resend_without_id_takes_the_entry_over(track):
    """Two resends of an IPv6 segment, each seen on two VLANs."""
    d = six().handshake()
    d.data(d.a, 100)
    first = copy(d.packets[-1], 0, vlan=1)
    looks = [first, copy(d.packets[-1], MS, vlan=2)]
    looks += [p._replace(time_ns=p.time_ns + 40 * MS) for p in looks]  # 40 ms and 80 ms after the first
    looks += [p._replace(time_ns=p.time_ns + 40 * MS) for p in looks[2:]]
    result = track([*d.packets[:-1], *looks])
    assert copies(result) == 3
    assert result[0][0]["client_retransmitted_segments"] == 2


def pcapng(packets: list[tuple[int, Captured]], names: list[str]) -> bytes:
    """A pcapng file of (interface, packet)."""
    out = [pcapng_block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
    for name in names:
        opts = pcapng_option("<", 9, b"\x09") + pcapng_option("<", 2, name.encode()) + b"\0\0\0\0"
        out.append(pcapng_block("<", 1, struct.pack("<HHI", 1, 0, 0) + opts))
    for face, (time, data, *_) in packets:
        head = struct.pack("<IIIII", face, time >> 32, time & 0xFFFFFFFF, len(data), len(data))
        out.append(pcapng_block("<", 6, head + data))
    return b"".join(out)


@pytest.mark.parametrize(("faces", "count"), [((0, 1), 4), ((0, 0), 0)])
def test_interfaces_of_one_file(track, tmp_path, faces, count):
    d = six().handshake()
    d.data(d.a, 5)
    looks = [(face, p._replace(time_ns=p.time_ns + face * MS)) for p in d.packets for face in faces]
    path = tmp_path / "two.pcapng"
    path.write_bytes(pcapng(looks, ["left", "right"]))
    result = track([path])
    assert copies(result) == count
    assert result[0][0]["syn_count"] == 2 - bool(count)


def test_files_that_overlap_are_two_taps(track, tmp_path):
    d = six().handshake()
    d.data(d.a, 5)
    d.close()
    left = write_pcap(tmp_path / "left.pcap", d.packets)
    right = write_pcap(tmp_path / "right.pcap", [p._replace(time_ns=p.time_ns + MS) for p in d.packets])
    result = track([left, right])
    assert copies(result) == len(d.packets)
    assert track([left, right], DROP)[0][0]["client_packets"] == 5


def test_a_rotated_set_is_one_tap(track, tmp_path):
    """A resend at the border of two files is a resend."""
    d = six().handshake()
    d.data(d.a, 5)
    again = d.packets[-1]._replace(time_ns=d.packets[-1].time_ns + 10 * MS)
    paths = [write_pcap(tmp_path / "1.pcap", d.packets), write_pcap(tmp_path / "2.pcap", [again])]
    result = track(paths)
    assert copies(result) == 0
    assert result[0][0]["client_retransmitted_segments"] == 1


# ---------------------------------------------------------------------------------------------- what a copy counts in


def without(row: dict, *names: str) -> dict:
    return {name: value for name, value in row.items() if name not in names}


COUNTED = tuple(
    f"{end}_{name}" for end in ("client", "server") for name in ("packets", "ip_bytes", "capture_duplicates")
)


def whole_life() -> list[Captured]:
    d = four().handshake()
    d.data(d.a, 100)
    d.ack(d.b)
    d.data(d.b, 300)
    d.ack(d.a)
    d.close()
    d.reborn(a_isn=90_000, b_isn=70_000)
    d.handshake()
    d.rst(d.a)
    return numbered(d.packets)


def test_nothing_else_looks_at_copies(track):
    """Every packet of two connections (SYN, FIN, RST among them) twice, and once."""
    packets = whole_life()
    twice = in_order(*packets, *(copy(p, 4 * MS, ttl=60, vlan=7) for p in packets))
    counted, intervals, stats = track(twice, COUNT)
    plain, plain_intervals, _ = track(packets, COUNT)
    assert len(counted) == len(plain) == 2
    for ours, theirs in zip(counted, plain, strict=True):
        assert without(ours, "first_packet", *COUNTED) == without(theirs, "first_packet", *COUNTED)
        for end in ("client", "server"):
            assert ours[f"{end}_packets"] == 2 * theirs[f"{end}_packets"]
            assert ours[f"{end}_ip_bytes"] == 2 * theirs[f"{end}_ip_bytes"]
            assert ours[f"{end}_capture_duplicates"] == theirs[f"{end}_packets"]
    for ours, theirs in zip(intervals, plain_intervals, strict=True):
        names = ("packets", "ip_bytes", "capture_duplicates")
        assert without(ours, *names) == without(theirs, *names)
        assert ours["packets"] == 2 * ours["capture_duplicates"] == 2 * theirs["packets"]
        assert ours["ip_bytes"] == 2 * theirs["ip_bytes"]
    assert stats["ip_bytes"] == sum(row["ip_bytes"] for row in intervals)
    dropped, dropped_intervals, stats = track(twice, DROP)
    assert [without(row, "first_packet") for row in dropped] == [without(row, "first_packet") for row in plain]
    assert dropped_intervals == plain_intervals
    assert stats["skips"] == {"capture_duplicate": len(packets)}


def test_keep_takes_copies_as_they_are(track):
    packets = whole_life()[:5]
    flows, intervals, stats = track(in_order(*packets, *(copy(p) for p in packets)), KEEP)
    assert flows[0]["client_packets"] + flows[0]["server_packets"] == 10
    assert flows[0]["client_capture_duplicates"] is flows[0]["server_capture_duplicates"] is None
    assert intervals[0]["capture_duplicates"] is None
    assert flows[0]["syn_count"] == 2 and "capture_duplicate" not in stats["skips"]
    assert stats["suspects"] == 5


def test_a_copy_of_a_held_syn(track):
    """The SYN of a new connection between the ends of an open one is held beside it; its copy is counted at once."""
    d = four().handshake()
    d.wait(SECOND)
    syn = d.syn(d.a, seq=500_000)
    packets = numbered(d.packets)
    flows, _, _ = track([*packets, copy(packets[-1])])
    assert len(flows) == 1 and d.packets[-1] is syn
    row = flows[0]
    assert (row["odd_syns"], row["client_packets"], row["client_capture_duplicates"]) == (1, 4, 1)


def test_a_copy_after_the_record_has_ended(track):
    """The deadline lies between a packet and its copy: the record ends there, and the copy has none to count in."""
    d = four()
    d.syn(d.a)
    packets = numbered(d.packets)
    settings = Settings(duplicates="count", attempt_timeout=20 * MS)
    flows, intervals, stats = track([*packets, copy(packets[0], 20 * MS)], settings)
    assert stats["skips"] == {"capture_duplicate": 1}
    assert flows[0]["end_reason"] == "attempt_timeout" and flows[0]["client_packets"] == 1
    assert sum(row["packets"] for row in intervals) == 1
    flows, _, stats = track([*packets, copy(packets[0], 20 * MS - 1)], settings)
    assert stats["skips"] == {} and flows[0]["client_capture_duplicates"] == 1


def test_a_copy_moves_no_deadline(track):
    d = four().handshake()
    last = numbered(d.packets)
    d.packets.clear()
    d.data(d.a, 5, time=last[-1].time_ns + 100 * MS)
    settings = Settings(duplicates="count", idle_timeout=90 * MS)
    flows, _, _ = track([*last, copy(last[-1], 45 * MS), *numbered(d.packets, 99)], settings)
    assert [row["end_reason"] for row in flows] == ["idle", "end_of_input"]
    assert flows[0]["last_seen"] == last[-1].time_ns


# ---------------------------------------------------------------------------------------------- what is remembered


def test_what_is_forgotten(track):
    """Until the input clock is more than 100 ms past its state at the first's arrival, however late the copy comes."""
    d = four()
    d.syn(d.a)
    d.syn(d.b, time=d.now + 100 * MS)  # brings the clock on
    d.syn(d.b, time=d.now + 100 * MS + 1)
    first, exact, beyond = numbered(d.packets)
    assert copies(track([first, exact, copy(first)])) == 1
    assert copies(track([first, beyond, copy(first)])) == 0


def test_a_step_of_the_clock_forgets_everything(track):
    d = four()
    d.wait(7200 * SECOND)
    d.syn(d.a)
    first = numbered(d.packets)[0]
    back = [copy(first, -7200 * SECOND, ident=i) for i in range(2, 1002)]
    ahead = [first, copy(first, ident=1002)]  # two, so that neither is lone
    steps = track([*ahead, *back, back[0]])
    assert (steps[2]["clock_steps"], copies(steps)) == (1, 0)
    assert copies(track([*ahead, *back[:-1], back[0]])) == 1


def test_many_packets_at_one_instant(track):
    """The table grows, entries stay found: 3,000 connections, each SYN twice, the second ones in another order."""
    syns = []
    for number in range(3000):
        d = Dialogue(a_port=1024 + number, a_isn=number * 7)
        d.syn(d.a)
        syns.append(copy(d.packets[0], 0, ident=1 + number))
    result = track([*syns, *(copy(p, 0) for p in reversed(syns))])
    assert copies(result) == 3000 and result[2]["records"] == 3000
