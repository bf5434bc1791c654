"""`synfin verify`: the rows beside what tshark and tcptrace say of the same capture."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synfin.cli.options import narrowing_from, narrowing_options, narrowing_words
from synfin.errors import CaptureOpenError, ConfigError, NotACaptureError

if TYPE_CHECKING:
    from synfin.sources.filter import Filter
    from synfin.sources.window import Window
    from synfin.verify.report import Report


@click.command(short_help="Compare the rows with tshark's and tcptrace's.")
@click.argument("captures", nargs=-1, required=True, metavar="CAPTURE...")
@click.option(
    "--json", "as_json", is_flag=True, help="The result as JSON: one object per capture, with every difference."
)
@narrowing_options
def verify(captures: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Compare synfin's rows of each CAPTURE with tshark's and tcptrace's, and name the reason of each difference.

    Both are run as programs where they are installed; without either, the rows are compared with synfin's slow tracker. A
    difference without a reason is printed with its packets and with the command that shows them. Reasons need the extra
    `reference` (pip install 'synfin[reference]').

    With --filter, --from or --to, the packets that they leave go to a temporary capture, which all tools then read; so does
    everything in a capture that not all of them can unpack.

    Exit codes: 0 nothing is unexplained; 1 something is, no TCP connection could be compared, a capture is corrupt, or one
    of several is no capture; 2 wrong call, or not a capture.
    """
    words = narrowing_words(options)
    narrowing = narrowing_from(options)
    _check(captures)
    reports = []
    for capture in captures:
        try:
            report = _compare(capture, *narrowing, words)
        except (NotACaptureError, CaptureOpenError) as error:
            if len(captures) == 1:
                raise
            report = _unread(capture, str(error))
        reports.append(report)
        if not as_json:
            _print(report, first=len(reports) == 1)
    if as_json:
        from synfin.verify.report import as_data

        click.echo(json.dumps([as_data(report) for report in reports], indent=1))
    return 0 if all(report.agrees for report in reports) else 1


def _check(captures: tuple[str, ...]) -> None:
    # Every tool reads the file for itself, and the slow tracker once more.
    for capture in captures:
        if capture == "-" or (os.path.exists(capture) and not os.path.isfile(capture)):
            what = "standard input" if capture == "-" else capture
            raise ConfigError(f"{what} is no file, and verify reads it more than once; name the files themselves")
        if not os.path.exists(capture):
            raise ConfigError(f"{capture}: no such file")


def _compare(capture: str, filter: Filter | None, window: Window | None, words: list[str]) -> Report:
    from synfin.verify.run import verify as compare

    with _saying(capture) as say:
        if filter is None and window is None and not _is_packed(capture):
            return compare(capture, None, say)
        from synfin.cli.narrowed import narrowed

        with tempfile.TemporaryDirectory(prefix="synfin-") as folder:
            say("copying what is compared")
            part = narrowed(capture, filter, window, words, Path(folder) / "narrowed.pcapng")
            return compare(capture, part, say)


def _is_packed(capture: str) -> bool:
    """Compressed in a way that not all tools read. All read gzip."""
    from synfin.sources.streams import HEAD_BYTES, codec_of

    try:
        with open(capture, "rb") as file:
            return codec_of(file.read(HEAD_BYTES)) not in (None, "gzip")
    except OSError:
        return False  # what is wrong is told by whoever reads it


@contextmanager
def _saying(capture: str) -> Iterator[Callable[[str], None]]:
    """Says on a terminal what is going on; nothing where standard error is none."""
    if not sys.stderr.isatty():
        yield lambda what: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("") as status:
        yield lambda what: status.update(Text(f"{capture}: {what}"))


def _unread(capture: str, why: str) -> Report:
    from synfin.verify.report import Report

    return Report(capture, complete=False, notes=[why])


def _print(report: Report, first: bool) -> None:
    from synfin.verify.report import as_text

    width = max(80, min(shutil.get_terminal_size((100, 24)).columns, 120))
    click.echo(("" if first else "\n") + as_text(report, width), nl=False)
