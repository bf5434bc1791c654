"""What a service manager is told (sd_notify(3)): ready, reloading, stopping, and that the program still turns."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress


class Notifier:
    """Datagrams to the socket that NOTIFY_SOCKET names; nothing where it names none.

    Parameters
    ----------
    environ : where NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID stand. They are taken out, so that a program that this one
        starts does not speak in its name.

    Attributes
    ----------
    watchdog_s : `alive` is due at least so often, in seconds; None where nobody watches.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ):
        address = environ.pop("NOTIFY_SOCKET", "")
        period, of = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self.watchdog_s: float | None = None
        self._socket: socket.socket | None = None
        self._beat = 0.0
        if address[:1] not in ("/", "@"):
            return
        if period.isdigit() and int(period) and of in ("", str(os.getpid())):
            self.watchdog_s = int(period) / 1e6
        self._address = "\0" + address[1:] if address[0] == "@" else address  # of the abstract namespace
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def _tell(self, *lines: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # a manager that does not listen is no reason to stop
                self._socket.sendto("\n".join(lines).encode(), self._address)

    def ready(self, status: str) -> None:
        """Packets are being tracked. `status` is a line for people."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` follows."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The run is ending in order."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """All is well. To be called as often as you like; told twice as often as the watchdog asks."""
        if self.watchdog_s is not None and (now := time.monotonic()) >= self._beat:
            self._beat = now + self.watchdog_s / 2
            self._tell("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
