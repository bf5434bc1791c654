"""Charts: well-formed SVG whose bars and points lie where the numbers say."""

from xml.etree import ElementTree

import chart

NOTE = chart.note({"processor": "A & B", "cores": "2", "python": "3.11", "load at the start": "0.05"})
_SVG = "{http://www.w3.org/2000/svg}"


def test_a_bar_ten_times_as_long_is_twice_as_far_from_one():
    tree = ElementTree.fromstring(chart.bars("t", [("snap", "ten", 10.0), ("snap", "hundred", 100.0)], NOTE))
    ten, hundred = (float(bar.get("width")) for bar in tree.findall(f"{_SVG}rect")[1:])
    assert abs(hundred - 2 * ten) < 0.2


def test_a_mark_stands_under_the_point_of_the_same_value():
    series = {"a": [(1e3, 10.0), (1e4, 20.0), (1e6, 80.0)]}
    tree = ElementTree.fromstring(chart.lines("t", series, ("x", "y"), {"here": 1e4, "outside": 1e9}, NOTE))
    spots = [float(spot.get("cx")) for spot in tree.findall(f"{_SVG}circle")]
    (mark,) = (float(line.get("x1")) for line in tree.findall(f"{_SVG}line") if line.get("stroke-dasharray"))
    assert abs(spots[1] - mark) < 0.2
    assert abs((spots[2] - spots[0]) - 3 * (spots[1] - spots[0])) < 0.4


def test_curves_are_drawn_from_zero_on():
    series = {"a": [(0.0, 0.0), (30.0, 50.0), (60.0, 100.0)], "b": [(0.0, 25.0), (60.0, 25.0)]}
    tree = ElementTree.fromstring(chart.curves("t", series, ("x", "y"), {"here": 30.0}, NOTE))
    first, second = ([tuple(map(float, spot.split(","))) for spot in line.get("points").split()]
                     for line in tree.findall(f"{_SVG}polyline"))  # fmt: skip
    (x0, y0), (x1, y1), (x2, y2) = first
    assert abs(x1 - x0 - (x2 - x1)) < 0.2 and abs(y0 - y1 - (y1 - y2)) < 0.2 and y2 < y0
    assert abs(y0 - second[0][1] - (y0 - y2) / 4) < 0.2 and second[0][1] == second[1][1]
    (mark,) = (float(line.get("x1")) for line in tree.findall(f"{_SVG}line") if line.get("stroke-dasharray"))
    assert abs(mark - x1) < 0.2


def test_a_busy_machine_is_named_in_the_chart():
    facts = {"processor": "A", "cores": "2", "python": "3.11", "load at the start": "1.00"}
    assert "OTHER PROGRAMS" in chart.note(facts) and "OTHER PROGRAMS" not in NOTE
