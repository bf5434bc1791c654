"""An output folder that grows as that of a live run does."""

from __future__ import annotations

import pyarrow.compute as pc
import pyarrow.parquet as pq

S = 1_000_000_000
KEYS = ("services", "clients")


def rolled(folder, to, seconds):
    """The rows of a folder as a live run would have written them, in rolls of so many seconds; gives a function that lets the
    next roll appear, table by table.
    """
    tables = {table: pq.read_table(next((folder / table).glob("*.parquet"))) for table in ("intervals", *KEYS)}
    times = {table: pc.divide(rows["interval_start"].cast("int64"), S) for table, rows in tables.items()}
    first = pc.min(times["intervals"]).as_py()
    for table in tables:
        (to / table).mkdir(parents=True)

    def appear(number, *which):
        for table in which or tables:
            start = first + number * seconds
            mask = pc.and_(pc.greater_equal(times[table], start), pc.less(times[table], start + seconds))
            place = to / table / "date=2026-11-21" / f"hour={number // 4:02}"
            place.mkdir(parents=True, exist_ok=True)
            pq.write_table(tables[table].filter(mask), place / f"part-20261121T11{number:02}00Z-00000.parquet")

    return appear
