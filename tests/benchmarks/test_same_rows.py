"""The comparison of two trees' rows finds what differs, and only that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from same_rows import captures, difference  # noqa: E402

ROWS = {"flow_id": [1, 2, 2], "packets": [5, 6, 6], "close": ["fin", None, None]}


def changed(**columns) -> pa.Table:
    return pa.table(ROWS | columns)


def test_order_and_columns_of_one_tree_do_not_matter():
    table = pa.table(ROWS)
    assert difference(table, table.take([2, 0, 1])) is None
    assert difference(table, changed(more=[1, 2, 3])) is None
    assert difference(table.slice(0, 0), table.slice(0, 0)) is None


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (changed(packets=[5, 6, 7]), "packets: 6 became 7; 1 rows differ, this one is flow_id 2"),
        (changed(close=["fin", None, "rst"]), "close: None became 'rst'"),
        (changed(packets=[9, 6, 6], close=[None, None, None]), "packets: 5 became 9, and 1 more columns"),
        (pa.table(ROWS).slice(0, 2), "1 rows only in the other tree, such as flow_id 2"),
        (pa.concat_tables([pa.table(ROWS)] * 2), "3 rows only in this tree"),
    ],
)
def test_what_differs_is_named(other, expected):
    assert expected in difference(pa.table(ROWS), other)


def test_a_tree_equals_itself(tmp_path):
    capture = ROOT / "examples/31-port-reuse.pcap"
    (tmp_path / "no.pcap").write_bytes(b"no capture")
    command = [sys.executable, ROOT / "benchmarks/same_rows.py", ROOT, capture, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "the same rows in 2 files: " in done.stdout and "0 flows" not in done.stdout
    assert list(captures([tmp_path, capture])) == [tmp_path / "no.pcap", capture]
