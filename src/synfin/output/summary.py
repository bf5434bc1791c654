"""The summary of a run as data: what the tracker counted, worst servers, first rows, what was wrong with the input."""

from __future__ import annotations

from array import array
from collections import Counter
from itertools import compress
from typing import TYPE_CHECKING, Any

from synfin import __version__
from synfin.output.render import valid
from synfin.run import Run, accounting
from synfin.schema import ENUMS
from synfin.stores import shown

if TYPE_CHECKING:
    import pyarrow as pa

    from synfin._core.block import Block

#: Outcomes of an attempt by which servers are ranked.
FAILURES = ("unanswered", "refused", "half_open")
#: Columns of the flow table that the summary needs.
FLOW_COLUMNS = ("server_ip", "server_port", "handshake")
MAX_SERVERS = 10_000
_WORST = 5
#: Code of a handshake -> its place in FAILURES.
_PLACES = {ENUMS["handshake"].index(failure): place for place, failure in enumerate(FAILURES)}
_IS_FAILURE = bytes(code in _PLACES for code in range(256))


class Servers:
    """Failed attempts per server, in bounded memory.

    At more than `limit` servers the half with the fewest failures is forgotten. A server that comes back after that
    starts anew, so every count is low by at most `error`, the sum of the largest counts forgotten each time.
    """

    def __init__(self, limit: int = MAX_SERVERS):
        self.limit = limit
        self.error = 0
        self._counts: dict[tuple[str, int], list[int]] = {}

    def add(self, block: Block) -> None:
        """Count the failures among the rows of a block of flows with FLOW_COLUMNS, of which none is ever null."""
        ips, ports, handshakes = (bytes(block.buffers(name)[1]) for name in FLOW_COLUMNS)
        failed = handshakes.translate(_IS_FAILURE)
        counted = Counter(compress(zip(array("i", ips), array("i", ports), handshakes, strict=True), failed))
        if not counted:
            return
        _, ends, text = block.dictionary("server_ip")
        ends, text = array("i", bytes(ends)), str(bytes(text), "ascii")
        for (ip, port, handshake), count in counted.items():
            server = text[ends[ip] : ends[ip + 1]], port
            self._counts.setdefault(server, [0] * len(FAILURES))[_PLACES[handshake]] += count
        if len(self._counts) > self.limit:
            self._forget()

    def _forget(self) -> None:
        ranked = sorted(self._counts.items(), key=lambda item: (-sum(item[1]), item[0]))
        kept = self.limit // 2
        self.error += sum(ranked[kept][1])
        self._counts = dict(ranked[:kept])

    def worst(self, failure: str, count: int = _WORST) -> list[dict[str, Any]]:
        """The servers with most failures of one kind, ties by address and port."""
        which = FAILURES.index(failure)
        ranked = sorted((-counts[which], server) for server, counts in self._counts.items() if counts[which])
        return [{"server_ip": ip, "server_port": port, "count": -n} for n, (ip, port) in ranked[:count]]

    def failing(self, failure: str) -> int:
        """How many of the servers that are remembered had failures of one kind."""
        which = FAILURES.index(failure)
        return sum(counts[which] > 0 for counts in self._counts.values())


