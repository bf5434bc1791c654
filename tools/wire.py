"""A cable between two veth ends that can lose, delay, reorder and double frames, and a tap on it that records.

The forwarder and the recorder are AF_PACKET sockets read by one thread; nothing but Python is needed. Frames are
stamped by the kernel in nanoseconds (SO_TIMESTAMPNS).
"""

from __future__ import annotations

import contextlib
import gzip
import heapq
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from netns import Namespace

_ETH_P_ALL = 3
_SO_TIMESTAMPNS = 35
_MAX_SECONDS = 120.0
_PEER = {"client": "server", "server": "client"}
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


class Segment(NamedTuple):
    """What a rule or a scene may ask of a TCP segment; ``end`` is the sequence number after it."""

    sender: str
    source_port: int
    target_port: int
    flags: int
    seq: int
    ack: int
    payload: int

    @property
    def end(self) -> int:
        return (self.seq + self.payload + bool(self.flags & SYN) + bool(self.flags & FIN)) % 2**32

    @property
    def is_syn(self) -> bool:
        return self.flags & (SYN | ACK) == SYN

    @property
    def is_synack(self) -> bool:
        return self.flags & (SYN | ACK) == SYN | ACK

    @property
    def is_fin(self) -> bool:
        return bool(self.flags & FIN)


def parse(sender: str, frame: bytes) -> Segment | None:
    """The TCP segment of an Ethernet frame with plain IPv4 or IPv6 (all that these wires carry), else None."""
    kind = int.from_bytes(frame[12:14])
    if kind == 0x0800 and len(frame) >= 34 and frame[23] == 6:
        start, end = 14 + (frame[14] & 15) * 4, 14 + int.from_bytes(frame[16:18])
    elif kind == 0x86DD and len(frame) >= 54 and frame[20] == 6:
        start, end = 54, 54 + int.from_bytes(frame[18:20])
    else:
        return None
    if len(frame) < start + 20:
        return None
    source, target, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", frame, start)
    return Segment(sender, source, target, flags, seq, ack, end - start - (offset >> 4) * 4)


def bare_segment(source: tuple[str, int], target: tuple[str, int], seq: int, flags: int) -> bytes:
    """An IPv4 packet with a TCP segment without options, payload or acknowledgement, as no socket would send it."""
    ends = socket.inet_aton(source[0]) + socket.inet_aton(target[0])
    tcp = struct.pack("!HHIIBBHHH", source[1], target[1], seq, 0, 0x50, flags, 64240, 0, 0)
    tcp = tcp[:16] + _checksum(ends + struct.pack("!HH", 6, len(tcp)) + tcp) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + ends
    return ip[:10] + _checksum(ip) + ip[12:] + tcp


def _checksum(data: bytes) -> bytes:
    # RFC 1071, of an even number of bytes.
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


@dataclass
class Rule:
    """What the wire does to segments of one sender that match. ``nth`` counts matches from 1; empty means every one."""

    sender: str
    match: Callable[[Segment], bool]
    nth: frozenset[int] = frozenset()
    drop: bool = False
    delay: float = 0.0
    copies: int = 0
    matched: int = field(default=0, init=False)

    def applies(self, segment: Segment) -> bool:
        """Whether this segment is one of those; counts it if it matches."""
        if segment.sender != self.sender or not self.match(segment):
            return False
        self.matched += 1
        return not self.nth or self.matched in self.nth


