"""Every format gives back what was written."""

import csv
import io
import json
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fakes import FakeBlock, every, sample

from synfin.output.arrow import Layout, compact
from synfin.output.formats import FORMATS
from synfin.output.parquet import ROW_GROUP_ROWS, encoding
from synfin.schema import TABLES, default_names

METADATA = {"complete": "false", "reason": "interrupted"}


def write(kind, layout, blocks):
    sink = pa.BufferOutputStream()
    writer = FORMATS[kind](sink, layout)
    for block in blocks:
        writer.write(layout.batch(block))
    writer.close(METADATA)
    return sink.getvalue().to_pybytes()


def iso(ns, digits=9):
    text = datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ns % 10**9:09}"[: 20 + digits] + "Z"


@pytest.fixture(params=["flows", "intervals"])
def table(request):
    return request.param


@pytest.fixture(params=["native", "lakehouse"])
def profile(request):
    return request.param


def plain(array):
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return (array.view(pa.int64()) if pa.types.is_timestamp(array.type) else array).to_pylist()


def test_parquet_round_trip(table, profile):
    layout = Layout.choose(table, every(table), profile)
    data = write("parquet", layout, [FakeBlock(table, sample(table, 7)), FakeBlock(table, sample(table, 2))])
    back = pq.read_table(pa.BufferReader(data))
    assert [(f.name, f.type) for f in back.schema] == [(f.name, f.type) for f in layout.schema]
    whole = sample(table, 7)
    second = sample(table, 2)
    for column in TABLES[table]:
        name = f"{column.name}_ns" if profile == "lakehouse" and column.kind == "instant" else column.name
        assert plain(back[name]) == whole[column.name] + second[column.name]


def test_parquet_of_many_small_batches(table, profile):
    """They become one row group, in their order, whatever words each of them brought; few of them are held at a time."""
    layout = Layout.choose(table, every(table), profile)
    blocks = [sample(table, 1 + k % 3) for k in range(100)]
    sink = pa.BufferOutputStream()
    writer = FORMATS["parquet"](sink, layout)
    for block in blocks:
        writer.write(compact(layout.batch(FakeBlock(table, block))))
        assert len(writer._held) < 32
    writer.close(METADATA)
    file = pq.ParquetFile(pa.BufferReader(sink.getvalue()))
    assert file.metadata.num_row_groups == 1
    back = file.read()
    for column in TABLES[table]:
        name = f"{column.name}_ns" if profile == "lakehouse" and column.kind == "instant" else column.name
        assert plain(back[name]) == [value for block in blocks for value in block[column.name]]


def test_a_compact_batch_is_the_same_in_less_memory():
    block = FakeBlock("flows", sample("flows", 3))
    room = {name: bytes(64_000) for name in block.names}  # what a block has beside its rows
    usual = block.buffers
    block.buffers = lambda name: tuple(part and (bytes(part) + room[name]) for part in usual(name))
    batch = Layout.choose("flows", every("flows")).batch(block)
    assert batch.get_total_buffer_size() > 64_000 * len(block.names)
    small = compact(batch)
    assert small.equals(batch) and small.get_total_buffer_size() < 300 * len(block.names)


def test_parquet_metadata_and_layout():
    names = ["flow_id", "first_seen", "client_ip", "handshake", "server_port"]
    layout = Layout.choose("flows", names)
    columns = {name: values for name, values in sample("flows", 16_384).items() if name in names}
    one = FakeBlock("flows", columns)
    other = FakeBlock("flows", {**columns, "client_ip": [f"10.0.{k >> 8}.{k & 255}" for k in range(16_384)]})
    file = pq.ParquetFile(pa.BufferReader(write("parquet", layout, [one, other] * 5)))
    about = file.metadata
    assert {key: about.metadata[key.encode()].decode() for key in METADATA} == METADATA
    assert about.metadata[b"schema_version"] == b"1"
    groups = [about.row_group(k) for k in range(about.num_row_groups)]
    assert [group.num_rows for group in groups] == [7 * 16_384, 3 * 16_384]
    assert max(group.num_rows for group in groups) <= ROW_GROUP_ROWS
    chunks = {groups[0].column(k).path_in_schema: groups[0].column(k) for k in range(len(names))}
    how = {name: (chunk.compression, set(chunk.encodings) - {"RLE"}) for name, chunk in chunks.items()}
    assert how == {
        "flow_id": ("UNCOMPRESSED", {"PLAIN"}),
        "first_seen": ("UNCOMPRESSED", {"DELTA_BINARY_PACKED"}),
        **dict.fromkeys(["client_ip", "handshake", "server_port"], ("ZSTD", {"PLAIN", "RLE_DICTIONARY"})),
    }
    assert [name for name, chunk in chunks.items() if chunk.is_stats_set] == ["first_seen"]
    assert chunks["first_seen"].has_column_index and chunks["first_seen"].has_offset_index


