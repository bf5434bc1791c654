"""Part four: real connections of which the tap sees one direction only, against the rows of the whole."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from wire import ACK, FIN, RST, SYN

import synfin
from live_truth import capture, tables
from live_truth.kernel import steady
from live_truth.world import World

#: What becomes of connections, by the server's port. Each has one exchange of payload but the silent ones.
HELD, CLIENT_CLOSES, SERVER_CLOSES, CLIENT_ABORTS, HALF_CLOSED, SILENT = range(7301, 7307)
TALKING = (HELD, CLIENT_CLOSES, SERVER_CLOSES, CLIENT_ABORTS, HALF_CLOSED)
#: Columns of an end that its own packets decide, and nothing else.
OWN = (
    "packets", "ip_bytes", "payload_bytes", "unique_bytes", "pure_acks", "retransmitted_segments", "retransmitted_bytes",
    "out_of_order_segments", "zero_windows", "first_payload", "fin", "fin_count", "rst_count", "isn", "mss", "window_scale",
    "syn_window", "sack_permitted", "timestamps", "option_kinds", "ttl", "dont_fragment",
)  # fmt: skip
Ends = tuple[str, int, str, int]
LOSSES = (0.01, 0.1, 0.5)


def record(folder: Path, count: int) -> list[capture.Frame]:
    """Both directions of so many connections of each kind, each kind's end waited for."""
    path = folder / "both.pcap"
    with World(count * (len(TALKING) + 1)) as world, capture.recorded(world.servers, "vb", path):
        for port in (*TALKING, SILENT):
            world.open(port, count)
        for port in TALKING:
            world.talk(port, 2)
        steady(world, 0.2)  # delayed acknowledgements have been sent
        for first, second, port in (("client", "server", CLIENT_CLOSES), ("server", "client", SERVER_CLOSES)):
            world.tell(first, "shutdown", port)
            steady(world, 0.2)
            world.tell(second, "close", port)
        world.tell("client", "abort", CLIENT_ABORTS)
        world.tell("client", "shutdown", HALF_CLOSED)
        steady(world, 0.2)
    return capture.read(path)


def directions(frames: Iterable[capture.Frame]) -> dict[str, list[capture.Frame]]:
    """What each side sent, of frames with plain IPv4 (all that a `World` carries but ARP)."""
    sent = {"client": [], "server": []}
    for frame in frames:
        if frame.data[12:14] == b"\x08\x00":
            sent["client" if frame.data[26:29] == bytes((10, 40, 0)) else "server"].append(frame)
    return sent


def _segments(frames: Iterable[capture.Frame]) -> Iterator[tuple[str, Ends, tuple[int, int, int, int]]]:
    # The TCP segments of frames: sender, ends, and (sequence number, acknowledgement, flags, payload bytes).
    for frame in frames:
        if frame.data[12:14] != b"\x08\x00":
            continue
        source, target = (".".join(map(str, frame.data[at : at + 4])) for at in (26, 30))
        source_port, target_port, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", frame.data, 34)
        payload = int.from_bytes(frame.data[16:18]) - 20 - (offset >> 4) * 4
        side = "client" if source.startswith("10.40.0.") else "server"
        here, there = (source, source_port), (target, target_port)
        yield side, (*here, *there) if side == "client" else (*there, *here), (seq, ack, flags, payload)


def initial(frames: Iterable[capture.Frame]) -> dict[tuple[str, Ends], int]:
    """The initial sequence numbers: by ("client" or "server", ends)."""
    return {(side, ends): seq for side, ends, (seq, _, flags, _) in _segments(frames) if flags & SYN}


def acknowledged(frames: Iterable[capture.Frame], first: dict[tuple[str, Ends], int]) -> dict[tuple[str, Ends], int]:
    """How many sequence numbers of an end beyond its SYN its peer acknowledged: by ("client" or "server", ends).

    From the headers alone: the peer's highest acknowledgement (RSTs aside) less the end's initial sequence number and 1.
    """
    highest = defaultdict(int)
    for side, ends, (_, ack, flags, _) in _segments(frames):
        if flags & ACK and not flags & RST:
            peer = ("server" if side == "client" else "client", ends)
            highest[peer] = max(highest[peer], (ack - first[peer] - 1) % 2**32)
    return highest


