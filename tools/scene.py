"""How a scene of examples/ is declared, and what it says about the connections that it makes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from hosts import Hosts, local_port

#: Expected columns of one record: a value, ``{"min": n}``, or ``{"in": [...]}``.
Row = dict[str, Any]


class Missed(Exception):
    """Chance spoiled the scene (a kernel timer fired in between, say); it is worth another try."""


class Scene(NamedTuple):
    """One capture to record.

    ``delay`` is what a frame takes each way in seconds; ``tap`` the host next to which is recorded; ``suffix`` the
    kind of file.
    """

    name: str
    done: str
    shows: str
    play: Callable[[Hosts], list[Row]]
    delay: float
    tap: str
    ipv6: bool
    suffix: str


class Scenes(list[Scene]):
    """The scenes of one file, in its order."""

    def add(
        self,
        name: str,
        done: str,
        shows: str,
        *,
        delay: float = 0.005,
        tap: str = "client",
        ipv6: bool = False,
        suffix: str = "pcap",
    ) -> Callable[[Callable[[Hosts], list[Row]]], Callable[[Hosts], list[Row]]]:
        """Register a function as a scene. It gets the hosts and gives the rows that it guarantees; states are added by
        the recorder from ``ss``.
        """

        def register(play: Callable[[Hosts], list[Row]]) -> Callable[[Hosts], list[Row]]:
            self.append(Scene(name, done, shows, play, delay, tap, ipv6, suffix))
            return play

        return register


def row(client: socket.socket, port: int, **facts: Any) -> Row:
    """The row of one connection; call it before ``client`` is closed."""
    return {"client_port": local_port(client), "server_port": port, "direction": "syn", **facts}


def complete(client: socket.socket, port: int, **facts: Any) -> Row:
    """The row of a connection with an undisturbed handshake."""
    return row(client, port, **{"handshake": "complete", "syn_count": 1, "synack_count": 1, **facts})


def demand(condition: object, reason: str) -> None:
    """Raise Missed unless the condition holds."""
    if not condition:
        raise Missed(reason)
