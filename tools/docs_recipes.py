"""The recipes of docs/recipes.md: runs every SQL and Polars block on examples/ and formats the answers.

A recipe is a section with a ``sql`` block, a ``python`` block that ends with an expression, a ``text`` block with the
answer of both, and a table whose first two columns are a Wireshark display filter and the number of packets it shows.
Blocks before the first ``text`` block only prepare (views, imports).
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass, field
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "recipes.md"
_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILTER = re.compile(r"^\| `([^`]+)` \| ([\d,]+|\?) \|", re.MULTILINE)
_FORMATS = {"sql": "SQL", "python": "Polars"}


@dataclass
class Recipe:
    """One section of the document: its queries, the answer as printed, and (filter, packets shown)."""

    title: str
    sql: str = ""
    polars: str = ""
    answer: str | None = None
    filters: list[tuple[str, int | None]] = field(default_factory=list)


def parse(text: str) -> tuple[list[tuple[str, str]], list[Recipe]]:
    """The blocks that prepare, as (language, code), and the recipes of the document."""
    opening, *sections = re.split(r"^## ", text, flags=re.MULTILINE)
    recipes = []
    preparing = [(kind, code) for kind, code in _FENCE.findall(opening) if kind in _FORMATS]
    for section in sections:
        blocks = dict(_FENCE.findall(section))
        recipe = Recipe(section.partition("\n")[0], blocks.get("sql", ""), blocks.get("python", ""), blocks.get("text"))
        for expression, count in _FILTER.findall(section):
            recipe.filters.append((expression, None if count == "?" else int(count.replace(",", ""))))
        recipes.append(recipe)
    return preparing, recipes


class Workshop:
    """A folder with the example captures and their rows, a DuckDB connection and a Python namespace over them."""

    def __init__(self, preparing: list[tuple[str, str]]):
        import duckdb

        from synfin.cli.main import cli

        self._folder = tempfile.TemporaryDirectory(prefix="synfin-recipes-")
        os.symlink(ROOT / "examples", Path(self._folder.name, "examples"))
        with chdir(self._folder.name), redirect_stdout(StringIO()):
            cli.main(["track", "examples", "-o", "rows"], standalone_mode=False)
        self._database = duckdb.connect()
        self._names: dict[str, Any] = {}
        for kind, code in preparing:
            self._run(kind, code)

    def close(self) -> None:
        """Remove the folder."""
        self._database.close()
        self._folder.cleanup()

    def answers(self, recipe: Recipe) -> dict[str, str]:
        """The recipe's answer by each of its queries, as text."""
        found = {"sql": recipe.sql, "python": recipe.polars}
        return {_FORMATS[kind]: as_text(self._run(kind, code)) for kind, code in found.items() if code}

    def _run(self, kind: str, code: str) -> Any:
        with chdir(self._folder.name):
            if kind == "sql":
                relation = self._database.sql(code)
                return None if relation is None else (relation.columns, relation.fetchall())
            return _evaluate(code, self._names)


def _evaluate(code: str, names: dict[str, Any]) -> Any:
    """Run a block; the value of its last statement, if that is an expression, as (columns, rows)."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "recipes.md", "exec"), names)
    if last is None:
        return None
    frame = eval(compile(ast.Expression(last.value), "recipes.md", "eval"), names)
    return frame.columns, frame.rows()


def as_text(result: tuple[list[str], list[tuple[Any, ...]]]) -> str:
    """Columns and rows as an aligned table; numbers to the right."""
    columns, rows = result
    cells = [list(columns)] + [[_cell(value) for value in row] for row in rows]
    right = [all(isinstance(row[k], int | float | Decimal | None) for row in rows) for k in range(len(columns))]
    widths = [max(len(line[k]) for line in cells) for k in range(len(columns))]
    lines = (
        "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True))
        for line in cells
    )
    return "".join(line.rstrip() + "\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Decimal):  # DuckDB's sums of integers
        return str(int(value)) if value == int(value) else str(value)
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


# ------------------------------------------------------------------------------------------------ display filters


def packets_shown(expressions: Iterable[str]) -> list[int]:
    """For each display filter, how many packets of the example captures, merged into one file by time, it shows.

    With a second pass (-2), as the window of Wireshark has, so that fields about a whole conversation are final.
    """
    captures = sorted(str(path) for path in (ROOT / "examples").glob("*.pcap*"))
    counts = []
    with tempfile.TemporaryDirectory(prefix="synfin-recipes-") as folder:
        merged = str(Path(folder, "merged.pcapng"))
        subprocess.run(["mergecap", "-w", merged, *captures], check=True, capture_output=True)
        for expression in expressions:
            command = ["tshark", "-2", "-r", merged, "-Y", expression, "-T", "fields", "-e", "frame.number"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            counts.append(len(done.stdout.splitlines()))
    return counts


def has_tshark() -> bool:
    """Whether the counts of display filters can be had here."""
    return shutil.which("tshark") is not None and shutil.which("mergecap") is not None


# ------------------------------------------------------------------------------------------------ refreshing


def refreshed(text: str) -> str:
    """The document with fresh answers, and fresh packet counts where tshark is installed."""
    preparing, recipes = parse(text)
    shop = Workshop(preparing)
    try:
        fresh = iter([_agreed(recipe, shop.answers(recipe)) for recipe in recipes if recipe.answer is not None])
        text = _FENCE.sub(lambda match: f"```text\n{next(fresh)}```" if match[1] == "text" else match[0], text)
    finally:
        shop.close()
    if has_tshark():
        counts = iter(packets_shown(match[1] for match in _FILTER.finditer(text)))
        text = _FILTER.sub(lambda match: f"| `{match[1]}` | {next(counts):,} |", text)
    return text


def _agreed(recipe: Recipe, answers: dict[str, str]) -> str:
    if len(set(answers.values())) != 1:
        told = "\n".join(f"{name}:\n{answer}" for name, answer in answers.items())
        raise SystemExit(f"docs/recipes.md, {recipe.title!r}: the answers differ\n{told}")
    return next(iter(answers.values()))
