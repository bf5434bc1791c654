"""Random talk for the comparison of the core with the slow tracker: dialogues that are mostly lawful, then what happens to
them between the ends and the tap (loss, doubling, reordering, odd clocks), and settings."""

from __future__ import annotations

import random
import struct
from dataclasses import replace

from dialogue import Captured, Dialogue, ethernet, options
from synfin.settings import Settings
from tunnels import AROUND, fits, wrapped

MS = 1_000_000
SECOND = 1_000 * MS
START = 1_700_000_000 * SECOND

# Borders of sequence space. Left out: sequence numbers of one tuple that lie half of sequence space apart or more, where
# "above" and "below" mean nothing (RFC 9293 section 3.4). The core and the slow tracker then differ in about 1 of 1,000.
ISNS = (0, 2**30 - 20, 2**32 - 1, 2**32 - 120)
FLAGS = ("S", "SA", "A", "A", "A", "PA", "PA", "PA", "FA", "FA", "R", "RA", "F", "P", "", "SEC", "SAE", "SF", "SR")
WAITS = (0, SECOND, 9 * SECOND, 10 * SECOND, 30 * SECOND, 60 * SECOND, 75 * SECOND, 100 * SECOND, 3 * 3600 * SECOND)


def _isn(rnd: random.Random) -> int:
    """Often one that was used before, or lies beside it, though real hosts choose out of 2^32."""
    return rnd.choice(ISNS) if rnd.random() < 0.5 else rnd.randrange(2**30)


def _opts(rnd: random.Random, echo: int) -> bytes:
    return options(
        mss=rnd.choice([None, 1460]), scale=rnd.choice([None, 0, 7, 14, 15]), sack=rnd.random() < 0.5,
        ts=rnd.choice([None, (rnd.choice([1, 2, 3]), echo)]), fast_open=rnd.choice([None, None, b"", b"cookie12"]),
        mptcp=rnd.choice([None, None, b"\x01\x01"]),
    )  # fmt: skip


def _exchange(rnd: random.Random, talk: Dialogue) -> None:
    """A stretch that real hosts would send."""
    a, b = talk.a, talk.b
    if rnd.random() < 0.5:
        a, b = b, a
    kind = rnd.randrange(9)
    if kind == 0:
        talk.data(a, rnd.choice([1, 100, 1448]))
        talk.ack(b)
    elif kind == 1:
        talk.close(a)
    elif kind == 2:  # three segments
        talk.fin(a)
        talk.fin(b)
        talk.ack(a)
    elif kind == 3:  # both at once
        talk.fin(a, ack=b.nxt)
        talk.fin(b, ack=a.nxt - 1)
        talk.ack(a)
        talk.ack(b)
    elif kind == 4:
        talk.rst(a, extra=rnd.choice(["", "A"]))
    elif kind == 5:
        talk.keep_alive(a, rnd.choice([0, 1]))
        talk.ack(b)
    elif kind == 6:
        talk.data(a, 300)
        talk.data(a, 300, captured=False)
        talk.data(a, 300)
        talk.ack(b, ack=a.nxt - 600)
        talk.ack(b, ack=a.nxt - 600)
        talk.data(a, 300, seq=a.nxt - 600)
        talk.ack(b)
    elif kind == 7:
        talk.reborn(a_isn=_isn(rnd), b_isn=_isn(rnd))
        _opening(rnd, talk)
    else:
        talk.ack(a, window=rnd.choice([0, 1, 65535]))


def _opening(rnd: random.Random, talk: Dialogue) -> None:
    kind = rnd.randrange(10)
    a, b = talk.a, talk.b
    payload = rnd.choice([0, 0, 0, 10])
    talk.syn(a, payload, opts=_opts(rnd, 0))
    if kind <= 4:
        answer = _opts(rnd, rnd.choice([1, 2, 3]))
        talk.synack(b, rnd.choice([0, 0, 0, 20]), ack=a.isn + 1 + rnd.choice([0, payload]), opts=answer)
        talk.ack(a)
    elif kind == 5:
        talk.syn(a, opts=_opts(rnd, 0), seq=a.isn, step=rnd.choice([SECOND, 3 * SECOND]))
        talk.synack(b, opts=_opts(rnd, rnd.choice([1, 2, 3])))
        talk.synack(b, opts=_opts(rnd, rnd.choice([1, 2, 3])), seq=rnd.choice([b.isn, b.isn, 77]))
        talk.send(a, "A", opts=options(ts=(5, rnd.choice([1, 2, 3]))))
    elif kind == 6:
        talk.rst(b, extra="A", seq=0)
        if rnd.random() < 0.5:
            talk.syn(a, opts=_opts(rnd, 0))
    elif kind == 7:  # simultaneous open
        talk.syn(b, opts=_opts(rnd, 0))
        talk.synack(a)
        talk.synack(b)
    elif kind == 8:  # split
        talk.ack(b)
        talk.syn(b)
        talk.synack(a)
        talk.ack(b)
    elif rnd.random() < 0.5:
        talk.synack(b)


