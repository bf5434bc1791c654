"""Two network namespaces joined by a cable, and in them processes that hold as many sockets as are wanted."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from netns import Namespace, veth
from wire import bare_segment

#: Addresses whose answers lead to the clients' end of the cable, where nobody has them and nobody says so; and one whose
#: packets lead to the servers' end likewise.
FORGED, NOBODY = "10.41", "10.42.0.1"
_CREW = Path(__file__).with_name("crew.py")
_SPARE_FILES = 100
#: A backlog that nothing here fills.
AMPLE = 60_000


class CrewFailed(Exception):
    """A socket call of a crew failed; the text says which."""


class Crew:
    """A process of one side (crew.py), as seen from here."""

    def __init__(self, namespace: Namespace, address: str):
        self.address = address
        self._process = namespace.popen(
            [sys.executable, str(_CREW)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def order(self, *order: Any) -> None:
        """Give an order (a method of crew.Crew and its arguments)."""
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """The answer to the oldest order without one. Raises CrewFailed."""
        line = self._process.stdout.readline()
        told = json.loads(line) if line else {"error": "a crew has ended"}
        if isinstance(told, dict):
            raise CrewFailed(told["error"])
        return told

    def close(self) -> None:
        """End the process; its kernel closes what it held."""
        self._process.kill()
        self._process.communicate()


class Pair(NamedTuple):
    """A crew of clients and the crew of servers that it talks to."""

    number: int
    client: Crew
    server: Crew


Cable = Callable[[Namespace, Namespace], contextlib.AbstractContextManager[None]]


def _plain(clients: Namespace, servers: Namespace) -> contextlib.AbstractContextManager[None]:
    return veth(clients, "va", servers, "vb")


class World:
    """Clients at the end ``va`` of a cable, servers at its end ``vb``; a context manager.

    Parameters
    ----------
    most : so many connections may be open at once. They are spread over as many pairs of processes as the limit of open files
        asks for, each with addresses of its own, so that ports do not run out either.
    cable : lays it between the two namespaces, with their ends ``va`` and ``vb``; without: a veth pair.
    """

    def __init__(self, most: int, cable: Cable | None = None):
        self._most = most
        self._cable = cable or _plain
        self._speaks = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> World:
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _build(self) -> None:
        enter = self._stack.enter_context
        self.clients, self.servers = enter(Namespace()), enter(Namespace())
        for namespace in (self.clients, self.servers):
            namespace.sysctl("ipv6/conf/default/disable_ipv6", 1)
            for name, value in (
                ("core/somaxconn", 65535),
                ("ipv4/tcp_max_syn_backlog", 1 << 20),
                ("ipv4/tcp_syncookies", 0),
            ):
                namespace.sysctl(name, value)
        enter(self._cable(self.clients, self.servers))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        crews = -(-self._most // (min(hard, 25_000) - _SPARE_FILES))
        for number in range(crews):
            ends = (f"10.40.0.{number + 1}", f"10.40.1.{number + 1}")
            for namespace, address, name in zip((self.clients, self.servers), ends, ("va", "vb"), strict=True):
                namespace.ip(f"address add {address}/16 dev {name}")
        self.clients.ip("link set lo up", f"route add {NOBODY} via 10.40.1.1")
        self.servers.ip("link set lo up", f"route add {FORGED}.0.0/16 via 10.40.0.1")
        self.pairs = [
            Pair(
                number,
                *(
                    self._crew(side, f"10.40.{which}.{number + 1}")
                    for which, side in enumerate((self.clients, self.servers))
                ),
            )
            for number in range(crews)
        ]

    def _crew(self, namespace: Namespace, address: str) -> Crew:
        crew = Crew(namespace, address)
        self._stack.callback(crew.close)
        return crew

    def part(self, pair: Pair, count: int) -> int:
        """How many of so many connections a pair has."""
        return count // len(self.pairs) + (pair.number < count % len(self.pairs))

    def orders(self, side: str, order: Callable[[Pair], Sequence[Any]]) -> list[Any]:
        """Give an order to all crews of a side, and wait for all answers."""
        for pair in self.pairs:
            getattr(pair, side).order(*order(pair))
        return [getattr(pair, side).answer() for pair in self.pairs]

    def tell(self, side: str, *order: Any) -> list[Any]:
        """The same, where all do the same."""
        return self.orders(side, lambda _: order)

    def listen(self, port: int, backlog: int = AMPLE, defer_s: int = 0) -> None:
        """Listen on a port of every server; again: with another backlog."""
        self.orders("server", lambda pair: ("listen", pair.server.address, port, backlog, defer_s))

    def connect(self, port: int, count: int) -> None:
        """Open so many connections to a port that is listened on."""
        self.orders(
            "client", lambda pair: ("connect", pair.client.address, pair.server.address, port, self.part(pair, count))
        )

    def begin(self, port: int, count: int, *, server: str = "", deaf: bool = False) -> None:
        """Begin so many connections to a port of the servers, or of another address."""
        self.orders(
            "client",
            lambda pair: (
                "begin",
                pair.client.address,
                server or pair.server.address,
                port,
                self.part(pair, count),
                deaf,
            ),
        )

    def accept(self, port: int, count: int) -> None:
        """Accept so many connections."""
        self.orders("server", lambda pair: ("accept", port, self.part(pair, count)))

    def open(self, port: int, count: int) -> None:
        """Listen, connect and accept."""
        self.listen(port)
        self.connect(port, count)
        self.accept(port, count)

    def talk(self, port: int, rounds: int) -> None:
        """Requests and answers on every connection of a share."""
        for pair in self.pairs:
            pair.client.order("ask", port, rounds)
            pair.server.order("answer", port, rounds)
        for pair in self.pairs:
            pair.client.answer()
            pair.server.answer()

    def speak(self) -> None:
        """Make NOBODY an address of the servers: whatever is sent to it is refused."""
        self.servers.ip(f"address add {NOBODY}/32 dev vb")
        self._speaks = True

    def silence(self) -> None:
        """Make NOBODY an address that does not answer, as at the beginning."""
        if self._speaks:
            self.servers.ip(f"address del {NOBODY}/32 dev vb")
        self._speaks = False

    def forge(self, segments: Iterable[tuple[int, int, int]], port: int, per_second: int = 1000) -> None:
        """Send bare segments to a port of the first server: each (sender, sequence number, flags), where a sender is a number
        that stands for an address and a port that nobody has.

        Not in one burst unless it is wanted: the kernel resends SYN-ACKs of one burst in a burst, and gives up at once those
        that find the cable's queue full (net.core.netdev_max_backlog, which holds for the whole machine).
        """
        mac = bytes.fromhex(self.servers.mac("vb").replace(":", ""))
        with self.clients.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
            sender.bind(("va", 0))
            head = mac + sender.getsockname()[4] + b"\x08\x00"
            for count, (number, seq, flags) in enumerate(segments, 1):
                source = (f"{FORGED}.{number >> 8 & 0xFF}.{number & 0xFF}", 1024 + number % 60_000)
                sender.send(head + bare_segment(source, (self.pairs[0].server.address, port), seq, flags))
                if count % 50 == 0:
                    time.sleep(50 / per_second)
