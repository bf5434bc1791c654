"""Part two: handshake and data round trips against ``ss -ti`` of both sides, and against links whose delay is known."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from netns import Namespace, veth
from wire import Rule, Wire

from live_truth import tables
from live_truth.sidecar import rows, sidecar
from live_truth.world import World

_PORT = 7201
_MICRO, _MILLI = 1_000, 1_000_000
#: One way, in seconds: from the tap in the middle to the clients and back, to the servers and back.
TO_CLIENT, FROM_CLIENT, TO_SERVER, FROM_SERVER = 0.001, 0.004, 0.020, 0.005
KNOWN = {"client": round((TO_CLIENT + FROM_CLIENT) * 1e9), "server": round((TO_SERVER + FROM_SERVER) * 1e9)}
_COLUMNS = ["client_port", "rtt_server_ns", "rtt_client_ns", "rtt_handshake_ns", "server_rtt_min_ns", "client_rtt_min_ns",
            "rtt_server_quality", "rtt_client_quality"]  # fmt: skip


class Line:
    """A cable with a delay of its own for each direction on each side of a tap in its middle, (`tap`, `INTERFACE`)."""

    INTERFACE = "client"  # as `Wire` calls the end that looks towards the clients

    @contextlib.contextmanager
    def lay(self, clients: Namespace, servers: Namespace) -> Iterator[None]:
        """As `World` wants it."""
        with Namespace() as near, Namespace() as far:
            for namespace in (near, far):
                namespace.sysctl("ipv6/conf/default/disable_ipv6", 1)
                namespace.ip("link set lo up")
            with (
                veth(near, "client", clients, "va"),
                veth(near, "server", far, "client"),
                veth(far, "server", servers, "vb"),
                _slow(near, FROM_CLIENT, TO_CLIENT),
                _slow(far, TO_SERVER, FROM_SERVER),
            ):
                self.tap = far
                yield


@contextlib.contextmanager
def _slow(middle: Namespace, from_client: float, from_server: float) -> Iterator[None]:
    delays = {"client": from_client, "server": from_server}
    with contextlib.closing(
        Wire(middle, rules=tuple(Rule(side, lambda _: True, delay=delay) for side, delay in delays.items()))
    ):
        yield


def _told(namespace: Namespace, peer: bool) -> dict[int, tuple[float, float]]:
    """Smoothed and smallest round trip (ns) of each connection by ``ss -ti``, by the client's port."""
    found = {}
    for line in namespace.run(["ss", "-tinHO", "state", "established"]).splitlines():
        ends, rtt, least = line.split()[2:4], re.search(r" rtt:([\d.]+)/", line), re.search(r" minrtt:([\d.]+)", line)
        if rtt and least and ends[0].startswith("10."):
            found[int(ends[peer].rpartition(":")[2])] = (float(rtt[1]) * _MILLI, float(least[1]) * _MILLI)
    return found


class Seen(NamedTuple):
    """Connections of one world: what each tap's rows say, by the place of the tap, and what each side's kernel says; by the
    client's port."""

    rows: dict[str, dict[int, dict]]
    kernel: dict[str, dict[int, tuple[float, float]]]


def watch(folder: Path, count: int, rounds: int, line: Line | None = None) -> Seen:
    """Open so many connections one after another, let them talk, and read all rows and kernels."""
    folder.mkdir()
    with World(count, line.lay if line else None) as world, contextlib.ExitStack() as stack:
        places = {"clients' end": (world.clients, "va"), "servers' end": (world.servers, "vb")}
        if line:
            places["middle"] = (line.tap, line.INTERFACE)
        runs = {
            place: stack.enter_context(sidecar(namespace, interface, folder / str(number)))
            for number, (place, (namespace, interface)) in enumerate(places.items())
        }
        world.open(_PORT, count)
        opened = {"client": _told(world.clients, False), "server": _told(world.servers, True)}
        world.talk(_PORT, rounds)
        for run in runs.values():
            run.end()
        found = {
            place: {row["client_port"]: row for row in rows(run.folder, "flows", _COLUMNS)}
            for place, run in runs.items()
        }
    return Seen(found, opened)


