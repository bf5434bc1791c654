"""What two kernels say of their connections, by ``ss -tan`` on both sides, and which gauges that makes."""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

from netns import SS_STATES, Namespace

from live_truth.world import World
from synfin.schema import STATES

#: Gauges that count ends, by state; those that count connections.
END_GAUGES = {state.lower().replace("-", "_"): state for state in STATES[2:]}
CONNECTION_GAUGES = ("connections", "opening", "half_open", "half_closed", "midstream")
GAUGES = (*END_GAUGES, *CONNECTION_GAUGES)

#: (client's address and port, server's address and port).
Ends = tuple[str, str]
#: States of the client's and of the server's socket; None where that side has none.
States = tuple[str | None, str | None]


def _sockets(namespace: Namespace) -> dict[Ends, str]:
    # Local and peer end -> state, of the cable's addresses alone: scrapes go over the loopback interface.
    found = {}
    for line in namespace.run(["ss", "-tanH"]).splitlines():
        state, _, _, local, peer, *_ = line.split()
        if state != "LISTEN" and local.startswith("10."):
            found[local, peer] = SS_STATES[state]
    return found


def connections(world: World) -> dict[Ends, States]:
    """Every connection that either side knows, with the states of its two sockets."""
    clients, servers = _sockets(world.clients), _sockets(world.servers)
    joined = {ends: (state, servers.pop(ends[::-1], None)) for ends, state in clients.items()}
    return joined | {ends[::-1]: (None, state) for ends, state in servers.items()}


class Told(NamedTuple):
    """Gauges by the kernel: ends of each side (connections: None), and both together."""

    client: dict[str, int]
    server: dict[str, int]
    both: dict[str, int]


def gauges(kernel: dict[Ends, States]) -> Told:
    """The gauges of SPEC 5 from the states of both sides.

    An end is counted where its own kernel has it. A connection is `opening` while its client is in SYN-SENT and no server
    has it, `half_open` while its server is in SYN-RECEIVED, `half_closed` with one end in FIN-WAIT-2 and the other in
    CLOSE-WAIT, and one of `connections` until each of its sockets is gone or in TIME-WAIT. None is `midstream`.
    """
    pairs = Counter(kernel.values())
    sides = []
    for which in (0, 1):
        states = Counter({state: 0 for state in END_GAUGES.values()})
        for pair, count in pairs.items():
            states[pair[which]] += count
        sides.append({name: states[state] for name, state in END_GAUGES.items()})
    both = {name: sides[0][name] + sides[1][name] for name in END_GAUGES}
    both["connections"] = sum(count for pair, count in pairs.items() if set(pair) - {"TIME-WAIT", None})
    both["opening"] = pairs["SYN-SENT", None]
    both["half_open"] = sum(count for pair, count in pairs.items() if pair[1] == "SYN-RECEIVED")
    both["half_closed"] = pairs["FIN-WAIT-2", "CLOSE-WAIT"] + pairs["CLOSE-WAIT", "FIN-WAIT-2"]
    both["midstream"] = 0
    return Told(*sides, both)


class NotSteady(Exception):
    """The kernels' states went on changing; the text says which."""


def steady(world: World, seconds: float, patience: float = 30.0) -> dict[Ends, States]:
    """The kernels' connections once nothing has changed for so long, ports and states alike. Raises NotSteady."""
    end = time.monotonic() + patience
    before = connections(world)
    while time.monotonic() < end:
        time.sleep(seconds)
        now = connections(world)
        if now == before:
            return now
        changed, before = (
            Counter(
                (before.get(ends), now.get(ends))
                for ends in before.keys() | now.keys()
                if before.get(ends) != now.get(ends)
            ),
            now,
        )
    raise NotSteady(str(changed.most_common(3)))
