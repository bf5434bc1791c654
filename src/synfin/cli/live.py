"""`synfin live`: a network interface to rows and a summary."""

from __future__ import annotations

from typing import Any

import click

from synfin.cli.job import Job, destination, job_options
from synfin.cli.options import Parsed, settings_from, settings_options
from synfin.settings import parse_duration


@click.command(short_help="Track a network interface: rows and a summary.")
@click.argument("interface", metavar="IFACE")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), metavar="N", help="End after N seconds.  [default: run until Ctrl-C or SIGTERM]")
@click.option("--ring", type=click.IntRange(2, 65536), default=64, metavar="MIB", help="Kernel memory for packets that wait to be tracked.  [default: 64]")
@click.option("--block", type=click.IntRange(4, 65536), default=1024, metavar="KIB", help="The ring's memory is handed over in blocks of this size, a power of two.  [default: 1024]")
@click.option("--block-timeout", type=Parsed("duration", parse_duration), default="20ms", metavar="TIME", help="A block that is not full is handed over after so long.  [default: 20ms]")
@click.option("--filter", "expression", metavar="EXPR", help="Let only packets into the ring that match a filter expression as tcpdump takes it, or a program as `tcpdump -ddd` prints it.")
@click.option("--snaplen", type=click.IntRange(1, 262144), metavar="BYTES", help="Let so many bytes of each packet into the ring.  [default: 512; all with --checksum verify]")
@click.option("--promiscuous/--no-promiscuous", default=True, help="Also see packets that are for others.  [default: promiscuous]")
@click.option("--timestamps", type=click.Choice(["auto", "hardware", "software"]), default="auto", show_default=True, help="Whose clock stamps packets: the card's, the system's, or the card's where it does already and agrees with the system's.")
@job_options
@settings_options
def live(interface: str, **options: Any) -> int:
    """Track the TCP connections that pass IFACE (Linux; needs CAP_NET_RAW).

    Ctrl-C or SIGTERM ends the run: what has come is tracked, open connections are written as they stand, and the
    summary says what was lost before it was read. The summary goes to standard output, or to standard error when the
    rows go to standard output. An interface that goes down, or is removed and made again, is waited for. Exit code 1 means
    that rows could not be written.

    Times are those of the kernel's stamps, written like 75s, 2h4m or 500ms; on an idle link they go on.
    """
    from synfin.sources.live import SNAPLEN, LiveInput

    settings = settings_from(options)
    rows = destination(options)
    source = LiveInput(
        [interface], ring_bytes=options["ring"] << 20, block_bytes=options["block"] << 10,
        block_timeout_ms=options["block_timeout"] // 1_000_000, filter=options["expression"],
        snaplen=options["snaplen"] or (None if settings.checksum == "verify" else SNAPLEN),
        promiscuous=options["promiscuous"], timestamps=options["timestamps"], seconds=options["seconds"],
    )  # fmt: skip
    return Job(source, settings, rows, options, stop=source.stop).execute()
