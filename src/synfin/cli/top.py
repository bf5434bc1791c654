"""`synfin top`: connections of now on a terminal, from interfaces or from a growing folder."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import click

from synfin.cli.live import given_options, live_options
from synfin.cli.options import Parsed, settings_options
from synfin.errors import ConfigError
from synfin.schema import BY
from synfin.settings import NS_PER_S, parse_duration
from synfin.stores import is_url
from synfin.top.columns import KEY_COLUMNS

if TYPE_CHECKING:
    from synfin.top.screen import Feed

#: The options of `synfin live` that say how to listen.
_LISTENING = (
    "workers", "ring", "block", "block_timeout", "snaplen", "filter", "promiscuous", "timestamps", "user",
)  # fmt: skip
_LEAST_KEPT_NS = 300 * NS_PER_S
_LONGEST_NS = 3600 * NS_PER_S


def _window(text: str) -> int:
    ns = parse_duration(text)
    if not 0 < ns <= _LONGEST_NS:
        raise ConfigError("the window is longer than nothing and at most 1h")
    return ns


@click.command(short_help="Watch states, rates, round trips and the worst services.")
@click.argument("sources", nargs=-1, required=True, metavar="FOLDER|IFACE...")
@click.option("--once", is_flag=True, help="Print one view and end, as where standard output is no terminal. An interface is listened to for the length of the window. COLUMNS and LINES say how large the view is.")
@click.option("--window", type=Parsed("duration", _window), default="10s", metavar="TIME", show_default=True, help="How much of the newest time rates are of, at most 1h.")
@click.option("--sort", type=click.Choice([column.name for column in KEY_COLUMNS]), default="failed", metavar="COLUMN", help=f"Which services come first: those with most {', '.join(column.name for column in KEY_COLUMNS[:-1])} or {KEY_COLUMNS[-1].name}.  [default: failed]")
@lambda command: live_options(command, _LISTENING)
@settings_options
def top(sources: tuple[str, ...], once: bool, window: int, sort: str, **options: Any) -> int:
    """Watch TCP connections on a terminal: how many are in which state, what happens per second, round trips of both
    sides, and the services (or clients) with most failures, or most of another column.

    FOLDER is where `synfin live -o FOLDER --by service` or `synfin track -o FOLDER --by service` writes its Parquet files;
    files that appear there are read as they come. An IFACE is listened to (Linux; needs CAP_NET_RAW), several are those
    of one tap; nothing is written. A name that is both is the interface: write ./NAME for the folder.

    Keys: q or Ctrl-C ends. Space or p pauses, and goes on. The arrows (or < and >) choose the column that is sorted
    by, r reverses it. w changes the window. Tab changes between services and clients.

    Rates are per second of the window, gauges of its end. A round trip's quantile is that of an interval: the newest
    that has one, or the highest of the window. Options other than --once, --window, --sort and --by are for interfaces.
    """
    from synfin.top.controls import WINDOWS_NS, Controls
    from synfin.top.screen import View, is_possible, show, show_once

    given = given_options(options)
    by = given.setdefault("by", tuple(BY))
    windows = tuple(sorted({*WINDOWS_NS, window}))
    keep_ns = max(_LEAST_KEPT_NS, window)
    tables = tuple(BY[each] for each in dict.fromkeys(by))
    controls = Controls(tables, tables[0], windows, window, sort)
    feed = _feed(sources, given, tables, keep_ns)
    try:
        view = View(feed, controls, keep_ns)
        if once or not is_possible():
            show_once(feed, view, window)
        else:
            show(feed, view)
    finally:
        feed.close()
    return 0


def _feed(sources: tuple[str, ...], given: dict[str, Any], tables: tuple[str, ...], keep_ns: int) -> Feed:
    known = {name for _, name in socket.if_nameindex()} if hasattr(socket, "if_nameindex") else set()
    folders = [name for name in sources if name not in known and (os.path.isdir(name) or "/" in name)]
    if not folders:
        from synfin.sidecar.config import LiveConfig
        from synfin.top.interfaces import Interfaces

        if unknown := [name for name in sources if name not in known]:
            there = ", ".join(sorted(known)[:12])
            raise ConfigError(f"{unknown[0]!r} is neither a folder nor an interface; interfaces are {there or 'not known here'}")
        return Interfaces(LiveConfig.of({**given, "interfaces": sources}), keep_ns)
    from synfin.top.folder import Folder

    if is_url(folders[0]):
        raise ConfigError("synfin top reads a folder of this machine, no URL")
    if len(sources) > 1:
        raise ConfigError("name one folder, or interfaces of one tap")
    if useless := sorted(set(given) - {"by"}):
        raise ConfigError(f"--{useless[0].replace('_', '-')} is for an interface; the rows of {folders[0]} are tracked already")
    return Folder(folders[0], tables, keep_ns)
