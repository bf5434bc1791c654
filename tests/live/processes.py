"""`synfin live` as a process in a network namespace, and what its files hold."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.dataset as ds

from synfin.schema import FLOWS, INTERVALS

TIMEOUT = 30.0


def until(condition, what):
    """Wait for a condition; gives its value."""
    end = time.monotonic() + TIMEOUT
    while not (value := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return value


class Manager:
    """A service manager's side of the notify protocol; its messages, in order."""

    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        path.chmod(0o777)
        self._socket.settimeout(TIMEOUT)
        self.path = str(path)
        self.told = []

    def wait_for(self, wanted):
        """Take messages until one begins with this; gives it."""
        while True:
            self.told.append(self._socket.recv(4096).decode())
            if self.told[-1].startswith(wanted):
                return self.told[-1]

    def forget(self):
        """Throw away what was told and not yet read."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(4096)

    def close(self):
        self._socket.close()


@contextlib.contextmanager
def sidecar(namespace, folder, *arguments, program=("-m", "synfin", "live"), stderr=subprocess.PIPE, **environ):
    """`synfin live` in a process, once it says that it is ready; gives it and its service manager."""
    manager = Manager(folder / f"notify-{os.urandom(4).hex()}")
    process = namespace.popen(
        [sys.executable, *program, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=stderr, text=True,
        env={**os.environ, "NOTIFY_SOCKET": manager.path, **environ},
    )  # fmt: skip
    try:
        manager._socket.settimeout(0.2)
        until(lambda: process.poll() is not None or _came(manager), "not ready")
        manager._socket.settimeout(TIMEOUT)
        assert process.poll() is None, process.communicate()[1]
        yield process, manager
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT)
        manager.close()


def _came(manager):
    with contextlib.suppress(TimeoutError):
        return manager.wait_for("READY=1")


def end(process, number=signal.SIGTERM):
    """Send a signal; exit code, standard output and standard error."""
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT)
    return process.returncode, out, err


def stored(folder, table):
    """Rows of a table that a run wrote into a folder; instants as integers."""
    if not (folder / table).exists():
        return []
    rows = ds.dataset(folder / table, format="parquet", exclude_invalid_files=False).to_table()
    kinds = {c.name: c.kind for c in (*FLOWS, *INTERVALS)}
    for at, name in enumerate(rows.schema.names):
        if kinds[name] == "instant":
            rows = rows.set_column(at, name, rows[name].cast(pa.int64()))
    return rows.to_pylist()
