"""What became of each packet of some connections: the slow tracker, watched while it tracks a capture.

A second opinion and a detailed one: it shares no code with the core, and says of each packet which counts it entered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from ipaddress import ip_address
from typing import Any, NamedTuple

from synfin.errors import ConfigError
from synfin.settings import Settings
from synfin.verify.lives import End, Pair, pair_of

#: Of an end's counts those whose rise is noted, by the name of the column compared.
_COUNTS = {
    "fin_count": "fin", "rst_count": "rst", "retransmitted_segments": "retransmitted", "out_of_order_segments": "out_of_order",
    "keep_alives": "keep_alives", "zero_windows": "zero_windows", "duplicate_acks": "duplicate_acks", "pure_acks": "pure_acks",
}  # fmt: skip
_REMARKS = ("odd_syns", "odd_segments", "rst_rejected", "after_close")


class Step(NamedTuple):
    """One packet: its segment, the counts that it raised, the row that it belongs to, and what was known before it."""

    segment: Any
    raised: frozenset[str]
    record: int  #: the first packet's number in its row (flow_id repeats where a capture repeats its packets)
    before: dict[str, Any]
    fragment: bool  #: the first of several IP fragments
    room: int  #: bytes of the frame on the wire from the IP header on
    captured: int  #: how many of them were captured

    stamp: int | None  #: the packet's own timestamp; another than the segment's time where that was a lone outlier

    def from_server(self, seen: Seen) -> bool:
        """Whether the row's server sent it."""
        row = seen.rows[self.record]
        return str(ip_address(self.segment.src)) == row["server_ip"] and self.segment.sport == row["server_port"]


class Seen(NamedTuple):
    """Everything that was watched: steps by packet number, skipped packets by number, rows by their first packet."""

    steps: dict[int, Step]
    skipped: dict[int, str]
    rows: dict[int, dict[str, Any]]
    described: dict[
        tuple[int, End], Any
    ]  #: by record and end: the copy of a SYN or SYN-ACK that the columns of an end describe


def watch(path: str, pairs: Collection[Pair], settings: Settings | None = None) -> Seen:
    """Track a capture and note what happens to the packets of ``pairs``.

    Raises ConfigError where dpkt is not installed.
    """
    try:
        from synfin.reference import tracker as slow
        from synfin.reference.capture import read
        from synfin.reference.row import row
    except ImportError:
        raise ConfigError("explaining differences needs the slow tracker: pip install 'synfin[reference]'") from None

    class Witness(slow.Tracker):
        def __init__(self) -> None:
            super().__init__(settings or Settings())
            self.noted: dict[int, tuple] = {}
            self.held: set[int] = set()
            self.skipped: dict[int, str] = {}
            self.ended: list[Any] = []

        def packet(self, stamped: Any) -> None:
            before, self.frame = Counter(self.skips), stamped.packet
            super().packet(stamped)
            for name in self.skips - before:
                self.skipped[stamped.number] = name

        def segment(self, segment: Any, clock: int) -> None:
            if pair_of((segment.src, segment.sport), (segment.dst, segment.dport)) not in pairs:
                return
            old = self.live.get(self.key(segment))
            counts, known = _counts(old, segment), _known(old, segment)
            super().segment(segment, clock)
            record = self.live[self.key(segment)]
            if record is not old:
                counts, known = Counter(), {}
            raised = frozenset(_counts(record, segment) - counts)
            self.noted[segment.number] = (segment, raised, known, *_frame(self.frame, segment), self.frame.time_ns)
            self.held |= {one.number for one in record.held}

        def end(self, key: tuple, reason: str, now: int) -> None:
            self.ended.append(self.live[key])
            super().end(key, reason, now)

    witness, clock = Witness(), None
    for stamped in slow.merge([slow.Source(name, packets) for name, packets in read([path])]):
        witness.packet(stamped)
        clock = stamped.time if stamped.step_back else stamped.clock
    if clock is not None:
        witness.finish(clock)
    return _seen(witness, row)


def _seen(witness: Any, row: Any) -> Seen:
    """What the witness noted. SYNs are held until they are proven: which record took them shows at the end."""
    rows = {id(record): row(record) for record in witness.ended}
    owner = {segment.number: record for record in witness.ended for segment in record.seen}
    opened = {segment.number for record in witness.ended for segment in record.syns}
    answered = {segment.number for record in witness.ended for _, segment in record.synacks}
    steps = {}
    fates = (("syn", opened), ("synack", answered), ("odd_syns", witness.held - opened))
    for number, (segment, raised, *rest) in witness.noted.items():
        taken = {name for name, numbers in fates if number in numbers}
        steps[number] = Step(segment, raised | taken, rows[id(owner[number])]["first_packet"], *rest)
    described = {
        (rows[id(record)]["first_packet"], (one.address, one.port)): one.described.segment
        for record in witness.ended
        for one in (record.client, record.server)
        if one.described
    }
    return Seen(steps, witness.skipped, {found["first_packet"]: found for found in rows.values()}, described)


def _frame(packet: Any, segment: Any) -> tuple[bool, int, int]:
    """Whether the segment's packet is a first fragment, how much of the frame there is for it, and how much was captured."""
    data, version_6 = packet.data, segment.ip_version == 6
    at = data.find(segment.src + segment.dst)  # the IP header that names both ends
    start = at - (8 if version_6 else 12)
    fragment = data[start + 6] == 44 if version_6 else bool(data[start + 6] & 0x20)
    return (fragment, packet.wire_len - start, len(data) - start) if start >= 0 else (False, packet.wire_len, len(data))


def _counts(record: Any, segment: Any) -> Counter[str]:
    """The counts of the segment's sender, and those of the whole record."""
    if record is None:
        return Counter()
    sender, _ = record.ends(segment)
    counts = Counter({name: getattr(sender, column) for column, name in _COUNTS.items()})
    counts.update({name: getattr(record, name) for name in _REMARKS})
    return counts


def _known(record: Any, segment: Any) -> dict[str, Any]:
    """What the record knew of both ends before the segment."""
    if record is None:
        return {}
    sender, peer = record.ends(segment)
    return {
        "nxt": sender.nxt, "peer_nxt": peer.nxt, "acked": peer.ack_max, "ack": sender.ack_max, "window": sender.window_field,
        "attempt": record.attempt, "finished": record.finished, "fin_seq": sender.fin_seq, "isn": sender.isn,
        "holes": list(sender.holes),
    }  # fmt: skip
