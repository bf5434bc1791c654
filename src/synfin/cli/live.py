"""`synfin live`: a network interface to rows and a summary."""

from __future__ import annotations

import faulthandler
import signal
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from synfin.cli.job import Findings, destination, report
from synfin.cli.options import Parsed, settings_options
from synfin.cli.progress import Progress
from synfin.cli.signals import stopped_by_signal
from synfin.errors import ConfigError
from synfin.sidecar.config import FLAG, NAMES, LiveConfig, Option, option_of

if TYPE_CHECKING:
    from synfin.output.arrow import Layout
    from synfin.output.writer import Target
    from synfin.sidecar.service import Service


def _type(name: str, option: Option) -> click.ParamType | None:
    kind = option.kind
    if kind.choices:
        return click.Choice(kind.choices)
    if int in kind.types and kind.least is not None:
        bounds = click.FloatRange if float in kind.types else click.IntRange
        return bounds(kind.least, kind.most)
    return Parsed(name, kind.value) if kind.parse and kind is not NAMES else None


def live_options(command: Callable[..., Any], only: Collection[str] | None = None) -> Callable[..., Any]:
    """Add an option for every field of LiveConfig that is one, or for some of them. Defaults are the configuration's: None
    is not given.
    """
    for each in reversed(fields(LiveConfig)):
        option = option_of(each)
        if option is None or (only is not None and each.name not in only):
            continue
        names = option.names or (f"--{each.name.replace('_', '-')}",)
        if option.kind is FLAG:
            how: dict[str, Any] = {"is_flag": True, "default": None}
        else:
            how = {"type": _type(each.name, option), "metavar": option.metavar or None, "multiple": option.several}
        command = click.option(*names, each.name, help=option.help, **how)(command)
    return command


@click.command(short_help="Track network interfaces: rows, metrics and a summary.")
@click.argument("interfaces", nargs=-1, metavar="IFACE...")
@click.option("--config", "file", metavar="FILE", help="A TOML file: a key for every option, without the dashes before it, and `interfaces`. The command line comes first. Read again on SIGHUP.")
@live_options
@settings_options
def live(interfaces: tuple[str, ...], file: str | None, **options: Any) -> int:
    """Track the TCP connections that pass each IFACE (Linux; needs CAP_NET_RAW). Several are those of one tap.

    Ctrl-C or SIGTERM ends the run: what has come is tracked, open connections are written as they stand, and the
    summary says what was lost before it was read. SIGHUP begins new files. The summary goes to standard output, or to
    standard error when the rows go to standard output. An interface that goes down, or is removed and made again, is
    waited for. Exit code 1 means that a worker failed or rows could not be written.

    Times are those of the kernel's stamps, written like 75s, 2h4m or 500ms; on an idle link they go on.
    """
    given = given_options(options)
    if interfaces:
        given["interfaces"] = interfaces

    def read() -> LiveConfig:
        return LiveConfig.of(given, file)

    config = read()
    if not config.interfaces:
        raise ConfigError("name an interface: synfin live IFACE, or `interfaces` in the file of --config")
    return _Job(config, read if file else None).execute()


def given_options(options: dict[str, Any]) -> dict[str, Any]:
    """What the command line says, as LiveConfig takes it; what it leaves out is the file's, or the default."""
    source = click.get_current_context().get_parameter_source
    given = {name: value for name, value in options.items() if source(name) is ParameterSource.COMMANDLINE}
    if "key" in given:
        given["key"] = tuple(filter(None, (part.strip() for part in given["key"].split(","))))
    return given


class _Job:
    # One live run, from the configuration to the exit code.

    def __init__(self, config: LiveConfig, reread: Callable[[], LiveConfig] | None):
        self.config = config
        self.findings = Findings(config.head or 0)
        self.progress = Progress()
        self.reread = reread
        self.target: Target | None = None
        self.service: Service | None = None
        self.stopped = False

    def execute(self) -> int:
        from synfin.output.summary import summarize

        if sys.__stderr__ is not None and not faulthandler.is_enabled():
            faulthandler.enable(sys.__stderr__)  # a fatal signal, the watchdog's SIGABRT too, is told with what threads did
        before = signal.signal(signal.SIGHUP, lambda *_: self._hang_up())
        try:
            with stopped_by_signal(self._stop):
                self.service = service = self._open()
                started = time.monotonic()
                self._run(service)
                seconds = time.monotonic() - started
        finally:
            signal.signal(signal.SIGHUP, before)
        summary = summarize(service.workers, self.findings.servers, seconds, service.outputs)
        report(summary, self.findings, self.target, self.config.json)
        if service.rows_lost:
            click.echo(f"synfin: {service.rows_lost:,} rows could not be written to {self.config.out}", err=True)
        return 0 if summary["complete"] and not service.rows_lost else 1

    def _open(self) -> Service:
        from synfin.sidecar.service import Service

        return Service(
            self.config, self._destination, flow_columns=self.findings.columns, consume=self.findings.add,
            command=["synfin", *sys.argv[1:]], reread=self.reread, tick=self.progress.tick,
        )  # fmt: skip

    def _run(self, service: Service) -> None:
        try:
            with self.progress:
                self.progress.watch(service.workers)
                if self.stopped:  # by a signal, before there was anything to stop
                    service.stop()
                service.run()
        except BaseException:
            service.abort()
            raise
        finally:
            service.close()

    def _destination(self) -> tuple[Target | None, dict[str, Layout]]:
        self.progress.load()
        self.target, layouts = destination(vars(self.config), self.config.settings)
        return self.target, layouts

    def _stop(self) -> None:
        self.stopped = True
        if self.service:
            self.service.stop()

    def _hang_up(self) -> None:
        if self.service:
            self.service.hang_up()
