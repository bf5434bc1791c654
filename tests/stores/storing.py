"""What the tests of stores share: a secret, and some rows on their way to a target."""

from __future__ import annotations

from pathlib import Path

import synfin
from synfin.output.arrow import Layout
from synfin.output.writer import Output, Target

SECRET = "not-to-be-shown"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TABLES = ("flows", "intervals")


def begun(target: Target) -> Output:
    """An output with the rows of an example, neither committed nor aborted."""
    output = Output(target, {table: Layout.choose(table) for table in target.tables})
    for table in target.tables:
        for batch in synfin.scan(EXAMPLES / "31-port-reuse.pcap", table=table):
            output.write(table, batch)
    return output


def written(target: Target) -> Output:
    """A complete output."""
    output = begun(target)
    output.commit({})
    return output
