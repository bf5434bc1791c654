"""Several packet sockets on one interface, each for one worker: the kernel gives both directions of a connection to the same.

Which one that is a program decides (fanout_program.py).
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading

from synfin.sources.fanout_program import fanout_program

# linux/if_packet.h
_SOL_PACKET = 263
_PACKET_FANOUT, _PACKET_FANOUT_DATA = 18, 22
_PACKET_FANOUT_CBPF, _PACKET_FANOUT_FLAG_UNIQUEID = 6, 0x2000


class FanoutGroup:
    """The workers of a run that share interfaces: which kernel group their sockets join, and in which order.

    Parameters
    ----------
    workers : how many.

    Notes
    -----
    The kernel numbers the sockets of a group in the order in which they joined, and after the interface was down in the
    order in which they were made. Several interfaces of one tap have a group each; so that one direction of a connection
    reaches the same worker as the other, the workers must join each group in the same order. `take_place` numbers the
    workers, and `is_turn` says when the next one may make its socket. An interface that goes is left by all workers
    before the first one joins again: it may come back with the index that it had.

    A socket that is bound and has not joined gets all packets, and while not all workers have joined, each gets some of
    the others'. So a socket has a filter that takes nothing until `is_complete`.
    """

    def __init__(self, workers: int):
        self.workers = workers
        self._lock = threading.Lock()
        self._places = 0
        self._joined: dict[int, int] = {}  # interface index -> workers that have joined
        self._numbers: dict[int, int] = {}  # interface index -> the kernel's number of its group

    def take_place(self) -> int:
        """The number of the worker that asks, from 0."""
        with self._lock:
            self._places += 1
            if self._places > self.workers:
                raise ValueError(f"the group has only {self.workers} workers")
            return self._places - 1

    def is_turn(self, index: int, place: int) -> bool:
        """Whether all workers before this one have joined the group of an interface (its index in the kernel)."""
        return self._joined.get(index, 0) == place

    def is_complete(self, index: int) -> bool:
        """Whether all workers have joined the group of an interface."""
        return self._joined.get(index, 0) == self.workers

    def join(self, sock: socket.socket, index: int) -> None:
        """Add a socket that is bound to an interface to its group; the worker's turn it must be. Raises OSError."""
        with self._lock:
            self._numbers[index] = join(sock, self._numbers.get(index), fanout_program())
            self._joined[index] = self._joined.get(index, 0) + 1

    def leave(self, index: int) -> None:
        """A worker's socket no longer receives from an interface, which was removed."""
        with self._lock:
            self._joined[index] -= 1
            if not self._joined[index]:
                del self._joined[index], self._numbers[index]


def join(sock: socket.socket, number: int | None, program: bytes) -> int:
    """Add a bound packet socket to a kernel group whose packets a program divides; the group's number.

    Parameters
    ----------
    sock : a packet socket that receives from one interface.
    number : of the group; None: a new one, with a number that the kernel chooses (Linux 4.12 or newer), which may be 0.
    program : struct sock_filter.

    Raises
    ------
    OSError : no such group can be; EINVAL where it is one of another interface, or the interface is down.
    """
    kind = _PACKET_FANOUT_CBPF | (_PACKET_FANOUT_FLAG_UNIQUEID if number is None else 0)
    sock.setsockopt(_SOL_PACKET, _PACKET_FANOUT, struct.pack("=I", kind << 16 | (number or 0)))
    code = ctypes.create_string_buffer(program, len(program))
    sock.setsockopt(_SOL_PACKET, _PACKET_FANOUT_DATA, struct.pack("HP", len(program) // 8, ctypes.addressof(code)))
    return sock.getsockopt(_SOL_PACKET, _PACKET_FANOUT) & 0xFFFF
