"""One table as bytes: Parquet, Arrow IPC stream, CSV, JSON Lines.

Each class takes a pyarrow output file and the table's layout, and has `write(batch)`, `close(metadata)`, which
completes the format and leaves the file itself open, and `discard()` instead of it when the file is given up.
"""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from synfin.output.arrow import Layout
from synfin.output.parquet import Parquet


class ArrowStream:
    """Arrow IPC stream. What is known only at the end rides on a last, empty batch as its custom metadata."""

    def __init__(self, sink: pa.NativeFile, layout: Layout):
        self._schema = layout.schema
        self._writer = pa.ipc.new_stream(sink, self._schema)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self, metadata: dict[str, str]) -> None:
        empty = pa.RecordBatch.from_pylist([], schema=self._schema)
        self._writer.write_batch(empty, custom_metadata=metadata)
        self._writer.close()

    def discard(self) -> None:
        """Nothing to take back."""


class Csv:
    """CSV with a header line, RFC 4180 quoting, instants in ISO 8601; nothing between commas is null."""

    def __init__(self, sink: pa.NativeFile, layout: Layout):
        fields = [field.with_type(_as_text(field.type)) for field in layout.schema]
        self._writer = pyarrow.csv.CSVWriter(sink, pa.schema(fields))
        self._schema = pa.schema(fields)

    def write(self, batch: pa.RecordBatch) -> None:
        arrays = [iso8601(array) if pa.types.is_timestamp(array.type) else array for array in batch.columns]
        arrays = [array.dictionary_decode() if pa.types.is_dictionary(array.type) else array for array in arrays]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def close(self, metadata: dict[str, str]) -> None:
        self._writer.close()

    def discard(self) -> None:
        """Nothing to take back."""


class JsonLines:
    """One JSON object per line, instants in ISO 8601; null is null."""

    def __init__(self, sink: pa.NativeFile, layout: Layout):
        self._sink = sink

    def write(self, batch: pa.RecordBatch) -> None:
        parts: list[pa.Array | pa.Scalar] = []
        for number, (name, array) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
            parts.append(pa.scalar(f"{',' if number else '{'}{json.dumps(name)}:"))
            parts.append(_json_values(array))
        lines = pc.binary_join_element_wise(*parts, pa.scalar("}\n"), "")
        # The rows lie one after another in the array's own data: no join is needed.
        ends = lines.buffers()[1]
        first, last = (memoryview(ends).cast("i")[k + lines.offset] for k in (0, len(lines)))
        self._sink.write(lines.buffers()[2][first:last])

    def close(self, metadata: dict[str, str]) -> None:
        self._sink.flush()

    def discard(self) -> None:
        """Nothing to take back."""


def _as_text(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_timestamp(kind) or pa.types.is_dictionary(kind) else kind


def iso8601(instants: pa.Array) -> pa.Array:
    """Instants as text such as 2024-05-01T12:00:00.000000001Z, with all digits of their unit."""
    text = instants.view(pa.timestamp(instants.type.unit)).cast(pa.string())
    return pc.binary_join_element_wise(pc.replace_substring(text, " ", "T", max_replacements=1), pa.scalar("Z"), "")


def _json_values(array: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        words = pa.array([json.dumps(word) for word in array.dictionary.to_pylist()], pa.string())
        text = pc.take(words, array.indices)
    elif pa.types.is_string(array.type):
        text = _json_values(array.dictionary_encode())
    elif pa.types.is_timestamp(array.type):
        quote = pa.scalar('"')
        text = pc.binary_join_element_wise(quote, iso8601(array), quote, "")
    else:
        text = array.cast(pa.string())
    return pc.fill_null(text, "null")


FORMATS = {"parquet": Parquet, "arrow": ArrowStream, "csv": Csv, "jsonl": JsonLines}
