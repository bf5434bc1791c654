"""Options of the commands that track, each declared once; those about tracking come from the fields of Settings."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from synfin.errors import ConfigError
from synfin.schema import BY
from synfin.settings import (
    DUPLICATES,
    MAX_FLOWS,
    MAX_TOP,
    NS_PER_S,
    Settings,
    parse_duration,
    parse_end,
    parse_ports,
    parse_size,
)

if TYPE_CHECKING:
    from synfin.sources.filter import Filter
    from synfin.sources.window import Window


class Parsed(click.ParamType):
    """A value that `parse` makes of the option's text; a ConfigError of its is a usage error."""

    def __init__(self, name: str, parse: Callable[[str], Any]):
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value; a default is one already."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def _parse_instant(text: str) -> int:
    from synfin.sources.window import parse_instant

    return parse_instant(text)


_INSTANT = Parsed("instant", _parse_instant)
END = Parsed("end", parse_end)

_NARROWING = (
    click.option("--filter", "expression", metavar="EXPR", help="Take only packets that match a filter expression as tcpdump takes it (needs libpcap); the others count as `filtered`."),
    click.option("--from", "start", type=_INSTANT, metavar="INSTANT", help="Leave out packets before it: 2024-05-01T12:30:00.25 (UTC), with an offset such as +02:00, or seconds since 1970."),
    click.option("--to", "end", type=_INSTANT, metavar="INSTANT", help="Leave out packets at it and after it. Those left out count as `outside_window`."),
)


def narrowing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that narrow the input."""
    for option in reversed(_NARROWING):
        command = option(command)
    return command


def narrowing_from(options: dict[str, Any]) -> tuple[Filter | None, Window | None]:
    """The filter and the window that the options mean; they are taken out of `options`. Raises ConfigError."""
    expression, start, end = (options.pop(name) for name in ("expression", "start", "end"))
    filter = window = None
    if expression is not None:
        from synfin.sources.filter import Filter

        filter = Filter(expression)
    if start is not None or end is not None:
        from synfin.sources.window import Window

        window = Window.of(start, end)
    return filter, window


def narrowing_words(options: dict[str, Any]) -> list[str]:
    """The narrowing as words of a command line, each value in the form in which the options take it."""
    words = [] if options["expression"] is None else ["--filter", options["expression"]]
    for name, ns in (("--from", options["start"]), ("--to", options["end"])):
        if ns is not None:
            words += [name, f"{ns // NS_PER_S}.{ns % NS_PER_S:09}".rstrip("0").rstrip(".")]
    return words


#: Field of Settings -> help. The option is the field's name with dashes, its default the field's.
DURATIONS = {
    "attempt_timeout": "End an unanswered SYN this long after its last copy.",
    "half_open_timeout": "End a handshake with a SYN-ACK but no completion this long after the last SYN or SYN-ACK.",
    "idle_timeout": "End an established or half-closed connection after this long without a packet.",
    "one_sided_timeout": "The same for a connection of which only one end, and no opening, was seen.",
    "closing_timeout": "The same after both FINs, while not both are acknowledged.",
    "time_wait": "How long a closed connection stays in TIME-WAIT.",
    "reset_linger": "How long packets still belong to a connection that was reset or refused.",
    "reorder": "How late a packet may come without moving an interval or a deadline.",
    "interval": "Length of one row of the interval table.",
}


def human_duration(ns: int) -> str:
    """A duration as `parse_duration` reads it: 2h4m, 75s, 500ms."""
    if ns == 0:
        return "0s"
    parts: list[str] = []
    for unit, size in (("h", 3600 * NS_PER_S), ("m", 60 * NS_PER_S), ("s", NS_PER_S), ("ms", 10**6), ("us", 10**3), ("ns", 1)):
        count, ns = divmod(ns, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def settings_options(command: Callable[..., Any], hidden: Collection[str] = ()) -> Callable[..., Any]:
    """Add an option for every setting; those that are `hidden` do not stand in the help."""
    defaults = {field.name: field.default for field in fields(Settings)}
    added = [
        click.option(
            f"--{name.replace('_', '-')}", type=Parsed("duration", parse_duration), metavar="TIME", default=defaults[name],
            help=f"{text}  [default: {human_duration(defaults[name])}]", hidden=name in hidden,
        )
        for name, text in DURATIONS.items()
    ]  # fmt: skip
    added.append(
        click.option(
            "--key", metavar="PARTS", default="",
            help="What tells connections apart beside addresses and ports: `vlan`, `tunnel`, or both with a comma.  [default: nothing]",
        )
    )  # fmt: skip
    added.append(
        click.option(
            "--server-ports", type=Parsed("ports", parse_ports), metavar="PORTS",
            help="Ports that mark the server where no SYN was seen, such as 80,443,8000-8999.  "
            "[default: below 1024, and well-known ones]",
        )
    )  # fmt: skip
    added.append(
        click.option(
            "--checksum", type=click.Choice(["ignore", "verify"]), default=defaults["checksum"],
            help="Whether packets with a wrong IPv4 header or TCP checksum are skipped; offload makes checksums wrong in "
            "sound captures.  [default: ignore]",
        )
    )  # fmt: skip
    added.append(
        click.option(
            "--duplicates", type=click.Choice(DUPLICATES), default=defaults["duplicates"], show_default=True,
            help="Packets that the capture point saw twice: keep them as they are, count the copies apart, or drop them.",
        )
    )  # fmt: skip
    added.append(
        click.option(
            "--max-flows", type=click.IntRange(1, MAX_FLOWS), metavar="N",
            help="Follow at most N connections at once: one more ends another, unanswered SYNs first, as `evicted`.  [default: no cap]",
        )
    )  # fmt: skip
    added.append(
        click.option(
            "--max-memory", type=Parsed("size", parse_size), metavar="SIZE",
            help="The same where the process would pass SIZE, such as 512M or 2G (powers of 1024).  [default: no cap]",
        )
    )  # fmt: skip
    added.append(
        click.option(
            "--by", type=click.Choice(list(BY)), multiple=True, hidden="by" in hidden,
            help="Also the interval table for each service (server address and port), or for each client host: the table `services` "
            "or `clients`. May be given for both.",
        )
    )  # fmt: skip
    added.append(
        click.option(
            "--top", type=click.IntRange(1, MAX_TOP), metavar="N", default=defaults["top"], show_default=True, hidden="top" in hidden,
            help="There, the N of each interval with most SYNs and live connections have rows of their own; the others have one "
            "together.",
        )
    )  # fmt: skip
    for option in reversed(added):
        command = option(command)
    return command


def record_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what decides which packets make a record: the narrowing of the input and the settings.

    Intervals, and tables of them by key, play no part there. They are taken all the same, so that whatever was given to `synfin track`
    can be given again.
    """
    return narrowing_options(settings_options(command, hidden=("interval", "by", "top")))


def settings_from(options: dict[str, Any]) -> Settings:
    """The Settings that the options mean; they are taken out of `options`. Raises ConfigError."""
    chosen = {field.name: options.pop(field.name) for field in fields(Settings)}
    chosen["key"] = tuple(filter(None, (part.strip() for part in chosen["key"].split(","))))
    return Settings(**chosen)
