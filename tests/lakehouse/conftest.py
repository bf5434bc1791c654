"""The example captures in the native profile, as what every engine must say of the lakehouse profile's files."""

import subprocess
import sys

import pyarrow as pa
import pytest
from engine_rows import EXAMPLES, in_order

import synfin
from synfin.schema import TABLES, USUAL_TABLES


@pytest.fixture(scope="session", params=list(USUAL_TABLES))
def table(request):
    """The name of a table."""
    return request.param


@pytest.fixture(scope="session")
def expected(table):
    """The rows of the native profile, each instant as microseconds and, under ``<name>_ns``, as it is."""
    instants = [column.name for column in TABLES[table] if column.kind == "instant"]
    native = synfin.read(EXAMPLES, table=table)
    columns = {}
    for name in native.column_names:
        values = (native[name].cast(pa.int64()) if name in instants else native[name]).to_pylist()
        columns[name] = [None if value is None else value // 1000 for value in values] if name in instants else values
        if name in instants:
            columns[f"{name}_ns"] = values
    assert any(value and value % 1000 for value in columns[f"{instants[0]}_ns"]) or table == "intervals"
    return in_order([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)], table)


@pytest.fixture
def folder(table, tmp_path):
    """The table's folder as `synfin track` leaves it."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "synfin", "track", EXAMPLES, "--profile", "lakehouse", "-o", out]
    subprocess.run(command, check=True, capture_output=True)
    return out / table
