"""A packet socket with a TPACKET_V3 ring, bound to one interface (packet(7); Documentation/networking/packet_mmap.rst)."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synfin.errors import CaptureOpenError, ConfigError
from synfin.sources.bpf import TAKE_NOTHING, KernelFilter
from synfin.sources.links import Link
from synfin.sources.timestamps import PACKET_TIMESTAMP, stamp_by

if TYPE_CHECKING:
    from synfin.sources.fanout import FanoutGroup

# linux/if_packet.h, linux/if_ether.h, asm/socket.h; Python's socket has few of them.
_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 1, 5, 6, 10
_TPACKET_V3 = 2
_PACKET_MR_PROMISC = 1
_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_FRAME_BYTES = 2048  # the kernel wants one; blocks of version 3 hold frames of any length

_ETHERNET, _RAW_IP = 1, 101  # LINKTYPE_*
#: ARPHRD_* of linux/if_arp.h whose frames begin with an Ethernet header.
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
#: And those that carry IP behind headers which differ (PPP, HDLC, InfiniBand, tunnels) or behind none (tun, raw IP).
#: Their sockets are cooked: the kernel, which knows the header, takes it off.
_ARPHRD_IP = {32, 512, 513, 519, 768, 769, 776, 778, 823, 65534}


@dataclass(frozen=True)
class Listening:
    """How to listen on an interface.

    Parameters
    ----------
    ring_bytes, block_bytes : size of the ring and of its blocks. The kernel takes each block from neighbouring pages, a
        power of two of them. It maps them page by page whatever it took, so that huge pages change nothing here.
    block_timeout_ms : the kernel hands over a block that is not full after so long.
    filter : what enters the ring, and how much of it.
    promiscuous : also packets that are for others, as long as the socket is open.
    timestamps : ``auto``, ``hardware`` or ``software`` (`synfin.sources.timestamps.stamp_by`).
    fanout : the workers that share the interface's packets; None for one.
    """

    ring_bytes: int
    block_bytes: int
    block_timeout_ms: int
    filter: KernelFilter
    promiscuous: bool
    timestamps: str
    fanout: FanoutGroup | None = None

    def __post_init__(self) -> None:
        pages, rest = divmod(self.block_bytes, mmap.PAGESIZE)
        if rest or pages & (pages - 1) or not pages:
            raise ConfigError(f"a ring's block is a power of two of pages ({mmap.PAGESIZE} bytes), not {self.block_bytes:,} bytes")
        if not 1 <= self.block_timeout_ms <= 10_000:
            raise ConfigError(f"a block's timeout is between 1 ms and 10 s, not {self.block_timeout_ms:,} ms")

    @property
    def blocks(self) -> int:
        """Blocks in a ring: at least 2, so that the kernel has one while the other is tracked."""
        return max(self.ring_bytes // self.block_bytes, 2)


class PacketSocket:
    """A packet socket whose ring the kernel fills from one interface.

    It is made without a protocol, gets its ring and its filter, and is bound last: no packet comes before, none of another
    interface, and none that the filter does not take. On the loopback interface each packet passes twice; the one that
    is sent is left out.

    Raises
    ------
    CaptureOpenError : no right to listen, no such link layer, not Linux; one line that says what to do.
    ConfigError : a filter that cannot be compiled, or that the kernel refuses.

    Attributes
    ----------
    link : the interface when the socket was bound.
    link_type : LINKTYPE_ of its frames.
    memory : the mapped ring. Who looks at it lets go of it before `close`.
    timestamps : whose clock stamps the packets, ``hardware`` or ``software``.
    """

    def __init__(self, link: Link, how: Listening):
        if link.hardware not in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK, *_ARPHRD_IP):
            raise CaptureOpenError(
                f"cannot listen on {link.name}: its link layer (ARPHRD {link.hardware}) is not decoded; Ethernet, loopback, PPP, "
                "tun and IP tunnels are", link.name,
            )  # fmt: skip
        self.link = link
        ethernet = link.hardware in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK)
        self.link_type = _ETHERNET if ethernet else _RAW_IP
        self._socket = _packet_socket(link.name, socket.SOCK_RAW if ethernet else socket.SOCK_DGRAM)
        try:
            program = how.filter.program(link.name, self.link_type, outgoing=link.hardware != _ARPHRD_LOOPBACK)
            self._program = program
            self._attach(TAKE_NOTHING if how.fanout else program)
            self._make_ring(how)
            self.timestamps = stamp_by(self._socket, link.name, how.timestamps)
            if how.promiscuous:
                with _told(link.name, "it cannot be made promiscuous"):
                    membership = struct.pack("iHH8s", link.index, _PACKET_MR_PROMISC, 0, b"")
                    self._socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
            with _told(link.name, "it cannot be mapped"):
                self.memory = mmap.mmap(self._socket.fileno(), how.blocks * how.block_bytes)
            with _told(link.name, "binding failed"):
                self._socket.bind((link.name, _ETH_P_ALL))
            if how.fanout:
                with _told(link.name, "it cannot be shared among workers"):
                    how.fanout.join(self._socket, link.index)
        except BaseException:
            self._socket.close()
            raise

    def _make_ring(self, how: Listening) -> None:
        name = self.link.name
        with _told(name, "the kernel has no TPACKET_V3 (Linux 3.2 or newer)"):
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        frames = how.blocks * (how.block_bytes // _FRAME_BYTES)
        request = struct.pack("7I", how.block_bytes, how.blocks, _FRAME_BYTES, frames, how.block_timeout_ms, 0, 0)
        with _told(name, f"no ring of {how.blocks * how.block_bytes:,} bytes in blocks of {how.block_bytes:,}"):
            self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)

    def _attach(self, program: bytes) -> None:
        code = ctypes.create_string_buffer(program, len(program))
        try:
            self._socket.setsockopt(
                socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program) // 8, ctypes.addressof(code))
            )
        except OSError as error:
            raise ConfigError(f"the kernel refuses the filter ({error.strerror})") from error

    def fileno(self) -> int:
        """The descriptor, for poll(2)."""
        return self._socket.fileno()

    def accept(self) -> None:
        """Let packets in. Only a socket of several workers has to be told: when all of them have joined, so that no packet
        comes to two or to the wrong one.
        """
        self._attach(self._program)

    def refuse(self) -> None:
        """Let no further packet into the ring; what is in it stays."""
        self._attach(TAKE_NOTHING)

    def stamp_by_system(self) -> None:
        """Give up the card's time stamps."""
        self._socket.setsockopt(_SOL_PACKET, PACKET_TIMESTAMP, 0)
        self.timestamps = "software"

    def counted(self) -> tuple[int, int, int]:
        """Packets for the ring, those dropped included; those dropped; how often it was full: since the last call."""
        packets, drops, freezes = struct.unpack("III", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12))
        return packets, drops, freezes

    def error(self) -> int:
        """What went wrong since the last call (errno); 0 for nothing."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    @property
    def is_bound(self) -> bool:
        """Whether it still receives from its interface: not once that was removed, even if it is back under its number."""
        return self._socket.getsockname()[0] != ""

    def close(self) -> None:
        """Close the socket and unmap its ring. The kernel ends its membership."""
        self.memory.close()
        self._socket.close()


@contextlib.contextmanager
def _told(interface: str, what: str) -> Iterator[None]:
    # The system's refusal as one line.
    try:
        yield
    except OSError as error:
        raise CaptureOpenError(f"cannot listen on {interface}: {what} ({error.strerror})", interface) from error


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