def _anything(rnd: random.Random, talk: Dialogue) -> None:
    """One segment that nobody should send, or hardly."""
    end = rnd.choice([talk.a, talk.b])
    peer = talk.peer(end)
    how: dict = {}
    flags = rnd.choice(FLAGS)
    if rnd.random() < 0.4:
        base = rnd.choice([end.nxt, end.isn, peer.nxt])
        far = end.isn + 2**29
        how["seq"] = rnd.choice([base + by for by in (-1, 0, 1, -100, 100, -70_000, 70_000)] + [far]) % 2**32
    if rnd.random() < 0.3:
        how["ack"] = (rnd.choice([peer.nxt, peer.isn]) + rnd.choice([-1, 0, 1, 2, -100, 100, 5000])) % 2**32
    if rnd.random() < 0.2:
        how["window"] = rnd.choice([0, 1, 500])
    if rnd.random() < 0.1:
        end.isn = _isn(rnd)
    talk.send(end, flags, 0 if "S" in flags else rnd.choice([0, 0, 1, 100]), **how)


def _between(rnd: random.Random, packets: list[Captured]) -> list[Captured]:
    """What happens between the ends and the tap."""
    trouble = rnd.choice([0.0, 0.0, 0.05, 0.2])
    seen: list[Captured] = []
    for packet in packets:
        moved = packet.time_ns
        if rnd.random() < trouble:
            what = rnd.randrange(5)
            if what == 0:
                continue
            if what == 1:
                seen.append(packet)
            elif what == 2:
                moved += rnd.choice([-1, 1]) * rnd.choice([5 * MS, 2 * SECOND])
            elif what == 3:
                moved += rnd.choice([-2, 2, 40_000]) * 3600 * SECOND
            elif seen:
                seen.insert(len(seen) - 1, packet)
                continue
        seen.append(packet._replace(time_ns=moved))
    return seen


def _in_tunnels(rnd: random.Random, packets: list[Captured], settings: Settings) -> list[Captured]:
    """Some of the talk is captured inside tunnels.

    Where the key tells connections apart, all packets of one have the same tunnel, so that it is not torn in parts.
    """
    if rnd.random() < 0.7:
        return packets
    names = [*rnd.sample(sorted(AROUND), 2), None]
    out = []
    for packet in packets:
        start = packet.data.index(b"\x08\0\x45" if b"\x08\0\x45" in packet.data[:40] else b"\x86\xdd\x60") + 2
        version = packet.data[start] >> 4
        ports = start + (20 if version == 4 else 40)
        name = names[sum(packet.data[ports : ports + 4]) % 3] if settings.key else rnd.choice(names)
        if name and fits(name, version):
            out.append(packet._replace(data=ethernet(wrapped(name, packet.data[start:]))))
        else:
            out.append(packet)
    return out