class FirstRows:
    """The `count` connections that began first, in bounded memory (records end in another order than they begin)."""

    def __init__(self, count: int):
        self.count = count
        self.rows: list[dict[str, Any]] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Take a flow batch in the lakehouse profile, where instants are int64 nanoseconds beside timestamps."""
        from pyarrow.compute import select_k_unstable

        first = select_k_unstable(batch, self.count, [("first_seen_ns", "ascending"), ("first_packet", "ascending")])
        rows = batch.take(first).drop_columns(["first_seen"])
        rows = rows.rename_columns(["first_seen" if name == "first_seen_ns" else name for name in rows.schema.names])
        merged = self.rows + rows.to_pylist()
        merged.sort(key=lambda row: (row["first_seen"], row["first_packet"] or 0))
        self.rows = merged[: self.count]


def summarize(run: Run, servers: Servers, seconds: float, outputs: list[str]) -> dict[str, Any]:
    """Everything that the summary says, as plain data (see `synfin.output.render` for the text).

    `seconds` is the wall time of the run; instants are nanoseconds since 1970, durations nanoseconds.
    """
    stats, outcome = run.tracker.stats(), run.outcome
    gauges = stats["gauges"]
    identity = accounting(stats)
    return {
        "synfin_version": __version__,
        "complete": outcome.complete,
        "reason": outcome.reason,
        "file": outcome.path,
        "offset": outcome.offset,
        "seconds": round(seconds, 6),
        "files": len(run.source.files),
        "interfaces": list(run.source.interfaces),
        "bytes_read": run.bytes_read,
        "packets": stats["packets"],
        "packets_per_second": round(stats["packets"] / seconds) if seconds > 0 else None,
        "ip_bytes": stats["ip_bytes"],
        "first_time_ns": stats["first_time_ns"],
        "last_time_ns": stats["last_time_ns"],
        "connections": stats["records"],
        "handshakes": stats["handshakes"],
        "closes": stats["closes"],
        "closers": stats["closers"],
        "end_reasons": stats["end_reasons"],
        "evicted": stats["evicted"],
        "cap": stats["cap"],
        "capture_drops": run.source.drops,
        "syn_resends": stats["syn_resends"],
        "retransmitted_segments": stats["retransmitted_segments"],
        "icmp": stats["icmp"],
        "suspects": stats["suspects"] if run.settings.duplicates == "keep" else None,
        "at_end": gauges,
        "half_open_peak": stats["half_open_peak"],
        "time_wait_peak": stats["time_wait_peak"],
        "rtt": {side: quantiles(values) for side, values in stats["rtt"].items()},
        "worst_servers": {failure: servers.worst(failure) for failure in FAILURES},
        "failing_servers": {failure: servers.failing(failure) for failure in FAILURES},
        "worst_servers_error": servers.error,
        "capture": capture_report(run.report, stats["packets"]),
        "input": input_report(run.report),
        "accounting": {
            **identity,
            "holds": identity["packets"] == sum(identity.values()) - identity["packets"],
        },
        "outputs": outputs,
    }


def quantiles(values: dict[str, Any]) -> dict[str, Any]:
    """A histogram's count, p50, p90, p99 and max with the largest value, which is exact, where a quantile must be it.

    A quantile is the middle of a bucket: it may lie above the largest value, or below it although it has the last rank.
    """
    count, top = values["count"], values["max"]
    ranks = {"p50": 50, "p90": 90, "p99": 99}
    last = [name for name, percent in ranks.items() if count and count * percent > (count - 1) * 100]
    return values | {name: top if name in last else min(values[name], top) for name in ranks if count}


def file_metadata(run: Run, command: list[str]) -> dict[str, str]:
    """What a file of rows says about its run: text values, JSON where they have parts."""
    import json
    import shlex

    outcome = run.outcome
    metadata = {
        "command": shlex.join(map(shown, command)),
        "inputs": json.dumps([valid(name) for name in run.source.files or run.source.interfaces]),
        "accounting": json.dumps(accounting(run.tracker.stats())),
        "complete": "true" if outcome.complete else "false",
    }
    if run.source.drops is not None:
        metadata["capture_drops"] = str(run.source.drops)
    if capture := capture_report(run.report, run.tracker.stats()["packets"]):
        metadata["capture"] = json.dumps(capture)
    if not outcome.complete:
        metadata["reason"] = outcome.reason or ""
        if outcome.path is not None:
            metadata["file"] = outcome.path
        if outcome.offset is not None:
            metadata["offset"] = str(outcome.offset)
    return {name: valid(text) for name, text in metadata.items()}


def capture_report(report: Any, packets: int) -> dict[str, Any] | None:
    """What became of packets before they were read, of a live run (`synfin.sources.losses.LiveReport`); else None.

    `ring_packets` is the sum of `packets`, those that were read, and `ring_drops`; what was lost before the ring, and whose
    clock stamped the packets of each interface, stands beside.
    """
    losses = getattr(report, "losses", None)
    if not losses:
        return None
    lost = [vars(each) for each in losses.values()]
    sums = {name: sum(each[name] for each in lost) for name in lost[0]}
    holds = sums["ring_packets"] == packets + sums["ring_drops"]
    return {"packets": packets, **sums, "holds": holds, "timestamps": dict(report.timestamps)}


def input_report(report: Any) -> dict[str, Any]:
    """What the source found, as plain data: `synfin.sources.report.InputReport` and what follows from it."""
    follows = {name: getattr(report, name) for name in ("failed", "gaps", "overlaps", "warnings")}
    return _plain({**vars(report), **follows})


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value
