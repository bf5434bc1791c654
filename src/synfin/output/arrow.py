"""Blocks of the core as Arrow record batches, without a copy, and the schema of all tables."""

from __future__ import annotations

import ctypes
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from synfin import __version__
from synfin.errors import ConfigError
from synfin.schema import ENUMS, SCHEMA_VERSION, TABLES, Column, default_names

if TYPE_CHECKING:
    from synfin._core.block import Block

PROFILES = ("native", "lakehouse")
INSTANT = pa.timestamp("ns", "UTC")
INSTANT_US = pa.timestamp("us", "UTC")
_PLAIN = {"int16": pa.int16(), "int32": pa.int32(), "int64": pa.int64(), "bool": pa.bool_(), "instant": INSTANT}


def arrow_type(kind: str) -> pa.DataType:
    """The Arrow type of a kind of column (see `synfin.schema`) in the native profile."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    return pa.dictionary(pa.int32() if kind == "text" else pa.int8(), pa.string())


def select(table: str, names: Sequence[str] | None) -> tuple[Column, ...]:
    """The named columns of a table in the order of the names; all but the optional ones when None. Where the first name
    begins with ``+``, these come first, and then the named ones. Raises ConfigError.
    """
    if table not in TABLES:
        raise ConfigError(f"{table!r} is no table; choose one of {', '.join(TABLES)}")
    known = {column.name: column for column in TABLES[table]}
    if names is None:
        names = default_names(table)
    elif names and names[0].startswith("+"):
        names = [*default_names(table), *(name.removeprefix("+") for name in names)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"`synfin columns --table {table}` lists them"
            raise ConfigError(f"the table {table} has no column {name!r}; {hint}")
    if not names:
        raise ConfigError("columns must name at least one column")
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ConfigError(f"the column {twice[0]!r} is named twice; +NAMES adds to the default ones")
    return tuple(known[name] for name in names)


@dataclass(frozen=True)
class Layout:
    """Which columns of which table, in which profile: what turns a block into a record batch."""

    table: str
    columns: tuple[Column, ...]
    profile: str = "native"

    @classmethod
    def choose(cls, table: str, names: Sequence[str] | None = None, profile: str = "native") -> Layout:
        """A layout by names. Raises ConfigError for a table, column or profile that does not exist."""
        if profile not in PROFILES:
            raise ConfigError(f"{profile!r} is no profile; choose one of {', '.join(PROFILES)}")
        return cls(table, select(table, names), profile)

    def with_profile(self, profile: str) -> Layout:
        """The same columns in another profile."""
        return replace(self, profile=profile)

    def for_interim(self) -> Layout:
        """The same columns of the flow table, for interim rows."""
        return replace(self, table="interim")

    @property
    def names(self) -> list[str]:
        """Names of the columns as the core knows them."""
        return [column.name for column in self.columns]

    @cached_property
    def origins(self) -> dict[str, Column]:
        """Of every field of `schema` the column that it holds."""
        fields: dict[str, Column] = {}
        for column in self.columns:
            fields[column.name] = column
            if self.profile == "lakehouse" and column.kind == "instant":
                fields[f"{column.name}_ns"] = column
        return fields

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema, with a sentence on every field."""
        fields: list[pa.Field] = []
        for column in self.columns:
            kind, doc = arrow_type(column.kind), {"doc": column.doc}
            if self.profile == "lakehouse" and column.kind == "instant":
                fields.append(pa.field(column.name, INSTANT_US, metadata=doc))
                exact = {"doc": f"`{column.name}` in nanoseconds since 1970."}
                fields.append(pa.field(f"{column.name}_ns", pa.int64(), metadata=exact))
            elif self.profile == "lakehouse" and pa.types.is_dictionary(kind):
                fields.append(pa.field(column.name, pa.string(), metadata=doc))
            else:
                fields.append(pa.field(column.name, kind, metadata=doc))
        about = {
            "schema_version": str(SCHEMA_VERSION),
            "synfin_version": __version__,
            "table": self.table,
            "profile": self.profile,
        }
        return pa.schema(fields, metadata=about)

    def batch(self, block: Block) -> pa.RecordBatch:
        """A block's rows. In the native profile the arrays lie in the block's own memory."""
        arrays: list[pa.Array] = []
        for column in self.columns:
            array = _array(block, column)
            if self.profile == "lakehouse" and column.kind == "instant":
                arrays += [_microseconds(array), array.view(pa.int64())]
            elif self.profile == "lakehouse" and pa.types.is_dictionary(array.type):
                arrays.append(array.dictionary_decode())
            else:
                arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def compact(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows in memory of their own: a few rows else hold on to that of a whole block."""
    return batch.take(pa.array(range(batch.num_rows), pa.int32()))


def release_unused() -> None:
    """Give the system back what Arrow and glibc keep of freed memory.

    Buffers of row groups are of all sizes: what stays of them takes some 80 MiB, and creeps up for hours.
    """
    pa.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # of glibc
        trim(0)


def _buffer(memory: object | None) -> pa.Buffer | None:
    return None if memory is None else pa.py_buffer(memory)


def _array(block: Block, column: Column) -> pa.Array:
    kind = arrow_type(column.kind)
    buffers = [_buffer(memory) for memory in block.buffers(column.name)]
    if not pa.types.is_dictionary(kind):
        return pa.Array.from_buffers(kind, block.rows, buffers)
    codes = pa.Array.from_buffers(kind.index_type, block.rows, buffers)
    if codes.null_count == len(codes):
        words = pa.array([""])  # addresses share their dictionary, and that of the others need not be carried along
    elif column.kind == "text":
        length, offsets, data = block.dictionary(column.name)
        words = pa.Array.from_buffers(pa.string(), length, [None, _buffer(offsets), _buffer(data)])
    else:
        words = pa.array(ENUMS[column.kind.partition(":")[2]], pa.string())
    # The core writes only codes that its dictionary holds; checking them would read every row again.
    return pa.DictionaryArray.from_arrays(codes, words, safe=False)


def _microseconds(instants: pa.Array) -> pa.Array:
    """Rounded down, also before 1970. Without the zone while computing: UTC needs no zone database then."""
    floored = pc.floor_temporal(instants.view(pa.timestamp("ns")), unit="microsecond")
    return floored.cast(pa.timestamp("us")).view(INSTANT_US)