def _on_several_vlans(packets: list[Captured]) -> list[Captured]:
    """Untagged frames as a trunk carries them whose tap sees three VLANs in turn, and none for a while."""
    return [
        packet if index % 8 < 2 else packet._replace(data=packet.data[:12] + struct.pack("!HH", 0x8100, 5 + index // 2 % 3) + packet.data[12:])
        for index, packet in enumerate(packets)
    ]  # fmt: skip


def talk(rnd: random.Random) -> tuple[list[list[Captured]], Settings]:
    """Packets of one to three captures, and settings."""
    strange = rnd.choice([0.0, 0.0, 0.1, 0.5])
    everything: list[Captured] = []
    for number in range(rnd.choice([1, 1, 2, 3])):
        six = rnd.random() < 0.2
        tags = rnd.choice([(), None, (5,), (7, 5)])
        conversation = Dialogue(
            a_ip="2001:db8::1" if six else "10.0.0.1", b_ip="2001:db8::2" if six else "10.0.0.2",
            a_port=rnd.choice([40_000, 80, 50_000]), b_port=rnd.choice([443, 443, 40_001]),
            a_isn=_isn(rnd), b_isn=_isn(rnd), start=START + number * rnd.choice([0, 7 * MS, 80 * SECOND]),
            vlans=tags or (),
        )  # fmt: skip
        if rnd.random() < 0.8:
            _opening(rnd, conversation)
        for _ in range(rnd.randrange(1, 14)):
            if rnd.random() < 0.1:
                conversation.wait(rnd.choice(WAITS) + rnd.choice([-1, 0, 1, -10 * MS]))
            if rnd.random() < strange:
                _anything(rnd, conversation)
            else:
                _exchange(rnd, conversation)
        everything += conversation.packets if tags is not None else _on_several_vlans(conversation.packets)
    everything.sort(key=lambda packet: packet.time_ns)
    count = rnd.choice([1, 1, 1, 2, 3])
    rotated = rnd.random() < 0.5
    everything = _between(rnd, everything)
    files: list[list[Captured]] = [[] for _ in range(count)]
    for index, packet in enumerate(everything):
        files[index * len(files) // len(everything) if rotated else rnd.randrange(len(files))].append(packet)
    if rnd.random() < 0.05:  # a file whose clock was wrong for a while: its step back takes 1,000 packets
        right = rnd.choice(files)
        wrong = [packet._replace(time_ns=packet.time_ns + 90_000 * SECOND) for packet in right]
        right[:] = wrong + right * (1200 // (len(right) + 1) + 1)
    # Two hours of an open connection are thousands of interval rows: mostly shorter ones here.
    patient = rnd.random() < 0.1
    settings = Settings(
        interval=60 * SECOND if patient else rnd.choice([SECOND, SECOND, 100 * MS]), reorder=rnd.choice([1, 1, 0, 5]) * SECOND,
        idle_timeout=(7440 if patient else 100) * SECOND, one_sided_timeout=(300 if patient else 30) * SECOND,
        time_wait=rnd.choice([60, 60, 2]) * SECOND, key=rnd.choice([(), (), ("vlan",)]) + rnd.choice([(), (), ("tunnel",)]),
    )  # fmt: skip
    files = [_in_tunnels(rnd, packets, settings) for packets in files]
    settings = replace(settings, max_flows=rnd.choice([None, None, None, 1, 2]))  # of one to three connections
    # A capture that is given twice is read once (SPEC 9): no two files are the same.
    return [list(packets) for packets in dict.fromkeys(map(tuple, files)) if packets], settings


def _ip_at(frame: bytes) -> int:
    at = 12
    while frame[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
        at += 4
    return at + 2


def _another_look(rnd: random.Random, packet: Captured) -> Captured:
    """The packet again, as a span port may see it, and sometimes as it may not."""
    data, at = bytearray(packet.data), _ip_at(packet.data)
    ttl_at, ident_at = (at + 7, None) if data[at] >> 4 == 6 else (at + 8, at + 4)
    what = rnd.randrange(8)
    if what & 1 and len(data) > ttl_at:
        data[ttl_at] ^= 1
    if what & 2:
        data[12:12] = struct.pack("!HH", 0x8100, rnd.choice([0, 5, 9]))
    elif what == 4 and ident_at:
        data[ident_at] ^= 0x40
    late = rnd.choice([0, 1, MS, 49 * MS, 50 * MS, 50 * MS + 1, -50 * MS, -50 * MS - 1, 99 * MS])
    return Captured(packet.time_ns + late, bytes(data), packet.wire_len and packet.wire_len + len(data) - len(packet.data))


def seen_twice(files: list[list[Captured]], seed: int) -> list[list[Captured]]:
    """The same captures with IPv4 IDs on some packets and another look at some, a little later in the file."""
    rnd = random.Random(seed ^ 0x5EEDC0)
    out = []
    for packets in files:
        looks: list[tuple[float, Captured]] = []
        for index, packet in enumerate(packets):
            data = bytearray(packet.data)
            at = _ip_at(packet.data)
            if data[at] >> 4 == 4 and rnd.random() < 0.6:
                data[at + 4 : at + 6] = struct.pack("!H", rnd.choice([index & 0xFFFF, rnd.randrange(4)]))
            looks.append((index, packet._replace(data=bytes(data))))
            while rnd.random() < 0.3:
                looks.append((index + rnd.choice([0.5, 1.5, 5.5]), _another_look(rnd, looks[-1][1])))
        out.append([packet for _, packet in sorted(looks, key=lambda look: look[0])])
    return out
