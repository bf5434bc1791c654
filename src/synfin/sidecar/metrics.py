"""The metrics of a live run: every one declared once, as data, and the collector that fills them from a snapshot.

Names, types and labels follow the conventions of Prometheus and OpenMetrics: seconds and bytes, `_total` for counters
(prometheus-client adds it), a closed set of values for every label. No label holds a client's address.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from synfin import schema
from synfin.sidecar.snapshot import ServiceSnapshot, WorkerSnapshot

SECOND = 1e9  # nanoseconds


class Label(NamedTuple):
    """A label and the values that it can have: each with the key under which its source holds the number.

    `values` is None where the run's configuration decides (interfaces, workers, listed services): the keys are the values.
    """

    name: str
    values: Mapping[str, str] | None = None


class Declared(NamedTuple):
    """A metric: its name (a counter's without `_total`, an info's without `_info`), type, one sentence, the place in `view`
    that its value comes from, and its labels, for which that place has one level of keys each.
    """

    name: str
    kind: str
    help: str
    source: str
    labels: tuple[Label, ...] = ()

    @property
    def sample_name(self) -> str:
        """The name by which queries know it."""
        return self.name + {"counter": "_total", "info": "_info"}.get(self.kind, "")


def _same(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


#: RFC 9293's spelling of the states that are counted, and their columns in the interval table.
STATE = Label("state", {state: state.lower().replace("-", "_") for state in schema.STATES[2:]})
#: As the column `handshake` has them.
OUTCOME = Label(
    "outcome",
    {
        "complete": "completed",
        "refused": "refused",
        "unanswered": "unanswered",
        "half_open": "half_open_expired",
        "aborted": "aborted",
        "unreachable": "unreachable",
    },
)
BY = Label("by", {"fin": "closed_fin", "rst": "closed_rst"})
CLOSE = Label("kind", _same(schema.ENUMS["close"]))
END_REASON = Label("reason", _same(schema.ENUMS["end_reason"]))
EVICTED = Label("kind", _same(("unanswered", "half_open", "lingering", "open")))
SKIP = Label("reason", _same([*(name for name, _ in schema.SKIPS), "link_type"]))
VERDICT = Label("verdict", {"accepted": "errors", "rejected": "rejected"})
CLOCK = Label("source", _same(("hardware", "software")))
TABLE = Label("table", _same((*schema.TABLES, "interim")))
INTERFACE, WORKER, SERVICE = Label("interface"), Label("worker"), Label("service")

#: By section of docs/metrics.md.
METRICS: dict[str, tuple[Declared, ...]] = {
    "Connections now": (
        Declared("synfin_ends", "gauge", "Ends of connections by RFC 9293 state.", "gauges", (STATE,)),
        Declared("synfin_connections", "gauge", "Connections that have neither failed nor closed nor been reset.", "gauges.connections"),
        Declared("synfin_connections_opening", "gauge", "Connections whose SYN nothing has answered yet.", "gauges.opening"),
        Declared("synfin_connections_half_open", "gauge", "Connections with a SYN-ACK whose handshake is not complete.", "gauges.half_open"),
        Declared("synfin_connections_half_closed", "gauge", "Connections with exactly one FIN, acknowledged.", "gauges.half_closed"),
        Declared("synfin_connections_midstream", "gauge", "Connections whose opening was not seen, not closed.", "gauges.midstream"),
    ),
    "Openings and closes": (
        Declared("synfin_syns", "counter", "SYNs, resends included.", "stats.counts.syns"),
        Declared("synfin_syn_resends", "counter", "Resent SYNs.", "stats.counts.syn_resends"),
        Declared("synfin_synacks", "counter", "SYN-ACKs, resends included.", "stats.counts.synacks"),
        Declared("synfin_attempts", "counter", "Attempts by outcome, each counted when its outcome first holds.", "stats.counts", (OUTCOME,)),
        Declared("synfin_connections_closed", "counter", "Connections closed by both FINs or reset, counted when that happens.", "stats.counts", (BY,)),
        Declared("synfin_closes", "counter", "Connections by the shape of their close, counted when their record ends.", "stats.closes", (CLOSE,)),
        Declared("synfin_records_ended", "counter", "Records by the reason why they ended.", "stats.end_reasons", (END_REASON,)),
    ),
    "Round trips": (
        Declared("synfin_rtt_server_seconds", "histogram", "From the tap to the server and back, by the handshake (clean and matched).", "histograms.rtt_server"),
        Declared("synfin_rtt_client_seconds", "histogram", "From the tap to the client and back, by the handshake (clean and matched).", "histograms.rtt_client"),
        Declared("synfin_handshake_seconds", "histogram", "Duration of the handshake, where both round trips are clean or matched.", "histograms.rtt_handshake"),
    ),
    "Packets": (
        Declared("synfin_packets", "counter", "Packets read: those of records and those skipped.", "stats.packets"),
        Declared("synfin_record_packets", "counter", "Packets that belong to a record.", "stats.packets_in_records"),
        Declared("synfin_skipped_packets", "counter", "Packets that belong to no record, by the name of their skip.", "stats.skips", (SKIP,)),
        Declared("synfin_ip_bytes", "counter", "IP bytes of the packets of records.", "stats.ip_bytes"),
        Declared("synfin_retransmitted_segments", "counter", "Retransmitted payload segments.", "stats.counts.retransmitted_segments"),
        Declared("synfin_capture_duplicates", "counter", "Copies that the capture point saw twice and that records count; always 0 where nobody looks for them.", "stats.counts.capture_duplicates"),
        Declared("synfin_suspected_duplicates", "counter", "Packets that look like copies where nobody looks for them (--duplicates keep).", "stats.suspects"),
        Declared("synfin_icmp_errors", "counter", "ICMP errors that quote a segment of a record: in flight, or rejected.", "stats.icmp", (VERDICT,)),
        Declared("synfin_clock_steps", "counter", "How often the capture's clock stepped back.", "stats.clock_steps"),
    ),
    "Capture": (
        Declared("synfin_ring_packets", "counter", "Packets that the kernel had for the rings, those dropped included.", "rings.packets", (INTERFACE,)),
        Declared("synfin_ring_dropped_packets", "counter", "Packets dropped because a ring was full.", "rings.drops", (INTERFACE,)),
        Declared("synfin_ring_freezes", "counter", "How often a ring was full.", "rings.freezes", (INTERFACE,)),
        Declared("synfin_interface_rx_dropped_packets", "counter", "Packets that the driver or the host's queues dropped since the run began; those of softnet are among them.", "interfaces.rx_dropped", (INTERFACE,)),
        Declared("synfin_interface_rx_missed_packets", "counter", "Packets that the card had no room for since the run began.", "interfaces.rx_missed", (INTERFACE,)),
        Declared("synfin_interface_unseen_packets", "counter", "Packets that passed an interface which was made again before the run listened on it.", "interfaces.unseen", (INTERFACE,)),
        Declared("synfin_softnet_dropped_packets", "counter", "Packets that the processors' queues dropped since the run began, on all interfaces of the host.", "softnet"),
        Declared("synfin_interface_up", "gauge", "1 while the interface is there and up.", "interfaces.up", (INTERFACE,)),
        Declared("synfin_interface_timestamps", "gauge", "1 for the clock that stamps the interface's packets.", "interfaces.timestamps", (INTERFACE, CLOCK)),
    ),
    "Records and memory": (
        Declared("synfin_records", "gauge", "Records that live, those included that only linger after their end.", "stats.live"),
        Declared("synfin_records_limit", "gauge", "How many may live at once; only with a cap (--max-flows, --max-memory).", "stats.cap"),
        Declared("synfin_evictions", "counter", "Records that ended at the cap, by what they were.", "stats.evicted", (EVICTED,)),
        Declared("synfin_tracker_memory_bytes", "gauge", "Memory held for connections.", "memory"),
    ),
    "Workers": (
        Declared("synfin_worker_packets", "counter", "Packets that a worker read.", "workers.packets", (WORKER,)),
        Declared("synfin_worker_records", "gauge", "Records that live in a worker.", "workers.records", (WORKER,)),
        Declared("synfin_worker_clock_seconds", "gauge", "Capture time that a worker has reached, since 1970.", "workers.clock", (WORKER,)),
        Declared("synfin_worker_snapshot_age_seconds", "gauge", "How long ago a worker told these figures.", "workers.age", (WORKER,)),
    ),
    "Output": (
        Declared("synfin_output_rows", "counter", "Rows written, by table.", "output.rows", (TABLE,)),
        Declared("synfin_output_files", "counter", "Files completed under their final name, by table.", "output.files", (TABLE,)),
        Declared("synfin_output_rows_lost", "counter", "Rows that could not be written, by table.", "output.lost", (TABLE,)),
        Declared("synfin_output_failing", "gauge", "1 while rows cannot be written.", "output.failing"),
    ),
    "The run": (
        Declared("synfin_start_time_seconds", "gauge", "When the run began, since 1970.", "started"),
        Declared("synfin_build", "info", "What runs.", "build"),
    ),
    "Listed services": (
        Declared("synfin_service_ends", "gauge", "Ends of the service's connections by RFC 9293 state.", "services", (SERVICE, STATE)),
        Declared("synfin_service_connections", "gauge", "Its connections that have neither failed nor closed nor been reset.", "service.connections", (SERVICE,)),
        Declared("synfin_service_connections_opening", "gauge", "Its connections whose SYN nothing has answered yet.", "service.opening", (SERVICE,)),
        Declared("synfin_service_connections_half_open", "gauge", "Its connections with a SYN-ACK whose handshake is not complete.", "service.half_open", (SERVICE,)),
        Declared("synfin_service_connections_half_closed", "gauge", "Its connections with exactly one FIN, acknowledged.", "service.half_closed", (SERVICE,)),
        Declared("synfin_service_syns", "counter", "SYNs to the service, resends included.", "service.syns", (SERVICE,)),
        Declared("synfin_service_attempts", "counter", "Attempts at the service by outcome.", "services", (SERVICE, OUTCOME)),
        Declared("synfin_service_packets", "counter", "Packets of its connections.", "service.packets", (SERVICE,)),
        Declared("synfin_service_ip_bytes", "counter", "IP bytes of those packets.", "service.ip_bytes", (SERVICE,)),
    ),
}  # fmt: skip

#: Upper bounds (ns) of the histograms' buckets: powers of two and the middles between them, from 33 µs to 17 s, less one.
#: Each is the highest value of one of the core's buckets, so that nothing is counted on the wrong side.
BOUNDS = tuple(edge - 1 for power in range(15, 35) for edge in (1 << power, 3 << (power - 1)))[:-1]


def service_name(service: tuple[str, int]) -> str:
    """A service as its label has it: `192.0.2.1:443`, `[2001:db8::1]:443`."""
    address, port = service
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


# ---------------------------------------------------------------------------------------------------- from a snapshot


def _sum(parts: Sequence[Any]) -> Any:
    # Dicts by their keys, numbers by addition; what is no number in any part (None, text) is left out.
    if parts and isinstance(parts[0], Mapping):
        keys = dict.fromkeys(key for part in parts for key in part)
        return {key: _sum([part[key] for part in parts if key in part]) for key in keys}
    numbers = [part for part in parts if isinstance(part, int | float)]
    return sum(numbers) if numbers else None


def _by_interface(workers: Sequence[WorkerSnapshot], field: str, join: Callable[[list[int]], int]) -> dict[str, int]:
    names = sorted({name for worker in workers for name in worker.losses if name})
    return {
        name: join([getattr(worker.losses[name], field) for worker in workers if name in worker.losses])
        for name in names
    }


def view(
    snapshot: ServiceSnapshot, services: Sequence[tuple[str, int]] = (), now: float | None = None
) -> dict[str, Any]:
    """All that metrics are made of, as nested dicts: workers added up, counters of interface and host taken once.

    `now` is of `time.monotonic`.
    """
    now = time.monotonic() if now is None else now
    workers = snapshot.workers
    stats = _sum([worker.stats for worker in workers]) or {}
    known = {name for name, _ in schema.SKIPS}
    skips = stats.get("skips", {})
    stats["skips"] = {name: skips[name] for name in known & skips.keys()}
    stats["skips"]["link_type"] = sum(count for name, count in skips.items() if name not in known)
    told = _sum([worker.services for worker in workers if worker.services is not None])
    # A listed service without traffic has zeros; None: nobody counts by service.
    listed = {} if told is None else {service_name(service): told.get(service, {}) for service in services}
    by_figure = {
        figure: {name: figures.get(figure, 0) for name, figures in listed.items()} for figure in _SERVICE_FIGURES
    }
    return {
        "stats": stats if workers else {},
        "gauges": _sum([worker.gauges for worker in workers]),
        "histograms": _sum([worker.histograms for worker in workers]),
        "memory": sum(stats["memory"].values()) if workers else None,
        "rings": {
            "packets": _by_interface(workers, "ring_packets", sum),
            "drops": _by_interface(workers, "ring_drops", sum),
            "freezes": _by_interface(workers, "ring_freezes", sum),
        },
        "interfaces": {
            "rx_dropped": _by_interface(workers, "interface_rx_dropped", max),
            "rx_missed": _by_interface(workers, "interface_rx_missed", max),
            "unseen": _by_interface(workers, "interface_unseen", max),
            "up": {name: int(up) for worker in workers for name, up in worker.interface_up.items()},
            "timestamps": {name: {clock: 1} for worker in workers for name, clock in worker.timestamps.items()},
        },
        "softnet": max((worker.losses[""].softnet_dropped for worker in workers if "" in worker.losses), default=None),
        "workers": {
            "packets": {str(worker.worker): worker.stats["packets"] for worker in workers},
            "records": {str(worker.worker): worker.stats["live"] for worker in workers},
            "clock": {str(w.worker): w.clock_ns / SECOND for w in workers if w.clock_ns is not None},
            "age": {str(worker.worker): max(now - worker.taken_monotonic, 0.0) for worker in workers},
        },
        "output": {
            "rows": snapshot.rows_written,
            "files": snapshot.files_written,
            "lost": snapshot.rows_lost,
            "failing": int(snapshot.output_error is not None),
        },
        "started": snapshot.started,
        "build": dict(snapshot.build),
        "services": listed,
        "service": by_figure,
    }  # fmt: skip


_SERVICE_FIGURES = ("connections", "opening", "half_open", "half_closed", "syns", "packets", "ip_bytes")


def _at(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _samples(node: Any, labels: tuple[Label, ...]) -> Iterator[tuple[list[str], float]]:
    # The values below a node, each with the values of its labels. Members of a closed set that the node lacks are 0.
    if not labels:
        if node is not None:
            yield [], node
        return
    if node is None:
        return
    label, rest = labels[0], labels[1:]
    members = label.values if label.values is not None else _same(node)
    for value, key in members.items():
        for names, number in _samples(node.get(key, {} if rest else 0), rest):
            yield [value, *names], number


def _histogram(told: Mapping[str, Any]) -> tuple[list[tuple[str, float]], float]:
    # Cumulative counts by upper bound, and the sum in seconds.
    buckets, below, tops = [], 0, iter(sorted(told["buckets"].items()))
    top, count = next(tops, (None, 0))
    for bound in BOUNDS:
        while top is not None and top <= bound:
            below += count
            top, count = next(tops, (None, 0))
        buckets.append((floatToGoString(bound / SECOND), float(below)))
    return [*buckets, ("+Inf", float(told["count"]))], told["sum_ns"] / SECOND


def family(metric: Declared, tree: Mapping[str, Any]) -> Metric | None:
    """A metric with its samples from a `view`; None where it has none."""
    node = _at(tree, metric.source)
    unit = next((unit for unit in ("seconds", "bytes") if metric.name.endswith(f"_{unit}")), "")
    if metric.kind == "histogram":
        if node is None:
            return None
        buckets, total = _histogram(node)
        return HistogramMetricFamily(metric.name, metric.help, buckets, total, unit=unit)
    if metric.kind == "info":
        return InfoMetricFamily(metric.name, metric.help, node) if node else None
    names = [label.name for label in metric.labels]
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    made = kind(metric.name, metric.help, labels=names, unit=unit)
    for values, number in _samples(node, metric.labels):
        made.add_metric(values, number)
    return made if made.samples else None


class SynfinCollector(Collector):
    """Makes the metrics of a live run, each scrape from one snapshot.

    Parameters
    ----------
    snapshot : gives the run as it stands; called once for each scrape, by the thread that serves it.
    services : (address, port) of servers that get metrics of their own.
    """

    def __init__(self, snapshot: Callable[[], ServiceSnapshot], services: Sequence[tuple[str, int]] = ()):
        self._snapshot = snapshot
        self._services = tuple(services)

    def collect(self) -> Iterator[Metric]:
        tree = view(self._snapshot(), self._services)
        for metrics in METRICS.values():
            for metric in metrics:
                made = family(metric, tree)
                if made is not None:
                    yield made
