"""`synfin explain`: one connection as a person reads it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import click

from synfin.cli.options import record_options
from synfin.cli.selection import Input, none_matches, refuse_pipes, selection_from, selection_options, tell
from synfin.errors import ConfigError

if TYPE_CHECKING:
    from synfin.explain.select import Found
    from synfin.explain.steps import IcmpError, Step
    from synfin.settings import Selection

_LISTED = 20
_MATCHES = 10
_FLAGS = {"fin": 0x01, "syn": 0x02, "rst": 0x04}


def _only(context: click.Context, parameter: click.Parameter, value: str | None) -> int:
    names = [name.strip() for name in (value or "").lower().split(",") if name.strip()]
    if unknown := [name for name in names if name not in _FLAGS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(_FLAGS)}")
    return sum({_FLAGS[name] for name in names})


@click.command(short_help="Explain a connection, segment by segment.")
@click.argument("captures", nargs=-1, required=True, metavar="CAPTURE...")
@selection_options
@click.option(
    "--first",
    type=click.IntRange(1, 1000),
    metavar="N",
    help=f"The N connections that began first (of those asked for).  [default: {_MATCHES} with --client or --server]",
)
@click.option(
    "--only",
    "only",
    callback=_only,
    metavar="FLAGS",
    help="Show only segments with one of these flags, such as syn,fin,rst.",
)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@record_options
def explain(captures: tuple[str, ...], **options: Any) -> int:
    """Explain connections: each segment as `tcpdump -n -S` writes it, the state of both ends after it, what it did, and at
    the end what the record came to and by which rule.

    CAPTURE is what `synfin track` takes; give the options that decide what belongs to a connection (timeouts, --key,
    --duplicates, --filter, --from, --to) as you gave them to it: flow_id and rows are then the same. Without a choice, a
    capture's only connection is explained; of several, the first 20 are listed.

    The captures are read twice: to find the connections, and to explain them. Standard input is copied to a temporary
    file for that; a named pipe is refused.

    Exit code 1 means that a capture is broken: what was read before it is explained. Exit code 2 means that no connection
    matches, or a wrong call.
    """
    given = Input.of(captures, options)
    if "-" in captures and sys.stdin.isatty():
        raise ConfigError("standard input is a terminal; pipe or redirect a capture into it")
    refuse_pipes(captures, "explain")
    selection = selection_from(options)
    if "-" in captures:
        _make_rewindable()
    found, complete = _find(given, selection, options["first"])
    if selection and not found.rows:
        raise none_matches(selection, found.total, complete)
    if not selection and options["first"] is None and found.total > 1:
        _list(found, options["as_json"])
    else:
        _explain(given, found, options)
    return 0 if complete else 1


def _make_rewindable() -> None:
    descriptor = sys.stdin.fileno()
    try:
        os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        with tempfile.TemporaryFile() as copy, open(descriptor, "rb", closefd=False) as pipe:
            shutil.copyfileobj(pipe, copy)
            copy.flush()
            os.dup2(copy.fileno(), descriptor)
            os.lseek(descriptor, 0, os.SEEK_SET)


def _find(given: Input, selection: Selection | None, first: int | None) -> tuple[Found, bool]:
    from synfin.cli.progress import Progress
    from synfin.explain.select import COLUMNS, find
    from synfin.run import Run

    start = os.lseek(sys.stdin.fileno(), 0, os.SEEK_CUR) if "-" in given.captures else 0
    source = given.open()
    with Progress() as progress:
        run = Run(
            source, given.settings, flow_columns=COLUMNS, interval_columns=[], filter=given.filter, tick=progress.tick
        )
        progress.watch(run)
        found = find(run, selection, first or (_MATCHES if selection else _LISTED))
    if "-" in given.captures:
        os.lseek(sys.stdin.fileno(), start, os.SEEK_SET)
    tell(run.report.warnings)
    return found, run.outcome.complete


def _list(found: Found, as_json: bool) -> None:
    import json

    from synfin.explain.render import Text
    from synfin.explain.select import listing
    from synfin.output.render import number

    if as_json:
        click.echo(json.dumps({"total": found.total, "matching": found.matching, "listed": found.rows}, indent=1))
        return
    text = listing(found.rows, Text().width)
    if (more := found.total - len(found.rows)) > 0:
        text += f"and {number(more, 'more connection')}\n"
    text += "\nChoose: --flow ID, --client IP[:PORT], --server IP[:PORT] or --first N.\n"
    click.echo(text, nl=False)


def _explain(given: Input, found: Found, options: dict[str, Any]) -> None:
    from synfin.cli.progress import Progress
    from synfin.explain.render import Json, Record, Spool, Text
    from synfin.explain.steps import Playback, final_rows, identity
    from synfin.output.render import number

    writer = Json() if options["as_json"] else Text(colours=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
    spool = Spool()
    records = {identity(row): Record(writer.step, spool) for row in found.rows}

    def tell(step: Step | IcmpError) -> None:
        records[identity(step.row)].tell(step)

    with Progress() as progress:
        run = Playback(
            given.open(),
            given.settings,
            found.rows,
            tell,
            flags=options["only"],
            filter=given.filter,
            tick=progress.tick,
        )
        progress.watch(run)
        rows = final_rows(run, records.keys())
    explained = [(record, rows[name]) for name, record in records.items() if name in rows]

    def out(text: str) -> None:
        click.echo(text, nl=False)

    if isinstance(writer, Json):
        writer.document(explained, {"total": found.total, "matching": found.matching}, out)
        return
    writer.document(explained, out)
    if not explained:
        click.echo("No TCP connection.")
    if (more := found.matching - len(found.rows)) > 0:
        click.echo(f"\n{number(more, 'more connection')} like that; --first N explains more of them.")
