"""What the tests of stores share: a secret, and some rows on their way to a target."""

from __future__ import annotations

from pathlib import Path

from synfin.output.arrow import Layout
from synfin.output.writer import Output, Target
from synfin.run import Run
from synfin.settings import Settings
from synfin.sources.captures import CaptureInput

SECRET = "not-to-be-shown"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TABLES = ("flows", "intervals")


def begun(target: Target) -> Output:
    """An output with the rows of an example, neither committed nor aborted."""
    output = Output(target, {table: Layout.choose(table) for table in target.tables})
    for table, block in Run(CaptureInput([EXAMPLES / "31-port-reuse.pcap"]), Settings()).blocks():
        if table in target.tables:
            output.write(table, block)
    return output


def written(target: Target) -> Output:
    """A complete output."""
    output = begun(target)
    output.commit({})
    return output
