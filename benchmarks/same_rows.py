"""Whether this tree and another (an older commit, built) give the same rows: every column of both tables, as multisets.

Each tree runs in a process of its own, one capture after another. Columns that only one of the trees has are named and left out.
Exit code 1 with the first capture, column and values that differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

HERE = Path(__file__).resolve().parent
TABLES = ("flows", "intervals")
_NO_CAPTURES = {".tsv", ".md", ".jsonl", ".json", ".txt"}


def answer(folder: Path) -> None:
    """Track each capture that standard input names, with the package of this process; tell how it ended on standard output."""
    import synfin

    names = {table: [column.name for column in synfin.columns(table)] for table in TABLES}
    for line in sys.stdin:
        told = {}
        for table in TABLES:
            scan = synfin.scan(line.rstrip("\n"), table=table, columns=names[table])
            with pa.ipc.new_stream(folder / table, scan.schema) as file:
                try:
                    for batch in scan:
                        file.write_batch(batch)
                    told[table] = "complete"
                except Exception as error:  # which is part of the answer
                    told[table] = type(error).__name__
        print(json.dumps(told), flush=True)


class Tree:
    """The package under a checkout, in a process of its own."""

    def __init__(self, name: str, checkout: Path, folder: Path):
        self.name, self.folder = name, folder / name
        self.folder.mkdir()
        environment = os.environ | {"PYTHONPATH": str(checkout / "src")}
        command = [sys.executable, __file__, "--answer", str(self.folder)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, capture: Path) -> None:
        """Begin with a capture."""
        print(capture, file=self._process.stdin, flush=True)

    def answer(self) -> tuple[dict[str, str], dict[str, pa.Table]]:
        """How each table ended, and its rows."""
        if not (line := self._process.stdout.readline()):
            sys.exit(f"{self.name} tree: its process ended with {self._process.wait()}")
        tables = {}
        for table in TABLES:
            with pa.ipc.open_stream(self.folder / table) as file:
                tables[table] = _plain(file.read_all())
        return json.loads(line), tables

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def _plain(table: pa.Table) -> pa.Table:
    # Instants as integers (ns since 1970), texts without dictionaries: what `to_pylist` takes without pandas.
    kinds = [
        pa.int64() if pa.types.is_timestamp(field.type)
        else field.type.value_type if pa.types.is_dictionary(field.type)
        else field.type
        for field in table.schema
    ]  # fmt: skip
    return pa.table([column.cast(kind) for column, kind in zip(table.columns, kinds, strict=True)], table.column_names)


def difference(theirs: pa.Table, ours: pa.Table) -> str | None:
    """The first thing in which the rows differ, apart from their order; None if nothing does."""
    names = [name for name in ours.column_names if name in theirs.column_names]
    theirs, ours = theirs.select(names), ours.select(names)
    if theirs.equals(ours):
        return None
    old, new = (
        Counter(zip(*(column.to_pylist() for column in table.columns), strict=True)) for table in (theirs, ours)
    )
    lost, fresh = (list((one - other).elements()) for one, other in ((old, new), (new, old)))
    if not lost and not fresh:
        return None
    if not lost or not fresh:
        where, row = ("only in the other tree", lost[0]) if lost else ("only in this tree", fresh[0])
        return f"{len(lost or fresh)} rows {where}, such as {_named(names, row)}"
    # The row that differs in the fewest columns is the same one.
    row = lost[0]
    near = min(fresh, key=lambda candidate: sum(a != b for a, b in zip(row, candidate, strict=True)))
    column, was, now = next((n, a, b) for n, a, b in zip(names, row, near, strict=True) if a != b)
    count = sum(a != b for a, b in zip(row, near, strict=True))
    more = f", and {count - 1} more columns of that row" if count > 1 else ""
    return f"{column}: {was!r} became {now!r}{more}; {len(lost)} rows differ, this one is {_named(names, row)}"


def _named(names: list[str], row: tuple) -> str:
    telling = ("flow_id", "first_packet", "interval_start", "start")
    told = [f"{name} {value}" for name, value in zip(names, row, strict=True) if name in telling]
    return ", ".join(told) or str(row[:3])


def captures(paths: list[Path]) -> Iterator[Path]:
    """The files that `paths` name, those in folders included; SYNFIN_CAPTURES's list of reference results is none."""
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (
            file for file in files if file == path or (file.is_file() and file.suffix not in _NO_CAPTURES and "ref" not in file.parts)
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare this tree's rows with another's.")
    parser.add_argument("other", type=Path, nargs="?", help="the other checkout, its modules built in place")
    parser.add_argument("paths", type=Path, nargs="*", help="captures and folders (examples/ and SYNFIN_CAPTURES)")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        answer(arguments.answer)
        return
    if arguments.other is None:
        parser.error("name the other checkout")
    named = [Path(folder) for folder in (os.environ.get("SYNFIN_CAPTURES"),) if folder]
    with tempfile.TemporaryDirectory() as folder:
        trees = [Tree("other", arguments.other, Path(folder)), Tree("this", HERE.parent, Path(folder))]
        try:
            sys.exit(compare(trees, list(captures(arguments.paths or [HERE.parent / "examples", *named]))))
        finally:
            for tree in trees:
                tree.close()


def compare(trees: list[Tree], files: list[Path]) -> int:
    """The exit code: 0 where both trees say the same of all files."""
    left_out: dict[str, str] = {}
    rows = dict.fromkeys(TABLES, 0)
    for file in files:
        for tree in trees:
            tree.ask(file.resolve())
        (how_old, old), (how_new, new) = (tree.answer() for tree in trees)
        for table in TABLES:
            for name in set(old[table].column_names) ^ set(new[table].column_names):
                left_out[f"{table}.{name}"] = "other" if name in old[table].column_names else "this"
            if how_old[table] != how_new[table]:
                print(f"{file}: {table}: the other tree ends with {how_old[table]}, this one with {how_new[table]}")
                return 1
            if differs := difference(old[table], new[table]):
                print(f"{file}: {table}: {differs}")
                return 1
            rows[table] += len(new[table])
    told = " and ".join(f"{count:,} {table}" for table, count in rows.items())
    print(f"the same rows in {len(files):,} files: {told}")
    for name, tree in sorted(left_out.items()):
        print(
            f"not compared: {name}, which only the {tree} tree has"
            if tree == "other"
            else f"not compared: {name}, which only this tree has"
        )
    return 0


if __name__ == "__main__":
    main()
