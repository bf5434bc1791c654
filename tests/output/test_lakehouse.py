"""The lakehouse profile in the table formats that it is for (packages of the dependency group `lakehouse`)."""

import pyarrow.parquet as pq
import pytest

import synfin
from dialogue import Dialogue, merge, write_pcap

PORTS = [2000, 2001, 2002]


@pytest.fixture
def rows(tmp_path):
    """Both tables as Parquet files of `synfin track --profile lakehouse`, by name of the table."""
    from synfin.cli.main import main

    capture = write_pcap(tmp_path / "a.pcap", merge(*(Dialogue(a_port=port).handshake().close() for port in PORTS)))
    with pytest.raises(SystemExit) as leaving:
        main(["track", str(capture), "-o", str(tmp_path / "rows"), "--profile", "lakehouse"])
    assert not leaving.value.code
    return {table: next((tmp_path / "rows" / table).glob("*.parquet")) for table in ("flows", "intervals")}


@pytest.mark.parametrize("table", ["flows", "intervals"])
def test_delta(rows, table):
    deltalake = pytest.importorskip("deltalake")
    folder = rows[table].parent
    deltalake.convert_to_deltalake(str(folder))
    delta = deltalake.DeltaTable(str(folder))
    written = pq.read_table(rows[table])
    back = delta.to_pyarrow_table()
    assert back.select(written.schema.names).cast(written.schema).to_pylist() == written.to_pylist()


@pytest.mark.parametrize("table", ["flows", "intervals"])
def test_iceberg(rows, table, tmp_path):
    pytest.importorskip("pyiceberg")
    catalogs = pytest.importorskip("pyiceberg.catalog.sql", reason="pyiceberg has no SQL catalog here")
    catalog = catalogs.SqlCatalog("test", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/store")
    catalog.create_namespace("net")
    written = pq.read_table(rows[table])
    iceberg = catalog.create_table(f"net.{table}", schema=written.schema)
    iceberg.add_files([str(rows[table])])
    back = iceberg.scan().to_arrow()
    assert back.select(written.schema.names).cast(written.schema).to_pylist() == written.to_pylist()


def test_python_table_goes_into_delta(tmp_path):
    deltalake = pytest.importorskip("deltalake")
    capture = write_pcap(tmp_path / "a.pcap", Dialogue().handshake().close().packets)
    scan = synfin.scan(capture, profile="lakehouse")
    deltalake.write_deltalake(str(tmp_path / "delta"), scan)
    delta = deltalake.DeltaTable(str(tmp_path / "delta"))
    assert [field.name for field in delta.schema().fields] == scan.schema.names
