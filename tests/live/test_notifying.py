"""What a service manager is told, over a real socket."""

from __future__ import annotations

import os
import socket
import time

import pytest

from synfin.sidecar.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """A service manager's socket, and the address that it gives to its services."""
    name = f"synfin-test-{os.getpid()}"
    address, told = (str(tmp_path / "n"), str(tmp_path / "n")) if request.param == "path" else (f"\0{name}", f"@{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(5)
        yield listener, told


def test_what_is_told(manager):
    listener, address = manager
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    notifier = Notifier(environ)
    assert environ == {"HOME": "/"} and notifier.watchdog_s == 0.2
    notifier.ready("tracking eth0")
    assert listener.recv(4096) == b"READY=1\nSTATUS=tracking eth0"
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    kind, stamp = listener.recv(4096).decode().split("\n")
    assert kind == "RELOADING=1" and before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= before + 5_000_000
    notifier.stopping()
    assert listener.recv(4096) == b"STOPPING=1"
    notifier.close()


def test_the_watchdog_is_fed_twice_as_often_as_it_asks(manager, monkeypatch):
    listener, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"})
    for now in range(1000, 2001, 5):  # a second, in milliseconds
        monkeypatch.setattr("synfin.sidecar.notify.time.monotonic", lambda now=now: now / 1000)
        notifier.alive()
    notifier.close()
    monkeypatch.undo()
    listener.setblocking(False)
    beats = 0
    with pytest.raises(BlockingIOError):
        while listener.recv(4096) == b"WATCHDOG=1":
            beats += 1
    assert beats in (5, 6)


def test_somebody_elses_watchdog(manager):
    _, address = manager
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"})
    assert notifier.watchdog_s is None
    notifier.close()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}, {"NOTIFY_SOCKET": "/no/such"}])
def test_nobody_listens(environ):
    notifier = Notifier(dict(environ))
    notifier.ready("x")
    notifier.alive()
    notifier.stopping()
    notifier.close()
    notifier.stopping()
