"""Iceberg tables (format version 2) from the Parquet files as they lie, and from a table in memory."""

import pyarrow.parquet as pq
import pytest
from engine_rows import EXAMPLES, in_order, plain

import synfin

sql = pytest.importorskip("pyiceberg.catalog.sql", reason="needs pyiceberg with its SQL catalog (make lakehouse)")


@pytest.fixture
def catalog(tmp_path):
    catalog = sql.SqlCatalog("test", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse")
    catalog.create_namespace("net")
    yield catalog
    catalog.close()


def test_files_are_added_where_they_lie(table, expected, folder, catalog):
    files = [str(path) for path in sorted(folder.glob("*.parquet"))]
    iceberg = catalog.create_table(f"net.{table}", schema=pq.read_schema(files[0]))
    iceberg.add_files(files)
    assert [task.file.file_path for task in iceberg.scan().plan_files()] == files
    assert in_order(plain(iceberg.scan().to_arrow()), table) == expected


def test_table_is_appended(table, expected, catalog):
    rows = synfin.read(EXAMPLES, table=table, profile="lakehouse")
    iceberg = catalog.create_table(f"net.{table}", schema=rows.schema)
    iceberg.append(rows)
    assert in_order(plain(iceberg.scan().to_arrow()), table) == expected
