"""A real Prometheus server scrapes the endpoint while captures are tracked, and answers queries with the right numbers."""

from __future__ import annotations

import shutil
import statistics
from collections import Counter
from collections.abc import Iterator

import pytest
from replayed import EXAMPLES
from scraping import Prometheus, Worker, scraping

from rows import figures_by_service, slow
from synfin import schema
from synfin.sidecar.metrics import METRICS

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian package prometheus)"
)


SERVICES = [("10.20.0.80", 443), ("10.20.0.80", 7002)]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory) -> Iterator[tuple[Prometheus, dict[str, float]]]:
    """The server when it has seen all examples tracked, and the packets that the first scrape found."""
    with scraping(tmp_path_factory.mktemp("prometheus"), Worker(EXAMPLES, services=SERVICES)) as (prometheus, early):
        yield prometheus, {"early": early}


@pytest.fixture(scope="module")
def truth():
    """Rows of both tables by the slow tracker, and its account."""
    return slow(EXAMPLES)


def test_the_target_is_up_and_every_type_is_as_declared(scraped):
    prometheus, _ = scraped
    assert prometheus.number("up") == 1
    types = {one["metric"]: one["type"] for one in prometheus.ask("targets/metadata")}
    for metric in (metric for metrics in METRICS.values() for metric in metrics):
        absent = metric.name == "synfin_records_limit"
        assert types.get(metric.name) == (None if absent else metric.kind), metric.name


def test_gauges(scraped, truth):
    prometheus, _ = scraped
    last = truth[1][-1]
    ends = prometheus.query("synfin_ends")
    assert ends == {frozenset({("state", state)}): last[state.lower().replace("-", "_")] for state in schema.STATES[2:]}
    assert sum(ends.values()) > 10
    assert (
        prometheus.number('sum(synfin_ends{state=~"TIME-WAIT|CLOSE-WAIT"})') == last["time_wait"] + last["close_wait"]
    )
    assert prometheus.number("synfin_connections") == last["connections"]
    assert prometheus.number("synfin_connections_half_closed") == last["half_closed"] > 0


def test_counters_and_their_growth(scraped, truth):
    prometheus, seen = scraped
    flows, intervals, _ = truth
    packets = prometheus.number("synfin_packets_total")
    assert (
        prometheus.number(
            "sum(synfin_packets_total) - sum(synfin_record_packets_total) - sum(synfin_skipped_packets_total)"
        )
        == 0
    )
    assert prometheus.number("synfin_record_packets_total") == sum(row["packets"] for row in intervals)
    grown = "max_over_time(synfin_packets_total[5m]) - min_over_time(synfin_packets_total[5m])"
    assert prometheus.number(grown) == packets - seen["early"] > 0
    assert prometheus.number("resets(synfin_packets_total[5m])") == 0
    attempts = prometheus.query("synfin_attempts_total")
    assert attempts[frozenset({("outcome", "refused")})] == sum(row["refused"] for row in intervals) > 0
    assert attempts[frozenset({("outcome", "half_open")})] == sum(row["half_open_expired"] for row in intervals) > 0
    closes = {next(iter(labels))[1]: count for labels, count in prometheus.query("synfin_closes_total > 0").items()}
    assert closes == Counter(row["close"] for row in flows if row["close"])
    assert prometheus.number("synfin_ring_dropped_packets_total") == 3
    assert prometheus.number('synfin_output_rows_total{table="flows"}') == 12


def test_listed_services(scraped, truth):
    prometheus, _ = scraped
    figures = figures_by_service(EXAMPLES)
    first, second = (figures[service] for service in SERVICES)
    syns = prometheus.query("synfin_service_syns_total")
    assert syns == {frozenset({("service", f"{ip}:{port}")}): figures[ip, port]["syns"] for ip, port in SERVICES}
    ends = prometheus.query('synfin_service_ends{service="10.20.0.80:443"} > 0')
    states = {state: first[state.lower().replace("-", "_")] for state in schema.STATES[2:]}
    told = {dict(labels)["state"]: value for labels, value in ends.items()}
    assert told == {state: count for state, count in states.items() if count} and told["TIME-WAIT"]
    share = 'synfin_service_connections{service="10.20.0.80:443"} / on() synfin_connections'
    assert prometheus.number(share) == first["connections"] / truth[1][-1]["connections"]
    assert prometheus.number("sum(synfin_service_packets_total)") == first["packets"] + second["packets"] > 0
    assert len(prometheus.query('count by (service) ({__name__=~"synfin_service_.*"})')) == len(SERVICES)


def test_round_trips(scraped, truth):
    prometheus, _ = scraped
    sure = [row["rtt_server_ns"] / 1e9 for row in truth[0] if row["rtt_server_quality"] in ("clean", "matched")]
    assert prometheus.number("synfin_rtt_server_seconds_count") == len(sure)
    assert prometheus.number("synfin_rtt_server_seconds_sum") == pytest.approx(sum(sure), rel=1e-9)
    median = prometheus.number("histogram_quantile(0.5, synfin_rtt_server_seconds_bucket)")
    assert statistics.median(sure) / 1.5 <= median <= statistics.median(sure) * 1.5


def test_labels_are_bounded(scraped):
    prometheus, _ = scraped
    known = {label.name for metrics in METRICS.values() for metric in metrics for label in metric.labels}
    build = {"version", "python", "implementation", "machine"}
    assert set(prometheus.ask("labels")) <= known | build | {"__name__", "job", "instance", "le"}
    assert prometheus.number("scrape_samples_post_metric_relabeling") < 300
