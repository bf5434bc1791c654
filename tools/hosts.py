"""Two hosts joined by a wire: what the recorder of examples/ and the kernel tests act on."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from types import TracebackType

from netns import Ends, Namespace, veth
from wire import FIN, Rule, Segment, Wire

SERVER_V4, SERVER_V6 = "10.20.0.80", "2001:db8:20::80"
_TIMEOUT = 8.0


def same_end(a: int, b: int) -> bool:
    """Whether sequence number a is at or after b (RFC 9293 section 3.4: modulo 2^32)."""
    return (a - b) % 2**32 < 2**31


def fin_acknowledged(seen: list[Segment], sender: str) -> bool:
    """Whether the peer has acknowledged a FIN of ``sender``."""
    return first_ack_of_fin(seen, sender) is not None


def first_ack_of_fin(seen: list[Segment], sender: str) -> Segment | None:
    """The peer's first segment that acknowledges the first FIN of ``sender``."""
    fin = next((segment for segment in seen if segment.sender == sender and segment.is_fin), None)
    if fin is None:
        return None
    after = seen[seen.index(fin) + 1 :]
    return next((s for s in after if s.sender != sender and s.flags & 16 and same_end(s.ack, fin.end)), None)


class Hosts:
    """A client and a server host, each in a namespace of its own, and the wire between them; a context manager.

    Parameters
    ----------
    number : last part of the client's address is 100 + number, so that captures of several scenes do not collide.
    ipv6 : addresses of the documentation prefix instead of IPv4 ones.
    delay, tap, rules : as for ``Wire``.

    Close ``wire`` before the block ends where the capture matters: the sockets are closed first when it does.
    """

    def __init__(
        self,
        number: int = 0,
        *,
        ipv6: bool = False,
        delay: float = 0.0,
        tap: str = "client",
        rules: tuple[Rule, ...] = (),
    ) -> None:
        self.family = socket.AF_INET6 if ipv6 else socket.AF_INET
        self.client_ip = f"2001:db8:20::{100 + number}" if ipv6 else f"10.20.0.{100 + number}"
        self.server_ip = SERVER_V6 if ipv6 else SERVER_V4
        self.delay, self.tap = delay, tap
        self._stack = contextlib.ExitStack()
        try:
            self._build(rules)
        except BaseException:
            self._stack.close()
            raise

    def _build(self, rules: tuple[Rule, ...]) -> None:
        enter = self._stack.enter_context
        self.client, self.server, middle = (enter(Namespace()) for _ in range(3))
        for namespace in (self.client, self.server, middle):
            # An interface has IPv6 only where a scene uses it: no neighbour discovery noise in IPv4 captures.
            ipv4_only = namespace is middle or self.family == socket.AF_INET
            namespace.sysctl("ipv6/conf/default/disable_ipv6", int(ipv4_only))
        prefix = "/64 nodad" if self.family == socket.AF_INET6 else "/24"
        for namespace, name, address in (
            (self.client, "client", self.client_ip), (self.server, "server", self.server_ip),
        ):  # fmt: skip
            enter(veth(middle, name, namespace, "eth0"))
            namespace.ip(f"address add {address}{prefix} dev eth0")
        self.wire = Wire(middle, self.delay, self.tap, rules)
        self._stack.callback(self.wire.close)

    def __enter__(self) -> Hosts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def sysctl(self, name: str, value: object) -> bool:
        """Set net/... on both hosts; False if a kernel does not take it."""
        return all([self.client.sysctl(name, value), self.server.sysctl(name, value)])

    def socket(self, side: str, port: int = 0) -> socket.socket:
        """A TCP socket of one side that lives as long as the hosts; ``port`` binds it."""
        namespace: Namespace = getattr(self, side)
        new = self._stack.enter_context(namespace.socket(self.family, socket.SOCK_STREAM))
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        new.settimeout(_TIMEOUT)
        if port:
            new.bind((self.client_ip if side == "client" else self.server_ip, port))
        return new

    def listen(self, port: int) -> socket.socket:
        """A listening socket of the server."""
        new = self.socket("server", port)
        new.listen(64)
        return new

    def accept(self, listener: socket.socket) -> socket.socket:
        """The next connection of a listener, closed with the hosts."""
        new, _ = listener.accept()
        new.settimeout(_TIMEOUT)
        return self._stack.enter_context(new)

    def open(self, port: int, local: int = 0) -> tuple[socket.socket, socket.socket]:
        """Listen, connect and accept: the client's and the server's socket."""
        listener = self.listen(port)
        client = self.socket("client", local)
        client.connect((self.server_ip, port))
        server = self.accept(listener)
        listener.close()
        return client, server

    def begin_connect(self, port: int, side: str = "client", local: int = 0) -> socket.socket:
        """Start connect() and come back at once."""
        new = self.socket(side, local)
        new.setblocking(False)
        new.connect_ex((self.server_ip if side == "client" else self.client_ip, port))
        return new

    def states(self) -> dict[str, dict[Ends, str]]:
        """The states of both hosts by ``ss``."""
        return {"client": self.client.states(), "server": self.server.states()}

    def mac(self, side: str) -> str:
        """The Ethernet address of a host."""
        namespace: Namespace = getattr(self, side)
        return namespace.mac("eth0")

    def wait_state(self, side: str, wanted: str, count: int = 1, timeout: float = _TIMEOUT) -> None:
        """Wait until ``count`` connections of a side are in a state. Raises TimeoutError."""
        end = time.monotonic() + timeout
        while list(getattr(self, side).states().values()).count(wanted) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"the {side} did not reach {wanted}")
            time.sleep(0.02)

    def wait_fin_acknowledged(self, sender: str) -> None:
        """Wait until the peer has acknowledged the FIN of ``sender``."""
        self.wire.wait(lambda seen: fin_acknowledged(seen, sender))


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly ``size`` bytes, or fewer at the end of the stream."""
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            break
        data += part
    return data


def exchange(client: socket.socket, server: socket.socket, request: int = 180, response: int = 900) -> None:
    """One request and one response, both read in full."""
    client.sendall(b"q" * request)
    receive(server, request)
    server.sendall(b"r" * response)
    receive(client, response)


def reset_on_close(sock: socket.socket) -> None:
    """Make close() send a RST (SO_LINGER with time 0)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def local_port(sock: socket.socket) -> int:
    """The port of this end."""
    return sock.getsockname()[1]


def any_fin(segment: Segment) -> bool:
    """Match for a rule: a FIN."""
    return bool(segment.flags & FIN)


def any_data(segment: Segment) -> bool:
    """Match for a rule: payload."""
    return segment.payload > 0


def any_segment(_: Segment) -> bool:
    """Match for a rule: everything."""
    return True
