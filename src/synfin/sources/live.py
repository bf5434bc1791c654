"""Packets of Linux network interfaces as they come: AF_PACKET with TPACKET_V3 rings."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from synfin._core.batch import PacketBatch
from synfin.errors import CaptureOpenError, ConfigError
from synfin.sources.bpf import KernelFilter
from synfin.sources.links import Link, Links
from synfin.sources.losses import InterfaceLosses, LiveReport, Losses, SoftnetDrops
from synfin.sources.packet_socket import Listening, PacketSocket
from synfin.sources.report import BrokenFile, ClockIncident, InterfaceIncident
from synfin.sources.ring import Ring, RingMerge

if TYPE_CHECKING:
    from synfin.sources.fanout import FanoutGroup

RING_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20
BLOCK_TIMEOUT_MS = 20
#: Bytes of each packet that enter the ring: more than the headers of a segment take in any tunnel that is in use.
SNAPLEN = 512
_IDLE_NS = 100_000_000  # how long `fill` waits for packets
_COUNT_SECONDS = 0.02  # how often the kernel is asked what it dropped, while packets come
_LOOK_SECONDS = 1.0  # how often interfaces, their counters and the system's clock are looked at
_LOOK_FOR_SECONDS = 0.1  # and an interface that is not there
_TIMER_NS = 10_000_000  # the kernel's timers may be so late: many count in hundredths of a second
_CLOCK_STEP_NS = 100_000_000  # the system's clock is slewed by less between two looks


class _Tap:
    """One interface of the run: its socket, what is known of it, what it lost."""

    def __init__(self, link: Link, how: Listening):
        self.name = link.name
        self.how = how
        self.link = link
        self.losses = InterfaceLosses(link)
        self.socket = PacketSocket(link, how)
        self.ring = Ring(self.socket.memory, how.block_bytes, self.socket.link_type)
        self.there = True
        self.refused = 0  # the index of an interface of that name that could not be listened on
        self.accepts = how.fanout is None  # else once all workers have joined
        self.is_new = False  # made again, and not counted yet

    @property
    def up(self) -> bool:
        return self.there and self.link.carrier

    def accept(self) -> None:
        if not self.accepts and self.how.fanout and self.how.fanout.is_complete(self.link.index):
            self.socket.accept()
            self.accepts = True

    def count(self) -> None:
        self.losses.add_ring(*self.socket.counted())

    def begin(self, link: Link) -> None:
        # `link` was asked for after the first packets could come.
        self.losses.begin_ring(link, *self.socket.counted())
        self.is_new = False


class LiveInput:
    """Packets of network interfaces as they come, both directions, stamped in nanoseconds.

    Parameters
    ----------
    interfaces : their names; those of one tap.
    ring_bytes, block_bytes : size of each interface's ring and of its blocks. A block is handed over when it is full or
        after `block_timeout_ms`; packets that come while no block is free are dropped and counted.
    snaplen : bytes of each packet that enter the ring; None for all.
    filter : which packets do: an expression, or a program (`synfin.sources.bpf.KernelFilter`); None for all.
    promiscuous : also packets that are for others, while this is open.
    timestamps : ``auto``, ``hardware`` or ``software`` (`synfin.sources.timestamps.stamp_by`).
    fanout : the workers that share the packets, each with a LiveInput of its own, made one after the other; None for one.
        Packets come when all have been made.
    seconds : end the input after so long; None to go on until `stop`.

    Raises
    ------
    CaptureOpenError : no such interface, it is down, no right to listen on it, not Linux; one line that says what to do.
    ConfigError : a filter or a size that cannot be used.

    Attributes
    ----------
    files : empty: packets of an interface have neither file nor number.
    interfaces : their names.
    drops : packets that the kernel dropped because a ring was full.

    Notes
    -----
    Packets are read where the kernel put them. A block goes back to the kernel at the call of `fill` after the one
    that gave out its last packet, that is, when that packet has been tracked.

    The clock is that of one source (clock.pxd). While nothing comes, `fill` gives empty batches, and the clock follows
    the one that stamps the packets, less the block timeout: an earlier packet would have come. That clock is read with
    the last packets; between packets time passes as CLOCK_BOOTTIME tells, so that a step of the system's clock reaches
    the tracker with packets, and is judged there, or not at all.

    An interface that is set down, or removed and made again, is waited for. Its ring is read to its end before the next
    one takes its place. What passes the new one until then is lost, and its own counters tell how much that was
    (`Losses.interface_unseen`); while an interface is down, nothing passes.
    """

    def __init__(
        self,
        interfaces: Sequence[str],
        *,
        ring_bytes: int = RING_BYTES,
        block_bytes: int = BLOCK_BYTES,
        block_timeout_ms: int = BLOCK_TIMEOUT_MS,
        snaplen: int | None = SNAPLEN,
        filter: str | bytes | None = None,
        promiscuous: bool = True,
        timestamps: str = "auto",
        fanout: FanoutGroup | None = None,
        seconds: float | None = None,
    ):
        self.interfaces = [interfaces] if isinstance(interfaces, str) else list(interfaces)
        self.files: list[str] = []
        self.outside = self.drops = 0
        self.bytes_total = None
        self._report = LiveReport()
        self._ending = self._ended = False
        self._accepts = fanout is None
        self._clock_events = 0
        self._timeout_ns = block_timeout_ms * 1_000_000 + _TIMER_NS
        how = Listening(ring_bytes, block_bytes, block_timeout_ms, KernelFilter(filter, snaplen), promiscuous, timestamps, fanout)
        self._place = fanout.take_place() if fanout else 0
        self._open(how)
        self._ring = RingMerge([tap.ring for tap in self._taps], self._timeout_ns)
        self._softnet = SoftnetDrops()
        self._since_boot = _since_boot()
        self._stamps_since_boot = self._since_boot  # less the clock of the host's start, as _since_boot
        self._drained = self._count_at = 0.0
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self._until = None if seconds is None else time.monotonic() + seconds

    def _open(self, how: Listening) -> None:
        _check(self.interfaces)
        self._taps: list[_Tap] = []
        try:
            self._links = Links()
        except OSError as error:
            raise CaptureOpenError(f"cannot listen on {self.interfaces[0]}: no rtnetlink here ({error.strerror})") from error
        try:
            for name in self.interfaces:
                self._taps.append(_Tap(_find(self._links, name), how))
            self._agree_on_clock()
        except BaseException:
            self._close()
            raise

    def _agree_on_clock(self) -> None:
        # Packets of one tap are put in order by their stamps.
        if len(set(self.timestamps.values())) > 1:
            for tap in self._taps:
                tap.socket.stamp_by_system()

    def listen(self) -> None:
        """Let packets into the rings, where workers share them and all have joined; else the first `fill` does."""
        self._look()

    def fill(self, batch: PacketBatch) -> bool:
        """Replace the batch's packets by the next ones, at most 256; False when the input has ended.

        An empty batch, after a tenth of a second without packets, says that capture time has reached
        `idle_clock_ns`. Raises ValueError after `close`.
        """
        self._ring.begin(batch)
        if self._ended:
            return False
        now = time.monotonic()
        if self._until is not None and now >= self._until:
            self.stop()
        if now >= self._look_at or not self._accepts:
            self._look()
        past_ns = self._past_ns()
        if self._ring.walk(batch, past_ns):
            if now >= self._count_at:
                self._count(now)
            return True
        # Packets that came before the end stand in the open block, which is handed over after the block timeout.
        ending = self._ending
        self._wait(2 * self._timeout_ns if ending else self._left_ns(now, past_ns))
        past_ns = self._past_ns()
        if self._ring.walk(batch, None if ending else past_ns):
            self._count(now)
        else:
            self._ring.settle(batch)
            self._ring.idle(past_ns)
            self._count_drops()
            self._ended = ending or self._is_broken()
            if self._ended:
                self._look()
        return len(batch) > 0 or not self._ended

    def _past_ns(self) -> int:
        # What was stamped before has been handed over.
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._stamps_since_boot - self._timeout_ns

    def _left_ns(self, now: float, past_ns: int) -> int:
        # How long nothing but a packet needs us.
        left = _IDLE_NS if self._until is None else min(_IDLE_NS, int((self._until - now) * 1e9))
        held_ns = self._ring.held_ns
        return left if held_ns is None else min(left, held_ns - past_ns, self._timeout_ns)

    def _count(self, now: float) -> None:
        # With packets, and seldom: what the kernel dropped, and where the clock that stamps them stands.
        self._count_at = now + _COUNT_SECONDS
        self._count_drops()
        card = self._taps[0].socket.timestamps == "hardware"
        clock_ns = self._ring.clock_ns if card else time.time_ns()
        self._stamps_since_boot = clock_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def _is_broken(self) -> bool:
        failed = self._ring.failed
        if failed and not self._report.broken:
            self._report.broken.append(BrokenFile(self.interfaces[0], None, failed, "unreadable"))
            self.stop()
        return failed is not None

    def _wait(self, left_ns: int) -> None:
        # A ring whose packets wait for another one would be ready at once: only the empty ones are worth asking.
        poll = select.poll()
        for which in self._ring.empty:
            poll.register(self._taps[which].socket, select.POLLIN | select.POLLERR)
        for _, events in poll.poll(max(left_ns / 1e6, 1)):
            if events & ~select.POLLIN:
                self._look()  # the kernel says that an interface is no longer there, or down
                return

    def _count_drops(self) -> None:
        for tap in self._taps:
            tap.count()
        self.drops = sum(tap.losses.drops for tap in self._taps)

    def _look(self) -> None:
        # What no packet tells: interfaces, their counters, the system's clock.
        for tap in self._taps:
            fell = tap.socket.error() == errno.ENETDOWN
            if tap.there:
                with contextlib.suppress(OSError):  # no answer: at the next look
                    self._see(tap, self._links.numbered(tap.link.index), fell)
            elif time.monotonic() >= self._drained and not tap.ring.ready:
                self._open_again(tap)
            tap.accept()
            if tap.is_new and tap.accepts:
                self._begin(tap)
            if self._ending:
                tap.socket.refuse()
        self._accepts = all(tap.accepts for tap in self._taps)
        since_boot = _since_boot()
        if since_boot and self._since_boot and abs(step := since_boot - self._since_boot) > _CLOCK_STEP_NS:
            self._note("clock set", self._taps[0], step)
        self._since_boot = since_boot or self._since_boot
        gone = not all(tap.there for tap in self._taps)
        self._look_at = time.monotonic() + (_LOOK_FOR_SECONDS if gone else _LOOK_SECONDS)

    def _see(self, tap: _Tap, link: Link | None, fell: bool) -> None:
        was_up = tap.up
        if link is None or (fell and not tap.socket.is_bound):
            tap.there = False
            if tap.how.fanout:
                tap.how.fanout.leave(tap.link.index)
            self._drained = time.monotonic() + 2 * self._timeout_ns / 1e9
            self._note("removed", tap)
            return
        tap.link = link
        tap.losses.see(link)
        if fell and was_up and tap.up:
            self._note("down", tap)
            self._note("up", tap)
        elif tap.up != was_up:
            self._note("up" if tap.up else "no carrier" if link.up else "down", tap)

    def _begin(self, tap: _Tap) -> None:
        with contextlib.suppress(OSError):  # no answer: at the next look
            if link := self._links.numbered(tap.link.index):
                tap.begin(link)

    def _open_again(self, tap: _Tap) -> None:
        # The old ring is empty by now. A socket of a new interface, because that may have another link layer.
        link, fanout = None, tap.how.fanout
        with contextlib.suppress(OSError):  # no answer: at the next look
            link = self._links.named(tap.name)
        if link is None or (fanout and not (link.up and fanout.is_turn(link.index, self._place))):
            return
        try:
            new = PacketSocket(link, tap.how)
        except (OSError, ConfigError) as error:
            if tap.refused != link.index:  # told once, tried at every look
                tap.refused = link.index
                self._note("refused", tap, reason=str(error))
            return
        tap.count()
        tap.ring.map(new.memory, tap.how.block_bytes, new.link_type)
        old, tap.socket = tap.socket, new
        old.close()
        tap.link, tap.there, tap.accepts, tap.is_new = link, True, fanout is None, True
        tap.losses.see(link)
        self._agree_on_clock()
        self._note("made again", tap)

    def _note(self, kind: str, tap: _Tap, step_ns: int = 0, reason: str = "") -> None:
        self._report.note(InterfaceIncident(kind, tap.name, time.time_ns(), step_ns, reason))

    def stop(self) -> None:
        """End the input: no further packet enters the rings, and `fill` gives those that have. For signal handlers, too."""
        if self._ending:
            return
        self._ending = True
        for tap in self._taps:
            with contextlib.suppress(OSError, ConfigError):  # closed meanwhile, by another thread
                tap.socket.refuse()

    @property
    def idle_clock_ns(self) -> int:
        """The input clock (ns since 1970); 0 before the first packet."""
        return self._ring.clock_ns

    def losses(self) -> dict[str, Losses]:
        """What was lost so far, by interface, and by the host under the empty name; at most a second old."""
        return {tap.name: tap.losses.losses for tap in self._taps} | {"": Losses(softnet_dropped=self._softnet.count)}

    @property
    def interface_up(self) -> dict[str, bool]:
        """Whether each interface is there, switched on and has a carrier; at most a second old."""
        return {tap.name: tap.up for tap in self._taps}

    @property
    def timestamps(self) -> dict[str, str]:
        """Whose clock stamps the packets, by interface: ``hardware`` or ``software``."""
        return {tap.name: tap.socket.timestamps for tap in self._taps}

    @property
    def bytes_read(self) -> int:
        """Captured bytes so far."""
        return self._ring.bytes

    @property
    def report(self) -> LiveReport:
        """What happened so far; final when `fill` has returned False."""
        self._report.losses = self.losses()
        self._report.timestamps = self.timestamps
        by_card = [tap for tap in self._taps if tap.socket.timestamps == "hardware"]
        self._report.system_stamps = {tap.name: tap.ring.packets - tap.ring.card_stamps for tap in by_card}
        self._report.clock_counts = self._ring.clock_counts
        events = self._ring.clock_events
        self._report.incidents += [ClockIncident(kind, self.interfaces[which], *rest) for kind, which, *rest in events[self._clock_events :]]
        self._clock_events = len(events)
        return self._report

    def close(self) -> None:
        """Close sockets and rings. The packets of the last batch are void afterwards."""
        self._close()

    def _close(self) -> None:
        for tap in self._taps:
            tap.ring.close()
            tap.socket.close()
        self._links.close()

    def __enter__(self) -> LiveInput:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check(interfaces: list[str]) -> None:
    if not interfaces or len(set(interfaces)) < len(interfaces):
        raise ConfigError("name each interface once, and at least one")
    if not hasattr(socket, "AF_PACKET"):
        raise CaptureOpenError(
            f"cannot listen on {interfaces[0]}: live capture needs Linux, and this is {sys.platform}", interfaces[0]
        )


def _find(links: Links, name: str) -> Link:
    try:
        link = links.named(name)
    except OSError as error:
        raise CaptureOpenError(f"cannot listen on {name}: rtnetlink does not tell of it ({error.strerror or error})", name) from error
    if link is None:
        known = ", ".join(name for _, name in socket.if_nameindex()[:12])
        raise CaptureOpenError(f"there is no interface {name!r}; there are {known or 'none'}", name)
    if not link.up:
        raise CaptureOpenError(f"cannot listen on {name}: it is down; ip link set {name} up", name)
    return link


def _since_boot() -> int:
    # The system's clock less the time since the host started; 0 where too much time passed between the two to tell.
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    now = time.time_ns()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return now - after if after - before < _CLOCK_STEP_NS // 10 else 0
