"""What a query of Prometheus asks for, held against the declaration of the metrics."""

from __future__ import annotations

import re

from synfin.sidecar.metrics import METRICS

_SAMPLES = {
    name: (metric, suffix)
    for metrics in METRICS.values()
    for metric in metrics
    for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
    for name in [metric.sample_name + suffix]
}
#: Of the server itself, and of prometheus-client's process collector.
_OTHERS = {
    "up", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds",
    "process_max_fds", "process_start_time_seconds",
}  # fmt: skip
#: Labels that the server adds.
_ADDED = {"job", "instance"}
_SELECTOR = re.compile(r"\b(up|(?:synfin|process)_\w+)\b(?:\{([^}]*)\})?(\[)?")
_GROUPED = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


def unknown_in(expression: str) -> list[str]:
    """What a query names and nobody declares: metrics, labels, values of closed labels; and rates of what is no counter."""
    wrong, labels = [], set(_ADDED)
    for name, matchers, ranged in _SELECTOR.findall(expression):
        if name in _OTHERS:
            continue
        if name not in _SAMPLES:
            wrong.append(name)
            continue
        metric, suffix = _SAMPLES[name]
        own = {label.name: label.values for label in metric.labels} | ({"le": None} if suffix == "_bucket" else {})
        labels |= own.keys()
        for label, how, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers):
            if label not in own.keys() | _ADDED:
                wrong.append(f"{name}{{{label}}}")
            elif own.get(label) is not None and (
                unknown := set(value.split("|") if "~" in how else [value]) - own[label].keys()
            ):
                wrong.append(f"{name}{{{label}}}: {', '.join(sorted(unknown))}")
        growing = re.search(rf"\b(?:rate|irate|increase)\(\s*{name}\b", expression)
        if ranged and bool(growing) != (metric.kind in ("counter", "histogram")):
            wrong.append(f"a {metric.kind} over a range: {name}")
    grouped = {label.strip() for group in _GROUPED.findall(expression) for label in group.split(",") if label.strip()}
    if metrics_named(expression) - _OTHERS:
        wrong += sorted(grouped - labels)
    return wrong


def metrics_named(expression: str) -> set[str]:
    """The names of metrics in a query."""
    return {name for name, _, _ in _SELECTOR.findall(expression)}
