"""`synfin columns`: the schema from its one declaration."""

from __future__ import annotations

import json
import shutil
import textwrap

import click

from synfin.api import columns as columns_of
from synfin.schema import ENUMS, TABLES, Column

_ARROW = {"instant": "timestamp[ns, UTC]", "text": "dictionary<int32, string>"}


@click.command(short_help="Print the columns of the tables.")
@click.option("--table", type=click.Choice(list(TABLES)), default="flows", show_default=True)
@click.option("--format", "kind", type=click.Choice(["text", "markdown", "json"]), default="text", show_default=True)
def columns(table: str, kind: str) -> None:
    """Print the columns of a table: name, type, values, and what each one means.

    Null means not seen; a count of nothing is 0. Columns marked (o) are written, and kept, only where --columns asks for
    them: --columns +zeek_history,community_id adds two to the default ones. With --profile lakehouse, instants are
    timestamp[us, UTC] beside an int64 column NAME_ns, and every dictionary is a plain string.
    """
    rows = columns_of(table)
    if kind == "json":
        click.echo(json.dumps([_as_data(column) for column in rows], indent=1))
    else:
        click.echo("\n".join(_markdown(rows) if kind == "markdown" else _text(rows)))


def type_name(column: Column) -> str:
    """The Arrow type in the native profile, by name."""
    return "dictionary<int8, string>" if column.kind.startswith("enum:") else _ARROW.get(column.kind, column.kind)


def values(column: Column) -> tuple[str, ...]:
    """The values of an enumeration; empty for any other column."""
    kind, _, name = column.kind.partition(":")
    return ENUMS[name] if kind == "enum" else ()


def _as_data(column: Column) -> dict[str, object]:
    data: dict[str, object] = {"name": column.name, "type": type_name(column), "group": column.group, "doc": column.doc}
    data["optional"] = column.optional
    return {**data, "values": list(values(column))} if values(column) else data


def _text(rows: tuple[Column, ...]) -> list[str]:
    lines: list[str] = []
    group = None
    width = max(40, min(96, shutil.get_terminal_size((96, 24)).columns))
    for column in rows:
        if column.group != group:
            group = column.group
            lines += [*([""] if lines else []), group.upper()]
        lines.append(f"{column.name}  ({type_name(column)}){'  (o)' if column.optional else ''}")
        doc = column.doc.replace("`", "") + (f" One of: {', '.join(values(column))}." if values(column) else "")
        lines += textwrap.wrap(doc, width, initial_indent="    ", subsequent_indent="    ")
    return lines


def _markdown(rows: tuple[Column, ...]) -> list[str]:
    lines: list[str] = []
    group = None
    for column in rows:
        if column.group != group:
            group = column.group
            lines += [*([""] if lines else []), f"### {group.capitalize()}", "", "| column | type | meaning |", "| --- | --- | --- |"]
        allowed = f" One of {', '.join(f'`{value}`' for value in values(column))}." if values(column) else ""
        name = f"`{column.name}` (o)" if column.optional else f"`{column.name}`"
        lines.append(f"| {name} | {type_name(column)} | {column.doc.replace('|', chr(92) + '|')}{allowed} |")
    return lines
