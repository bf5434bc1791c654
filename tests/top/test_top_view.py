"""Numbers as text, keys as choices, and the lines of terminals of all sizes."""

from __future__ import annotations

from collections import defaultdict

import pytest
from rich.text import Text

from synfin.top.columns import KEY_COLUMNS
from synfin.top.controls import Controls, Held, actions
from synfin.top.figures import Figures, Line, Ranking, figures, ranked
from synfin.top.folder import Folder
from synfin.top.history import History
from synfin.top.view import Facts, age, count, cropped, duration, end, frame, instant, rate, shown_columns

S = 1_000_000_000
CONTROLS = Controls(("services", "clients"), "services")
NOTHING = defaultdict(lambda: None)
EMPTY = Figures(1_700_000_000 * S, S, S, None, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)
FACTS = Facts("rows", "", 1_700_000_000 * S)


@pytest.fixture(scope="module")
def shown(folder):
    """Makes the lines of the example folder."""
    history = History(300 * S)
    for table, rows in Folder(str(folder), CONTROLS.tables, 300 * S).take():
        history = history.with_rows(table, rows)

    def make(width, height, controls=CONTROLS, facts=FACTS, **how):
        of = figures(history, 300 * S)
        by_key = ranked(history, controls.table, of, controls.sort, height, upward=controls.upward)
        return [line.plain for line in frame(controls, of, by_key, facts, (width, height), **how)]

    return make


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0, "0"), (999, "999"), (1000, "1,000"), (99_999, "99,999"), (100_000, "100k"), (999_499, "999k"),
        (999_500, "1.00M"), (1_234_567, "1.23M"), (12_345_678, "12.3M"), (2**63 - 1, "9.22E"),
    ],
)  # fmt: skip
def test_counts(value, text):
    assert count(value) == text and len(text) <= 6


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (0.001, "<0.01"), (1 / 300, "<0.01"), (0.01, "0.01"), (0.1, "0.1"), (2.54, "2.5"), (9.94, "9.9"),
     (9.96, "10"), (1234.5, "1,234"), (3.2e9, "3.20G")],
)  # fmt: skip
def test_rates(value, text):
    assert rate(value) == text and len(text) <= 6


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0ns"), (999, "999ns"), (1000, "1.00µs"), (12_345, "12.3µs"), (999_499, "999µs"), (999_500, "1.00ms"),
     (123_456_789, "123ms"), (9_994_999_999, "9.99s"), (75 * S, "75.0s"), (7440 * S, "7440s")],
)  # fmt: skip
def test_round_trips(value, text):
    assert duration(value) == text and len(text) <= 6


def test_times():
    assert [age(seconds) for seconds in (0, 119, 120, 7199, 7200, 172_799, 172_800)] == [
        "0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d",
    ]  # fmt: skip
    assert instant(1_700_000_000 * S, 1_700_000_100 * S) == "22:13:20 UTC"
    assert instant(1_700_000_000 * S, 1_700_100_000 * S) == "2023-11-14 22:13:20 UTC"


def test_ends():
    assert end(("192.0.2.1", 80)) == "192.0.2.1:80" and end(("2001:db8::1", 443)) == "[2001:db8::1]:443"
    assert end(("2001:db8::1",)) == "2001:db8::1" and end(("other", None)) == end(("other",)) == "other: all others"
    assert [end((text, 1)) for text in ("\x1b[2J", "", "a" * 46, "[bold]", "10.0.0.1\n")] == ["?"] * 5
    long = end(("2001:db8:1111:2222:3333:4444:5555:6666", 65_535))
    assert len(long) == 46 and cropped(long, 46) == long
    assert cropped(long, 24) == "[2001:db…555:6666]:65535" and [cropped(long, n) for n in (0, 1)] == ["", "…"]


@pytest.mark.parametrize("width", [1, 7, 20, 40, 60, 79, 80, 81, 100, 132, 147, 160, 200, 300])
@pytest.mark.parametrize("height", [1, 2, 4, 10, 24, 50, 100])
def test_every_size(shown, width, height):
    lines = shown(width, height)
    assert len(lines) == height and max(map(len, lines)) <= width
    assert lines[-1].startswith("q quit  space pause"[:width]) and (
        height == 1 or lines[0].startswith("synfin top"[:width])
    )


def test_80_columns_hold_everything(shown):
    """In 80 by 24 every number of the summary, and eight services of which nothing is cut."""
    lines = shown(80, 24)
    whole = shown(300, 100)
    text = "\n".join(lines)
    for word in (
        "connections",
        "half-open",
        "TIME-WAIT",
        "SYN-RECEIVED",
        "data resends",
        "p99",
        "q quit",
        "tab services/clients",
    ):
        assert word in text
    at = next(n for n, line in enumerate(lines) if line.startswith("by failed "))
    assert len(lines[at + 1 : -1]) == 8 and all(line.split()[0].count(":") >= 1 for line in lines[at + 1 : -1])
    assert "…" not in text
    # What stands in the panels stands in those of a wide terminal, too.
    numbers = " ".join(lines[1:13]).split()
    assert sorted(numbers) == sorted(" ".join(whole[1:7]).split())


