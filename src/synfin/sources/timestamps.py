"""Whose clock stamps the packets: the card's (Documentation/networking/timestamping.rst) or the system's."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import time

from synfin.errors import CaptureOpenError, ConfigError

#: What may be asked for.
WISHES = ("auto", "hardware", "software")

# linux/net_tstamp.h, linux/sockios.h, linux/ethtool.h, linux/if_packet.h
PACKET_TIMESTAMP = 17
_SOL_PACKET, _RAW_HARDWARE = 263, 1 << 6
_SIOCETHTOOL, _SIOCSHWTSTAMP, _SIOCGHWTSTAMP = 0x8946, 0x89B0, 0x89B1
_FILTER_ALL = 1
_ETHTOOL_GET_TS_INFO = 0x41
_CONFIG = struct.Struct("=iii")  # struct hwtstamp_config: flags, tx_type, rx_filter
_NEAR_NS = 1_000_000


def stamp_by(sock: socket.socket, interface: str, wish: str) -> str:
    """Choose the clock that stamps the packets of a packet socket; gives ``hardware`` or ``software``.

    ``auto`` is hardware where the card already stamps every packet that it receives, and its clock reads within a
    millisecond of the system's: packets that the host sends are stamped by the system, and a run has one clock. The
    card's setting stays as it is. ``hardware`` makes the card stamp every packet that it receives; that needs
    CAP_NET_ADMIN unless it does already, and stays so after the run.

    Raises
    ------
    ConfigError : no such wish.
    CaptureOpenError : ``hardware``, and the card cannot, or may not be told to.
    """
    if wish not in WISHES:
        raise ConfigError(f"time stamps are {', '.join(WISHES)}, not {wish!r}")
    if wish == "software":
        return "software"
    flags, sending, receiving = _setting(sock, interface)
    if wish == "auto" and not (receiving == _FILTER_ALL and _agrees(sock, interface)):
        return "software"
    if receiving != _FILTER_ALL:
        _switch_on(sock, interface, flags, sending)
    sock.setsockopt(_SOL_PACKET, PACKET_TIMESTAMP, _RAW_HARDWARE)
    return "hardware"


def _call(sock: socket.socket, interface: str, command: int, argument: bytes) -> bytes:
    # An ioctl whose struct ifreq points to an argument, which it may change.
    from fcntl import ioctl

    room = ctypes.create_string_buffer(argument, len(argument))
    ioctl(sock, command, struct.pack("16sP16x", os.fsencode(interface), ctypes.addressof(room)))
    return room.raw


def _setting(sock: socket.socket, interface: str) -> tuple[int, ...]:
    # flags, tx_type and rx_filter of struct hwtstamp_config; zeros where the driver has none.
    try:
        return _CONFIG.unpack(_call(sock, interface, _SIOCGHWTSTAMP, bytes(_CONFIG.size)))
    except OSError:
        return 0, 0, 0


def _switch_on(sock: socket.socket, interface: str, flags: int, sending: int) -> None:
    # What the card does with packets that it sends stays as it is: a PTP daemon may need that.
    try:
        answer = _call(sock, interface, _SIOCSHWTSTAMP, _CONFIG.pack(flags, sending, _FILTER_ALL))
        if _CONFIG.unpack(answer)[2] == _FILTER_ALL:
            return
        reason = "it stamps only some"
    except PermissionError:
        reason = f"CAP_NET_ADMIN is needed to make it; once as root: hwstamp_ctl -i {interface} -r 1"
    except OSError as error:
        reason = error.strerror
    raise CaptureOpenError(f"cannot listen on {interface}: its card does not stamp every packet ({reason})", interface)


def _agrees(sock: socket.socket, interface: str) -> bool:
    # Does the card's clock show the system's time, to a millisecond?
    with contextlib.suppress(OSError):
        # struct ethtool_ts_info: cmd, so_timestamping, phc_index, ...
        phc = struct.unpack_from("=IIi", _call(sock, interface, _SIOCETHTOOL, struct.pack("=I40x", _ETHTOOL_GET_TS_INFO)))[2]
        clock = os.open(f"/dev/ptp{phc}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            before = time.time_ns()
            card = time.clock_gettime_ns(~clock << 3 | 3)  # FD_TO_CLOCKID (Documentation/driver-api/ptp.rst)
            return before - _NEAR_NS <= card <= time.time_ns() + _NEAR_NS
        finally:
            os.close(clock)
    return False
