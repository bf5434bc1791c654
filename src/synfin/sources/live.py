"""Packets of a Linux network interface: AF_PACKET with a TPACKET_V3 ring."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from synfin._core.batch import PacketBatch
from synfin.errors import CaptureOpenError
from synfin.sources.report import BrokenFile, ClockIncident, InputReport
from synfin.sources.ring import Ring, RingMerge

RING_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20
#: The kernel hands over a block that is not full after so long.
BLOCK_TIMEOUT_MS = 20
_IDLE_MS = 100  # how long `fill` waits for packets
_FRAME_BYTES = 2048  # the kernel wants one; blocks of version 3 hold frames of any length

# linux/if_packet.h, linux/if_ether.h, linux/sockios.h, asm/socket.h, linux/filter.h; Python's socket has few of them.
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION, _PACKET_IGNORE_OUTGOING = 1, 5, 6, 10, 23
_TPACKET_V3 = 2
_PACKET_MR_PROMISC = 1
_ETH_P_ALL = 3
_SIOCGIFHWADDR = 0x8927
_SO_ATTACH_FILTER = 26
_BPF_RETURN = 0x06

_ETHERNET, _RAW_IP = 1, 101  # LINKTYPE_*
#: ARPHRD_* of linux/if_arp.h whose frames begin with an Ethernet header.
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
#: And those that carry IP behind headers which differ (PPP, HDLC, InfiniBand, tunnels) or behind none (tun, raw IP).
#: Their sockets are cooked: the kernel, which knows the header, takes it off.
_ARPHRD_IP = {32, 512, 513, 519, 768, 769, 776, 778, 823, 65534}


@dataclass
class LiveReport(InputReport):
    """What happened on the interface. `kernel_packets` counts what the kernel had for the ring, `drops` included;
    `freezes` how often the ring was full.
    """

    interface: str = ""
    kernel_packets: int = 0
    drops: int = 0
    freezes: int = 0

    @property
    def warnings(self) -> list[str]:
        """Sentences for the end of a run."""
        lines = super().warnings
        if self.drops:
            share = 100 * self.drops / max(self.kernel_packets, 1)
            lines.insert(
                0,
                f"{self.interface}: the ring was full and the kernel dropped {self.drops:,} of "
                f"{self.kernel_packets:,} packets ({share:.2g} %); make it larger (--ring)",
            )
        return lines


class LiveInput:
    """Packets of a network interface as they come, both directions, stamped by the kernel in nanoseconds.

    Parameters
    ----------
    interface : its name.
    ring_bytes, block_bytes : size of the ring and of its blocks. Each block is handed over when it is full or after
        BLOCK_TIMEOUT_MS; packets that come while no block is free are dropped and counted.
    seconds : end the input after so long; None to go on until `stop`.

    Raises
    ------
    CaptureOpenError : no such interface, no right to listen on it, not Linux; one line that says what to do.

    Attributes
    ----------
    files : empty: packets of an interface have neither file nor number.
    interfaces : the interface's name.
    drops : packets that the kernel dropped because the ring was full.

    Notes
    -----
    Packets are read where the kernel put them. A block goes back to the kernel at the call of `fill` after the one
    that gave out its last packet, that is, when that packet has been tracked.

    The clock is that of one source (clock.pxd). While nothing comes, `fill` gives empty batches, and the clock follows
    the one that stamps the packets (CLOCK_REALTIME), less the block timeout: an earlier packet would have come.
    """

    def __init__(
        self, interface: str, *, ring_bytes: int = RING_BYTES, block_bytes: int = BLOCK_BYTES, seconds: float | None = None
    ):
        self.files: list[str] = []
        self.outside = 0
        self.interfaces = [interface]
        self.bytes_total = None
        self._report = LiveReport(interface=interface)
        self._ending = False
        self._ended = False
        blocks = max(ring_bytes // block_bytes, 2)
        self._socket, link_type, loopback = _listen(interface, block_bytes, blocks)
        try:
            with _told(interface, "its ring cannot be mapped"):
                self._memory = mmap.mmap(self._socket.fileno(), blocks * block_bytes)
            self._ring = RingMerge([Ring(self._memory, block_bytes, link_type, loopback)])
        except BaseException:
            self._socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN | select.POLLERR)
        self._until = None if seconds is None else time.monotonic() + seconds

    def fill(self, batch: PacketBatch) -> bool:
        """Replace the batch's packets by the next ones, at most 256; False when the input has ended.

        An empty batch, after a tenth of a second without packets, says that capture time has reached
        `idle_clock_ns`. Raises ValueError after `close`.
        """
        self._ring.begin(batch)
        if self._ended:
            return False
        left_ms = float(_IDLE_MS)
        if self._until is not None:
            left_ms = min((self._until - time.monotonic()) * 1000, left_ms)
            if left_ms <= 0:
                self.stop()
        if self._walk(batch):
            return True
        # Packets that came before the end stand in the open block, which is handed over after the block timeout.
        ending = self._ending
        self._wait(2 * BLOCK_TIMEOUT_MS if ending else left_ms)
        now_ns = time.time_ns()
        if not self._walk(batch):
            self._ring.settle(batch)
            self._ring.idle(now_ns - BLOCK_TIMEOUT_MS * 1_000_000)
            self._count_drops()
            self._ended = ending or self._ring.failed is not None
        return len(batch) > 0 or not self._ended

    def _walk(self, batch: PacketBatch) -> bool:
        before = self._ring.blocks_given_back
        found = self._ring.walk(batch)
        if self._ring.failed and not self._report.broken:
            self._break("unreadable", self._ring.failed)
        if self._ring.blocks_given_back != before:
            self._count_drops()
        return found

    def _wait(self, left_ms: float) -> None:
        for _, events in self._poll.poll(max(left_ms, 1)):
            if events & ~select.POLLIN:
                reason = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if reason and not self._report.broken:
                    down = reason in (errno.ENETDOWN, errno.ENODEV, errno.ENXIO)
                    self._break("stopped", "the interface went down" if down else os.strerror(reason).lower())

    def _break(self, kind: str, reason: str) -> None:
        self._report.broken.append(BrokenFile(self.interfaces[0], None, reason, kind))
        self.stop()

    def _count_drops(self) -> None:
        # Reading sets the kernel's counters to zero; its count of packets includes those dropped.
        counted = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        packets, drops, freezes = struct.unpack("III", counted)
        self._report.kernel_packets += packets
        self._report.drops += drops
        self._report.freezes += freezes

    def stop(self) -> None:
        """End the input: no further packet enters the ring, and `fill` gives those that have. For signal handlers, too."""
        if self._ending:
            return
        self._ending = True
        refuse = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))
        program = struct.pack("HP", 1, ctypes.addressof(refuse))  # struct sock_fprog
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    @property
    def idle_clock_ns(self) -> int:
        """The input clock (ns since 1970); 0 before the first packet."""
        return self._ring.clock_ns

    @property
    def drops(self) -> int:
        """Packets that the kernel dropped so far because the ring was full."""
        return self._report.drops

    @property
    def bytes_read(self) -> int:
        """Captured bytes so far."""
        return self._ring.bytes

    @property
    def report(self) -> LiveReport:
        """What happened so far; final when `fill` has returned False."""
        self._report.clock_counts = self._ring.clock_counts
        self._report.incidents = [
            ClockIncident(kind, self.interfaces[which], *rest) for kind, which, *rest in self._ring.clock_events
        ]
        return self._report

    def close(self) -> None:
        """Close socket and ring. The packets of the last batch are void afterwards."""
        self._ring.close()
        self._memory.close()
        self._socket.close()

    def __enter__(self) -> LiveInput:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def _told(interface: str, what: str) -> Iterator[None]:
    # The system's refusal as one line.
    try:
        yield
    except OSError as error:
        raise CaptureOpenError(f"cannot listen on {interface}: {what} ({error.strerror})", interface) from error


def _listen(interface: str, block_bytes: int, blocks: int) -> tuple[socket.socket, int, bool]:
    """A packet socket with a ring, bound to the interface; its link type; whether that is the loopback interface.

    The socket is made without a protocol and bound last, so that no packet comes before the ring is there, and none of
    another interface.
    """
    if not hasattr(socket, "AF_PACKET"):
        raise CaptureOpenError(f"cannot listen on {interface}: live capture needs Linux, and this is {sys.platform}", interface)
    index, hardware = _look_up(interface)
    ethernet = hardware in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK)
    sock = _packet_socket(interface, socket.SOCK_RAW if ethernet else socket.SOCK_DGRAM)
    try:
        with _told(interface, "the kernel has no TPACKET_V3 (Linux 3.2 or newer)"):
            sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        frames = block_bytes // _FRAME_BYTES
        request = struct.pack("7I", block_bytes, blocks, _FRAME_BYTES, frames * blocks, BLOCK_TIMEOUT_MS, 0, 0)
        with _told(interface, f"no ring of {blocks * block_bytes:,} bytes"):
            sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        with _told(interface, "it cannot be made promiscuous"):
            membership = struct.pack("iHH8s", index, _PACKET_MR_PROMISC, 0, b"")
            sock.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
        if hardware == _ARPHRD_LOOPBACK:
            # What the host sends to itself passes twice. A kernel before 4.20 cannot leave one out: then the walk does.
            try:
                sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:
                    raise
        with _told(interface, "binding failed"):
            sock.bind((interface, _ETH_P_ALL))
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ENETDOWN:
            raise CaptureOpenError(f"cannot listen on {interface}: it is down; ip link set {interface} up", interface)
    except BaseException:
        sock.close()
        raise
    return sock, _ETHERNET if ethernet else _RAW_IP, hardware == _ARPHRD_LOOPBACK


def _look_up(interface: str) -> tuple[int, int]:
    """Number and hardware type (ARPHRD_*) of an interface."""
    from fcntl import ioctl

    try:
        index = socket.if_nametoindex(interface)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as control:  # any socket serves
            answer = ioctl(control, _SIOCGIFHWADDR, struct.pack("16s24x", os.fsencode(interface)))
    except (OSError, ValueError) as error:
        known = ", ".join(name for _, name in socket.if_nameindex()[:12])
        raise CaptureOpenError(f"there is no interface {interface!r}; there are {known or 'none'}", interface) from error
    hardware = struct.unpack_from("H", answer, 16)[0]
    if hardware not in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK, *_ARPHRD_IP):
        raise CaptureOpenError(
            f"cannot listen on {interface}: its link layer (ARPHRD {hardware}) is not decoded; Ethernet, loopback, PPP, "
            "tun and IP tunnels are", interface,
        )  # fmt: skip
    return index, hardware


def _packet_socket(interface: str, kind: int) -> socket.socket:
    try:
        return socket.socket(socket.AF_PACKET, kind, 0)
    except PermissionError as error:
        program = os.path.realpath(sys.executable)
        raise CaptureOpenError(
            f"cannot listen on {interface}: CAP_NET_RAW is missing; run with sudo, give it to this Python "
            f"(sudo setcap cap_net_raw+ep {program}), or as an ambient capability (systemd: AmbientCapabilities=CAP_NET_RAW)",
            interface,
        ) from error
    except OSError as error:
        raise CaptureOpenError(f"cannot listen on {interface}: no packet sockets here ({error.strerror})", interface) from error
