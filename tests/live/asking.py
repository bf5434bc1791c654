"""A client of the metrics endpoint that says exactly what a test wants, and an endpoint to say it to."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from synfin.sidecar.endpoint import Endpoint


class Numbered(Collector):
    """A collector that counts how often it is asked, and whose reply has as many lines, as wide, as wanted."""

    def __init__(self, lines: int = 1, width: int = 1):
        self.lines = lines
        self.width = width
        self.asked = 0

    def collect(self) -> Iterator[GaugeMetricFamily]:
        self.asked += 1
        family = GaugeMetricFamily("synfin_test", "A number.", labels=["line"])
        for line in range(self.lines):
            family.add_metric([str(line).zfill(self.width)], self.asked)
        yield family


@contextmanager
def serving(collector: Collector | None = None, **how: Callable) -> Iterator[Endpoint]:
    """An endpoint on a free port of loopback."""
    health = how.pop("health", lambda: (True, "alive"))
    ready = how.pop("ready", lambda: (True, "ready"))
    endpoint = Endpoint("127.0.0.1", 0, collector or Numbered(), health, ready, **how)
    try:
        endpoint.start()
        yield endpoint
    finally:
        endpoint.close()


def connected(endpoint: Endpoint, timeout: float = 20) -> socket.socket:
    return socket.create_connection((endpoint.address, endpoint.port), timeout)


def all_of(sock: socket.socket) -> bytes:
    """What comes until the server closes; a reset ends it like a close."""
    received = b""
    try:
        while piece := sock.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def exchange(endpoint: Endpoint, request: bytes, timeout: float = 20) -> bytes:
    """Send bytes, and return all that comes back."""
    with connected(endpoint, timeout) as sock:
        with suppress(ConnectionResetError, BrokenPipeError):
            sock.sendall(request)
        return all_of(sock)


def get(
    endpoint: Endpoint, path: str = "/metrics", *, method: str = "GET", headers: str = ""
) -> tuple[int, dict[str, str], bytes]:
    """Status, header fields (names in lower case) and body of one request."""
    reply = exchange(endpoint, f"{method} {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n".encode())
    head, _, body = reply.partition(b"\r\n\r\n")
    line, *fields = head.decode("ascii").split("\r\n")
    return (
        int(line.split()[1]),
        {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)},
        body,
    )


def descriptors() -> int:
    """Open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))
