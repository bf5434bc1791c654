"""What `synfin top` makes of interval rows, beside the same asked of DuckDB over the same files."""

from __future__ import annotations

import math

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from synfin.errors import ConfigError
from synfin.schema import INTERVALS
from synfin.top import history as histories
from synfin.top.columns import KEY_COLUMNS
from synfin.top.figures import Ranking, figures, ranked
from synfin.top.folder import Folder
from synfin.top.history import GAUGES, PEAKS, ROUND_TRIPS, History, names, plain

S = 1_000_000_000
KEYS = {"services": ["server_ip", "server_port"], "clients": ["client_ip"]}


def loaded(folder, keep_ns=300 * S):
    """All that a folder holds."""
    history = History(keep_ns)
    for table, rows in Folder(str(folder), tuple(KEYS), keep_ns).take():
        history = history.with_rows(table, rows)
    return history


def asked(folder, table, what, window, group=""):
    """What DuckDB says of the rows of a window, which is told as its seconds and its end."""
    window_s, end_ns = window
    columns = [group, what] if group else [what]
    ends = "epoch_ns(interval_start) + interval_ns"
    query = f"""SELECT {", ".join(columns)} FROM read_parquet('{folder}/{table}/**/*.parquet')
        WHERE epoch_ns(interval_start) >= {end_ns - window_s * S} AND {ends} <= {end_ns} {f"GROUP BY {group}" if group else ""}"""
    return duckdb.sql(query.replace("@end", f"{ends} = {end_ns}"))


def last_end(folder):
    return duckdb.sql(
        f"SELECT max(epoch_ns(interval_start) + interval_ns) FROM '{folder}/intervals/*.parquet'"
    ).fetchall()[0][0]


@pytest.mark.parametrize("window_s", [1, 10, 60])
@pytest.mark.parametrize("back_s", [0, 20, 61])
def test_all_connections(folder, window_s, back_s):
    """Each gauge, peak, rate and quantile, at the end of the examples and in the midst of them."""
    end_ns = last_end(folder) - back_s * S
    history = loaded(folder)
    rows = history.tables["intervals"]
    until = History(300 * S).with_rows("intervals", rows.filter(pc.less_equal(rows["end"], end_ns)))
    of = figures(until, window_s * S)
    first = duckdb.sql(f"SELECT min(epoch_ns(interval_start)) FROM '{folder}/intervals/*.parquet'").fetchall()[0][0]
    assert of.end_ns == end_ns and of.interval_ns == S
    assert of.span_ns == min(window_s * S, end_ns - first)

    def said(what):
        return asked(folder, "intervals", what, (window_s, end_ns)).fetchall()[0][0]

    for name in GAUGES:
        assert of.now[name] == said(f"max(CASE WHEN @end THEN {name} END)"), name
    for name in PEAKS:
        assert of.peak[name] == said(f"max({name})"), name
    for name, value in of.rate.items():
        total = said(f"sum({name})")
        assert (value is None) == (total is None), name
        assert value is None or math.isclose(value, total / (of.span_ns / S)), name
    for name in ROUND_TRIPS:
        assert of.worst[name] == said(f"max({name})"), name
        assert of.latest[name] == said(f"arg_max({name}, interval_start)"), name
    assert of.rate["packets"] > 0 or window_s < 60


def test_a_folder_that_says_something(folder):
    """The comparison above is one of numbers that are there."""
    of = figures(loaded(folder), 300 * S)
    assert all(
        of.rate[name] for name in ("packets", "syns", "completed", "refused", "closed_rst", "retransmitted_segments")
    )
    assert of.now["established"] and of.peak["time_wait_peak"] and all(of.worst[name] for name in ROUND_TRIPS)
    assert of.rate["capture_drops"] is None  # files do not say


