"""The Grafana dashboard of live runs, deploy/grafana/synfin-live.json, from its panels as data."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

#: What `@` stands for in queries: the instances that are chosen above the panels.
_CHOSEN = 'instance=~"$instance"'
_WIDTH = 24  # Grafana's grid


class Panel(NamedTuple):
    """A panel: its title, unit (Grafana's name), queries with the legend of each, and what it says when asked.

    `kind` is "timeseries" or "stat"; `stacked` piles the series up; `bad` is the value from which a stat is red.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    help: str = ""
    kind: str = "timeseries"
    stacked: bool = False
    bad: float | None = None


def _stat(title: str, unit: str, query: str, help: str = "", bad: float | None = None) -> Panel:
    return Panel(title, unit, ((query, ""),), help, "stat", bad=bad)


def _quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket{{@}}[$__rate_interval])))", f"p{q * 100:g}")
        for q in (0.5, 0.9, 0.99)
    )


#: By row of the dashboard; a row's panels share its width.
ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        _stat("Connections", "short", "sum(synfin_connections{@})", "Neither failed nor closed nor reset."),
        _stat("Opening", "short", "sum(synfin_connections_opening{@})", "A SYN that nothing has answered yet."),
        _stat("Half-open", "short", "sum(synfin_connections_half_open{@})", "A SYN-ACK, and the handshake is not complete.", 500),
        _stat("TIME-WAIT", "short", 'sum(synfin_ends{@, state="TIME-WAIT"})', "Ends of connections, clients' and servers'.", 22_582),
        _stat("CLOSE-WAIT", "short", 'sum(synfin_ends{@, state="CLOSE-WAIT"})', "Ends whose program has not closed yet what the peer has closed."),
        _stat("Attempts refused", "percentunit", 'sum(rate(synfin_attempts_total{@, outcome="refused"}[5m])) / clamp_min(sum(rate(synfin_attempts_total{@}[5m])), 1e-9)', "Share of attempts in five minutes.", 0.2),
        _stat("Packets dropped", "percentunit", "sum(rate(synfin_ring_dropped_packets_total{@}[5m])) / clamp_min(sum(rate(synfin_ring_packets_total{@}[5m])), 1e-9)", "Share of what came to the rings in five minutes.", 1e-9),
        _stat("Cannot write rows", "short", "sum(synfin_output_failing{@})", "Runs that cannot write rows now.", 1),
    ),
    "States": (
        Panel("Ends by state", "short", (("sum by (state) (synfin_ends{@})", "{{state}}"),), "Two for each connection, as RFC 9293 names them.", stacked=True),
        Panel("Opening, half-open, half-closed", "short", (
            ("sum(synfin_connections_opening{@})", "opening"),
            ("sum(synfin_connections_half_open{@})", "half-open"),
            ("sum(synfin_connections_half_closed{@})", "half-closed"),
            ("sum(synfin_connections_midstream{@})", "midstream"),
        ), "Midstream: the opening was not seen. Many, long after the start, mean that packets are missing."),
        Panel("Waiting to close", "short", (('sum by (state) (synfin_ends{@, state=~"CLOSE-WAIT|FIN-WAIT-1|FIN-WAIT-2|LAST-ACK|CLOSING|TIME-WAIT"})', "{{state}}"),)),
    ),
    "Openings and closes": (
        Panel("Attempts by outcome", "cps", (("sum by (outcome) (rate(synfin_attempts_total{@}[$__rate_interval]))", "{{outcome}}"),), stacked=True),
        Panel("SYNs", "cps", (
            ("sum(rate(synfin_syns_total{@}[$__rate_interval]))", "SYN"),
            ("sum(rate(synfin_synacks_total{@}[$__rate_interval]))", "SYN-ACK"),
            ("sum(rate(synfin_syn_resends_total{@}[$__rate_interval]))", "resent SYN"),
        ), "SYNs without SYN-ACKs: a flood, a dead host, or one direction only."),
        Panel("Closes", "cps", (("sum by (by) (rate(synfin_connections_closed_total{@}[$__rate_interval]))", "{{by}}"),), "When they happen: by both FINs, or by a reset.", stacked=True),
        Panel("Shape of closes", "cps", (("sum by (kind) (rate(synfin_closes_total{@}[$__rate_interval])) > 0", "{{kind}}"),), "When the record ends: a minute later, for most.", stacked=True),
        Panel("Records ended by reason", "cps", (("sum by (reason) (rate(synfin_records_ended_total{@}[$__rate_interval])) > 0", "{{reason}}"),), stacked=True),
    ),
    "Round trips": (
        Panel("To servers", "s", _quantiles("synfin_rtt_server_seconds"), "From the tap to the server and back, by handshakes."),
        Panel("To clients", "s", _quantiles("synfin_rtt_client_seconds"), "From the tap to the client and back, by handshakes."),
        Panel("Handshake", "s", _quantiles("synfin_handshake_seconds"), "From the SYN to the ACK that completes it, at the tap."),
        Panel("Retransmitted", "cps", (
            ("sum(rate(synfin_retransmitted_segments_total{@}[$__rate_interval]))", "segments"),
            ("sum(rate(synfin_icmp_errors_total{@}[$__rate_interval]))", "ICMP errors"),
        )),
    ),
    "Traffic": (
        Panel("Bytes", "binBps", (("sum(rate(synfin_ip_bytes_total{@}[$__rate_interval]))", "IP of connections"),)),
        Panel("Packets", "pps", (
            ("sum(rate(synfin_packets_total{@}[$__rate_interval]))", "read"),
            ("sum(rate(synfin_record_packets_total{@}[$__rate_interval]))", "of connections"),
        )),
        Panel("Packets skipped", "pps", (("sum by (reason) (rate(synfin_skipped_packets_total{@}[$__rate_interval])) > 0", "{{reason}}"),), stacked=True),
        Panel("Copies", "percentunit", (
            ("sum(rate(synfin_suspected_duplicates_total{@}[$__rate_interval])) / clamp_min(sum(rate(synfin_record_packets_total{@}[$__rate_interval])), 1e-9)", "suspected"),
            ("sum(rate(synfin_capture_duplicates_total{@}[$__rate_interval])) / clamp_min(sum(rate(synfin_record_packets_total{@}[$__rate_interval])), 1e-9)", "counted"),
        ), "Share of packets that the mirror port seems to have sent twice."),
    ),
    "Capture": (
        Panel("Lost", "pps", (
            ("sum by (interface) (rate(synfin_ring_dropped_packets_total{@}[$__rate_interval]))", "{{interface}} ring"),
            ("sum by (interface) (rate(synfin_interface_rx_missed_packets_total{@}[$__rate_interval]))", "{{interface}} card"),
            ("sum by (interface) (rate(synfin_interface_rx_dropped_packets_total{@}[$__rate_interval]))", "{{interface}} driver, queues"),
            ("sum by (interface) (rate(synfin_interface_unseen_packets_total{@}[$__rate_interval]))", "{{interface}} made again"),
            ("sum(rate(synfin_softnet_dropped_packets_total{@}[$__rate_interval]))", "host"),
        ), "Kinds overlap: softnet's are among rx_dropped. They do not add up."),
        Panel("Came to the rings", "pps", (("sum by (interface) (rate(synfin_ring_packets_total{@}[$__rate_interval]))", "{{interface}}"),), "Dropped ones included."),
        Panel("Rings full", "cps", (("sum by (interface) (rate(synfin_ring_freezes_total{@}[$__rate_interval]))", "{{interface}}"),)),
        Panel("Interfaces", "short", (
            ("min by (instance, interface) (synfin_interface_up{@})", "{{instance}} {{interface}} up"),
            ("sum by (source) (synfin_interface_timestamps{@})", "stamped by {{source}}"),
            ("sum(synfin_clock_steps_total{@})", "clock steps"),
        )),
    ),
    "The process": (
        Panel("Records", "short", (
            ("sum by (instance, worker) (synfin_worker_records{@})", "{{instance}} worker {{worker}}"),
            ("sum by (instance) (synfin_records_limit{@})", "{{instance}} limit"),
        ), "Those that linger after their end included."),
        Panel("Packets by worker", "pps", (("sum by (instance, worker) (rate(synfin_worker_packets_total{@}[$__rate_interval]))", "{{instance}} worker {{worker}}"),)),
        Panel("Memory", "bytes", (
            ("sum by (instance) (process_resident_memory_bytes{@} and on (instance, job) synfin_records)", "{{instance}} resident"),
            ("sum by (instance) (synfin_tracker_memory_bytes{@})", "{{instance}} connections"),
        ), "Resident memory contains the rings."),
        Panel("Processors", "percentunit", (("sum by (instance) (rate(process_cpu_seconds_total{@}[$__rate_interval]) and on (instance, job) synfin_records)", "{{instance}}"),), "1 is one core."),
        Panel("Behind", "s", (
            ("max by (instance, worker) (synfin_worker_snapshot_age_seconds{@})", "{{instance}} worker {{worker}} age"),
            ("max by (instance, worker) (timestamp(synfin_worker_clock_seconds{@}) - synfin_worker_clock_seconds{@})", "{{instance}} worker {{worker}} clock"),
        ), "How old a worker's figures are, and how far its capture clock is behind."),
        Panel("Ended at the cap", "cps", (("sum by (kind) (rate(synfin_evictions_total{@}[$__rate_interval]))", "{{kind}}"),), stacked=True),
    ),
    "Output": (
        Panel("Rows written", "cps", (("sum by (table) (rate(synfin_output_rows_total{@}[$__rate_interval]))", "{{table}}"),)),
        Panel("Rows lost", "cps", (("sum by (table) (rate(synfin_output_rows_lost_total{@}[$__rate_interval]))", "{{table}}"),)),
        Panel("Files", "short", (("sum by (table) (increase(synfin_output_files_total{@}[1h]))", "{{table}}"),), "Completed in the last hour."),
        Panel("Up for", "s", (("time() - synfin_start_time_seconds{@}", "{{instance}}"),)),
    ),
    "Listed services": (
        Panel("TIME-WAIT by service", "short", (('sum by (service) (synfin_service_ends{@, state="TIME-WAIT"})', "{{service}}"),), "One client has 28,232 ports for a service, by Linux's default."),
        Panel("Connections by service", "short", (
            ("sum by (service) (synfin_service_connections{@})", "{{service}}"),
            ("sum by (service) (synfin_service_connections_half_open{@})", "{{service}} half-open"),
        )),
        Panel("Failures by service", "cps", (('sum by (service, outcome) (rate(synfin_service_attempts_total{@, outcome!="complete"}[$__rate_interval]))', "{{service}} {{outcome}}"),)),
        Panel("Bytes by service", "binBps", (("sum by (service) (rate(synfin_service_ip_bytes_total{@}[$__rate_interval]))", "{{service}}"),)),
    ),
}  # fmt: skip


