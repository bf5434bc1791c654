"""`synfin extract`: the packets of single connections, as they were captured."""

from __future__ import annotations

import os
import stat
from array import array
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synfin.cli.options import End, narrowing_from, narrowing_options, settings_from, settings_options
from synfin.cli.progress import Progress
from synfin.errors import ConfigError, SynfinError
from synfin.output.render import endpoint
from synfin.run import Run
from synfin.settings import Selection, Settings

if TYPE_CHECKING:
    from synfin.sources.captures import CaptureInput
    from synfin.sources.filter import Filter

#: Endings that promise something other than pcapng.
_OTHER_ENDINGS = {".pcap", ".cap", ".dmp", ".gz", ".zst", ".lz4", ".xz", ".bz2"}


@click.command(short_help="Write the packets of single connections to a capture.")
@click.argument("captures", nargs=-1, required=True, metavar="CAPTURE...")
@click.option("--flow", type=click.IntRange(0, (1 << 63) - 1), metavar="ID", help="The connection with this flow_id, and no other on the same ends.")
@click.option("--client", type=End(), metavar="IP[:PORT]", help="Connections of this client. IPv6 with a port: [2001:db8::1]:443.")
@click.option("--server", type=End(), metavar="IP[:PORT]", help="Connections to this server. With --client: between the two.")
@click.option("-o", "--output", "out", required=True, metavar="OUT", help="The capture to write, x.pcapng, or - for standard output.")
@narrowing_options
@settings_options
def extract(captures: tuple[str, ...], **options: Any) -> int:
    """Write the packets of single connections to a pcapng file: those of their rows in the flow table, whole as they
    were captured, with their timestamps, lengths, link types and interfaces, in the merged order of the input.

    CAPTURE is a file, a glob or a folder, as for `synfin track`; it is read twice. Give the options that decide what
    belongs to a connection (timeouts, --key, --filter, --from, --to) as you gave them to `synfin track`: flow_id and rows
    are then the same.

    Exit code 1 means that no connection matches, and then no file is written; or that a capture is broken: what was
    read before it is written.
    """
    narrowing = narrowing_from(options)
    settings = settings_from(options)
    selection = Selection(options["flow"], options["client"], options["server"])
    path = None if options["out"] == "-" else Path(options["out"])
    _check(captures, path)
    return _Extraction(list(captures), settings, selection, *narrowing).write(path)


def _check(captures: tuple[str, ...], path: Path | None) -> None:
    for capture in captures:
        if capture == "-" or (os.path.exists(capture) and stat.S_ISFIFO(os.stat(capture).st_mode)):
            name = "standard input" if capture == "-" else capture
            raise ConfigError(f"{name} can be read only once, and extract reads twice; write it to a file first")
        if path and path.is_file() and os.path.isfile(capture) and os.path.samefile(path, capture):
            raise ConfigError(f"{path} is both input and output; write the packets to another file")
    if path and path.suffix.lower() in _OTHER_ENDINGS:
        raise ConfigError(f"extract writes pcapng, plain; {path} promises something else")


class _Extraction:
    """Two passes over captures: which packets belong to the records asked for, and then those packets."""

    def __init__(self, captures: list[str], settings: Settings, selection: Selection, filter: Filter | None, window: Any):
        self._captures = captures
        self._settings = settings
        self._selection = selection
        self._filter = filter
        self._window = window

    def _open(self) -> CaptureInput:
        from synfin.sources.captures import CaptureInput

        return CaptureInput(self._captures, window=self._window)

    def write(self, path: Path | None) -> int:
        """Both passes; the exit code."""
        run = self._track()
        records, places = run.tracker.selected()
        wanted = array("q", places)
        for warning in run.report.warnings:
            click.echo(f"synfin: {warning}", err=True)
        if not records:
            raise SynfinError(f"no connection matches {_asked(self._selection)}; nothing was written")
        self._copy(wanted, path)
        what = f"{len(wanted):,} packet{'s' * (len(wanted) != 1)} of {records:,} connection{'s' * (records != 1)}"
        click.echo(f"{what}: {path or 'standard output'}", err=path is None)
        return 0 if run.outcome.complete else 1

    def _track(self) -> Run:
        with Progress() as progress:
            run = Run(
                self._open(), self._settings, flow_columns=[], interval_columns=[], filter=self._filter,
                selection=self._selection, tick=progress.tick,
            )  # fmt: skip
            progress.watch(run)
            for _ in run.blocks():
                pass
        return run

    def _copy(self, wanted: array[int], path: Path | None) -> None:
        from synfin.output.pcapng import PcapngFile

        file = PcapngFile(path)
        try:
            with self._open() as source:
                copied = _copy_packets(source, wanted, file)
            if copied != len(wanted):
                raise SynfinError("the captures changed while they were read; nothing was written")
            file.commit()
        except BaseException:
            file.abort()
            raise


def _asked(selection: Selection) -> str:
    # 2001:db8::1:443 is an address without a port, which is told best by reading it back.
    asked = [] if selection.flow_id is None else [f"flow {selection.flow_id}"]
    for name, end in (("client", selection.client), ("server", selection.server)):
        if end is not None:
            address, port = str(ip_address(end[0])), end[1]
            asked.append(f"{name} {address} (any port)" if port is None else f"{name} {endpoint(address, port)}")
    return " and ".join(asked)


def _copy_packets(source: CaptureInput, wanted: array[int], file: Any) -> int:
    # The packets of `wanted` places, from 1, ascending.
    past, at = 0, 0
    for batch in source:
        while at < len(wanted) and wanted[at] <= past + len(batch):
            *packet, interface_id = batch.captured(wanted[at] - past - 1)
            file.add(*packet, source.interfaces[interface_id] if interface_id >= 0 else None)
            at += 1
        if at == len(wanted):
            break
        past += len(batch)
    return at
