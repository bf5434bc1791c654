"""Rows of tables in one form, whichever engine they come from."""

from pathlib import Path

import pyarrow as pa

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KEYS = {"flows": "flow_id", "intervals": "interval_start_ns"}


def plain(table):
    """A table's rows with microseconds since 1970 for instants, so that no zone or clock setting comes into play."""
    columns = [
        column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64())
        if pa.types.is_timestamp(column.type)
        else column
        for column in table.columns
    ]
    return pa.Table.from_arrays(columns, table.column_names).to_pylist()


def in_order(rows, table):
    return sorted(rows, key=lambda row: row[KEYS[table]])
