"""The Python face: captures in, Arrow out. pyarrow is imported when it is needed, not before."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from synfin.errors import CaptureFormatError, ConfigError
from synfin.run import Run, choose_workers
from synfin.schema import BY, TABLES, Column
from synfin.settings import FROM_TEXT, Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from synfin.output.arrow import Layout
    from synfin.sources.filter import Filter
    from synfin.sources.live import LiveInput
    from synfin.sources.window import Window

Instant = str | int | datetime
Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


def columns(table: str = "flows") -> tuple[Column, ...]:
    """The columns of a table (``"flows"``, ``"intervals"``, ``"services"``, ``"clients"``) in order: name, kind, group and one
    sentence each.

    Raises ConfigError for another table.
    """
    if table not in TABLES:
        raise ConfigError(f"{table!r} is no table; choose one of {', '.join(TABLES)}")
    return TABLES[table]


def scan(
    paths: Paths,
    *,
    table: str = "flows",
    profile: str = "native",
    columns: Sequence[str] | None = None,
    filter: str | None = None,
    start: Instant | None = None,
    end: Instant | None = None,
    settings: Settings | None = None,
    strict: bool = False,
    workers: int | None = None,
    **keywords: Any,
) -> Scan:
    """Track captures as a stream of Arrow record batches, in memory bounded by the connections live at once.

    Parameters
    ----------
    paths : one capture, glob or folder, or several, also URLs such as ``"s3://bucket/day/"``; ``"-"`` is standard input.
        Together they are one stream.
    table : ``"flows"`` (one row per connection), ``"intervals"`` (one row per interval of capture time), ``"services"`` or
        ``"clients"`` (the interval table for each of the first `top` services or clients of an interval; the settings are
        then asked for that table, too).
    profile : ``"native"``: instants are timestamp[ns, UTC], enumerations and addresses dictionary-encoded.
        ``"lakehouse"``: instants are timestamp[us, UTC], rounded down, each followed by an int64 column
        ``<name>_ns`` with the exact nanoseconds since 1970; strings are plain.
    columns : names of the columns, in this order; all but the optional ones by default. ``["+zeek_history"]`` adds
        columns to these: a ``+`` before the first name.
    filter : a filter expression as tcpdump takes it, such as ``"tcp port 443"``; needs libpcap. Packets that do not match
        are skipped as ``filtered``.
    start, end : packets before `start`, at `end` or after it are skipped as ``outside_window``. Text (ISO 8601, UTC without
        an offset, or seconds since 1970), nanoseconds since 1970, or a datetime.
    settings : how to track; or single settings as keywords: ``idle_timeout="5m"`` (nanoseconds if a number),
        ``max_memory="2G"`` (bytes if a number).
    strict : a last packet that is cut is an error, too.
    workers : on how many cores to track; as many as help by default. The rows do not depend on it, but their order does.

    Returns
    -------
    An object that DuckDB, Polars, pandas and pyarrow take as it is. Nothing is opened before the first batch is
    asked for, and every pass over it reads the captures anew.

    Raises
    ------
    ConfigError : a table, profile, column or setting that does not exist; a number of workers out of range; a filter that libpcap does not take, or no libpcap;
        a window that holds nothing.
    """
    settings = _settings(settings, keywords, table)
    choose_workers(workers, None, settings)  # an error is told now
    from synfin.output.arrow import Layout
    from synfin.sources.filter import Filter
    from synfin.sources.window import Window

    layout, wanted = Layout.choose(table, columns, profile), None if filter is None else Filter(filter)
    return Scan(paths, layout, settings, strict, filter=wanted, window=Window.of(start, end), workers=workers)


def _settings(settings: Settings | None, keywords: dict[str, Any], table: str) -> Settings:
    if settings is not None and keywords:
        raise ConfigError("give settings or single settings as keywords, not both")
    if unknown := set(keywords) - {field.name for field in fields(Settings)}:
        raise ConfigError(f"no setting is called {min(unknown)!r}; synfin.Settings describes all")
    if settings is None:
        settings = Settings(
            **{k: FROM_TEXT[k](v) if isinstance(v, str) and k in FROM_TEXT else v for k, v in keywords.items()}
        )
    # Of tables by key, the one that is asked for and no other is kept.
    return replace(settings, by=tuple(by for by, name in BY.items() if name == table))


def _wanted(layout: Layout) -> dict[str, list[str]]:
    # The columns of either table that a layout needs; tables by key have all.
    names = {"flow_columns": "flows", "interval_columns": "intervals"}
    return {name: layout.names if layout.table == table else [] for name, table in names.items()}


def live(
    interfaces: str | Iterable[str],
    *,
    table: str = "flows",
    profile: str = "native",
    columns: Sequence[str] | None = None,
    filter: str | None = None,
    seconds: float | None = None,
    workers: int = 1,
    ring_bytes: int | str = 64 << 20,
    snaplen: int | None = None,
    promiscuous: bool = True,
    timestamps: str = "auto",
    settings: Settings | None = None,
    **keywords: Any,
) -> Live:
    """Track network interfaces as a stream of Arrow record batches (Linux; needs CAP_NET_RAW).

    Parameters
    ----------
    interfaces : the name of one, or the names of several: those of one tap.
    table, profile, columns, settings, keywords : as for `scan`.
    filter : an expression as tcpdump takes it, applied by the kernel: packets that do not match are not counted.
    seconds : end after so long; None to go on until `Live.stop`.
    workers : on how many cores to track, each with a ring of its own.
    ring_bytes : kernel memory for packets that wait, for each interface and worker; a number, or text such as ``"256M"``.
    snaplen : bytes to take of each packet; None for all.
    promiscuous : also take what is addressed to others.
    timestamps : ``"hardware"``, ``"software"``, or ``"auto"``: the card's where it has them.

    Returns
    -------
    An object to iterate over once: batches come about each second, and sooner where there are many rows. It listens from
    now on; packets wait in the ring until it is iterated over, and what does not fit there is counted in `Live.drops`.

    Raises
    ------
    CaptureOpenError : no such interface, no right to listen, not Linux.
    ConfigError : as for `scan`.
    """
    from synfin.output.arrow import Layout
    from synfin.settings import parse_size
    from synfin.sidecar.config import LiveConfig
    from synfin.sidecar.service import open_inputs

    layout = Layout.choose(table, columns, profile)
    config = LiveConfig(
        interfaces=(interfaces,) if isinstance(interfaces, str) else tuple(interfaces),
        settings=_settings(settings, keywords, table),
        seconds=seconds,
        workers=workers,
        ring=max((parse_size(ring_bytes) if isinstance(ring_bytes, str) else ring_bytes) >> 20, 1),
        snaplen=snaplen,
        filter=filter,
        promiscuous=promiscuous,
        timestamps=timestamps,
    )
    return Live(open_inputs(config), layout, config.settings)


class Live:
    """Rows of network interfaces as a stream; made by `live`, and to be iterated over once. A context manager.

    Iteration gives pyarrow record batches. It ends with the time that was asked for, after `stop`, or when an interface
    breaks off: all rows come first, open connections included, and then CaptureFormatError.
    """

    def __init__(self, inputs: list[LiveInput], layout: Layout, settings: Settings):
        from synfin.sidecar.workers import LiveWorkers

        self._layout = layout
        self._begun = False
        try:
            self._workers = LiveWorkers(inputs, settings, **_wanted(layout))
        except BaseException:
            for each in inputs:
                each.close()
            raise

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of every batch."""
        return self._layout.schema

    @property
    def stats(self) -> dict[str, Any]:
        """The tracker's account, about a second old while the run goes on."""
        return self._workers.stats()

    @property
    def drops(self) -> int:
        """Packets that the kernel dropped so far because a ring was full."""
        return self._workers.drops

    @property
    def warnings(self) -> list[str]:
        """What went wrong with the input, in sentences; once iteration has ended."""
        return self._workers.report.warnings

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        if self._begun:
            raise ConfigError("an interface can be iterated over only once; listen again with synfin.live")
        self._begun = True
        return self._batches()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for table, block in self._workers.blocks():
            if table == self._layout.table:
                yield self._layout.batch(block)
        if not self._workers.outcome.complete:
            raise self._workers.outcome.error()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The batches as an Arrow C stream (PyCapsule interface)."""
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(self.schema, iter(self)).__arrow_c_stream__(requested_schema)

    def stop(self) -> None:
        """End the run in order: iteration goes on with the rows of what has come, and ends. From any thread."""
        self._workers.stop()

    def close(self) -> None:
        """Stop listening; rows that were not taken are lost."""
        self._workers.close()

    def __enter__(self) -> Live:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(
    paths: Paths,
    *,
    table: str = "flows",
    profile: str = "native",
    columns: Sequence[str] | None = None,
    filter: str | None = None,
    start: Instant | None = None,
    end: Instant | None = None,
    settings: Settings | None = None,
    strict: bool = False,
    workers: int | None = None,
    **keywords: Any,
) -> pa.Table:
    """Track captures and return all rows. Parameters are those of `scan`.

    Notes
    -----
    pyarrow makes Python objects of nanosecond instants only with pandas installed; without it, `to_pylist` and
    `to_pydict` of a table raise ValueError at the first instant that is no whole microsecond. Two ways round it
    need no pandas: ``scan(...).to_pylist()``, and ``profile="lakehouse"`` here. Both give each instant as a
    datetime, rounded down to the microsecond, and beside it the exact nanoseconds as ``<name>_ns``.

    Raises
    ------
    CaptureFormatError : a capture is corrupt, or one of several breaks off. The exception carries `path` and
        `offset`, and in `table` all rows, as if the input had ended there.
    NotACaptureError, CaptureOpenError : there is nothing to read.
    ConfigError : as for `scan`.
    """
    import pyarrow as pa

    stream = scan(
        paths, table=table, profile=profile, columns=columns, filter=filter, start=start, end=end, settings=settings,
        strict=strict, workers=workers, **keywords,
    )  # fmt: skip
    batches: list[pa.RecordBatch] = []
    try:
        for batch in stream:
            batches.append(batch)
    except CaptureFormatError as error:
        error.table = pa.Table.from_batches(batches, stream.schema).unify_dictionaries()
        raise
    return pa.Table.from_batches(batches, stream.schema).unify_dictionaries()


class Scan:
    """Rows of captures as a stream; made by `scan`.

    Iteration gives pyarrow record batches. Where a capture is corrupt, all rows before it come first, open
    connections included, and then CaptureFormatError with its `path` and `offset`.
    """

    def __init__(
        self,
        paths: Paths,
        layout: Layout,
        settings: Settings,
        strict: bool,
        *,
        filter: Filter | None = None,
        window: Window | None = None,
        workers: int | None = None,
    ):
        self._paths = [os.fspath(paths)] if isinstance(paths, str | os.PathLike) else [os.fspath(p) for p in paths]
        self._layout = layout
        self._settings = settings
        self._strict = strict
        self._filter = filter
        self._window = window
        self._workers = workers
        self._stdin_taken = False
        #: Of the last pass that came to its end: the tracker's account, and what was wrong with the input, in sentences.
        self.stats: dict[str, Any] | None = None
        self.warnings: list[str] = []

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of every batch."""
        return self._layout.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._batches(self._layout)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A new pass as an Arrow C stream (PyCapsule interface)."""
        import pyarrow as pa

        return pa.RecordBatchReader.from_batches(self.schema, iter(self)).__arrow_c_stream__(requested_schema)

    def to_pylist(self) -> list[dict[str, Any]]:
        """All rows as dictionaries, without pandas: each instant as a datetime, rounded down to the microsecond, and
        beside it the exact nanoseconds since 1970 as ``<name>_ns`` (the lakehouse profile).
        """
        layout = self._layout.with_profile("lakehouse")
        return [row for batch in self._batches(layout) for row in batch.to_pylist()]

    def _batches(self, layout: Layout) -> Iterator[pa.RecordBatch]:
        from synfin.sources.captures import CaptureInput

        if "-" in self._paths:
            if self._stdin_taken:
                raise ConfigError("standard input can be read only once; scan a file to pass over it again")
            self._stdin_taken = True
        source = CaptureInput(
            self._paths, strict=self._strict, window=self._window, max_memory=self._settings.max_memory
        )
        workers = choose_workers(self._workers, source.bytes_total, self._settings)
        run = Run(source, self._settings, filter=self._filter, workers=workers, **_wanted(layout))
        for _, block in run.blocks():
            yield layout.batch(block)
        self.stats, self.warnings = run.tracker.stats(), run.report.warnings
        if not run.outcome.complete:
            raise run.outcome.error()
