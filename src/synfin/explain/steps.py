"""Packets of chosen records, one at a time through the tracker, with its state before and after each."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from synfin._core import probe
from synfin.run import Run, Source
from synfin.schema import FLOWS
from synfin.settings import Settings

if TYPE_CHECKING:
    from synfin._core.batch import PacketBatch

Snapshot = dict[str, Any]
_PEER = {"client": "server", "server": "client"}
#: Packets that capture duplicates may be named after; more than pass within 50 ms on the ends of one connection.
_REMEMBERED = 1 << 16
_SIDES = [column.name for column in FLOWS if column.kind == "enum:side"]


@dataclass(frozen=True)
class Packet:
    """A packet of a record, or about it, and what it changed.

    Attributes
    ----------
    file, number : the packet's file and its number there, from 1.
    time_ns : its timestamp, ns since 1970.
    segment : what it carries or quotes of TCP: addresses (16 bytes), ports and `seq` at least.
    before : the record before the packet (`Tracker.snapshot`); None where the packet began it.
    after : the record after it.

    In all of them the client is the end that was the client in the end.
    """

    file: str
    number: int
    time_ns: int
    segment: dict[str, Any]
    before: Snapshot | None
    after: Snapshot

    @property
    def row(self) -> dict[str, Any]:
        """The record's interim row after the segment."""
        return self.after["row"]

    def address(self, side: str) -> str:
        """One of the segment's addresses, ``src`` or ``dst``, as rows write it."""
        return probe.address_text(self.segment["ip_version"], self.segment[side])

    @cached_property
    def sender(self) -> str:
        """Who sent the segment: ``client`` or ``server``."""
        client = self.row["client_ip"], self.row["client_port"]
        return "client" if (self.address("src"), self.segment["src_port"]) == client else "server"

    @cached_property
    def receiver(self) -> str:
        """The other one."""
        return _PEER[self.sender]

    def had(self, column: str) -> Any:
        """A column before the segment; None in a new record."""
        return self.before["row"][column] if self.before else None

    def grew(self, column: str) -> int:
        """By how much a count rose."""
        return self.row[column] - (self.had(column) or 0)

    def became(self, column: str) -> Any:
        """A column's value if the segment changed it to one, else None."""
        return self.row[column] if self.row[column] != self.had(column) else None


@dataclass(frozen=True)
class Step(Packet):
    """A segment.

    Attributes
    ----------
    segment : as `probe.decode` gives it.
    ended : the flow_id of the record on the same ends that it ended or found ended; None if there was none.
    copy_of : of a capture duplicate that is counted apart: file and number of the packet that it is a copy of, the number
        0 where that is not remembered. None for every other segment.
    """

    ended: int | None = None
    copy_of: tuple[str, int] | None = None


@dataclass(frozen=True)
class IcmpError(Packet):
    """An ICMP error about a segment of the record; `segment` is what it quotes, as `probe.quoted` gives it."""


def facing(snapshot: Snapshot, client: tuple[str, int]) -> Snapshot:
    """A snapshot in which this end is the client, as the record had it in the end. (A late SYN may correct a guess.)"""
    row = snapshot["row"]
    if (row["client_ip"], row["client_port"]) == client:
        return snapshot

    def other(name: str) -> str:
        side, _, rest = name.partition("_")
        return f"{_PEER[side]}_{rest}" if side in _PEER and rest else name

    turned = {name: row[other(name)] for name in row}
    for name in _SIDES:
        turned[name] = _PEER.get(row[name], row[name])
    held = snapshot["held"] and {**snapshot["held"], "by": _PEER[snapshot["held"]["by"]]}
    return {**snapshot, "row": turned, "held": held, "client": snapshot["server"], "server": snapshot["client"]}


Identity = tuple[int, str, int]


def identity(row: dict[str, Any]) -> Identity:
    """What tells a record from all others: a capture that repeats itself has records with one flow_id."""
    return row["flow_id"], row["first_file"], row["first_packet"]


def ends_key(row: dict[str, Any]) -> bytes:
    """Both ends of a row as `probe.packets_between` takes them."""
    ends = sorted(
        (ipaddress.ip_address(row[f"{side}_ip"]).packed.ljust(16, b"\0"), row[f"{side}_port"]) for side in _PEER
    )
    return ends[0][0] + ends[1][0] + struct.pack("=HH", ends[0][1], ends[1][1])


