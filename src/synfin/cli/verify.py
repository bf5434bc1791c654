"""`synfin verify`: the rows beside what tshark and tcptrace say of the same capture."""

from __future__ import annotations

import json
import os

import click

from synfin.errors import ConfigError


@click.command(short_help="Compare the rows with tshark's and tcptrace's.")
@click.argument("captures", nargs=-1, required=True, metavar="CAPTURE...")
@click.option(
    "--json", "as_json", is_flag=True, help="The result as JSON: one object per capture, with every difference."
)
def verify(captures: tuple[str, ...], as_json: bool) -> int:
    """Compare synfin's rows of each CAPTURE with tshark's and tcptrace's, and name the reason of each difference.

    Both are run as programs where they are installed; without either, the rows are compared with synfin's slow tracker. A
    difference without a reason is printed with its packets and with the command that shows them. Reasons need the extra
    `reference` (pip install 'synfin[reference]').

    Whole captures are compared. For some connections, or a window of time, write their packets to a capture of their own with
    `synfin extract` and verify that.

    Exit codes: 0 nothing is unexplained, 1 something is, 2 wrong call or not a capture.
    """
    _check(captures)
    from synfin.verify.report import as_data, as_text
    from synfin.verify.run import verify as verify_one

    reports = [verify_one(capture) for capture in captures]
    if as_json:
        click.echo(json.dumps([as_data(report) for report in reports], indent=1))
    else:
        click.echo("\n".join(as_text(report) for report in reports), nl=False)
    return 1 if any(report.unexplained for report in reports) else 0


def _check(captures: tuple[str, ...]) -> None:
    # Every tool reads the file for itself, and the slow tracker once more.
    for capture in captures:
        if capture == "-" or (os.path.exists(capture) and not os.path.isfile(capture)):
            what = "standard input" if capture == "-" else capture
            raise ConfigError(f"{what} is no file, and verify reads it more than once; name the files themselves")
        if not os.path.exists(capture):
            raise ConfigError(f"{capture}: no such file")
