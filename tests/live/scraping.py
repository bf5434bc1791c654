"""A real Prometheus server that scrapes the endpoint while captures are tracked."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from asking import serving
from replayed import run_of, service, tap

from synfin.settings import Settings
from synfin.sidecar.metrics import SynfinCollector
from synfin.sidecar.snapshot import WorkerSnapshot

PATIENCE = 60.0  # seconds until the server has started, and until it has seen a change
_CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: synfin
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class Worker:
    """Tracks captures in a thread of its own and lays down a snapshot after each batch; waits after the first one.

    `services`, (address, port), are listed for metrics.
    """

    def __init__(self, paths: list[Path], settings: Settings | None = None, services: Sequence = ()):
        self.last: WorkerSnapshot | None = None
        self.services = services
        self.go_on = threading.Event()
        self._tap = tap(ring_packets=1000, ring_drops=3, interface_rx_dropped=5, softnet=2)
        self._run = run_of(paths, settings, services, self._tick)
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


@contextmanager
def scraping(folder: Path, worker: Worker) -> Iterator[tuple[Prometheus, int]]:
    """The server when it has seen all of the worker's captures tracked, and the packets that the first scrape found."""
    worker.thread.start()
    end = time.monotonic() + PATIENCE
    while worker.last is None and time.monotonic() < end:
        time.sleep(0.01)

    def snapshot():
        return service(worker.last, rows_written={"flows": 12}, files_written={"flows": 1})

    with serving(SynfinCollector(snapshot, worker.services)) as endpoint:
        prometheus = Prometheus(folder, endpoint.port)
        try:
            early = worker.last.stats["packets"]
            prometheus.wait_for("synfin_packets_total", early)
            worker.go_on.set()
            worker.thread.join()
            prometheus.wait_for("synfin_packets_total", worker.last.stats["packets"])
            yield prometheus, early
        finally:
            worker.go_on.set()
            prometheus.stop()
