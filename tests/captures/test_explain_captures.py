"""`synfin explain` on real and hostile captures: it ends, leaves no packet out, and its rows are `track`'s."""

from __future__ import annotations

import pytest

from corpus import everything, needs_captures
from explained import explained, states, words
from rows import fast
from synfin.errors import SynfinError

#: Larger ones take seconds each and show the same.
LARGEST_BYTES = 100_000

pytestmark = [needs_captures, pytest.mark.slow]


@pytest.mark.parametrize(
    "path", [path for path in everything() if path.stat().st_size <= LARGEST_BYTES], ids=lambda path: path.name
)
def test_rows_packets_and_states(path):
    try:
        rows, _, _ = fast([path])
    except SynfinError as error:
        with pytest.raises(type(error)):
            explained([path])
        return
    for record in explained([path], count=30):
        assert record.row in rows
        assert len(record.steps) == record.row["client_packets"] + record.row["server_packets"]
        assert all(words(record))
        assert states(record)[-1] == (record.row["client_state"], record.row["server_state"])