class Wire:
    """Forwards between two interfaces of one namespace, in a thread, until ``close``.

    Parameters
    ----------
    middle : the namespace that holds the interfaces ``client`` and ``server``, named after the host behind each.
    delay : seconds that every frame takes each way.
    tap : the interface whose frames are recorded, in both directions: what that host sends is recorded before the
        rules, what it is sent after them.
    """

    def __init__(
        self, middle: Namespace, delay: float = 0.0, tap: str = "client", rules: tuple[Rule, ...] = ()
    ) -> None:
        self.rules: list[Rule] = list(rules)
        self.packets: list[tuple[int, bytes]] = []
        self.seen: list[Segment] = []
        self.dropped: list[Segment] = []
        self._delay = delay
        self._queue: list[tuple[float, int, str, bytes]] = []
        self._order = 0
        self._closed = False
        self._last = time.monotonic()
        self._changed = threading.Condition()
        self._ports = {name: self._packet_socket(middle, name) for name in _PEER}
        self._tap = self._packet_socket(middle, tap)
        self._tap.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @staticmethod
    def _packet_socket(middle: Namespace, interface: str) -> socket.socket:
        # Protocol 0 receives nothing until it is bound, so that no frame of another interface gets in.
        new = middle.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        new.bind((interface, _ETH_P_ALL))
        new.setblocking(False)
        return new

    def close(self) -> None:
        """Stop forwarding and recording; what passed the tap before is in ``packets``. May be called again."""
        if self._closed:
            return
        self._closed = True
        os.write(self._wake_write, b"x")
        self._thread.join()
        for each in (*self._ports.values(), self._tap):
            each.close()
        for pipe in (self._wake_read, self._wake_write):
            os.close(pipe)

    def wait(self, condition: Callable[[list[Segment]], bool], timeout: float = 8.0) -> None:
        """Wait until the segments that reached the wire so far fulfil a condition. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self.seen), timeout):
                raise TimeoutError("the expected segments did not come")

    def settle(self, quiet: float = 0.08, timeout: float = 8.0) -> None:
        """Wait until nothing has passed for ``quiet`` seconds and nothing is on its way. Raises TimeoutError."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            with self._changed:
                rest = 0.02 if self._queue else self._last + quiet - time.monotonic()
            if rest <= 0:
                return
            time.sleep(rest)
        raise TimeoutError("the wire did not become quiet")

    def _run(self) -> None:
        sockets = {port.fileno(): (name, port) for name, port in self._ports.items()}
        watched = [*sockets, self._tap.fileno(), self._wake_read]
        end = time.monotonic() + _MAX_SECONDS
        while time.monotonic() < end:
            due = self._queue[0][0] if self._queue else end
            ready, _, _ = select.select(watched, [], [], max(0.0, due - time.monotonic()))
            for number in ready:
                if number in sockets:
                    self._receive(*sockets[number])
            self._deliver()
            self._record()
            if self._wake_read in ready:
                return

    def _receive(self, sender: str, port: socket.socket) -> None:
        while True:
            try:
                frame, address = port.recvfrom(65536)
            except BlockingIOError:
                return
            except OSError:  # the interface went away: its namespace ends
                return
            if address[2] != socket.PACKET_OUTGOING:
                self._accept(sender, frame)

    def _accept(self, sender: str, frame: bytes) -> None:
        delay, copies, drop = self._delay, 1, False
        segment = parse(sender, frame)
        with self._changed:
            if segment:
                for rule in self.rules:
                    if rule.applies(segment):
                        delay, copies, drop = delay + rule.delay, copies + rule.copies, drop or rule.drop
                self.seen.append(segment)
                if drop:
                    self.dropped.append(segment)
            self._last = time.monotonic()
            for _ in range(0 if drop else copies):
                self._order += 1
                heapq.heappush(self._queue, (self._last + delay, self._order, _PEER[sender], frame))
            self._changed.notify_all()

    def _deliver(self) -> None:
        with self._changed:
            while self._queue and self._queue[0][0] <= time.monotonic():
                _, _, target, frame = heapq.heappop(self._queue)
                with contextlib.suppress(OSError):  # interface gone or its queue full: lost, as on a cable
                    self._ports[target].send(frame)
                self._last = time.monotonic()

    def _record(self) -> None:
        while True:
            try:
                frame, extra, _, _ = self._tap.recvmsg(65536, 64)
            except OSError:
                return
            for level, kind, data in extra:
                if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                    seconds, nanoseconds = struct.unpack("qq", data[:16])
                    self.packets.append((seconds * 10**9 + nanoseconds, frame))


def write_pcap(path: Path, packets: list[tuple[int, bytes]]) -> None:
    """Write a nanosecond pcap with link type Ethernet (draft-ietf-opsawg-pcap)."""
    out = bytearray(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
    for stamp, frame in packets:
        out += struct.pack("<IIII", stamp // 10**9, stamp % 10**9, len(frame), len(frame)) + frame
    path.write_bytes(out)


def _block(kind: int, body: bytes) -> bytes:
    body += b"\0" * (-len(body) % 4)
    return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + b"\0" * (-len(value) % 4)


def write_pcapng_gz(path: Path, packets: list[tuple[int, bytes]], interface: str) -> None:
    """Write a gzipped pcapng: one section, one named Ethernet interface, nanoseconds (draft-ietf-opsawg-pcapng)."""
    options = _option(2, interface.encode()) + _option(9, b"\x09") + _option(0, b"")
    out = bytearray(_block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)))
    out += _block(1, struct.pack("<HHI", 1, 0, 262144) + options)
    for stamp, frame in packets:
        out += _block(6, struct.pack("<IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(frame), len(frame)) + frame)
    path.write_bytes(gzip.compress(out, 9, mtime=0))
