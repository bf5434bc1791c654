"""deploy/grafana: every query asks for what is declared, and a real Prometheus answers it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from promql import metrics_named, unknown_in
from replayed import EXAMPLES
from scraping import Worker, scraping

from rows import figures_by_service, slow
from synfin.settings import Settings
from synfin.sidecar.metrics import METRICS

DASHBOARD = json.loads((Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "synfin-live.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]}
SERVICE = ("10.20.0.80", 443)


def test_panels_have_names_of_their_own_and_do_not_overlap():
    assert len(PANELS) > 30 and len(QUERIES) == sum(len(panel["targets"]) for panel in PANELS)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    covered = Counter(
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    )
    assert max(covered.values()) == 1 and max(x for x, _ in covered) == 23


@pytest.mark.parametrize("name", QUERIES)
def test_queries_ask_for_what_there_is(name):
    assert metrics_named(QUERIES[name]) and unknown_in(QUERIES[name]) == []
    assert 'instance=~"$instance"' in QUERIES[name]


def test_every_metric_but_the_builds_is_shown():
    shown = {name for query in QUERIES.values() for name in metrics_named(query)}
    declared = {
        metric.sample_name + ("_bucket" if metric.kind == "histogram" else "")
        for metrics in METRICS.values()
        for metric in metrics
    }
    assert declared - shown == {
        "synfin_build_info",
        "synfin_service_connections_half_closed",
        "synfin_service_connections_opening",
        "synfin_service_packets_total",
        "synfin_service_syns_total",
    }


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """A server that has seen all examples tracked, with a cap on connections and a service of its own."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian package prometheus)")
    worker = Worker(EXAMPLES, Settings(max_flows=1000), [SERVICE])
    with scraping(tmp_path_factory.mktemp("prometheus"), worker) as (server, _):
        yield server


def asked(expression):
    """A query as Grafana sends it with all instances chosen."""
    return expression.replace("$instance", ".+").replace("$__rate_interval", "1m")


@pytest.mark.parametrize("name", QUERIES)
def test_prometheus_answers(prometheus, name):
    answer = prometheus.query(asked(QUERIES[name]))
    assert answer and all(value >= 0 for value in answer.values())


def test_figures(prometheus):
    _, intervals, _ = slow(EXAMPLES)
    last = intervals[-1]

    def number(title):
        return prometheus.number(asked(QUERIES[f"{title} A"]))

    assert number("Connections") == last["connections"] > 0
    assert (number("Opening"), number("Half-open")) == (last["opening"], last["half_open"])
    assert (number("TIME-WAIT"), number("CLOSE-WAIT")) == (last["time_wait"], last["close_wait"])
    assert number("Cannot write rows") == 0
    assert number("TIME-WAIT by service") == figures_by_service(EXAMPLES)[SERVICE]["time_wait"] > 0
    ends = prometheus.query(asked(QUERIES["Ends by state A"]))
    assert sum(ends.values()) > len(ends) == 9
