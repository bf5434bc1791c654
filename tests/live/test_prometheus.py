"""A real Prometheus server scrapes the endpoint while captures are tracked, and answers queries with the right numbers."""

from __future__ import annotations

import json
import shutil
import socket
import statistics
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import serving
from replayed import EXAMPLES, service, tap

from rows import slow
from synfin import schema
from synfin.run import Run
from synfin.settings import Settings
from synfin.sidecar.metrics import METRICS, SynfinCollector
from synfin.sidecar.snapshot import WorkerSnapshot
from synfin.sources.captures import CaptureInput

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian package prometheus)"
)
PATIENCE = 60.0  # seconds until the server has started, and until it has seen a change
_CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: synfin
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class Worker:
    """Tracks captures in a thread of its own and lays down a snapshot after each batch; waits after the first one."""

    def __init__(self, paths: list[Path]):
        self.last: WorkerSnapshot | None = None
        self.go_on = threading.Event()
        self._tap = tap(ring_packets=1000, ring_drops=3, interface_rx_dropped=5, softnet=2)
        self._run = Run(CaptureInput([str(path) for path in paths]), Settings(), tick=self._tick)
        self.thread = threading.Thread(target=self._track)

    def _tick(self) -> None:
        self.last = WorkerSnapshot.take(0, self._run.tracker, self._tap)
        assert self.go_on.wait(2 * PATIENCE)

    def _track(self) -> None:
        for _ in self._run.blocks():
            pass
        self.last = WorkerSnapshot.take(0, self._run.tracker, self._tap)


class Prometheus:
    """A server that scrapes one port of loopback, with all its data in a folder."""

    def __init__(self, folder: Path, port: int):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        config = folder / "prometheus.yml"
        config.write_text(_CONFIG.format(port=port))
        with open(folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
                 f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"],
                stdout=log, stderr=log, cwd=folder,
            )  # fmt: skip

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, path: str, **parameters: str):
        """The data of an answer of its API."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            told = json.load(answer)
        assert told["status"] == "success"
        return told["data"]

    def query(self, expression: str) -> dict[frozenset, float]:
        """The values of an instant query by their labels, job and instance left out."""
        result = self.ask("query", query=expression)["result"]
        left_out = ("job", "instance", "__name__")
        return {
            frozenset((name, value) for name, value in one["metric"].items() if name not in left_out): float(
                one["value"][1]
            )
            for one in result
        }

    def number(self, expression: str) -> float | None:
        """The only value of an instant query; None while there is none."""
        (value,) = self.query(expression).values() or (None,)
        return value

    def wait_for(self, expression: str, value: float) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if self.number(expression) == value:
                    return
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, "the server has ended"
            assert time.monotonic() < end, (expression, value)
            time.sleep(0.1)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory) -> Iterator[tuple[Prometheus, dict[str, float]]]:
    """The server when it has seen all examples tracked, and the packets that the first scrape found."""
    worker = Worker(EXAMPLES)
    worker.thread.start()
    end = time.monotonic() + PATIENCE
    while worker.last is None and time.monotonic() < end:
        time.sleep(0.01)

    def snapshot():
        return service(worker.last, rows_written={"flows": 12}, files_written={"flows": 1})

    with serving(SynfinCollector(snapshot)) as endpoint:
        prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), endpoint.port)
        try:
            early = worker.last.stats["packets"]
            prometheus.wait_for("synfin_packets_total", early)
            worker.go_on.set()
            worker.thread.join()
            prometheus.wait_for("synfin_packets_total", worker.last.stats["packets"])
            yield prometheus, {"early": early}
        finally:
            worker.go_on.set()
            prometheus.stop()


@pytest.fixture(scope="module")
def truth():
    """Rows of both tables by the slow tracker, and its account."""
    return slow(EXAMPLES)


def test_the_target_is_up_and_every_type_is_as_declared(scraped):
    prometheus, _ = scraped
    assert prometheus.number("up") == 1
    types = {one["metric"]: one["type"] for one in prometheus.ask("targets/metadata")}
    for metric in (metric for metrics in METRICS.values() for metric in metrics):
        absent = metric.name.startswith("synfin_service_") or metric.name == "synfin_records_limit"
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
    assert set(prometheus.ask("labels")) <= known - {"service"} | build | {"__name__", "job", "instance", "le"}
    assert prometheus.number("scrape_samples_post_metric_relabeling") < 300
