"""`synfin live`: a network interface to rows and a summary."""

from __future__ import annotations

from typing import Any

import click

from synfin.cli.job import Job, destination, job_options
from synfin.cli.options import settings_from, settings_options


@click.command(short_help="Track a network interface: rows and a summary.")
@click.argument("interface", metavar="IFACE")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), metavar="N", help="End after N seconds.  [default: run until Ctrl-C or SIGTERM]")
@click.option("--ring", type=click.IntRange(2, 65536), default=64, metavar="MIB", help="Kernel memory for packets that wait to be tracked.  [default: 64]")
@job_options
@settings_options
def live(interface: str, **options: Any) -> int:
    """Track the TCP connections that pass IFACE (Linux; needs CAP_NET_RAW).

    Ctrl-C or SIGTERM ends the run: what has come is tracked, open connections are written as they stand, and the
    summary says what the kernel dropped. The summary goes to standard output, or to standard error when the rows go
    to standard output. Exit code 1 means that the interface went down or rows could not be written.

    Times are those of the kernel's stamps, written like 75s, 2h4m or 500ms; on an idle link they go on.
    """
    from synfin.sources.live import LiveInput

    settings = settings_from(options)
    rows = destination(options)
    source = LiveInput(interface, ring_bytes=options["ring"] << 20, seconds=options["seconds"])
    return Job(source, settings, rows, options, stop=source.stop).execute()