class Held(NamedTuple):
    """What frames hold of one end, as sequence numbers beyond its SYN: payload, and its FIN."""

    payload: set[int]
    fin: set[int]


def carried(frames: Iterable[capture.Frame], first: dict[tuple[str, Ends], int]) -> dict[tuple[str, Ends], Held]:
    """What frames hold of each end, likewise; RSTs aside."""
    held = defaultdict(lambda: Held(set(), set()))
    for side, ends, (seq, _, flags, payload) in _segments(frames):
        if not flags & (SYN | RST):
            at = (seq - first[side, ends] - 1) % 2**32
            held[side, ends].payload.update(range(at, at + payload))
            held[side, ends].fin.update([at + payload] if flags & FIN else [])
    return held


class Missing(NamedTuple):
    """Bytes of one end of which the tap has only the acknowledgement: what its row says, what SPEC 4 makes of the headers (all
    that is acknowledged, less all that was seen, never below 0), and how many bytes were acknowledged and not seen."""

    told: int
    defined: int
    exact: int


def clean(told: dict[Ends, dict], whole: dict[Ends, dict]) -> tuple[int, int]:
    """How many round trips rows call clean, and how many of these are not the whole's."""
    halves = [
        (row[f"{half}_ns"], whole[ends][f"{half}_ns"])
        for ends, row in told.items()
        for half in ("rtt_server", "rtt_client")
        if row[f"{half}_quality"] == "clean"
    ]
    return len(halves), sum(one != other for one, other in halves)


def missing(told: dict[Ends, dict], left: list[capture.Frame], whole: list[capture.Frame]) -> list[Missing]:
    """For both ends of each connection whose SYN and SYN-ACK the tap has: it knows from where their bytes count."""
    first, opened = initial(whole), initial(left)
    acked, held = acknowledged(left, first), carried(left, first)
    found = []
    for ends, row in told.items():
        if {("client", ends), ("server", ends)} <= opened.keys():
            for side in ("client", "server"):
                payload, fin = held[side, ends]
                covered = set(range(acked[side, ends])) - fin
                found.append(
                    Missing(row[f"{side}_missing_bytes"], max(len(covered) - len(payload), 0), len(covered - payload))
                )
    return found


def rows(path: Path, frames: Iterable[capture.Frame]) -> dict[Ends, dict]:
    """The rows of frames, by their ends."""
    capture.write(path, frames)
    told = pa.table(synfin.scan(path, workers=1))
    for at, field in enumerate(told.schema):
        if pa.types.is_timestamp(field.type):
            told = told.set_column(at, field.name, told[field.name].cast(pa.int64()))
    keys = ("client_ip", "client_port", "server_ip", "server_port")
    return {tuple(row[key] for key in keys): row for row in told.to_pylist()}


class Seen(NamedTuple):
    """The rows of the whole, those of each direction alone, and what was acknowledged."""

    whole: dict[Ends, dict]
    alone: dict[str, dict[Ends, dict]]
    acknowledged: dict[tuple[str, Ends], int]


def track(folder: Path, frames: list[capture.Frame]) -> Seen:
    """Track frames three times."""
    alone = {side: rows(folder / f"{side}.pcap", sent) for side, sent in directions(frames).items()}
    return Seen(rows(folder / "whole.pcap", frames), alone, acknowledged(frames, initial(frames)))


def wrong(seen: Seen) -> list[str]:
    """One line for each value of a one-sided row that is not what the whole says."""
    lines = []
    for side, other in (("client", "server"), ("server", "client")):
        if seen.alone[side].keys() != seen.whole.keys():
            lines.append(f"only the {side}s' packets: other connections than both")
        for ends in seen.alone[side].keys() & seen.whole.keys():
            row, whole = seen.alone[side][ends], seen.whole[ends]
            wanted = {f"{side}_{name}": whole[f"{side}_{name}"] for name in OWN}
            wanted |= _of_the_other(side, other, whole, seen.acknowledged[other, ends])
            lines += [
                f"only the {side}s' packets, {ends}: {name} is {row[name]!r}, not {value!r}"
                for name, value in wanted.items()
                if row[name] != value
            ]
    return lines


