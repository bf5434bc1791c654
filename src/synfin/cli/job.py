"""What the commands that track have in common: where rows go, and one run from the opened source to the exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from synfin.cli.progress import Progress
from synfin.cli.signals import stopped_by_signal
from synfin.errors import ConfigError
from synfin.output import FORMAT_NAMES
from synfin.run import Run, Source
from synfin.schema import TABLES

if TYPE_CHECKING:
    from synfin.output.arrow import Layout
    from synfin.output.summary import FirstRows, Servers
    from synfin.output.writer import Output, Target
    from synfin.settings import Settings

_OPTIONS = (
    click.option("-o", "--output", "out", metavar="OUT", help="Where rows go: a file (the ending names the format), a folder (both tables), the URL of either (s3://...), or - for standard output. Without it: the summary alone."),
    click.option("--format", type=click.Choice(FORMAT_NAMES), help="Format of the rows.  [default: by ending; parquet in a folder; arrow to -]"),
    click.option("--table", type=click.Choice(list(TABLES)), help="The table that a file holds; in a folder, only this one.  [default: flows; both in a folder]"),
    click.option("--append", is_flag=True, help="Add part files to a folder that holds rows of earlier runs."),
    click.option("--overwrite", is_flag=True, help="Replace what earlier runs left in the folder, once this run is complete."),
    click.option("--columns", "names", metavar="NAMES", help="Columns to write, in this order, separated by commas; +NAMES adds to the default ones. `synfin columns` lists all.  [default: all but the optional ones, marked (o)]"),
    click.option("--profile", type=click.Choice(["native", "lakehouse"]), default="native", show_default=True, help="lakehouse: microsecond instants beside NAME_ns integers, plain strings, for Spark, Delta and Iceberg."),
    click.option("--json", "as_json", is_flag=True, help="The summary as JSON."),
    click.option("--head", type=click.IntRange(min=1), metavar="N", help="Also show the N connections that began first."),
)


def job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options about rows and summary."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def destination(options: dict[str, Any]) -> tuple[Target | None, dict[str, Layout]]:
    """Where the rows of a run go, and the layout of each table that is kept. Raises ConfigError."""
    how = {name: options[name] for name in ("format", "table", "append", "overwrite")}
    if options["out"] is not None:
        from synfin.output.arrow import Layout
        from synfin.output.writer import Target

        target = Target.parse(options["out"], **how)
        names = _names(options["names"], target)
        return target, {table: Layout.choose(table, names, options["profile"]) for table in target.tables}
    if useless := [name for name in (*how, "names") if options[name]]:
        raise ConfigError(f"--{'columns' if useless[0] == 'names' else useless[0]} says how rows are kept; add -o OUT")
    return None, {}


def _names(text: str | None, target: Target) -> list[str] | None:
    if text is None:
        return None
    if len(target.tables) > 1:
        raise ConfigError("--columns names the columns of one table; choose it with --table")
    return [name.strip() for name in text.split(",") if name.strip()]


class Job:
    """One run, from the opened source to the exit code.

    Parameters
    ----------
    source : where packets come from.
    settings : how to track.
    rows : where rows go (`destination`).
    options : the command's other options.
    filter : which packets are tracked; None for all (`Run`).
    workers : how many cores to track on (`Run`).
    stop : called by the first SIGINT or SIGTERM, to end the run in order; a second one ends the program at once. None: the
        run is broken off, and the input counts as not read to its end.
    """

    def __init__(
        self,
        source: Source,
        settings: Settings,
        rows: tuple[Target | None, dict[str, Layout]],
        options: dict[str, Any],
        *,
        filter: Callable[[int], bytes] | None = None,
        workers: int = 1,
        stop: Callable[[], None] | None = None,
    ):
        self.source = source
        self.settings = settings
        self.target, self.layouts = rows
        self.filter = filter
        self.workers = workers
        self.stop = stop
        self.head = options["head"] or 0
        self.as_json = options["as_json"]

    def execute(self) -> int:
        """Run, write, say what happened."""
        from synfin.output.summary import FirstRows, Servers, file_metadata, summarize

        servers, first = Servers(), FirstRows(self.head)
        output = None
        try:
            output = self._output()
            started = time.monotonic()
            with Progress() as progress:
                run = self._run(progress)
                with stopped_by_signal(self.stop or run.stop) as came:
                    self._pump(run, servers, first, output)
            seconds = time.monotonic() - started
            if output:
                output.commit(file_metadata(run, ["synfin", *sys.argv[1:]]))
        except BaseException:
            self.source.close()
            if output:
                output.abort()
            raise
        summary = summarize(run, servers, seconds, output.names if output else [])
        self._report(summary, first.rows)
        return 0 if summary["complete"] else 128 + came[0] if run.interrupted else 1

    def _output(self) -> Output | None:
        if self.target is None:
            return None
        from synfin.output.writer import Output

        return Output(self.target, self.layouts)

    def _run(self, progress: Progress) -> Run:
        from synfin.output.render import HEAD_COLUMNS
        from synfin.output.summary import FLOW_COLUMNS

        flows: list[str] = list(dict.fromkeys([*FLOW_COLUMNS, *(HEAD_COLUMNS if self.head else ())]))
        if "flows" in self.layouts:
            flows = list(dict.fromkeys([*self.layouts["flows"].names, *flows]))
        intervals = self.layouts["intervals"].names if "intervals" in self.layouts else []
        run = Run(
            self.source, self.settings, flow_columns=flows, interval_columns=intervals, filter=self.filter, tick=progress.tick,
            workers=self.workers,
        )  # fmt: skip
        progress.watch(run)
        return run

    def _pump(self, run: Run, servers: Servers, first: FirstRows, output: Output | None) -> None:
        head = None
        if self.head:
            from synfin.output.arrow import Layout
            from synfin.output.render import HEAD_COLUMNS

            head = Layout.choose("flows", HEAD_COLUMNS, "lakehouse")
        for table, block in run.blocks():
            if table == "flows":
                servers.add(block)
                if head:
                    first.add(head.batch(block))
            if output and table in self.layouts:
                output.write(table, block)

    def _report(self, summary: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        from synfin.output.render import first_rows, summary_text

        to_stderr = self.target is not None and self.target.path is None
        if self.as_json:
            if self.head:
                summary["head"] = rows
            import json

            click.echo(json.dumps(summary, indent=1), err=to_stderr)
            return
        text = summary_text(summary)
        if rows:
            import shutil

            text += "\n" + first_rows(rows, shutil.get_terminal_size((100, 24)).columns)
        if self.target is None:
            text += "\nTo keep the rows, add -o OUT: a folder, or a file such as rows.parquet.\n"
        elif not to_stderr:
            text += f"\nWritten: {', '.join(summary['outputs'])}\n"
        click.echo(text, nl=False, err=to_stderr)