class Playback(Run):
    """A run that tells of each packet of chosen records.

    Parameters
    ----------
    source, settings, filter, tick : as for `Run`.
    rows : rows of the chosen records (identity and ends), final ones from an earlier run over the same input.
    tell : called with each Step and IcmpError of a chosen record, in input order.
    flags : TCP flags of which a segment must have one to be told of; 0 for all segments and ICMP errors.

    Notes
    -----
    All packets pass the tracker as in any run; those of chosen ends in batches of one.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        rows: Iterable[dict[str, Any]],
        tell: Callable[[Step | IcmpError], None],
        *,
        flags: int = 0,
        filter: Callable[[int], bytes] | None = None,
        tick: Callable[[], None] | None = None,
    ):
        super().__init__(source, settings, interval_columns=[], filter=filter, tick=tick)
        rows = list(rows)
        self._clients = {identity(row): (row["client_ip"], row["client_port"]) for row in rows}
        self._ends = {ends_key(row) for row in rows}
        self._flags = flags
        self._tell = tell
        # What is left of the batch in hand, and whether it is one packet to tell of; what stood before that packet.
        self._parts: list[tuple[PacketBatch, bool]] = []
        self._before: tuple[Snapshot | None] | None = None
        # File and number of what a capture duplicate may be a copy of, by the number that they share (`Tracker.fate`).
        self._firsts: dict[int, tuple[str, int]] = {}

    def track(self, batch: PacketBatch) -> bool:
        """As in any run, but in parts: runs of packets that are nobody's concern, and single ones that are."""
        if not len(batch):
            return super().track(batch)
        if not self._parts:
            self._parts = list(self._split(batch))
            self.tracker.names(list(self.source.files), list(self.source.interfaces))
        while self._parts:
            part, watched = self._parts[0]
            if watched and self._before is None:
                self._before = (self.tracker.snapshot(part, 0),)
            if not self.tracker.feed(part):
                return False
            if self._before is not None:
                self._note(part, self._before[0])
                self._before = None
            del self._parts[0]
        return True

    def _split(self, batch: PacketBatch) -> Iterable[tuple[PacketBatch, bool]]:
        done = 0
        for at in probe.packets_between(batch, self._ends, self._flags):
            if at > done:
                yield batch.part(done, at), False
            yield batch.part(at, at + 1), True
            done = at + 1
        if done < len(batch):
            yield batch.part(done, len(batch)), False

    def _note(self, part: PacketBatch, before: Snapshot | None) -> None:
        data, time_ns, _, number, file_id, _, link_type, wire_len, _ = part.packets()[0]
        place = self.source.files[file_id], number
        skip, first = self.tracker.fate()
        if skip is None and first is not None:
            self._remember(first, place)
        after = self.tracker.snapshot(part, 0)
        if after is None or identity(after["row"]) not in self._clients:
            return
        ended = None
        if before is not None and identity(before["row"]) != identity(after["row"]):
            ended, before = before["row"]["flow_id"], None
        client = self._clients[identity(after["row"])]
        after, before = facing(after, client), before and facing(before, client)
        if skip == "icmp_error":
            self._tell(IcmpError(*place, time_ns, probe.quoted(data, link_type, wire_len), before, after))
            return
        copy_of = None
        if skip == "capture_duplicate" and self.settings.duplicates == "count":
            copy_of = self._firsts.get(first, ("", 0))
        elif skip is not None:
            return
        segment = probe.decode(data, link_type, wire_len)
        self._tell(Step(*place, time_ns, segment, before, after, ended, copy_of))

    def _remember(self, first: int, place: tuple[str, int]) -> None:
        self._firsts[first] = place
        if len(self._firsts) > _REMEMBERED:
            del self._firsts[next(iter(self._firsts))]


def final_rows(run: Run, chosen: Collection[Identity]) -> dict[Identity, dict[str, Any]]:
    """Play a run to its end; the final rows of the chosen records by identity, every column, instants as ns since 1970."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from synfin.output.arrow import Layout

    layout, rows = Layout.choose("flows"), {}
    instants = [column.name for column in FLOWS if column.kind == "instant"]
    for _, block in run.blocks():
        batch = layout.batch(block)
        batch = batch.filter(
            pc.is_in(batch["flow_id"], value_set=pa.array([flow_id for flow_id, _, _ in chosen], pa.int64()))
        )
        for name in instants:
            batch = batch.set_column(batch.schema.get_field_index(name), name, batch[name].view(pa.int64()))
        rows |= {identity(row): row for row in batch.to_pylist()}
    return rows
