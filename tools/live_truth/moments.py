"""Steady moments of tens of thousands of connections, each with what the kernels said and what synfin said."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from wire import RST, SYN

from live_truth.kernel import Ends, NotSteady, States, Told, connections, gauges, steady
from live_truth.sidecar import Sidecar
from live_truth.world import NOBODY, World

SECOND = 1_000_000_000
#: A worker tells its gauges once a second, and the endpoint serves what is at most half a second older.
_STEADY_S = 3.0

#: The connections of the first moment, by what becomes of them: the share of 1,000, and the server's port.
SHARES = {
    "held": (400, 7001),
    "client half-closes": (125, 7002),
    "server half-closes": (125, 7003),
    "client's FIN is lost": (40, 7004),
    "server's FIN is lost": (40, 7005),
    "FINs cross": (40, 7006),
    "client aborts": (60, 7007),
    "server aborts": (60, 7008),
    "client closes first": (60, 7009),
    "server closes first": (50, 7010),
}
FLOODED, REFUSED_LATER = 7020, 7021


class Named(NamedTuple):
    """A difference that no tap can avoid, or that the contract has chosen: its reason, and what it adds to gauges."""

    reason: str
    adds: dict[str, int]


class Moment(NamedTuple):
    """What was said at one steady moment; `time_ns` ends the second of the interval table that belongs to it."""

    title: str
    time_ns: int
    told: Told
    named: tuple[Named, ...]
    metrics: dict[str, int]

    def expected(self) -> dict[str, int]:
        """The gauges that the kernels and the named differences make."""
        return {
            name: value + sum(each.adds.get(name, 0) for each in self.named) for name, value in self.told.both.items()
        }


class Observer:
    """Takes moments of a world that a sidecar watches.

    Parameters
    ----------
    scale : connections of the first moment.
    say : told what is being done.
    """

    def __init__(self, world: World, run: Sidecar, scale: int, say: Callable[[str], None] = lambda _: None):
        self.world, self.run, self.scale, self._say = world, run, scale, say
        self.moments: list[Moment] = []
        #: When the kernels were seen to have no connection any more, up to half a second late.
        self.emptied_ns: int | None = None

    def count(self, share: str) -> int:
        """The connections of a share."""
        return self.scale * SHARES[share][0] // 1000

    def look(self, title: str, named: Callable[[dict[Ends, States]], Iterable[Named]] = lambda _: ()) -> Moment:
        """Take a moment. ``named`` gives the differences that are known, from the states of all connections."""
        self._say(title)
        for _ in range(5):
            kernel = steady(self.world, _STEADY_S)
            told, now = self.run.gauges(), time.time_ns()
            if connections(self.world) == kernel:
                self.moments.append(Moment(title, now // SECOND * SECOND, gauges(kernel), tuple(named(kernel)), told))
                return self.moments[-1]
        raise NotSteady("states change while the gauges are read")

    def opened(self) -> None:
        """Moment 1."""
        for share, (_, port) in SHARES.items():
            self.world.open(port, self.count(share))
            self.world.talk(port, 1)
        self.look("1. Opened and held")

    def half_closed(self) -> None:
        """Moment 2: every state between ESTABLISHED and TIME-WAIT.

        FINs are lost by a filter on the socket that they are for: they have passed the tap, like one that is lost behind it.
        """
        tell, port = self.world.tell, {share: port for share, (_, port) in SHARES.items()}
        tell("client", "shutdown", port["client half-closes"])
        tell("server", "shutdown", port["server half-closes"])
        tell("server", "deafen", port["client's FIN is lost"], "all")
        tell("client", "shutdown", port["client's FIN is lost"])
        # The client has sent its FIN and heard of it; the server's own is lost.
        tell("client", "shutdown", port["server's FIN is lost"])
        steady(self.world, 0.2)
        tell("client", "deafen", port["server's FIN is lost"], "all")
        tell("server", "shutdown", port["server's FIN is lost"])
        # The server never hears the client's FIN, but hears its own acknowledged.
        tell("server", "deafen", port["FINs cross"], "fin")
        tell("client", "shutdown", port["FINs cross"])
        tell("server", "shutdown", port["FINs cross"])
        self.look("2. Half-closed, and closing")

    def ended(self) -> None:
        """Moment 3: some reset, some closed in full and in TIME-WAIT at one side or the other."""
        tell, port = self.world.tell, {share: port for share, (_, port) in SHARES.items()}
        for side, other in (("client", "server"), ("server", "client")):
            tell(side, "abort", port[f"{side} aborts"])
            tell(side, "shutdown", port[f"{side} closes first"])
            steady(self.world, 0.2)
            tell(other, "close", port[f"{side} aborts"])
            tell(other, "close", port[f"{side} closes first"])
            tell(side, "close", port[f"{side} closes first"])
        self.look("3. Aborted, and closed in full")

    def flooded(self) -> None:
        """Moment 4: SYNs from addresses that do not answer, and clients whose server does not."""
        count = max(self.scale // 5, 1)
        self.world.listen(FLOODED)
        self.world.forge(((number, number, SYN) for number in range(count)), FLOODED)
        self.world.begin(REFUSED_LATER, max(self.scale // 100, 1), server=NOBODY)
        self.look("4. A SYN flood, and a server that does not answer", lambda _: [forged(count)])
        # Now they answer: a reset from the forged senders, and from the server's kernel when the next SYN comes.
        self.world.speak()
        self.world.forge(((number, number + 1, RST) for number in range(count)), FLOODED)

    def close_all(self) -> None:
        """Close or reset everything; come back when only TIME-WAIT is left."""
        tell, port = self.world.tell, {share: port for share, (_, port) in SHARES.items()}
        tell("server", "hear", port["client's FIN is lost"])
        tell("client", "abort", port["client's FIN is lost"])
        tell("client", "abort", port["server's FIN is lost"])
        tell("server", "abort", port["FINs cross"])
        for share in ("client's FIN is lost", "server's FIN is lost", "FINs cross"):
            for side in ("client", "server"):
                tell(side, "close", port[share])
        for first, second, shares in (
            ("client", "server", ("held", "client half-closes")),
            ("server", "client", ("server half-closes",)),
        ):
            for share in shares:
                tell(first, "close", port[share])
                tell(second, "close", port[share])
        until(lambda: not any(set(pair) - {"TIME-WAIT", None} for pair in connections(self.world).values()), 20)

    def gone(self) -> None:
        """Moment 5: the last TIME-WAIT is over."""
        self._say("waiting until the last TIME-WAIT is over")
        until(lambda: not connections(self.world), 75)
        self.emptied_ns = time.time_ns()
        self.look("5. Closed, one TIME-WAIT later")


def forged(count: int, **more: int) -> Named:
    """Attempts that no socket of the clients makes: their senders are forged."""
    return Named("the senders of forged SYNs have no socket", {"syn_sent": count, **more})


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for something. Raises NotSteady."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise NotSteady("connections did not end")
        time.sleep(0.5)
