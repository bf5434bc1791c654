"""Delta tables from a scan, and from the Parquet files as they lie."""

import pytest
from engine_rows import EXAMPLES, in_order, plain

import synfin

deltalake = pytest.importorskip("deltalake", reason="needs deltalake (make lakehouse)")


def read(where, table):
    return in_order(plain(deltalake.DeltaTable(str(where)).to_pyarrow_table()), table)


def test_scan_is_written_and_appended(table, expected, tmp_path):
    deltalake.write_deltalake(tmp_path / "delta", synfin.scan(EXAMPLES, table=table, profile="lakehouse"))
    assert read(tmp_path / "delta", table) == expected
    deltalake.write_deltalake(
        tmp_path / "delta", synfin.scan(EXAMPLES, table=table, profile="lakehouse"), mode="append"
    )
    assert read(tmp_path / "delta", table) == [row for row in expected for _ in range(2)]


def test_folder_becomes_a_table_in_place(table, expected, folder):
    files = sorted(folder.iterdir())
    deltalake.convert_to_deltalake(folder)
    assert read(folder, table) == expected
    assert sorted(path for path in folder.iterdir() if path.is_file()) == files
