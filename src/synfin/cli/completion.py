"""`synfin completion`: the script with which a shell completes commands and options."""

from __future__ import annotations

import click

#: The variable of the environment by which the script asks for completions.
COMPLETE = "_SYNFIN_COMPLETE"


@click.command(short_help="Print the script for shell completion.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes synfin's commands and options in SHELL.

    For bash, add to ~/.bashrc: eval "$(synfin completion bash)"
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(context.find_root().command, {}, "synfin", COMPLETE).source())