def test_every_column_keeps_to_its_encoding(table, profile):
    """A writer that is given an encoding for a kind of value that cannot have it, or falls back to another, is found out."""
    layout = Layout.choose(table, every(table), profile)
    file = pq.ParquetFile(pa.BufferReader(write("parquet", layout, [FakeBlock(table, sample(table, 7))])))
    group = file.metadata.row_group(0)
    for k, (field, column) in enumerate(layout.origins.items()):
        chunk, wanted = group.column(k), encoding(column)
        assert chunk.path_in_schema == field
        assert (wanted.name or "PLAIN") in chunk.encodings, field
        assert (chunk.compression == "ZSTD") == wanted.zstd, field


def test_other_readers_understand_every_encoding(tmp_path, table, profile):
    duckdb, polars = pytest.importorskip("duckdb"), pytest.importorskip("polars")
    columns, path = sample(table, 7), tmp_path / "rows.parquet"
    path.write_bytes(write("parquet", Layout.choose(table, every(table), profile), [FakeBlock(table, columns)]))
    counts = [column.name for column in TABLES[table] if column.kind not in ("instant", "bool")]
    listed = ", ".join(counts)
    expected = list(zip(*(columns[name] for name in counts), strict=True))
    assert duckdb.sql(f"select {listed} from '{path}'").fetchall() == expected
    assert polars.read_parquet(path, columns=counts).select(counts).rows() == expected
    for column in TABLES[table]:
        if column.kind == "instant":
            exact = column.name if profile == "native" else f"{column.name}_ns"
            asked = f"epoch_ns({exact})" if profile == "native" else exact
            assert [row[0] for row in duckdb.sql(f"select {asked} from '{path}'").fetchall()] == columns[column.name]
            read = polars.read_parquet(path, columns=[exact])[exact]
            assert read.cast(polars.Int64).to_list() == columns[column.name]


def test_arrow_stream_round_trip(table):
    layout = Layout.choose(table, every(table))
    data = write("arrow", layout, [FakeBlock(table, sample(table, 4)), FakeBlock(table, sample(table, 2))])
    reader = pa.ipc.open_stream(data)
    last = None
    rows = []
    while True:
        try:
            batch, last = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            break
        rows.append(batch)
    back = pa.Table.from_batches(rows)
    assert back.schema == layout.schema
    assert plain(back["flow_id"] if table == "flows" else back["syns"]) == [
        *sample(table, 4)["flow_id" if table == "flows" else "syns"],
        *sample(table, 2)["flow_id" if table == "flows" else "syns"],
    ]
    assert dict(last) == {key.encode(): value.encode() for key, value in METADATA.items()}


def expected_text(table, columns, profile="native"):
    """What CSV and JSON Lines should hold, by column, made without Arrow."""
    out = {}
    for column in TABLES[table]:
        values = columns[column.name]
        if column.kind == "instant":
            digits = 9 if profile == "native" else 6
            out[column.name] = [None if v is None else iso(v, digits) for v in values]
            if profile == "lakehouse":
                out[f"{column.name}_ns"] = values
        else:
            out[column.name] = values
    return out


def test_json_lines(table, profile):
    columns = sample(table, 6)
    data = write("jsonl", Layout.choose(table, every(table), profile), [FakeBlock(table, columns)])
    rows = [json.loads(line) for line in data.decode().splitlines()]
    expected = expected_text(table, columns, profile)
    assert {name: [row[name] for row in rows] for name in rows[0]} == expected
    assert list(rows[0]) == list(expected)


def test_json_lines_escapes_text():
    odd = 'a"b\\c\n\u2028\u00e9'
    data = write("jsonl", Layout.choose("flows", ["first_file"]), [FakeBlock("flows", {"first_file": [odd, None]})])
    lines = data.decode().split("\n")
    assert [json.loads(line)["first_file"] for line in lines[:2]] == [odd, None]
    assert lines[2:] == [""]


def test_csv(table):
    columns = sample(table, 6)
    data = write("csv", Layout.choose(table, every(table)), [FakeBlock(table, columns), FakeBlock(table, columns)])
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert len(rows) == 12
    for name, expected in expected_text(table, columns).items():
        text = ["" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in expected]
        assert [row[name] for row in rows] == text * 2


@pytest.mark.parametrize("kind", FORMATS)
def test_no_rows_still_give_the_schema(kind):
    data = write(kind, Layout.choose("flows"), [])
    names = default_names("flows")
    if kind == "parquet":
        assert pq.read_table(pa.BufferReader(data)).schema.names == names
    elif kind == "arrow":
        assert pa.ipc.open_stream(data).read_all().schema.names == names
    elif kind == "csv":
        assert next(csv.reader(io.StringIO(data.decode()))) == names
    else:
        assert data == b""
