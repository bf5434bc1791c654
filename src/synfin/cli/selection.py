"""What the commands about single connections share: the options that choose them, and what is said of the input."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import click

from synfin.cli.options import END, Parsed, narrowing_from, settings_from
from synfin.errors import ConfigError, SynfinError
from synfin.output.render import endpoint, number
from synfin.settings import Selection, Settings

if TYPE_CHECKING:
    from synfin.sources.captures import CaptureInput
    from synfin.sources.filter import Filter
    from synfin.sources.window import Window


def _flow_id(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) >= 1 << 63:
        raise ConfigError(f"{text!r} is no flow_id, which is a number below 2^63; `synfin explain` lists them")
    return int(text)


_TOLD = 12  #: warnings about the input that are told one by one
_OPTIONS = (
    click.option(
        "--flow",
        "flow_id",
        type=Parsed("flow_id", _flow_id),
        metavar="ID",
        help="The connection with this flow_id, and no other on the same ends.",
    ),
    click.option(
        "--client",
        type=END,
        metavar="IP[:PORT]",
        help="Connections of this client. IPv6 with a port: [2001:db8::1]:443.",
    ),
    click.option(
        "--server", type=END, metavar="IP[:PORT]", help="Connections to this server. With --client: between the two."
    ),
)


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose connections."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def selection_from(options: dict[str, Any]) -> Selection | None:
    """The selection that the options mean, None where they choose nothing; they are taken out of `options`."""
    asked = [options.pop(name) for name in ("flow_id", "client", "server")]
    return None if all(one is None for one in asked) else Selection(*asked)


@dataclass(frozen=True)
class Input:
    """What is read, twice, and how it is tracked."""

    captures: list[str]
    settings: Settings
    filter: Filter | None
    window: Window | None

    @classmethod
    def of(cls, captures: Iterable[str], options: dict[str, Any]) -> Input:
        """The input that arguments and options (`record_options`) mean; these are taken out of `options`. Raises ConfigError."""
        filter, window = narrowing_from(options)
        return cls(list(captures), replace(settings_from(options), by=()), filter, window)

    def open(self) -> CaptureInput:
        """A pass over the captures."""
        from synfin.sources.captures import CaptureInput

        return CaptureInput(self.captures, window=self.window, max_memory=self.settings.max_memory)


def refuse_pipes(captures: Iterable[str], command: str) -> None:
    """Raise ConfigError where one of the captures is a named pipe: a second pass would wait for ever."""
    for capture in captures:
        if os.path.exists(capture) and stat.S_ISFIFO(os.stat(capture).st_mode):
            raise read_once(capture, command)


def read_once(name: str, command: str) -> ConfigError:
    """What to raise for an input that cannot be read again."""
    return ConfigError(f"{name} can be read only once, and {command} reads twice; write it to a file first")


def none_matches(selection: Selection, connections: int, complete: bool) -> SynfinError:
    """What to raise where no connection is one of those asked for.

    Parameters
    ----------
    connections : how many there are.
    complete : the input was read to its end. Else the connection may stand behind the damage, and the damage decides the
        exit code.
    """
    if connections:
        told = f"none of {number(connections, 'connection')} matches {_asked(selection)}"
        told += "; `synfin explain` without --flow, --client and --server lists them"
    else:
        told = f"no connection matches {_asked(selection)}: there is no TCP connection at all"
    return ConfigError(told) if complete else SynfinError(told)


def _asked(selection: Selection) -> str:
    # 2001:db8::1:443 is an address without a port, which is told best by reading it back.
    asked = [] if selection.flow_id is None else [f"flow {selection.flow_id}"]
    for name, end in (("client", selection.client), ("server", selection.server)):
        if end is not None:
            address, port = str(ip_address(end[0])), end[1]
            asked.append(f"{name} {address} (any port)" if port is None else f"{name} {endpoint(address, port)}")
    return " and ".join(asked)


def tell(warnings: Sequence[str]) -> None:
    """Say on standard error what was wrong with the input."""
    for warning in warnings[:_TOLD]:
        click.echo(f"synfin: {warning}", err=True)
    if len(warnings) > _TOLD:
        more = number(len(warnings) - _TOLD, "more warning")
        click.echo(f"synfin: and {more} (`synfin track --json` holds all)", err=True)