class Errors(NamedTuple):
    """How far values are from the truth, in ns: the smallest, the median, the 99th percentile and the greatest."""

    least: float
    median: float
    p99: float
    most: float

    @classmethod
    def of(cls, errors: list[float]) -> Errors:
        """From the errors of all connections, of which there is at least one."""
        ranked = sorted(errors)
        return cls(*(ranked[min(int(len(ranked) * share), len(ranked) - 1)] for share in (0, 0.5, 0.99, 1)))

    def micros(self) -> list[str]:
        """For a table."""
        return [f"{round(value / _MICRO):,}" for value in self]


def against_kernel(seen: Seen) -> dict[tuple[str, str], Errors]:
    """The half that an end's own tap measures, less that end's own first round trip: by place and column."""
    return {
        (place, column): Errors.of([row[column] - seen.kernel[side][port][1] for port, row in seen.rows[place].items()])
        for place, side, column in (
            ("clients' end", "client", "rtt_server_ns"),
            ("servers' end", "server", "rtt_client_ns"),
        )
    }


def against_line(seen: Seen) -> dict[tuple[str, str], tuple[int, Errors]]:
    """Round trips over links whose delay is known, by place and column: the delay (ns), and the errors."""
    whole = sum(KNOWN.values())
    known = {
        ("middle", "rtt_server_ns"): KNOWN["server"], ("middle", "rtt_client_ns"): KNOWN["client"],
        ("middle", "rtt_handshake_ns"): whole,
        ("middle", "server_rtt_min_ns"): KNOWN["server"], ("middle", "client_rtt_min_ns"): KNOWN["client"],
        ("clients' end", "rtt_server_ns"): whole, ("clients' end", "rtt_client_ns"): 0,
        ("servers' end", "rtt_server_ns"): 0, ("servers' end", "rtt_client_ns"): whole,
    }  # fmt: skip
    return {
        (place, column): (delay, Errors.of([row[column] - delay for row in seen.rows[place].values()]))
        for (place, column), delay in known.items()
    }


def sound(seen: Seen, slow: Seen) -> bool:
    """Whether the round trips are what they must be: no longer than an end's own, which begins before the tap and ends behind
    it (`ss` rounds down to microseconds), and no shorter than the line; and close to them where nothing kept the line waiting."""
    kernel = [*against_kernel(seen).values(), *against_kernel(slow).values()]
    line = [errors for _, errors in against_line(slow).values()]
    within = all(errors.most <= _MICRO and errors.median > -_MILLI for errors in kernel)
    return within and all(0 <= errors.least < 2 * _MILLI for errors in line)


def report(folder: Path, scale: int, say: Callable[[str], None]) -> tuple[str, bool]:
    """The tables, and whether the round trips are what they must be."""
    say("round trips over a veth pair")
    seen = watch(folder / "plain", min(scale, 5000), 1)
    say("round trips over links with a known delay")
    slow = watch(folder / "slow", min(scale, 200), 3, Line())
    head = ("least", "median", "99 %", "most")
    kernel = [
        (
            link,
            place,
            f"`{column}`",
            f"`minrtt`, {place.removesuffix(' end')} own",
            len(from_.rows[place]),
            *errors.micros(),
        )
        for link, from_ in (("veth", seen), ("delayed", slow))
        for (place, column), errors in against_kernel(from_).items()
    ]
    line = [
        (place, f"`{column}`", f"{delay / _MILLI:g} ms", *errors.micros())
        for (place, column), (delay, errors) in against_line(slow).items()
    ]
    for side, told in slow.kernel.items():
        whole = sum(KNOWN.values())
        errors = Errors.of([least - whole for _, least in told.values()])
        line.append((f"{side}s' kernel", "`ss`: `minrtt`", f"{whole / _MILLI:g} ms", *errors.micros()))
    text = (
        "Less the kernel's own, in microseconds:\n\n"
        + tables.table(("link", "tap", "column", "truth", "connections", *head), kernel, 4)
        + "\n\nLess the delay of the line, in microseconds:\n\n"
        + tables.table(("tap", "column", "line", *head), line, 2)
    )
    return text, sound(seen, slow)
