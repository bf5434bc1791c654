"""`synfin live` as it is installed: a process on the servers' end of the cable, its metrics and its rows."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
from netns import Namespace

from live_truth.kernel import CONNECTION_GAUGES, END_GAUGES

_PATIENCE_S = 30.0
_MOST_S = "1800"  # a run ends by itself, should this process be killed
_SAMPLE = re.compile(r"(?m)^(synfin_\S+(?:\{.*\})?) (\S+)$")


class SidecarFailed(Exception):
    """The sidecar did not start, answer or end as it should; the text says what."""


class Sidecar:
    """A run on one interface of a namespace; several in one need ports of their own."""

    def __init__(self, namespace: Namespace, interface: str, folder: Path, *options: str, port: int = 9108):
        self.folder = folder
        self._port = port
        self._namespace = namespace
        command = [
            "live",
            interface,
            "-o",
            str(folder),
            "--metrics",
            str(port),
            "--json",
            "--seconds",
            _MOST_S,
            *options,
        ]
        self._process = namespace.popen(
            [sys.executable, "-m", "synfin", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ},
        )  # fmt: skip
        end = time.monotonic() + _PATIENCE_S
        while self._namespace.get(self._port, "/readyz") is None:
            if self._process.poll() is not None or time.monotonic() > end:
                self._process.kill()
                raise SidecarFailed(self._process.communicate()[1].strip() or "not ready")
            time.sleep(0.1)

    def metrics(self) -> dict[str, float]:
        """All samples of a scrape, by name and labels as they are written."""
        text = self._namespace.get(self._port, "/metrics")
        if text is None:
            raise SidecarFailed("no metrics")
        return {name: float(value) for name, value in _SAMPLE.findall(text)}

    def gauges(self) -> dict[str, int]:
        """The gauges of a scrape, under the interval table's names."""
        told = self.metrics()
        found = {name: int(told[f'synfin_ends{{state="{state}"}}']) for name, state in END_GAUGES.items()}
        for name in CONNECTION_GAUGES:
            found[name] = int(told["synfin_connections" if name == "connections" else f"synfin_connections_{name}"])
        return found

    def end(self) -> str:
        """End the run by SIGTERM; its summary. Raises SidecarFailed where it says more, or fails."""
        self._process.send_signal(signal.SIGTERM)
        out, err = self._process.communicate(timeout=_PATIENCE_S)
        if self._process.returncode or err:
            raise SidecarFailed(f"exit code {self._process.returncode}: {err.strip()}")
        return out

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def sidecar(namespace: Namespace, interface: str, folder: Path, *options: str, port: int = 9108) -> Iterator[Sidecar]:
    """A run that does not outlive the block."""
    run = Sidecar(namespace, interface, folder, *options, port=port)
    try:
        yield run
    finally:
        run.kill()


def rows(folder: Path, table: str, columns: list[str] | None = None) -> list[dict]:
    """Rows of a table that a run wrote; instants as integers."""
    told = ds.dataset(folder / table, format="parquet", exclude_invalid_files=False).to_table(columns=columns)
    for at, field in enumerate(told.schema):
        if pa.types.is_timestamp(field.type):
            told = told.set_column(at, field.name, told[field.name].cast(pa.int64()))
    return told.to_pylist()