@pytest.mark.parametrize("window_s", [1, 10, 60])
@pytest.mark.parametrize("table", list(KEYS))
def test_by_key(folder, table, window_s):
    history = loaded(folder)
    of = figures(history, window_s * S)
    lines, other, _ = ranked(history, table, of, "failed", 10_000)
    assert other is None and len({line.key for line in lines}) == len(lines) > 1
    what = []
    for column in KEY_COLUMNS:
        total = " + ".join(column.of)
        if column.kind == "gauge":
            what.append(f"coalesce(max(CASE WHEN @end THEN {total} END), 0)")
        else:
            what.append(f"sum({total}) / {of.span_ns / S}" if column.kind == "rate" else f"max({total})")
    key = KEYS[table]
    said = asked(folder, table, ", ".join(what), (window_s, of.end_ns), ", ".join(key)).fetchall()
    expected = {row[: len(key)]: row[len(key) :] for row in said}
    assert {line.key for line in lines} == set(expected)
    for line in lines:
        for column, value in zip(KEY_COLUMNS, expected[line.key], strict=True):
            assert line.values[column.name] == pytest.approx(value), (line.key, column.name)


@pytest.mark.parametrize("upward", [False, True])
@pytest.mark.parametrize("column", KEY_COLUMNS, ids=lambda column: column.name)
def test_order(folder, column, upward):
    """By the column, then by SYNs and connections, then by key; what has no value comes last."""
    history = loaded(folder)
    of = figures(history, 300 * S)
    lines, _, _ = ranked(history, "services", of, column.name, 10_000, upward=upward)

    def place(line):
        value = line.values[column.name]
        own = 0 if value is None else value if upward else -value
        return (value is None, own, -line.values["syns"], -line.values["connections"], *line.key)

    assert lines == sorted(lines, key=place) and len(lines) > 10
    assert ranked(history, "services", of, column.name, 3, upward=upward).lines == lines[:3]


def made(table, rows):
    """Rows by hand: (second, key, values); what is not named is 0."""
    columns = {name: [] for name in names(table)}
    for second, key, values in rows:
        whole = dict.fromkeys(columns, 0) | {"interval_start": second * S, "interval_ns": S} | key | values
        for name, value in whole.items():
            columns[name].append(value)
    return plain(table, pa.table(columns))


def test_an_interval_without_a_row_was_empty():
    history = History(300 * S).with_rows("intervals", made("intervals", [(10, {}, {"connections": 4, "syns": 6})]))
    of = figures(history, 2 * S, 13 * S)
    assert (of.end_ns, of.span_ns, of.now["connections"], of.rate["syns"]) == (13 * S, 2 * S, 0, 0)
    of = figures(history, 3 * S, 13 * S)
    assert (of.now["connections"], of.rate["syns"]) == (0, 2)
    assert figures(history, 3 * S, 5 * S).end_ns == 11 * S  # never before the newest row
    assert figures(History(S), S) is None


def test_a_service_among_the_others_has_no_gauge():
    """It may be in their row just then; where there is no such row, it has none."""
    one, two, rest = (
        {"server_ip": ip, "server_port": port} for ip, port in (("192.0.2.1", 80), ("192.0.2.2", 80), ("other", None))
    )
    history = History(300 * S).with_rows("intervals", made("intervals", [(10, {}, {}), (11, {}, {})]))
    rows = [
        (10, one, {"connections": 3, "syns": 1}),
        (10, two, {"connections": 5}),
        (11, two, {"connections": 7}),
        (11, rest, {"connections": 4}),
    ]
    lines, other, _ = ranked(
        history.with_rows("services", made("services", rows)), "services", figures(history, 2 * S), "connections", 9
    )
    assert [(line.key[0], line.values["connections"]) for line in lines] == [("192.0.2.2", 7), ("192.0.2.1", None)]
    assert other.values["connections"] == 4 and lines[1].values["syns"] == 0.5
    lines, other, _ = ranked(
        history.with_rows("services", made("services", rows[:-1])),
        "services",
        figures(history, 2 * S),
        "connections",
        9,
    )
    assert [line.values["connections"] for line in lines] == [7, 0] and other is None
    assert ranked(history, "clients", figures(history, S), "failed", 9) == Ranking([])


