"""Moments at which a tap cannot say what the kernels say: each difference is named, counted, and nothing else may differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from wire import RST, SYN

from live_truth.kernel import Ends, States, connections, steady
from live_truth.moments import Named, Observer, forged, until
from live_truth.world import NOBODY

_OVERFLOWN, _COOKIES, _BURST, _DEFERRED, _UNSENT, _ORPHANS, _GIVEN_UP = range(7101, 7108)
_BACKLOG = 10


def _unheard(kernel: dict[Ends, States], reason: str) -> Named:
    # Handshakes that are complete for the tap and the client; the server does not take the last ACK.
    count = Counter(kernel.values())["ESTABLISHED", "SYN-RECEIVED"]
    return Named(reason, {"established": count, "syn_received": -count, "half_open": -count})


def _unlisted(count: int, reason: str) -> Named:
    # SYNs that were answered, and of which the server's kernel keeps nothing.
    return Named(reason, {"syn_received": count, "half_open": count, "connections": count})


def _counted(at: Observer) -> Counter[str]:
    return Counter(at.world.servers.counters())


def overflown(at: Observer) -> None:
    """The queue of connections that wait for accept() is full."""
    count = max(at.scale // 50, 2 * _BACKLOG)
    at.world.listen(_OVERFLOWN)
    at.world.begin(_OVERFLOWN, count, deaf=True)
    until(lambda: Counter(connections(at.world).values())["SYN-SENT", "SYN-RECEIVED"] == count, 10)
    at.world.listen(_OVERFLOWN, _BACKLOG)
    at.world.tell("client", "hear", _OVERFLOWN)
    until(lambda: all(pair[0] == "ESTABLISHED" for pair in connections(at.world).values()), 20)
    at.world.begin(_OVERFLOWN, count)
    at.look(
        "6. The accept queue is full",
        lambda kernel: [
            _unheard(kernel, "the server drops the last ACK of a handshake while its accept queue is full")
        ],
    )
    # Without a listener, the next SYN of each client is refused.
    at.world.tell("server", "unlisten", _OVERFLOWN)
    until(lambda: not any(pair[0] == "SYN-SENT" for pair in connections(at.world).values()), 30)
    at.world.tell("client", "abort", _OVERFLOWN)


def cookies(at: Observer) -> None:
    """SYN cookies: the kernel answers what does not fit into its backlog, and keeps nothing."""
    count = max(at.scale // 50, 2 * _BACKLOG)
    at.world.servers.sysctl("ipv4/tcp_syncookies", 1)
    at.world.listen(_COOKIES, _BACKLOG)
    before = _counted(at)
    at.world.forge(((number, number, SYN) for number in range(count)), _COOKIES)

    def named(_: dict[Ends, States]) -> list[Named]:
        sent = (_counted(at) - before)["TcpExtSyncookiesSent"]
        return [
            forged(count),
            _unlisted(sent, "SYNs that were answered with a cookie have no socket (`SyncookiesSent`)"),
        ]

    at.look("7. SYN cookies", named)
    at.world.forge(((number, number + 1, RST) for number in range(count)), _COOKIES)
    at.world.servers.sysctl("ipv4/tcp_syncookies", 0)


def burst(at: Observer) -> None:
    """A flood in one burst: resent SYN-ACKs come in a burst as well, and their host's queue has no room for all."""
    count = max(at.scale // 2, 1)
    at.world.listen(_BURST)
    before = _counted(at)
    at.world.forge(((number, number, SYN) for number in range(count)), _BURST, per_second=10_000_000)

    def named(_: dict[Ends, States]) -> list[Named]:
        new = _counted(at) - before
        failed = new["TcpExtTCPTimeouts"] - new["TcpExtTCPSynRetrans"]
        reason = "a kernel that cannot resend a SYN-ACK, since its device's queue is full, gives SYN-RECV up at once"
        return [forged(count), _unlisted(failed, f"{reason} (`TCPTimeouts` less `TCPSynRetrans`)")]

    at.look("8. A SYN flood in one burst", named)
    at.world.forge(((number, number + 1, RST) for number in range(count)), _BURST)


def deferred(at: Observer) -> None:
    """TCP_DEFER_ACCEPT: a handshake without data does not count."""
    at.world.listen(_DEFERRED, defer_s=60)
    at.world.connect(_DEFERRED, max(at.scale // 50, 1))
    at.look(
        "9. TCP_DEFER_ACCEPT",
        lambda kernel: [
            _unheard(kernel, "with TCP_DEFER_ACCEPT, the server waits for data and does not count the last ACK")
        ],
    )
    at.world.tell("client", "abort", _DEFERRED)


def unsent(at: Observer) -> None:
    """A FIN that waits behind data for which the peer has no window."""
    at.world.open(_UNSENT, max(at.scale // 500, 1))
    at.world.tell("client", "fill", _UNSENT)
    at.world.tell("client", "shutdown", _UNSENT)

    def named(kernel: dict[Ends, States]) -> list[Named]:
        count = Counter(kernel.values())["FIN-WAIT-1", "ESTABLISHED"]
        return [
            Named("a FIN that waits behind a closed window was not sent", {"fin_wait_1": -count, "established": count})
        ]

    at.look("10. A FIN behind a closed window", named)
    at.world.tell("server", "abort", _UNSENT)
    at.world.tell("client", "close", _UNSENT)


def silent(at: Observer) -> None:
    """States that a kernel leaves without a segment."""
    world, count = at.world, max(at.scale // 100, 2)
    for namespace, name, value in (
        (world.clients, "tcp_fin_timeout", 1),
        (world.clients, "tcp_syn_retries", 1),
        (world.servers, "tcp_synack_retries", 1),
        (world.servers, "tcp_orphan_retries", 1),
    ):
        namespace.sysctl(f"ipv4/{name}", value)
    world.silence()
    for port in (_ORPHANS, _GIVEN_UP):
        world.open(port, count)
        world.tell("client", "shutdown", port)
    steady(world, 0.2)
    world.tell("client", "close", _ORPHANS)
    world.tell("client", "deafen", _GIVEN_UP, "all")
    world.tell("server", "close", _GIVEN_UP)
    world.listen(_BURST)
    world.forge(((number, number, SYN) for number in range(count)), _BURST)
    world.begin(_BURST, count, server=NOBODY)
    left = {("FIN-WAIT-2", None): count, (None, "CLOSE-WAIT"): count}
    until(lambda: Counter(connections(world).values()) == left, 30)

    def named(_: dict[Ends, States]) -> list[Named]:
        return [
            forged(count),
            Named("an orphan leaves FIN-WAIT-2 after tcp_fin_timeout", {"fin_wait_2": count, "half_closed": count}),
            Named(
                "a client gives SYN-SENT up after tcp_syn_retries",
                {"syn_sent": count, "opening": count, "connections": count},
            ),
            Named(
                "a server gives SYN-RECV up after tcp_synack_retries",
                {"syn_received": count, "half_open": count, "connections": count},
            ),
            Named("an orphan gives LAST-ACK up after tcp_orphan_retries", {"last_ack": count}),
        ]

    at.look("11. States that a kernel leaves without a segment", named)


CASES = (overflown, cookies, burst, deferred, unsent, silent)


def alone(case: Callable[[Observer], None], at: Observer) -> None:
    """Play a case once the kernels have nothing left of what was before."""
    until(lambda: not connections(at.world), 75)
    case(at)


def play(at: Observer) -> None:
    """All of them."""
    for case in CASES:
        alone(case, at)
