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
from synfin.schema import BY, TABLES

if TYPE_CHECKING:
    from synfin.output.arrow import Layout
    from synfin.output.writer import Output, Target
    from synfin.settings import Settings

_OPTIONS = (
    click.option("-o", "--output", "out", metavar="OUT", help="Where rows go: a file (the ending names the format), a folder (all tables), the URL of either (s3://...), or - for standard output. Without it: the summary alone."),
    click.option("--format", type=click.Choice(FORMAT_NAMES), help="Format of the rows.  [default: by ending; parquet in a folder; arrow to -]"),
    click.option("--table", type=click.Choice(list(TABLES)), help="The table that a file holds; in a folder, only this one.  [default: flows; all in a folder]"),
    click.option("--append", is_flag=True, help="Add part files to a folder that holds rows of earlier runs."),
    click.option("--overwrite", is_flag=True, help="Replace what earlier runs left in the folder, once this run has ended, also by Ctrl-C."),
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


def destination(options: dict[str, Any], settings: Settings) -> tuple[Target | None, dict[str, Layout]]:
    """Where the rows of a run go, and the layout of each table that is kept. Raises ConfigError."""
    how = {name: options[name] for name in ("format", "table", "append", "overwrite")}
    if options["out"] is not None:
        from synfin.output.arrow import Layout
        from synfin.output.writer import Target

        target = Target.parse(options["out"], tables=settings.tables, **how)
        _check_tables(target.tables, settings)
        names = _names(options["names"], target)
        return target, {table: Layout.choose(table, names, options["profile"]) for table in target.tables}
    if useless := [name for name in (*how, "names") if options[name]]:
        raise ConfigError(f"--{'columns' if useless[0] == 'names' else useless[0]} says how rows are kept; add -o OUT")
    if settings.by:
        raise ConfigError("--by makes a table of rows; add -o OUT")
    return None, {}


def _check_tables(kept: tuple[str, ...], settings: Settings) -> None:
    for by, table in BY.items():
        if table in kept and by not in settings.by:
            raise ConfigError(f"the table {table} is there where it is asked for; add --by {by}")
        if by in settings.by and table not in kept:
            raise ConfigError(f"--by {by} makes the table {table}; write to a folder, or add --table {table}")


def _names(text: str | None, target: Target) -> list[str] | None:
    if text is None:
        return None
    if len(target.tables) > 1:
        raise ConfigError("--columns names the columns of one table; choose it with --table")
    return [name.strip() for name in text.split(",") if name.strip()]


class Findings:
    """What the summary takes from rows as they pass: failures by server, and the first connections.

    `head` is how many of these are asked for; `columns` names those of the flow table that it needs.
    """

    def __init__(self, head: int):
        from synfin.output.render import HEAD_COLUMNS
        from synfin.output.summary import FLOW_COLUMNS, FirstRows, Servers

        self.servers = Servers()
        self.first = FirstRows(head)
        self.columns = list(dict.fromkeys([*FLOW_COLUMNS, *(HEAD_COLUMNS if head else ())]))
        self._layout: Layout | None = None

    def add(self, table: str, block: Any) -> None:
        """Take a block of either table."""
        if table == "flows":
            self.servers.add(block)
            if self.first.count:
                self.first.add(self._head().batch(block))

    def _head(self) -> Layout:
        if self._layout is None:
            from synfin.output.arrow import Layout
            from synfin.output.render import HEAD_COLUMNS

            self._layout = Layout.choose("flows", HEAD_COLUMNS, "lakehouse")
        return self._layout


def report(summary: dict[str, Any], findings: Findings, target: Target | None, as_json: bool) -> None:
    """Print the summary: to standard error where standard output is taken by rows."""
    from synfin.output.render import first_rows, harmless, summary_text

    to_stderr = target is not None and target.path is None
    rows = findings.first.rows
    if as_json:
        if findings.first.count:
            summary["head"] = rows
        import json

        click.echo(json.dumps(summary, indent=1).replace("\x7f", "\\u007f"), err=to_stderr)  # all others it escapes itself
        return
    text = summary_text(summary)
    if rows:
        import shutil

        text += "\n" + first_rows(rows, shutil.get_terminal_size((100, 24)).columns)
    if target is None:
        text += "\nTo keep the rows, add -o OUT: a folder, or a file such as rows.parquet.\n"
    elif not to_stderr:
        text += f"\nWritten: {', '.join(summary['outputs'])}\n"
    click.echo(harmless(text), nl=False, err=to_stderr)


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
    ):
        self.source = source
        self.settings = settings
        self.target, self.layouts = rows
        self.filter = filter
        self.workers = workers
        self.findings = Findings(options["head"] or 0)
        self.as_json = options["as_json"]

    def execute(self) -> int:
        """Run, write, say what happened."""
        from synfin.output.summary import file_metadata, summarize

        output = None
        try:
            output = self._output()
            started = time.monotonic()
            with Progress() as progress:
                run = self._run(progress)
                with stopped_by_signal(run.stop) as came:
                    self._pump(run, output)
                    seconds = time.monotonic() - started
                    if output:
                        output.commit(file_metadata(run, ["synfin", *sys.argv[1:]]))
        except BaseException:
            self.source.close()
            if output:
                output.abort()
            raise
        summary = summarize(run, self.findings.servers, seconds, output.names if output else [])
        report(summary, self.findings, self.target, self.as_json)
        return 0 if summary["complete"] else 128 + came[0] if run.interrupted else 1

    def _output(self) -> Output | None:
        if self.target is None:
            return None
        from synfin.output.writer import Output

        return Output(self.target, self.layouts)

    def _run(self, progress: Progress) -> Run:
        flows = self.findings.columns
        if "flows" in self.layouts:
            flows = list(dict.fromkeys([*self.layouts["flows"].names, *flows]))
        intervals = self.layouts["intervals"].names if "intervals" in self.layouts else []
        run = Run(
            self.source, self.settings, flow_columns=flows, interval_columns=intervals, filter=self.filter, tick=progress.tick,
            workers=self.workers,
        )  # fmt: skip
        progress.watch(run)
        return run

    def _pump(self, run: Run, output: Output | None) -> None:
        for table, block in run.blocks():
            self.findings.add(table, block)
            if output and table in self.layouts:
                output.write(table, block)