@pytest.mark.parametrize("sort", [column.name for column in KEY_COLUMNS])
def test_the_column_that_is_sorted_by_is_shown(shown, sort):
    columns = shown_columns(80, sort)
    assert sort in [column.name for column in columns] and len(columns) == 8
    for upward, said in ((False, f"\nby {sort}  "), (True, f"\nby {sort}, lowest  ")):
        text = "\n".join(shown(80, 24, Controls(CONTROLS.tables, "services", sort=sort, upward=upward)))
        assert said in text
    assert shown_columns(200, sort) == list(KEY_COLUMNS) and [c.name for c in shown_columns(0, sort)] == [sort]


def test_nothing_foreign_reaches_the_terminal(shown):
    lines = shown(200, 24, facts=Facts("\x1b]0;x\x07[red]rows\n", "file\x1b[2J \u202e could not be read", FACTS.now_ns))
    assert "?]0;x?[red]rows?" in lines[0] and lines[1] == "file?[2J ? could not be read"
    values = dict.fromkeys((column.name for column in KEY_COLUMNS), 1.0)
    text = frame(CONTROLS, EMPTY, Ranking([Line(("\x1b[31m", 5), values)], None, EMPTY.end_ns - 2 * S), FACTS, (80, 24))
    assert not any(ord(char) < 32 for line in text for char in line.plain)
    assert any(line.plain.startswith("?  ") for line in text)
    assert any(line.plain.startswith("SERVICES at 22:13:18  ") for line in text)


def test_what_is_not_there(shown):
    lines = [line.plain for line in frame(CONTROLS, None, Ranking([]), FACTS, (80, 10))]
    assert lines[0].endswith("no rows yet") and "waiting for the first interval" in lines and len(lines) == 10
    text = "\n".join(shown(80, 24, keys=False))
    assert "q quit" not in text and not text.endswith("\n")
    assert all(isinstance(line, Text) for line in frame(CONTROLS, None, Ranking([]), FACTS, (80, 10)))


def test_the_title_tells_how_old_it_is(shown):
    for later_s, said in (
        (0, "22:13:20 UTC, 0 s old"),
        (40, "22:13:20 UTC, 40 s old"),
        (90_000, "2023-11-14 22:13:20 UTC, 25 h old"),
        (-0.5, "22:13:20 UTC, 0 s old"),
        (-37, "22:13:20 UTC, 37 s in the future"),
        (-90_000, "2023-11-14 22:13:20 UTC, 25 h in the future"),
    ):
        lines = frame(CONTROLS, EMPTY, Ranking([]), FACTS._replace(now_ns=FACTS.now_ns + int(later_s * S)), (80, 24))
        assert lines[0].plain.endswith(f"  {said}  last 1 s")
    held = Controls(CONTROLS.tables, "services", held=Held(History(S), None))
    assert shown(80, 24, held)[0].rstrip().endswith("PAUSED") and len(shown(80, 24, held)[0]) == 80


class TestControls:
    """Keys and what they choose."""

    def test_keys(self):
        assert list(actions(b"qp rw\t<>")) == ["quit", "pause", "pause", "reverse", "window", "table", "left", "right"]
        assert list(actions(b"\x1b[C\x1b[D\x1bOC\x1b[1;5D")) == ["right", "left", "right", "left"]
        assert list(actions(b"\x1b\x1b[A\x1b[5~\x1b[200~xyz\xff\x00\n")) == []
        assert list(actions(b"\x1b[")) == []

    def test_what_they_choose(self):
        now = Held(History(S), 5)
        names = [column.name for column in KEY_COLUMNS]
        assert (
            CONTROLS.after("pause", now).held is now and CONTROLS.after("pause", now).after("pause", now).held is None
        )
        assert (
            CONTROLS.after("table", now).table == "clients"
            and CONTROLS.after("table", now).after("table", now) == CONTROLS
        )
        assert CONTROLS.after("reverse", now).upward and not CONTROLS.after("reverse", now).after("right", now).upward
        sorts, each = [], CONTROLS
        for _ in names:
            sorts.append((each := each.after("right", now)).sort)
        assert sorted(sorts) == sorted(names) and each.sort == CONTROLS.sort
        assert CONTROLS.after("right", now).after("left", now).sort == CONTROLS.sort
        windows, each = [], CONTROLS
        for _ in CONTROLS.windows:
            windows.append((each := each.after("window", now)).window_ns // S)
        assert windows == [60, 300, 1, 10]
