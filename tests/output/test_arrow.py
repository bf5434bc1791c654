"""Blocks of the core as Arrow batches."""

import pyarrow as pa
import pytest
from fakes import FakeBlock, every, sample

from synfin.errors import ConfigError
from synfin.output.arrow import Layout
from synfin.schema import SCHEMA_VERSION, TABLES, default_names

FIRST = 1_700_000_000_000_000_001


def values(array):
    """Python values; instants as integers, since pyarrow makes no datetime of nanoseconds without pandas."""
    return (array.view(pa.int64()) if pa.types.is_timestamp(array.type) else array).to_pylist()


@pytest.mark.parametrize("table", TABLES)
def test_native_holds_every_value(table):
    columns = sample(table, 11)
    batch = Layout.choose(table, every(table)).batch(FakeBlock(table, columns))
    batch.validate(full=True)
    assert {name: values(batch[name]) for name in batch.schema.names} == columns


def test_native_types():
    schema = Layout.choose("flows").schema
    kinds = {str(field.type) for field in schema}
    assert schema.field("first_seen").type == pa.timestamp("ns", "UTC")
    assert schema.field("handshake").type == pa.dictionary(pa.int8(), pa.string())
    assert schema.field("client_ip").type == pa.dictionary(pa.int32(), pa.string())
    assert not any("uint" in kind or "duration" in kind for kind in kinds)
    assert schema.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
    assert schema.metadata[b"table"] == b"flows"
    assert all(field.metadata[b"doc"] for field in schema)


def test_native_copies_nothing():
    block = FakeBlock("flows", {"flow_id": [1, 2, 3], "first_seen": [FIRST, None, FIRST]})
    kept = {name: block.buffers(name) for name in block.names}
    block.buffers = kept.__getitem__
    batch = Layout.choose("flows", ["flow_id", "first_seen"]).batch(block)
    for name, buffers in kept.items():
        assert batch[name].buffers()[1].address == pa.py_buffer(buffers[1]).address


@pytest.mark.parametrize("table", TABLES)
def test_lakehouse_holds_every_value(table):
    columns = sample(table, 11)
    batch = Layout.choose(table, every(table), "lakehouse").batch(FakeBlock(table, columns))
    batch.validate(full=True)
    allowed = {"int16", "int32", "int64", "bool", "string", "timestamp[us, tz=UTC]"}
    assert {str(field.type) for field in batch.schema} <= allowed
    for column in TABLES[table]:
        if column.kind == "instant":
            assert batch[f"{column.name}_ns"].to_pylist() == columns[column.name]
            floor = [None if value is None else value // 1000 for value in columns[column.name]]
            assert values(batch[column.name]) == floor
        else:
            assert batch[column.name].to_pylist() == columns[column.name]


def test_lakehouse_rounds_down_before_1970():
    block = FakeBlock("flows", {"first_seen": [-1, -1000, -1001, None, 1999]})
    batch = Layout.choose("flows", ["first_seen"], "lakehouse").batch(block)
    assert values(batch["first_seen"]) == [-1, -1, -2, None, 1]


def test_columns_keep_the_order_asked_for():
    assert Layout.choose("flows", ["server_ip", "client_ip"]).names == ["server_ip", "client_ip"]


def test_optional_columns_are_added_where_they_are_asked_for():
    names = default_names("flows")
    assert Layout.choose("flows").names == names
    assert {"community_id", "zeek_history"}.isdisjoint(names) and len(names) == len(TABLES["flows"]) - 5
    added = ["zeek_history", "community_id"]
    assert Layout.choose("flows", ["+zeek_history", "community_id"]).names == names + added
    assert Layout.choose("flows", ["+zeek_history", "+community_id"]).names == names + added
    assert Layout.choose("flows", ["zeek_history"]).names == ["zeek_history"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("flow",), "no table"),
        (("flows", ["+client_ip"]), "'client_ip' is named twice; .NAMES adds"),
        (("flows", ["client_ip", "+zeek_history"]), "no column '.zeek_history'"),
        (("flows", ["clientip"]), "did you mean 'client_ip'"),
        (("flows", ["zzzzzz"]), "synfin columns --table flows"),
        (("flows", ["client_ip", "client_ip"]), "'client_ip' is named twice"),
        (("flows", []), "at least one"),
        (("flows", None, "spark"), "no profile"),
    ],
)
def test_wrong_choice_is_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Layout.choose(*arguments)
