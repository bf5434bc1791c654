"""What a live run lost on the way of a packet to the tracker, and what happened to its interfaces.

A packet passes the card (which may have no room for it), the driver and the queue of its processor (softnet), and then the
ring. Only the ring's losses are those of one socket, and the kernel counts them exactly; the others are counters of the
interface and of the host, taken as differences since the run began.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, fields

from synfin.sources.links import Link
from synfin.sources.report import ClockIncident, InputReport, InterfaceIncident

#: Interfaces' incidents that are described; later ones are only counted.
_KEPT = 256
_SOFTNET = "/proc/net/softnet_stat"


@dataclass(frozen=True)
class Losses:
    """Packets since the run began.

    Parameters
    ----------
    ring_packets : that the kernel had for the ring of this socket, those dropped included.
    ring_drops : of these, dropped because the ring was full.
    ring_freezes : how often it was full.
    interface_rx_dropped : that the interface's driver or the host's queues dropped; those of softnet are among them.
    interface_rx_missed : that the card had no room for.
    interface_unseen : that an interface which was made again had received and sent before the run listened on it, and so
        before anybody could count them otherwise; of several workers, before the last of them did.
    softnet_dropped : that the processors' queues dropped, on all interfaces of the host.

    Those of interface and host are the same for every worker, and hold other losses than the ring's: what is dropped there
    never reached the filter, so some of it may be what the filter would have left out.
    """

    @classmethod
    def together(cls, losses: Sequence[Losses]) -> Losses:
        """Those of several workers on one interface: each has a ring of its own, and all see the same counters besides."""
        sums = {each.name: sum if each.name.startswith("ring_") else max for each in fields(cls)}
        return cls(**{name: add(getattr(one, name) for one in losses) for name, add in sums.items()})

    ring_packets: int = 0
    ring_drops: int = 0
    ring_freezes: int = 0
    interface_rx_dropped: int = 0
    interface_rx_missed: int = 0
    interface_unseen: int = 0
    softnet_dropped: int = 0


class InterfaceLosses:
    """The losses of one interface; goes on when an interface of that name is made again and counts anew from 0."""

    def __init__(self, link: Link):
        self._ring = [0, 0, 0]
        self._interface = [0, 0]
        self._unseen = 0
        self._index = link.index
        self._last = (link.rx_dropped, link.rx_missed)

    def add_ring(self, packets: int, drops: int, freezes: int) -> None:
        """Add what the socket has counted since the last time."""
        self._ring = [old + new for old, new in zip(self._ring, (packets, drops, freezes), strict=True)]

    def see(self, link: Link) -> None:
        """Take the interface's counters as they are now."""
        now = (link.rx_dropped, link.rx_missed)
        if link.index == self._index:
            for which, (new, last) in enumerate(zip(now, self._last, strict=True)):
                self._interface[which] += new - last if new >= last else new  # where a driver began again with 0
        self._index, self._last = link.index, now

    def begin_ring(self, link: Link, packets: int, drops: int, freezes: int) -> None:
        """Take the first counts of the socket of an interface that was made again, and the interface's own, which were
        taken just before.
        """
        self._unseen += max(link.packets - packets, 0)
        self.add_ring(packets, drops, freezes)

    @property
    def drops(self) -> int:
        """Packets that the ring had no room for."""
        return self._ring[1]

    @property
    def losses(self) -> Losses:
        """The sums so far."""
        return Losses(*self._ring, *self._interface, self._unseen)


class SoftnetDrops:
    """Packets that the processors' queues dropped since this was made: the second column of /proc/net/softnet_stat."""

    def __init__(self) -> None:
        self._first = self._highest = _softnet_drops()

    @property
    def count(self) -> int:
        """So many; 0 where the kernel does not tell."""
        self._highest = max(self._highest, _softnet_drops())  # a processor that goes takes its count along
        return self._highest - self._first


def _softnet_drops() -> int:
    with contextlib.suppress(OSError), open(_SOFTNET) as lines:
        return sum(int(line.split()[1], 16) for line in lines)
    return 0


@dataclass
class LiveReport(InputReport):
    """What happened on the interfaces.

    Parameters
    ----------
    losses : by interface; those of the host under the empty name.
    timestamps : whose clock stamped the packets, by interface: ``hardware`` or ``software``.
    system_stamps : by interface whose packets the card stamps: how many it did not, so that the system's clock stands in
        for it; most cards stamp nothing that the host sends.
    interface_incidents : how many there were; `incidents` holds the first 256.
    """

    losses: dict[str, Losses] = field(default_factory=dict)
    timestamps: dict[str, str] = field(default_factory=dict)
    system_stamps: dict[str, int] = field(default_factory=dict)
    interface_incidents: int = 0

    @classmethod
    def together(cls, reports: Sequence[LiveReport]) -> LiveReport:
        """One report of those of several inputs on the same interfaces: what is counted is added, what is listed follows one
        another; what all of them saw of an interface stands there once.
        """
        total = copy(reports[0])
        for each in fields(total):
            values = [getattr(report, each.name) for report in reports]
            if each.name == "losses":
                total.losses = {name: Losses.together([value[name] for value in values]) for name in values[0]}
            elif each.name == "clock_counts":
                total.clock_counts = {kind: sum(value[kind] for value in values) for kind in values[0]}
            elif each.name == "incidents":
                others = [item for value in values[1:] for item in value if isinstance(item, ClockIncident)]
                total.incidents = values[0] + others
            elif isinstance(values[0], list):
                setattr(total, each.name, [item for value in values for item in value])
        return total

    def note(self, incident: InterfaceIncident) -> None:
        """Keep an incident, or count it."""
        self.interface_incidents += 1
        if self.interface_incidents <= _KEPT:
            self.incidents.append(incident)

    @property
    def warnings(self) -> list[str]:
        """Sentences for the end of a run."""
        lines = [line for name, lost in self.losses.items() for line in _lost(name, lost)]
        lines += [
            f"{name}: the card left {count:,} packets to the system's clock; time between these and the others is wrong by as "
            "much as the clocks differ" for name, count in self.system_stamps.items() if count
        ]  # fmt: skip
        lines += super().warnings
        if self.interface_incidents > _KEPT:
            lines.append(f"{self.interface_incidents - _KEPT:,} more incidents of interfaces")
        return lines


def _lost(name: str, lost: Losses) -> list[str]:
    lines = []
    if lost.ring_drops:
        share = 100 * lost.ring_drops / max(lost.ring_packets, 1)
        lines.append(
            f"{name}: the ring was full and the kernel dropped {lost.ring_drops:,} of {lost.ring_packets:,} packets "
            f"({share:.2g} %); make it larger (--ring)"
        )
    if lost.interface_rx_dropped:
        lines.append(f"{name}: {lost.interface_rx_dropped:,} packets were dropped before the ring, by driver or queues (rx_dropped)")
    if lost.interface_rx_missed:
        lines.append(f"{name}: the card had no room for {lost.interface_rx_missed:,} packets (rx_missed_errors)")
    if lost.interface_unseen:
        lines.append(f"{name}: {lost.interface_unseen:,} packets passed before the run listened on the interface that was made again")
    if lost.softnet_dropped:
        lines.append(
            f"the host's queues dropped {lost.softnet_dropped:,} packets of all interfaces (softnet); "
            "raise net.core.netdev_max_backlog"
        )
    return lines
