"""A table as Parquet: how each column is encoded, compressed and described, and the writer of row groups."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from synfin.output.arrow import Layout
from synfin.schema import Column

#: Most rows in a Parquet row group: small enough for engines to skip and parallelise over (DuckDB's own size).
ROW_GROUP_ROWS = 122_880
#: Most batches that wait for their row group. A run that is asked for its rows every second brings small ones: beyond so
#: many they become one.
_MOST_HELD = 32
_ZSTD_LEVEL = 1


class Encoding(NamedTuple):
    """How the values of a column are stored (names of the Parquet format's Encodings.md; None: plain)."""

    name: str | None
    zstd: bool


#: Few values, which stand once in each row group.
DICTIONARY = Encoding("RLE_DICTIONARY", True)
#: Whole numbers that lie near each other, or are small: differences in as many bits as they need. What is left has no
#: pattern that zstd would find.
DELTA = Encoding("DELTA_BINARY_PACKED", False)
#: Bits, and texts that hardly come twice.
PLAIN = Encoding(None, True)
#: Values like random ones, which nothing makes smaller.
RAW = Encoding(None, False)

_BY_NAME = {"flow_id": RAW, "community_id": PLAIN, "client_port": DELTA}
_BY_END = {"syn_window": DELTA}
#: 64-bit counts that have few values: nearly always 0 or 1, or, of options, what a handful of systems send.
_FEW = frozenset(
    (
        "tunnel_id", "icmp_errors", "syn_count", "synack_count", "synack_isn_variants", "option_kinds", "syn_payload_bytes",
        "odd_syns", "odd_segments", "fin_count", "rst_count", "rst_rejected", "payload_bytes_after_fin",
        "packets_after_close", "retransmitted_segments", "retransmitted_bytes", "out_of_order_segments", "missing_bytes",
        "keep_alives", "zero_windows", "duplicate_acks", "capture_duplicates",
    )
)  # fmt: skip


def encoding(column: Column) -> Encoding:
    """How a column is stored, whatever the profile. docs/performance.md (Output) has what the choices gave."""
    name = column.name.removeprefix("client_").removeprefix("server_")
    if chosen := _BY_NAME.get(column.name) or _BY_END.get(name):
        return chosen
    if column.kind == "bool":
        return PLAIN
    if column.kind in ("int64", "instant"):
        return DICTIONARY if name in _FEW else DELTA
    return DICTIONARY


def has_statistics(column: Column) -> bool:
    """Whether row groups and pages say a column's least and greatest value.

    Rows come in the order in which they ended, so a reader can pass over a part by these columns alone; of any other, each
    part holds small and large values.
    """
    return column.kind == "instant" or column.name in ("first_file", "first_packet")


def writer_options(chosen: dict[str, Encoding], statistics: list[str]) -> dict[str, Any]:
    """What pyarrow's ParquetWriter is told: the encoding of each field, and the fields that have statistics."""
    return {
        "compression": {field: "zstd" if how.zstd else "none" for field, how in chosen.items()},
        "compression_level": {field: _ZSTD_LEVEL for field, how in chosen.items() if how.zstd},
        "use_dictionary": [field for field, how in chosen.items() if how.name == DICTIONARY.name],
        "column_encoding": {field: how.name for field, how in chosen.items() if how.name == DELTA.name},
        "write_statistics": statistics,
        "write_page_index": True,
    }


class Parquet:
    """Parquet, with a page index. Row groups hold whole batches, as many as fit in `group_rows`."""

    def __init__(self, sink: pa.NativeFile, layout: Layout, group_rows: int = ROW_GROUP_ROWS):
        chosen = {field: encoding(column) for field, column in layout.origins.items()}
        statistics = [field for field, column in layout.origins.items() if has_statistics(column)]
        self._writer = pq.ParquetWriter(sink, layout.schema, **writer_options(chosen, statistics))
        self._schema = layout.schema
        self._group_rows = group_rows
        self._held: list[pa.RecordBatch] = []
        self._held_rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        if self._held_rows + batch.num_rows > self._group_rows:
            self._flush()
        self._held.append(batch)
        self._held_rows += batch.num_rows
        if len(self._held) >= _MOST_HELD:
            self._held = self._group().combine_chunks().to_batches()

    def _flush(self) -> None:
        if self._held_rows:
            self._writer.write_table(self._group(), row_group_size=self._group_rows)
        self._held, self._held_rows = [], 0

    def _group(self) -> pa.Table:
        # One dictionary for the group: the writer would give up dictionary encoding where batches differ.
        return pa.Table.from_batches(self._held, self._schema).unify_dictionaries()

    def close(self, metadata: dict[str, str]) -> None:
        self._flush()
        self._writer.add_key_value_metadata(metadata)
        self._writer.close()

    def discard(self) -> None:
        self._writer.is_open = False  # else it writes a footer when it is collected, and complains that it cannot
