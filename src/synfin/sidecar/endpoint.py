"""The HTTP endpoint of a live run: /metrics, /healthz and /readyz.

One thread serves all clients from non-blocking sockets, so that a client who is slow, silent or hostile holds nothing but
its own place, for a bounded time. Places are few: when all are taken, whoever has been asking longest without having
said what loses its place to the newcomer. Connections are taken, and metrics made, only so many times a second; in
between the last ones are served again. So what the endpoint takes from the trackers is bounded, whatever is sent to it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from synfin.errors import ConfigError
from synfin.sidecar.logs import Logs

LOOPBACK = "127.0.0.1"
MOST_CLIENTS = 64
ACCEPTS_A_SECOND = 200
REQUEST_BYTES = 16 << 10  # a request's line and headers; Prometheus sends about 300
REQUEST_SECONDS = 5.0
MOST_PIECES = 32  # that a request may come in
REPLY_SECONDS = 10.0
#: Metrics are served so long for each format, or longer where they take longer to make; snapshots come once a second.
FRESH_SECONDS = 0.5
#: What is asked for to get OpenMetrics, of whatever version and escaping a client names.
_OPENMETRICS = "application/openmetrics-text"
_SLOT = 0.1  # seconds in which a share of ACCEPTS_A_SECOND may come
_PLAIN = "text/plain; charset=utf-8"
_REASONS = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


@dataclass(eq=False)
class _Client:
    sock: socket.socket
    deadline: float  # of time.monotonic
    received: bytearray = field(default_factory=bytearray)
    pieces: int = 0
    reply: memoryview | None = None  # what is left of it


class Endpoint:
    """Serves metrics and health over HTTP.

    Parameters
    ----------
    address, port : where to listen; port 0 takes a free one. An empty address is every interface.
    collector : makes the metrics (`synfin.sidecar.metrics.SynfinCollector`); those of the process are added.
    health, ready : say whether all is well, and in a sentence why not.
    logs : hears of a scrape that failed.

    Raises
    ------
    ConfigError : the port is taken, the address is none of this host, or the port needs a privilege. The port is open
        when the constructor returns; nobody is served before `start`.

    Attributes
    ----------
    address, port : where it listens.
    """

    def __init__(
        self,
        address: str,
        port: int,
        collector: Collector,
        health: Callable[[], tuple[bool, str]],
        ready: Callable[[], tuple[bool, str]],
        *,
        logs: Logs | None = None,
    ):
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        self._health, self._ready, self._logs = health, ready, logs
        self._made: dict[str, tuple[float, bytes]] = {}  # by content type: until when it is fresh, and the text
        self._clients: dict[_Client, None] = {}  # the longest one first
        self._accepts_left = 0
        self._slot_ends = 0.0
        self._listening = True
        self._closing = False
        self._listener = _listen(address, port)
        self.address, self.port = self._listener.getsockname()[:2]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._woken, self._wake = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="metrics", daemon=True)

    def start(self) -> None:
        """Serve, in a thread of its own, until `close`."""
        self._thread.start()

    def close(self) -> None:
        """Stop serving; whoever is being answered is cut off."""
        self._closing = True
        if self._thread.is_alive():
            self._wake.send(b"x")
            self._thread.join()
        for client in list(self._clients):
            self._drop(client)
        for sock in (self._listener, self._woken, self._wake):
            sock.close()
        self._selector.close()

    # ------------------------------------------------------------------ clients

    def _serve(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(self._patience()):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._clients:  # it may have lost its place in this round
                    self._step(key.data)
            now = time.monotonic()
            for client in [client for client in self._clients if client.deadline <= now]:
                self._drop(client)
            if now >= self._slot_ends:
                self._listen_again(True)

    def _patience(self) -> float:
        # Until the next deadline, or until connections are taken again.
        ends = [client.deadline for client in self._clients]
        if not self._listening:
            ends.append(self._slot_ends)
        return max(min(ends, default=time.monotonic() + 1) - time.monotonic(), 0.0)

    def _listen_again(self, wanted: bool) -> None:
        if wanted != self._listening:
            self._listening = wanted
            if wanted:
                self._selector.register(self._listener, selectors.EVENT_READ)
            else:
                self._selector.unregister(self._listener)

    def _accept(self) -> None:
        now = time.monotonic()
        if now >= self._slot_ends:
            self._slot_ends, self._accepts_left = now + _SLOT, int(ACCEPTS_A_SECOND * _SLOT)
        if self._accepts_left == 0:
            self._listen_again(False)  # the kernel keeps them waiting
            return
        self._accepts_left -= 1
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:  # it is gone already, or there are no descriptors left: not at once again
            self._accepts_left = 0
            return
        if len(self._clients) >= MOST_CLIENTS:
            self._drop(next((client for client in self._clients if client.reply is None), next(iter(self._clients))))
        sock.setblocking(False)
        client = _Client(sock, now + REQUEST_SECONDS)
        self._clients[client] = None
        self._selector.register(sock, selectors.EVENT_READ, client)

    def _drop(self, client: _Client) -> None:
        del self._clients[client]
        self._selector.unregister(client.sock)
        client.sock.close()

    def _step(self, client: _Client) -> None:
        try:
            if client.reply is None:
                self._read(client)
            if client.reply is not None:
                client.reply = client.reply[client.sock.send(client.reply) :]
                if not client.reply:
                    self._drop(client)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)
        except Exception as error:  # whatever one client brings about, the others are served
            self._failed("request_failed", error)
            self._drop(client)

    def _read(self, client: _Client) -> None:
        piece = client.sock.recv(REQUEST_BYTES)
        client.received += piece
        client.pieces += 1
        end = client.received.find(b"\r\n\r\n", 0, REQUEST_BYTES)
        if end >= 0:
            client.reply = memoryview(self._answer(bytes(client.received[:end])))
        elif len(client.received) >= REQUEST_BYTES or client.pieces == MOST_PIECES:
            client.reply = memoryview(_reply(431, "the request is too long\n"))
        elif not piece:
            raise ConnectionResetError("the client left")
        if client.reply is not None:
            client.received.clear()
            client.deadline = time.monotonic() + REPLY_SECONDS
            self._selector.modify(client.sock, selectors.EVENT_WRITE, client)

    # ------------------------------------------------------------------ requests

    def _answer(self, request: bytes) -> bytes:
        line, *headers = request.decode("latin-1").split("\r\n")
        method, _, rest = line.partition(" ")
        target, _, version = rest.rpartition(" ")
        if not target or not version.startswith("HTTP/1."):
            return _reply(400, "this is not HTTP/1\n")
        if method not in ("GET", "HEAD"):
            return _reply(405, "only GET and HEAD\n", headers="Allow: GET, HEAD\r\n")
        path = target.partition("?")[0]
        if path == "/metrics":
            answer = self._metrics(_accepted(headers))
        elif path in ("/healthz", "/readyz"):
            answer = self._state(self._health if path == "/healthz" else self._ready)
        else:
            answer = 404, "there are /metrics, /healthz and /readyz\n", _PLAIN
        return _reply(*answer, head_only=method == "HEAD")

    def _state(self, ask: Callable[[], tuple[bool, str]]) -> tuple[int, str, str]:
        try:
            fine, text = ask()
        except Exception as error:  # the thread must go on, and a run that cannot say how it is is not well
            self._failed("health_failed", error)
            fine, text = False, "unknown"
        return 200 if fine else 503, f"{text}\n", _PLAIN

    def _metrics(self, accept: str) -> tuple[int, str | bytes, str]:
        begun = time.monotonic()
        encode, content_type = _format(accept)
        self._made = {kind: made for kind, made in self._made.items() if made[0] > begun}
        if content_type not in self._made:
            try:
                text = encode(self._registry)
            except Exception as error:  # as above
                self._failed("scrape_failed", error)
                return 500, "the metrics could not be made\n", _PLAIN
            ended = time.monotonic()
            self._made[content_type] = ended + max(FRESH_SECONDS, 3 * (ended - begun)), text
        return 200, self._made[content_type][1], content_type

    def _failed(self, event: str, error: Exception) -> None:
        if self._logs is not None:
            self._logs.error(event, kind=type(error).__name__, reason=str(error))


def _format(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    # OpenMetrics for clients that take it, else the plain one. Versions and ways of escaping differ in nothing that is in these
    # metrics, and a client can make up any number of them, each of which would have to be made.
    try:
        _, content_type = choose_encoder(accept)
    except Exception:  # ValueError and TypeError for versions that are none
        content_type = ""
    return choose_encoder(f"{_OPENMETRICS}; version=1.0.0" if content_type.startswith(_OPENMETRICS) else "")


def _accepted(headers: list[str]) -> str:
    # All Accept fields as one list (RFC 9110 section 5.3).
    fields = (header.partition(":") for header in headers)
    return ",".join(value.strip() for name, _, value in fields if name.strip().lower() == "accept")


def _reply(
    status: int, body: str | bytes, content_type: str = _PLAIN, *, headers: str = "", head_only: bool = False
) -> bytes:
    content = body.encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nDate: {formatdate(usegmt=True)}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(content)}\r\n{headers}Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + (b"" if head_only else content)


@contextlib.contextmanager
def _told(place: str) -> Iterator[None]:
    # The system's refusal as one line.
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "it is taken; choose another port"
        else:
            reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno)
        raise ConfigError(f"cannot serve metrics on {place}: {reason}") from error


def _listen(address: str, port: int) -> socket.socket:
    place = f"[{address}]:{port}" if ":" in address else f"{address or '*'}:{port}"
    with _told(place):
        found = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # Every interface is one socket for both IP versions, where the host has both.
        both = not address and socket.has_dualstack_ipv6()
        family, where = (socket.AF_INET6, ("::", port)) if both else (found[0][0], found[0][4])
        listener = socket.create_server(where, family=family, backlog=128, dualstack_ipv6=both)
    listener.setblocking(False)
    return listener
