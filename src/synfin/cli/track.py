"""`synfin track`: captures to rows and a summary."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from synfin.cli.job import Job, destination, job_options
from synfin.cli.options import narrowing_from, narrowing_options, settings_from, settings_options
from synfin.errors import ConfigError
from synfin.run import MOST_WORKERS, choose_workers
from synfin.stores import is_url, shown


@click.command(short_help="Track captures: rows and a summary.")
@click.argument("captures", nargs=-1, required=True, metavar="CAPTURE...")
@click.option("--strict", is_flag=True, help="Exit 1 also when only the last packet of a capture is cut.")
@click.option("--workers", type=click.IntRange(1, MOST_WORKERS), metavar="N", help="Track on N cores. The rows are the same, in another order.  [default: as many as help]")
@narrowing_options
@job_options
@settings_options
def track(captures: tuple[str, ...], **options: Any) -> int:
    """Track the TCP connections of captures (pcap, pcapng; plain, gzip, zstd, lz4, xz, bzip2).

    CAPTURE is a file, a glob, a folder, - for standard input, or the URL of a file or folder (s3://, gs://, file://; what
    pyarrow opens). All of them are one stream, merged by time. The summary goes to standard output, or to standard error when the rows go to standard output.

    Durations are times of the capture's own clock, written like 75s, 2h4m or 500ms.
    """
    from synfin.sources.captures import CaptureInput

    filter, window = narrowing_from(options)
    settings = settings_from(options)
    _check_input(captures, options["out"])
    rows = destination(options, settings)
    source = CaptureInput(list(captures), strict=options["strict"], window=window, max_memory=settings.max_memory)
    workers = choose_workers(options["workers"], source.bytes_total, settings)
    return Job(source, settings, rows, options, filter=filter, workers=workers).execute()


def _check_input(captures: tuple[str, ...], out: str | None) -> None:
    if "-" in captures and sys.stdin.isatty():
        raise ConfigError("standard input is a terminal; pipe or redirect a capture into it")
    for capture in captures:
        if out and is_url(out) and shown(out) == shown(capture):
            raise ConfigError(f"{shown(out)} is both input and output; write the rows to another place")
        if out and os.path.isfile(out) and os.path.isfile(capture) and os.path.samefile(out, capture):
            raise ConfigError(f"{out} is both input and output; write the rows to another file")
