"""`synfin.read`, `synfin.scan`, `synfin.columns`: the same rows however they are asked for."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

import synfin
from dialogue import SECOND, START, Dialogue, merge, pcap_bytes, write_pcap

PORTS = range(2000, 2040)


def traffic():
    """One closed connection per port, with odd nanoseconds."""
    dialogues = []
    for port in PORTS:
        one = Dialogue(a_port=port, start=START + port * SECOND + 7, step=1_000_001).handshake()
        one.data(one.a, 10)
        one.close()
        dialogues.append(one)
    return merge(*dialogues)


@pytest.fixture
def capture(tmp_path):
    return write_pcap(tmp_path / "a.pcap", traffic())


@pytest.fixture
def corrupt(tmp_path):
    """A capture with damage behind its last packet, and the damage's offset."""
    data = pcap_bytes(traffic())
    (tmp_path / "bad.pcap").write_bytes(data + b"\xff" * 4000)
    return tmp_path / "bad.pcap", len(data)


def test_read_gives_every_column_that_is_not_optional(capture):
    table = synfin.read(capture)
    table.validate(full=True)
    assert table.schema.names == [column.name for column in synfin.columns() if not column.optional]
    assert sorted(table["client_port"].to_pylist()) == list(PORTS)
    assert set(table["close"].to_pylist()) == {"fin_4way"}


def test_read_intervals(capture):
    table = synfin.read(str(capture), table="intervals", interval="10s")
    assert table.schema.names == [column.name for column in synfin.columns("intervals")]
    assert sum(table["packets"].to_pylist()) == len(traffic())
    assert set(table["interval_ns"].to_pylist()) == {10 * SECOND}


def test_read_by_key(capture):
    intervals = synfin.read(capture, table="intervals")
    for table, key in (("services", "server_ip"), ("clients", "client_ip")):
        rows = synfin.read(capture, table=table, top=1, profile="lakehouse").to_pylist()
        assert sum(row["packets"] for row in rows) == sum(intervals["packets"].to_pylist())
        assert set(synfin.read(capture, table=table, columns=[key])[key].to_pylist()) - {"other"}
    assert synfin.scan(capture, table="services", columns=["server_port"]).schema.names == ["server_port"]


def test_instants_are_exact(capture):
    table = synfin.read([capture], columns=["client_port", "syn_first"])
    found = dict(zip(table["client_port"].to_pylist(), table["syn_first"].cast(pa.int64()).to_pylist(), strict=True))
    assert found == {port: START + port * SECOND + 7 + 1_000_001 for port in PORTS}


def test_settings_as_object_and_as_keywords(capture):
    settings = synfin.Settings(time_wait=SECOND // 2)
    short = synfin.read(capture, settings=settings)
    assert short.equals(synfin.read(capture, time_wait="500ms"))
    assert set(short["time_wait_end"].to_pylist()) >= {"expired"}
    capped = synfin.scan(capture, max_flows=1, max_memory="4G", checksum="verify")
    rows = sum(batch.num_rows for batch in capped)
    assert capped.stats["cap"] == 1 and sum(capped.stats["evicted"].values()) == rows - 1
    with pytest.raises(synfin.ConfigError, match="not both"):
        synfin.read(capture, settings=settings, time_wait="500ms")
    with pytest.raises(synfin.ConfigError, match="time_waiting"):
        synfin.read(capture, time_waiting="500ms")


@pytest.mark.parametrize("wrong", [{"table": "flow"}, {"profile": "spark"}, {"columns": ["x"]}, {"columns": "flow_id"}])
def test_wrong_arguments_are_refused_before_reading(wrong):
    with pytest.raises(synfin.ConfigError):
        synfin.scan("no-such-file.pcap", **wrong)


def test_scan_can_be_passed_over_again(capture):
    scan = synfin.scan(capture, columns=["flow_id", "server_port"])
    first, second = (pa.Table.from_batches(scan, scan.schema) for _ in range(2))
    assert first.equals(second) and first.num_rows == len(PORTS)
    assert first.equals(pa.table(scan))
    assert scan.stats["packets"] == len(traffic())


def test_scan_opens_nothing_before_it_is_read():
    scan = synfin.scan("no-such-file.pcap")
    assert scan.schema.names[0] == "flow_id"
    with pytest.raises(synfin.CaptureOpenError, match=r"no-such-file\.pcap"):
        next(iter(scan))


def test_lists_of_rows_need_no_pandas(capture):
    columns = ["client_port", "syn_first"]
    expected = {
        port: datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC) + timedelta(seconds=port, microseconds=1000) for port in PORTS
    }
    exact = {port: START + port * SECOND + 7 + 1_000_001 for port in PORTS}
    for rows in (
        synfin.scan(capture, columns=columns).to_pylist(),
        synfin.read(capture, columns=columns, profile="lakehouse").to_pylist(),
    ):
        assert {row["client_port"]: row["syn_first"] for row in rows} == expected
        assert {row["client_port"]: row["syn_first_ns"] for row in rows} == exact


def test_corrupt_capture_gives_its_rows_and_then_the_error(corrupt):
    path, offset = corrupt
    scan = synfin.scan(path)
    batches = []
    with pytest.raises(synfin.CaptureFormatError) as caught:
        for batch in scan:
            batches.append(batch)
    assert sum(batch.num_rows for batch in batches) == len(PORTS)
    assert (caught.value.path, caught.value.offset) == (str(path), offset)
    assert str(path) in str(caught.value) and f"{offset:,}" in str(caught.value)
    with pytest.raises(synfin.CaptureFormatError) as caught:
        synfin.read(path)
    assert caught.value.table.num_rows == len(PORTS)


def test_cut_capture_is_an_error_only_if_strict(capture, tmp_path):
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(capture.read_bytes()[:-3])
    assert synfin.read(cut).num_rows == len(PORTS)
    with pytest.raises(synfin.CaptureFormatError, match="truncated"):
        synfin.read(cut, strict=True)


ENGINES = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pandas", "numpy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import synfin
scan = synfin.scan(sys.argv[1])
"""
DUCKDB = """
import duckdb
query = "select count(*), count(distinct client_port), min(epoch_ns(syn_first)), any_value(handshake) from scan"
print(*duckdb.sql(query).fetchall()[0])
"""
POLARS = """
import polars as pl
frame = pl.DataFrame(scan)
print(frame.height, frame["client_port"].n_unique(), frame["syn_first"].dt.epoch("ns").min(), frame["handshake"][0])
"""
LISTS = """
rows = scan.to_pylist()
print(len(rows), len({row["client_port"] for row in rows}), min(row["syn_first_ns"] for row in rows), rows[0]["handshake"])
"""


@pytest.mark.parametrize(("module", "code"), [("duckdb", DUCKDB), ("polars", POLARS), ("pyarrow", LISTS)])
def test_engines_read_a_scan_without_pandas(capture, module, code):
    pytest.importorskip(module)
    assert "pyarrow" not in code
    run = subprocess.run([sys.executable, "-c", ENGINES + code, capture], capture_output=True, text=True, check=False)
    first = START + PORTS[0] * SECOND + 7 + 1_000_001
    assert run.stdout.split() == [str(len(PORTS)), str(len(PORTS)), str(first), "complete"], run.stderr


def test_public_names_exist():
    assert all(hasattr(synfin, name) for name in synfin.__all__)
