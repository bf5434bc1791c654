"""A live run from the opened sockets to the last file: workers, output, metrics, signals, and what a service manager is told."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from synfin.errors import ConfigError, ExportError
from synfin.output.summary import file_metadata
from synfin.sidecar import privileges
from synfin.sidecar.config import LiveConfig
from synfin.sidecar.logs import Logs
from synfin.sidecar.notify import Notifier
from synfin.sidecar.snapshot import ServiceSnapshot, alive, build_facts, ready
from synfin.sidecar.workers import LiveWorkers

if TYPE_CHECKING:
    from synfin._core.block import Block
    from synfin.output.arrow import Layout
    from synfin.output.writer import Output, Target
    from synfin.sidecar.endpoint import Endpoint
    from synfin.sidecar.rolling import Rolling
    from synfin.sources.live import LiveInput


def open_inputs(config: LiveConfig) -> list[LiveInput]:
    """The inputs of all workers, listening. Raises CaptureOpenError and ConfigError as LiveInput does."""
    from synfin.sources.fanout import FanoutGroup
    from synfin.sources.live import SNAPLEN, LiveInput

    group = FanoutGroup(config.workers) if config.workers > 1 else None
    snaplen = config.snaplen or (None if config.settings.checksum == "verify" else SNAPLEN)
    inputs: list[LiveInput] = []
    try:
        for _ in range(config.workers):
            inputs.append(
                LiveInput(
                    config.interfaces, ring_bytes=config.ring << 20, block_bytes=config.block << 10,
                    block_timeout_ms=max(config.block_timeout // 1_000_000, 1), snaplen=snaplen, filter=config.filter,
                    promiscuous=config.promiscuous, timestamps=config.timestamps, seconds=config.seconds, fanout=group,
                )
            )  # fmt: skip
        for each in inputs:
            each.listen()
    except BaseException:
        for each in inputs:
            each.close()
        raise
    return inputs


#: What is loaded late elsewhere, and here while that is allowed for certain.
_LATER = ("json", "shlex", "tomllib", "difflib", "_strptime", "synfin.output.render", "synfin.output.summary")
#: How often files, health and what the log tells are looked at.
_LOOK_S = 0.5


class Service:
    """One live run.

    Parameters
    ----------
    config : what to do.
    rows : gives where rows go, and the layout of each table that is kept there. Raises ConfigError.
    flow_columns : columns of the flow table that `consume` needs beside those that are kept.
    consume : gets every block of rows before it is written, as ``consume(table, block)``.
    command : the command line, for the metadata of files.
    reread : the configuration as it stands now, for SIGHUP; None where there is no file. Raises ConfigError.
    tick : called at least every quarter of a second.

    Notes
    -----
    The constructor opens all sockets and then drops all privileges but CAP_NET_RAW; no thread is started before that. Code is
    loaded before it as well, as far as possible: the user of afterwards may have no right to read it.
    """

    def __init__(
        self,
        config: LiveConfig,
        rows: Callable[[], tuple[Target | None, dict[str, Layout]]],
        *,
        flow_columns: list[str],
        consume: Callable[[str, Block], None],
        command: list[str],
        reread: Callable[[], LiveConfig] | None = None,
        tick: Callable[[], None] | None = None,
    ):
        self.config = config
        self.logs = Logs(config.log_format)
        self._target: Target | None = None
        self._layouts: dict[str, Layout] = {}
        self._consume, self._command, self._reread, self._also = consume, command, reread, tick
        self._started, self._build = time.time(), build_facts()
        self._hung_up = self._stopping = False
        self._written: dict[str, int] = {}
        self._told_error: str | None = None
        self._told_unpruned: str | None = None
        self._told_up: dict[str, bool] = {}
        self._told_drops = 0
        self._due = 0.0
        self._rolling: Rolling | None = None
        self._output: Output | None = None
        self._endpoint: Endpoint | None = None
        self._tracking = False
        self._notify = Notifier()
        inputs = open_inputs(config)
        self.workers: LiveWorkers | None = None
        try:
            self._endpoint = self._listen()
            # An allocator that pyarrow has aboard and does not use starts a thread when it is loaded.
            os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
            self._target, self._layouts = rows()
            self._check()
            make = self._output_maker()
            for name in _LATER:
                import_module(name)
            if threads := privileges.drop(config.user):
                self.logs.warning("threads_keep_privileges", threads=", ".join(threads))
            self._make(make)
            flows, intervals = self._columns(flow_columns)
            self.workers = LiveWorkers(
                inputs, config.settings, flow_columns=flows, interval_columns=intervals, services=config.services,
                tick=self._tick,
            )  # fmt: skip
        except BaseException:
            for each in inputs:
                each.close()
            self.abort()
            self.close()
            raise
        self.workers.interim_ns = config.interim
        if self._rolling:
            self.workers.ask_for_room(self._rolling_has_room)

    # ------------------------------------------------------------------ before the run

    @property
    def _rolls(self) -> bool:
        target = self._target
        return target is not None and target.folder and target.format == "parquet" and isinstance(target.path, Path)

    def _check(self) -> None:
        config = self.config
        if config.services and config.metrics is None:
            raise ConfigError("--services is about metrics; add --metrics [HOST:]PORT")
        if not self._rolls and (useless := [name for name in ("interim", "keep") if getattr(config, name)]):
            raise ConfigError(f"--{useless[0]} is about the files of a local folder of Parquet; add -o FOLDER")
        if self._rolls and config.overwrite:
            raise ConfigError("a live run adds files to its folder (--overwrite); --keep removes old ones")
        self._check_interim(config)

    def _check_interim(self, config: LiveConfig) -> None:
        if config.interim and "flows" not in self._layouts:
            raise ConfigError("--interim writes rows of the flow table, which --table leaves out")

    def _columns(self, needed: list[str]) -> tuple[list[str], list[str]]:
        kept = {table: self._layouts[table].names if table in self._layouts else [] for table in ("flows", "intervals")}
        return list(dict.fromkeys([*kept["flows"], *needed])), kept["intervals"]

    def _listen(self) -> Endpoint | None:
        if self.config.metrics is None:
            return None
        from synfin.sidecar.endpoint import Endpoint
        from synfin.sidecar.metrics import SynfinCollector

        host, port = self.config.metrics
        return Endpoint(host, port, SynfinCollector(self.snapshot, self.config.services), self.health, self.ready, logs=self.logs)

    def _output_maker(self) -> Callable[[], None]:
        # What opens the output, with all code that it needs loaded.
        if self._target is None:
            return lambda: None
        if self._rolls:
            from synfin.sidecar.rolling import Rolling

            return lambda: self._open_folder(Rolling)
        from synfin.output import formats
        from synfin.output.writer import Output

        assert formats.FORMATS[self._target.format]
        return lambda: setattr(self, "_output", Output(self._target, self._layouts))

    def _make(self, make: Callable[[], None]) -> None:
        try:
            make()
        except ExportError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            as_user = f"as user {self.config.user}, " if self.config.user else ""
            raise ExportError(f"{error}; by then the run goes on {as_user}without root's rights") from error

    def _open_folder(self, rolling: type[Rolling]) -> None:
        layouts = dict(self._layouts)
        if "flows" in layouts:
            layouts["interim"] = layouts["flows"].for_interim()
        config, keep = self.config, dict(self.config.keep)
        self._rolling = rolling(
            self._target.path, layouts, roll_ns=config.roll, roll_rows=config.roll_rows, metadata=self._metadata,
            keep_ns=keep.get("ns"), keep_bytes=keep.get("bytes"),
        )  # fmt: skip

    def _metadata(self) -> dict[str, str]:
        return file_metadata(self.workers, self._command)

    # ------------------------------------------------------------------ the run

    def run(self) -> None:
        """Track until `stop`, or until an input ends; all rows are then under their final names.

        Raises
        ------
        SynfinError : a worker failed, or a file could not be written (a folder of rolled files: see `rows_lost`). What could
            be kept is kept, also where the error is one that nobody expects.
        """
        if self._endpoint:
            self._endpoint.start()
        try:
            self._pump()
        except Exception as error:
            self._tell_failure(error)
            self.workers.fail("synfin", error)
            if self._rolling:
                self._rolling.close()
            raise
        self._notify.stopping()
        if self._rolling:
            self._rolling.close()
        self._tell_changes()  # those of the end, too
        if self._output:
            self._output.commit(self._metadata())

    def _pump(self) -> None:
        self.workers.start()
        self._tracking = True
        self._notify.ready(f"tracking {', '.join(self.workers.interfaces)}")
        self._inform("started", interfaces=", ".join(self.workers.interfaces), workers=len(self.workers.workers))
        for table, block in self.workers.blocks():
            if table != "interim":
                self._consume(table, block)
            if self._rolling and (table in self._layouts or table == "interim"):
                self._rolling.write(table, block, wait=self.workers.is_ending)
            elif self._output and table in self._layouts:
                self._output.write(table, block)
            self._written[table] = self._written.get(table, 0) + block.rows

    def _tick(self) -> None:
        if self._also:
            self._also()
        if self._hung_up:
            self._hung_up = False
            self._roll()
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + _LOOK_S
        if self._rolling:
            self._rolling.tick()
        if self.health()[0]:
            self._notify.alive()
        self._tell_changes()
        self.logs.tick()

    def _inform(self, event: str, **fields: str | int) -> None:
        # Text is for somebody who looks on, and who asked for a summary: nothing is said while all is well.
        if self.config.log_format == "json":
            self.logs.info(event, **fields)

    def _tell_failure(self, error: Exception) -> None:
        # The one line that ends every command says the rest: here what a log is searched for, and what a report needs.
        if self.config.log_format == "json":
            cause = error.__cause__ or error
            self.logs.error("failed", reason=str(error), traceback="".join(traceback.format_exception(cause)))

    def _tell_changes(self) -> None:
        error = self._rolling.error if self._rolling else None
        if error != self._told_error:
            if error:
                self.logs.error("output_failed", reason=error)
            else:
                self.logs.warning("output_resumed", rows_lost=self.rows_lost)
            self._told_error = error
        unpruned = self._rolling.prune_error if self._rolling else None
        if unpruned != self._told_unpruned:
            if unpruned:
                self.logs.warning("pruning_failed", reason=unpruned)
            else:
                self.logs.warning("pruning_resumed")
            self._told_unpruned = unpruned
        for name, up in self.workers.interface_up.items():
            if self._told_up.get(name, True) != up:
                self.logs.warning("interface_up" if up else "interface_down", interface=name)
            self._told_up[name] = up
        drops = self.workers.drops
        if drops != self._told_drops:
            self.logs.warning("packets_dropped", count=drops - self._told_drops, total=drops)
            self._told_drops = drops

    def _roll(self) -> None:
        # SIGHUP: the files of now get their names; what can change meanwhile changes.
        self._notify.reloading()
        if self._reread:
            try:
                config, others = self.config.reloaded(self._reread())
                self._check_interim(config)
            except ConfigError as error:
                self.logs.error("not_reread", reason=str(error))
            else:
                self.config = config
                self._apply()
                if others:
                    self.logs.warning("restart_needed", keys=", ".join(sorted(others)))
        if self._rolling:
            self._rolling.roll()
        self._inform("rolled")
        self._notify.ready(f"tracking {', '.join(self.workers.interfaces)}")

    def _apply(self) -> None:
        config, keep = self.config, dict(self.config.keep)
        if self._rolling:
            self.workers.interim_ns = config.interim
            self._rolling.change(
                roll_ns=config.roll, roll_rows=config.roll_rows, keep_ns=keep.get("ns"), keep_bytes=keep.get("bytes")
            )

    # ------------------------------------------------------------------ from signal handlers

    def stop(self) -> None:
        """End the run in order."""
        self._stopping = True
        self.workers.stop()

    def hang_up(self) -> None:
        """Begin new files, and read the configuration again."""
        self._hung_up = True
        self.workers.wake()

    # ------------------------------------------------------------------ from any thread

    def _rolling_has_room(self) -> bool:
        return self._rolling.has_room

    def snapshot(self) -> ServiceSnapshot:
        """What workers last published, and what was written."""
        rolling = self._rolling
        written = rolling.rows_written if rolling else self._written
        return ServiceSnapshot(
            workers=tuple(worker.published for worker in self.workers.workers) if self.workers else (),
            rows_written=dict(written),
            files_written=dict(rolling.files_written) if rolling else {},
            output_error=rolling.error if rolling else None,
            started=self._started,
            interim_rows=written.get("interim", 0),
            build=self._build,
            rows_lost=dict(rolling.rows_lost) if rolling else {},
        )

    def health(self) -> tuple[bool, str]:
        """Whether every worker lives, and a line that says so."""
        return alive(self.snapshot())

    def ready(self) -> tuple[bool, str]:
        """Whether packets are tracked and rows are written, and a line that says so."""
        if self._stopping or not self._tracking:
            return False, "stopping" if self._stopping else "starting"
        return ready(self.snapshot(), self.config.workers)

    # ------------------------------------------------------------------ after the run

    @property
    def outputs(self) -> list[str]:
        """Where the rows went."""
        if self._output:
            return self._output.names
        return [str(self._target.path)] if self._rolling and self._target else []

    @property
    def rows_lost(self) -> int:
        """Rows that could not be written to the folder of rolled files."""
        return sum(self._rolling.rows_lost.values()) if self._rolling else 0

    def abort(self) -> None:
        """Give up what is not under its final name."""
        if self._output:
            self._output.abort()

    def close(self) -> None:
        """End threads, close sockets."""
        if self._endpoint:
            self._endpoint.close()
        if self.workers:
            self.workers.close()
        self._notify.close()
        self.logs.close()
