"""The sockets of one side, in a process of their own: it does what it is told, line by line, and answers each line.

A line is a JSON list, the name of a method of `Crew` and its arguments; the answer is what the method gives, or
``{"error": text}``. Sockets are known by the server's port: all that talk to one port are a share, and are treated alike.
"""

from __future__ import annotations

import ctypes
import errno
import json
import socket
import struct
import sys
import time
from collections import defaultdict
from typing import Any

_PATIENCE_S = 30.0
_IP_BIND_ADDRESS_NO_PORT, _SO_ATTACH_FILTER, _SO_DETACH_FILTER, _TCP_DEFER_ACCEPT = 24, 26, 27, 9
_FIN = 0x01
_REQUEST, _ANSWER = b"q" * 180, b"r" * 900

#: Classic BPF programs over a segment from its TCP header on (linux/filter.h: code, jt, jf, k). What a socket's filter drops
#: has passed every tap and is lost to the socket alone.
_FILTERS = {
    "all": ((0x06, 0, 0, 0),),
    "fin": ((0x30, 0, 0, 13), (0x45, 0, 1, _FIN), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)),
}


class Crew:
    """Listeners and connections of one process; every method is a command."""

    def __init__(self) -> None:
        self._listeners: dict[int, socket.socket] = {}
        self._shares: dict[int, list[socket.socket]] = defaultdict(list)

    def listen(self, address: str, port: int, backlog: int, defer_s: int = 0) -> None:
        """Listen; called again for a port: with another backlog. ``defer_s``: TCP_DEFER_ACCEPT."""
        if port not in self._listeners:
            listener = self._listeners[port] = socket.socket()
            listener.settimeout(_PATIENCE_S)
            if defer_s:
                listener.setsockopt(socket.IPPROTO_TCP, _TCP_DEFER_ACCEPT, defer_s)
            listener.bind((address, port))
        self._listeners[port].listen(backlog)

    def unlisten(self, port: int) -> None:
        """Close the listener of a port."""
        self._listeners.pop(port).close()

    def accept(self, port: int, count: int) -> None:
        """Accept so many connections."""
        self._shares[port] += [self._listeners[port].accept()[0] for _ in range(count)]

    def connect(self, address: str, server: str, port: int, count: int) -> None:
        """Open so many connections, one after another."""
        for _ in range(count):
            client = self._client(address)
            client.settimeout(_PATIENCE_S)
            client.connect((server, port))
            self._shares[port].append(client)

    def begin(self, address: str, server: str, port: int, count: int, deaf: bool = False) -> None:
        """Begin so many connections and wait for nothing; deaf ones hear no answer."""
        for _ in range(count):
            client = self._client(address)
            client.setblocking(False)
            if deaf:
                _attach(client, "all")
            result = client.connect_ex((server, port))
            if result not in (0, errno.EINPROGRESS):
                raise OSError(result, "connect")
            self._shares[port].append(client)

    @staticmethod
    def _client(address: str) -> socket.socket:
        client = socket.socket()
        # The port is chosen when the target is known: else all connections of an address share one range of ports.
        client.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        client.bind((address, 0))
        return client

    def shutdown(self, port: int) -> None:
        """Send a FIN on every connection of a share and keep it open."""
        for each in self._shares[port]:
            each.shutdown(socket.SHUT_WR)

    def close(self, port: int) -> None:
        """Close every connection of a share."""
        for each in self._shares.pop(port, ()):
            each.close()

    def abort(self, port: int) -> None:
        """Close every connection of a share with a RST, where its state allows one."""
        for each in self._shares.pop(port, ()):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.close()

    def deafen(self, port: int, what: str) -> None:
        """From now on, lose what comes for the sockets of a share: ``all`` of it, or segments with ``fin``."""
        for each in self._shares[port]:
            _attach(each, what)

    def hear(self, port: int) -> None:
        """End what `deafen` began."""
        for each in self._shares[port]:
            each.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)

    def fill(self, port: int) -> None:
        """Send on every connection of a share until neither the peer nor this side's buffer takes more."""
        for each in self._shares[port]:
            each.setblocking(False)
        quiet = 0
        while quiet < 5:
            sent = sum(_push(each) for each in self._shares[port])
            quiet = 0 if sent else quiet + 1
            time.sleep(0.05)

    def ask(self, port: int, rounds: int) -> None:
        """Send a request on each connection of a share in turn and read its answer, so many times."""
        for _ in range(rounds):
            for each in self._shares[port]:
                each.sendall(_REQUEST)
                _read(each, len(_ANSWER))

    def answer(self, port: int, rounds: int) -> None:
        """The other side of `ask`: connections answer in the order in which they were accepted."""
        for _ in range(rounds):
            for each in self._shares[port]:
                _read(each, len(_REQUEST))
                each.sendall(_ANSWER)


def _push(sock: socket.socket) -> int:
    try:
        return sock.send(b"x" * 65536)
    except BlockingIOError:
        return 0


def _read(sock: socket.socket, size: int) -> None:
    sock.settimeout(_PATIENCE_S)
    while size:
        size -= len(sock.recv(size)) or size


def _attach(sock: socket.socket, what: str) -> None:
    code = b"".join(struct.pack("HBBI", *step) for step in _FILTERS[what])
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def main() -> None:
    crew = Crew()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        try:
            answer: Any = getattr(crew, name)(*arguments)
        except OSError as error:
            answer = {"error": f"{name}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