def _of_the_other(side: str, other: str, whole: dict, missing: int) -> dict[str, object]:
    """What a row must say where the other end's packets are missing: all that was acknowledged is (a FIN that nobody saw
    counts as a byte), and there is no round trip."""
    missing_bytes = {f"{side}_missing_bytes": 0, f"{other}_missing_bytes": missing}
    nothing = {
        f"{other}_{name}": 0
        for name in ("packets", "ip_bytes", "payload_bytes", "unique_bytes", "fin_count", "rst_count")
    }
    round_trips = {f"{half}_quality": "none" for half in ("rtt_server", "rtt_client")}
    round_trips |= dict.fromkeys(("rtt_server_ns", "rtt_client_ns", "rtt_handshake_ns"))
    synack_seen = side == "server"
    opening = {
        "direction": "synack" if synack_seen else "syn",
        "syn_count": 0 if synack_seen else whole["syn_count"],
        "synack_count": whole["synack_count"] if synack_seen else 0,
        # A SYN-ACK that nothing of its sender's follows may be unanswered for all that is seen.
        "handshake": "pending" if synack_seen and whole["server_port"] == SILENT else "complete",
        "rst_by": whole["rst_by"] if whole["rst_by"] == side else None,
    }
    return missing_bytes | nothing | round_trips | opening


_SHOWN = ("handshake", "direction", "rtt_server_quality", "rtt_client_quality", "close")


_THINNED = (
    "lost", "ends", "rows: `*_missing_bytes`", "by SPEC's rule", "acknowledged and not seen", "rows that differ from the rule",
    "clean round trips", "not the whole's",
)  # fmt: skip


def _thinned(folder: Path, frames: list[capture.Frame], lost: float, whole: dict[Ends, dict]) -> tuple[object, ...]:
    left = capture.thinned(frames, lost)
    told = rows(folder / f"left-{lost}.pcap", left)
    sides = missing(told, left, frames)
    sums = (sum(each[at] for each in sides) for at in range(3))
    return f"{lost:.0%}", len(sides), *sums, sum(each.told != each.defined for each in sides), *clean(told, whole)


def report(folder: Path, scale: int, say: Callable[[str], None]) -> tuple[str, bool]:
    """What rows say of the whole and of each direction, and whether the one-sided ones are what the whole says."""
    say("connections of which one direction is seen")
    frames = record(folder, min(scale, 1000))
    seen = track(folder, frames)
    views = {"both": seen.whole, "clients' only": seen.alone["client"], "servers' only": seen.alone["server"]}
    lines = []
    for name in _SHOWN:
        counts = [Counter(str(row[name] or "null") for row in view.values()) for view in views.values()]
        lines.append(
            (
                f"`{name}`",
                *("; ".join(f"{value} {count:,}" for value, count in sorted(each.items())) for each in counts),
            )
        )
    for name in ("client_unique_bytes", "client_missing_bytes", "server_unique_bytes", "server_missing_bytes"):
        lines.append((f"`{name}`, sum", *(sum(row[name] for row in view.values()) for view in views.values())))
    problems = wrong(seen)
    for line in problems[:10]:
        say(line)
    text = tables.table(("column", *views), lines, 1)
    lossy = [_thinned(folder, frames, lost, seen.whole) for lost in LOSSES]
    text += (
        f"\n\n{len(seen.whole):,} connections; {len(problems)} values of one-sided rows differ from what the whole says.\n\n"
        f"Both directions, thinned at random, where SYN and SYN-ACK are left:\n\n{tables.table(_THINNED, lossy)}\n"
    )
    return text, not problems and not any(row[-3] or row[-1] for row in lossy)
