"""The `synfin` command: its subcommands, and how errors become one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module

import click

from synfin import __version__
from synfin.cli.completion import COMPLETE
from synfin.cli.signals import Terminated, break_off
from synfin.errors import CaptureOpenError, ConfigError, NotACaptureError, SynfinError

#: Exit codes beside 0. 1: bad input was met or output failed; 2: nothing was done because the call or the file is wrong.
EXIT_FAULT, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143
#: The commands, with the line about each in the list of them. A command is the function of its name in the module of its
#: name beside this one, which is loaded when the command is called: it may need much that the others do not.
COMMANDS = {
    "columns": "Print the columns of the tables.",
    "completion": "Print the script for shell completion.",
    "explain": "Explain a connection, segment by segment.",
    "extract": "Write the packets of single connections to a capture.",
    "live": "Track network interfaces: rows, metrics and a summary.",
    "top": "Watch states, rates, round trips and the worst services.",
    "track": "Track captures: rows and a summary.",
    "verify": "Compare the rows with tshark's and tcptrace's.",
}


class _Loaded(Mapping[str, click.Command]):
    """The commands by name, each loaded when it is looked up."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in COMMANDS:
            raise KeyError(name)
        return getattr(import_module(f"synfin.cli.{name}"), name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(click.Group):
    """A group that lists its commands without loading them."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_Group, commands=_Loaded(), context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="synfin", message="%(prog)s %(version)s")
def cli() -> None:
    """One truthful row per TCP connection: how it opened, how it closed, and what went wrong.

    \b
    synfin track capture.pcap                     summary
    synfin track captures/ -o rows/               both tables as Parquet
    synfin track - -o - --format jsonl < x.pcap   rows as JSON Lines
    synfin live eth0 -o rows/                     the same from an interface, until Ctrl-C
    synfin top eth0                               what happens now, on a terminal
    synfin explain capture.pcap --first 1         one connection, segment by segment
    synfin extract x.pcap --flow ID -o y.pcapng   its packets
    synfin verify capture.pcap                    the rows beside what tshark and tcptrace say

    Exit codes: 0; 1 a capture is corrupt or breaks off, one of several files is no capture (found in a folder or by a
    glob, it is only left out), or the output cannot be written; 2 wrong call, no connection that matches, or not a
    capture; 130 after Ctrl-C and 143 after SIGTERM, with everything up to there written (live: 0).
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command and leave the process with its exit code."""
    before = signal.signal(signal.SIGTERM, break_off)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has what it wants; click ends the same way where it meets this
        code = _give_up_output()
    except OSError as error:
        if error.filename is not None:  # not of a write
            raise
        click.echo(f"synfin: cannot write standard output: {(error.strerror or str(error)).lower()}", err=True)
        code = _give_up_output()
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.exit(code)


def _give_up_output() -> int:
    # What is still in the buffer must not be tried again when the process ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_FAULT


def _run(arguments: list[str] | None) -> int:
    try:
        return cli.main(args=arguments, prog_name="synfin", complete_var=COMPLETE, standalone_mode=False) or 0
    except click.ClickException as error:
        return _complain(error)
    except (click.Abort, KeyboardInterrupt) as error:  # click makes an Abort of what breaks a command off
        terminated = isinstance(error, Terminated) or isinstance(error.__cause__, Terminated)
        click.echo("synfin: terminated" if terminated else "synfin: interrupted", err=True)
        return EXIT_TERMINATED if terminated else EXIT_INTERRUPTED
    except SynfinError as error:
        _tell(f"synfin: {error}")
        return EXIT_USAGE if isinstance(error, ConfigError | NotACaptureError | CaptureOpenError) else EXIT_FAULT


def _complain(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # click 8.2 and later
        _tell(error.format_message())
    else:
        hint = f" (see {context.command_path} --help)" if context else ""
        _tell(f"synfin: {error.format_message()}{hint}")
    return EXIT_USAGE


def _tell(text: str) -> None:
    from synfin.output.render import harmless

    click.echo(harmless(text), err=True)