def _targets(panel: Panel) -> list[dict[str, Any]]:
    return [
        {
            "refId": chr(ord("A") + number),
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "expr": query.replace("@", _CHOSEN),
            "legendFormat": legend,
            "range": panel.kind != "stat",
            "instant": panel.kind == "stat",
        }
        for number, (query, legend) in enumerate(panel.queries)
    ]


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.bad is not None:
        steps.append({"color": "red", "value": panel.bad})
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "none"}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        defaults["custom"] = {
            "fillOpacity": 30 if panel.stacked else 0,
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": stacking,
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.help,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options, "targets": _targets(panel),
    }  # fmt: skip


def _panels() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        small = row[0].kind == "stat"
        in_line = len(row) if small else min(len(row), 3)
        height, width = (4, _WIDTH // in_line) if small else (8, _WIDTH // in_line)
        made.append(
            {
                "id": len(made) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1},
            }
        )
        y += 1
        for number, panel in enumerate(row):
            line, column = divmod(number, in_line)
            place = {"x": column * width, "y": y + line * height, "w": width, "h": height}
            made.append(_panel(panel, len(made) + 1, place))
        y += -(-len(row) // in_line) * height
    return made


def _variables() -> list[dict[str, Any]]:
    asked = {"query": "label_values(synfin_records, instance)", "refId": "instance"}
    return [
        {"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus", "current": {}, "hide": 0},
        {
            "name": "instance", "label": "Instance", "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "definition": asked["query"], "query": asked, "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
            "allValue": ".+", "current": {"selected": True, "text": ["All"], "value": ["$__all"]}, "hide": 0,
        },
    ]  # fmt: skip


def dashboard() -> str:
    """The dashboard's text."""
    made = {
        "title": "synfin live", "uid": "synfin-live", "description": "TCP connections by `synfin live` (docs/metrics.md).",
        "tags": ["synfin", "tcp"], "schemaVersion": 39, "version": 1, "editable": True, "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"}, "refresh": "30s", "timezone": "",
        "templating": {"list": _variables()}, "annotations": {"list": []}, "links": [], "panels": _panels(),
    }  # fmt: skip
    return json.dumps(made, indent=1) + "\n"
