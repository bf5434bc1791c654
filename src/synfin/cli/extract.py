"""`synfin extract`: the packets of single connections, as they were captured."""

from __future__ import annotations

import os
import sys
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from synfin.cli.options import record_options
from synfin.cli.progress import Progress
from synfin.cli.selection import Input, none_matches, read_once, refuse_pipes, selection_from, selection_options, tell
from synfin.errors import ConfigError, SynfinError
from synfin.output.render import number
from synfin.run import Run
from synfin.settings import Selection
from synfin.sources.paths import expand
from synfin.stores import is_url, shown

if TYPE_CHECKING:
    from synfin.sources.captures import CaptureInput

#: Endings that promise something other than pcapng.
_OTHER_ENDINGS = {".pcap", ".cap", ".dmp", ".gz", ".zst", ".lz4", ".xz", ".bz2"}


@click.command(short_help="Write the packets of single connections to a capture.")
@click.argument("captures", nargs=-1, required=True, metavar="CAPTURE...")
@selection_options
@click.option("-o", "--output", "out", required=True, metavar="OUT", help="The capture to write, x.pcapng, or - for standard output.")
@record_options
def extract(captures: tuple[str, ...], **options: Any) -> int:
    """Write the packets of single connections to a pcapng file: those of their rows in the flow table, whole as they
    were captured, with their timestamps, lengths, link types and interfaces, in the merged order of the input.

    CAPTURE is a file, a glob or a folder, as for `synfin track`; it is read twice. Give the options that decide what
    belongs to a connection (timeouts, --key, --duplicates, --filter, --from, --to) as you gave them to `synfin track`:
    flow_id and rows are then the same.

    Exit code 1 means that a capture is broken: what was read before it is written. Exit code 2 means that no connection
    matches, or a wrong call; no file is written then.
    """
    given = Input.of(captures, options)
    selection = selection_from(options) or Selection()  # which says what is missing
    if is_url(options["out"]):
        raise ConfigError(f"extract writes no URLs such as {shown(options['out'])}; name a file, and copy it there")
    path = None if options["out"] == "-" else Path(options["out"])
    _check(captures, path)
    return _Extraction(given, selection).write(path)


def _check(captures: tuple[str, ...], path: Path | None) -> None:
    if "-" in captures:
        raise read_once("standard input", "extract")
    refuse_pipes(captures, "extract")
    if path and path.is_file():
        local = [capture for capture in captures if not is_url(capture)]
        for file in expand(local) if local else ():  # also what a folder or a glob brings
            if os.path.isfile(file) and os.path.samefile(path, file):
                raise ConfigError(f"{path} is both input and output; write the packets to another file")
    if path is None and sys.stdout.isatty():
        raise ConfigError("packets are not for a terminal; name a file to write, or redirect the output")
    if path and path.is_dir():
        raise ConfigError(f"{path} is a folder; name the file to write, such as {path / 'small.pcapng'}")
    if path and path.suffix.lower() in _OTHER_ENDINGS:
        raise ConfigError(f"extract writes pcapng, plain; {path} promises something else")


class _Extraction:
    """Two passes over captures: which packets belong to the records asked for, and then those packets."""

    def __init__(self, given: Input, selection: Selection):
        self._given = given
        self._selection = selection

    def write(self, path: Path | None) -> int:
        """Both passes; the exit code."""
        run = self._track()
        records, places = run.tracker.selected()
        wanted = array("q", places)
        tell(run.report.warnings)
        if not records:
            raise none_matches(self._selection, run.tracker.stats()["records"], run.outcome.complete)
        self._copy(wanted, path)
        what = f"{number(len(wanted), 'packet')} of {number(records, 'connection')}"
        click.echo(f"{what}: {click.format_filename(path) if path else 'standard output'}", err=path is None)
        return 0 if run.outcome.complete else 1

    def _track(self) -> Run:
        with Progress() as progress:
            run = Run(
                self._given.open(), self._given.settings, flow_columns=[], interval_columns=[], filter=self._given.filter,
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
            with self._given.open() as source:
                copied = _copy_packets(source, wanted, file)
            if copied != len(wanted):
                raise SynfinError("the captures changed while they were read; nothing was written")
            file.commit()
        except BaseException:
            file.abort()
            raise


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