def test_rows_of_the_tables_come_one_after_another():
    """Services are shown as of their own newest row, unless later ones were empty, or it is of an earlier run."""
    service = {"server_ip": "192.0.2.1", "server_port": 80}
    history = History(300 * S).with_rows("intervals", made("intervals", [(second, {}, {}) for second in range(10, 20)]))
    history = history.with_rows(
        "services",
        made("services", [(second, service, {"connections": second, "syns": 2}) for second in range(10, 18)]),
    )

    def said(window_s, settled_ns=None):
        ranking = ranked(history, "services", figures(history, window_s * S, settled_ns), "syns", 9)
        return [(line.values["connections"], line.values["syns"]) for line in ranking.lines], ranking.end_ns

    assert said(4) == ([(17, 2)], 18 * S)
    assert said(4, 17 * S) == ([(17, 2)], 18 * S)
    assert said(4, 19 * S) == ([(0, 1.5)], 19 * S)
    assert said(4, 21 * S) == ([(0, 0.5)], 21 * S)
    assert said(1) == ([(17, 2)], 18 * S)
    for second, lines in ((27, 1), (28, 0)):
        of = figures(history.with_rows("intervals", made("intervals", [(second - 1, {}, {})])), S)
        assert len(ranked(history, "services", of, "syns", 9).lines) == lines


class TestHistory:
    """What is kept."""

    def seconds(self, history, table="intervals"):
        return [start // S for start in history.tables[table]["start"].to_pylist()]

    def rows(self, *seconds):
        return made("intervals", [(second, {}, {}) for second in seconds])

    def test_old_rows_go(self):
        history = History(5 * S)
        for second in range(100, 200):
            history = history.with_rows("intervals", self.rows(second))
        assert self.seconds(history) == [195, 196, 197, 198, 199] and history.since_ns == 100 * S
        assert figures(history, 5 * S).span_ns == 5 * S

    def test_what_repeats_after_a_step_back_goes(self):
        history = History(300 * S).with_rows("intervals", self.rows(100, 101, 102))
        assert self.seconds(history.with_rows("intervals", self.rows(101, 102))) == [100, 101, 102]
        assert self.seconds(history.with_rows("intervals", self.rows(103, 104, 50, 51))) == [50, 51]
        assert history.with_rows("intervals", self.rows(50)).end_ns == 51 * S
        assert self.seconds(history) == [100, 101, 102]  # who holds it sees it as it was

    def test_rows_of_one_interval_may_come_in_pieces(self):
        service = {"server_ip": "192.0.2.1", "server_port": 80}
        history = History(300 * S)
        for _ in range(3):
            history = history.with_rows("services", made("services", [(100, service, {})]))
        assert self.seconds(history, "services") == [100] * 3

    def test_room(self, monkeypatch):
        """Of more rows than there is room for, the newest whole intervals; their rates are of that time."""
        monkeypatch.setattr(histories, "ROOM", 10)
        keys = [{"server_ip": f"192.0.2.{number}", "server_port": 80} for number in range(4)]
        history = History(300 * S)
        for second in range(100, 110):
            history = history.with_rows("intervals", self.rows(second))
            history = history.with_rows("services", made("services", [(second, key, {"syns": 6}) for key in keys]))
        assert self.seconds(history, "services") == [108] * 4 + [109] * 4
        lines, _, _ = ranked(history, "services", figures(history, 10 * S), "syns", 9)
        assert [line.values["syns"] for line in lines] == [pytest.approx(6, rel=1e-6)] * 4

    def test_rows_without_their_interval(self):
        with pytest.raises(ConfigError, match="lack the column interval_ns"):
            plain("intervals", pa.table({"interval_start": [1]}))
        with pytest.raises(ConfigError, match="lack the column server_port"):
            plain("services", pa.table({"interval_start": [1], "interval_ns": [1], "server_ip": ["::"]}))
        for start, length in ((2**63 - 1, 1), (-(2**63), 1), (2**62, 1), (0, -1), (None, 1), (0, None)):
            with pytest.raises(pa.ArrowInvalid):
                plain(
                    "intervals",
                    pa.table(
                        {"interval_start": pa.array([start], "int64"), "interval_ns": pa.array([length], "int64")}
                    ),
                )

    def test_columns_that_were_not_written(self):
        """A folder may hold some columns only: the others are not known."""
        rows = plain("intervals", pa.table({"interval_start": [0, S], "interval_ns": [S, S], "syns": [2, 4]}))
        of = figures(History(300 * S).with_rows("intervals", rows), 2 * S)
        assert of.rate["syns"] == 3 and of.rate["packets"] is None and of.now["connections"] is None


def test_every_number_is_a_column():
    known = {column.name for column in INTERVALS}
    assert set(names("intervals")) <= known
    assert {name for column in KEY_COLUMNS for name in column.of} <= known
