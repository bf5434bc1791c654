"""The tables of docs/metrics.md, from the declaration of the metrics (src/synfin/sidecar/metrics.py)."""

from __future__ import annotations

from synfin.sidecar.metrics import BOUNDS, METRICS, Declared


def _row(metric: Declared) -> str:
    labels = ", ".join(f"`{label.name}`" for label in metric.labels)
    return f"| `{metric.sample_name}` | {metric.kind} | {labels} | {metric.help} | `{metric.source}` |"


def tables() -> str:
    """A table for each section: name in queries, type, labels, meaning, and where the value comes from."""
    head = ["| metric | type | labels | meaning | from |", "| --- | --- | --- | --- | --- |"]
    parts = ["\n".join([f"### {section}", "", *head, *map(_row, metrics)]) for section, metrics in METRICS.items()]
    return "\n\n".join(parts)


def labels() -> str:
    """The values of every label."""
    found = {}
    for metrics in METRICS.values():
        for metric in metrics:
            for label in metric.labels:
                found.setdefault((label.name, label.values and tuple(label.values)), []).append(metric.sample_name)
    rows = []
    for (name, values), metrics in found.items():
        what = ", ".join(f"`{value}`" for value in values) if values else "as configured"
        rows.append(f"| `{name}` | {', '.join(f'`{metric}`' for metric in metrics)} | {what} |")
    return "\n".join(["| label | of | values |", "| --- | --- | --- |", *rows])


def bounds() -> str:
    """The buckets' upper bounds."""
    return f"{len(BOUNDS)} buckets: {', '.join(f'{bound / 1e9:.9g}' for bound in BOUNDS)} s, and `+Inf`."
