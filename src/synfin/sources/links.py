"""Network interfaces as the kernel tells of them (rtnetlink(7))."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from dataclasses import dataclass

# linux/rtnetlink.h, linux/if_link.h, linux/netlink.h, linux/if.h
_RTM_GETLINK = 18
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_IFLA_IFNAME, _IFLA_STATS64 = 3, 23
_IFF_UP, _IFF_LOWER_UP = 1, 0x10000
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_MESSAGE = struct.Struct("=BxHiII")  # struct ifinfomsg
_ATTRIBUTE = struct.Struct("=HH")
_RECEIVED, _SENT, _RX_DROPPED, _RX_MISSED, _STATS = 0, 1, 6, 15, 16  # of struct rtnl_link_stats64: its first 16 counters
_ANSWER_BYTES = 1 << 17
_ANSWER_SECONDS = 5.0


@dataclass(frozen=True)
class Link:
    """An interface at one moment.

    Parameters
    ----------
    index : its number in the namespace. One that is made takes a number that was never used, unless another one is asked for;
        one that is moved to another namespace and back keeps its own.
    hardware : ARPHRD_* of linux/if_arp.h.
    up, carrier : whether it was switched on; whether it is, and a cable or a peer is there.
    rx_dropped, rx_missed : packets that the driver or the stack dropped before anybody saw them, and that the card had no
        room for, since the interface was made (/sys/class/net/IFACE/statistics has the same).
    packets : that it received and sent since then.
    """

    index: int
    name: str
    hardware: int
    up: bool
    carrier: bool
    rx_dropped: int
    rx_missed: int
    packets: int


class Links:
    """Asks for interfaces of the network namespace in which it was made, also from threads of another one.

    Raises OSError where rtnetlink is not to be had, does not answer for 5 s, or refuses to.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(_ANSWER_SECONDS)
        self._number = 0

    def named(self, name: str) -> Link | None:
        """The interface of that name; None if there is none."""
        text = os.fsencode(name) + b"\0"
        if not 1 < len(text) <= 16:  # IFNAMSIZ
            return None
        attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(text), _IFLA_IFNAME) + text
        return self._ask(0, attribute.ljust((len(attribute) + 3) // 4 * 4, b"\0"))

    def numbered(self, index: int) -> Link | None:
        """The interface of that number, whatever its name is now; None if it was removed."""
        return self._ask(index, b"")

    def _ask(self, index: int, attributes: bytes) -> Link | None:
        self._number += 1
        body = _MESSAGE.pack(socket.AF_UNSPEC, 0, index, 0, 0) + attributes
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), _RTM_GETLINK, _NLM_F_REQUEST, self._number, 0) + body)
        while True:
            answer = self._socket.recv(_ANSWER_BYTES)
            length, kind, _, number, _ = _HEADER.unpack_from(answer)
            if number == self._number:
                if kind != _NLMSG_ERROR:
                    return _link(answer[_HEADER.size : length])
                code = -int.from_bytes(answer[_HEADER.size : _HEADER.size + 4], sys.byteorder, signed=True)
                if code == errno.ENODEV:
                    return None
                raise OSError(code, os.strerror(code))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _link(body: bytes) -> Link:
    _, hardware, index, flags, _ = _MESSAGE.unpack_from(body)
    name, stats = b"", (0,) * _STATS
    at = _MESSAGE.size
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        value = body[at + _ATTRIBUTE.size : at + length]
        if kind == _IFLA_IFNAME:
            name = value.rstrip(b"\0")
        elif kind == _IFLA_STATS64:
            stats = struct.unpack_from(f"={_STATS}Q", value)
        at += max((length + 3) // 4 * 4, _ATTRIBUTE.size)
    up = bool(flags & _IFF_UP)
    return Link(
        index, os.fsdecode(name), hardware, up, up and bool(flags & _IFF_LOWER_UP), stats[_RX_DROPPED], stats[_RX_MISSED],
        stats[_RECEIVED] + stats[_SENT],
    )  # fmt: skip
