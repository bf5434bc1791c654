"""Charts as SVG: bars for comparisons and lines for how cost grows, with logarithmic axes; curves over time. Nothing to install."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

_WIDTH, _LEFT, _RIGHT, _TOP = 860, 190, 60, 56
_COLOURS = ("#1b6ca8", "#c44536", "#5b8c5a", "#8b5fbf", "#b8860b", "#4a4a4a")


def note(facts: Mapping[str, str]) -> str:
    """The machine in one line, with a warning where something else was running on it."""
    busy = float(facts["load at the start"]) > 0.2
    warning = "; OTHER PROGRAMS WERE RUNNING" if busy else ""
    return f"{facts['processor']}, {facts['cores']} cores, Python {facts['python']}{warning}"


def _text(x: float, y: float, text: str, anchor: str = "start", *, size: int = 12, colour: str = "#222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
    )


def _line(start: tuple[float, float], end: tuple[float, float], colour: str, more: str = "") -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'


def _page(height: float, title: str, below: str, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" font-family="sans-serif">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n'
    )
    body = "\n".join([_text(16, 24, title, size=15), _text(16, 42, below, size=11, colour="#666"), *parts])
    return f"{head}{body}\n</svg>\n"


def _powers(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def bars(title: str, values: Sequence[tuple[str, str, float]], below: str) -> str:
    """Horizontal bars from 1 on, one for each (group, name, value), the groups in the order in which they come."""
    groups = list(dict.fromkeys(group for group, _, _ in values))
    most = max(10.0, *(value for _, _, value in values))
    scale = (_WIDTH - _LEFT - _RIGHT) / math.log10(most)
    parts, y = [], float(_TOP)
    height = _TOP + 16 * len(values) + 26 * len(groups) + 24
    for power in _powers(1, most):
        x = _LEFT + scale * math.log10(power)
        parts += [
            _line((x, _TOP), (x, height - 24), "#ddd"),
            _text(x, height - 8, _short(power), "middle", size=11, colour="#666"),
        ]
    for group in groups:
        y += 20
        parts.append(_text(16, y, group, size=13))
        for _, name, value in (item for item in values if item[0] == group):
            width = max(scale * math.log10(max(value, 1)), 1)
            colour = _COLOURS[0] if name.startswith("synfin") else "#9aa5b1"
            parts += [
                f'<rect x="{_LEFT}" y="{y - 9:.1f}" width="{width:.1f}" height="12" fill="{colour}"/>',
                _text(_LEFT - 6, y + 1, name, "end", size=11), _text(_LEFT + width + 4, y + 1, f"{value:.1f}", size=11),
            ]  # fmt: skip
            y += 16
        y += 6
    return _page(height, title, below, parts)


def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    axes: tuple[str, str],
    marks: Mapping[str, float],
    below: str,
) -> str:
    """Lines over two logarithmic axes, and upright marks at values of the first one."""
    height, bottom, left = 420, 370, 70
    points = [point for line in series.values() for point in line]
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = min(y for _, y in points) / 1.3, max(y for _, y in points) * 1.3
    across = (_WIDTH - left - 170) / (math.log10(high_x / low_x) or 1)
    up = (bottom - _TOP - 20) / (math.log10(high_y / low_y) or 1)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + across * math.log10(x / low_x), bottom - up * math.log10(y / low_y)

    parts = [_text((left + _WIDTH - 170) / 2, height - 10, axes[0], "middle"), _text(16, _TOP + 10, axes[1])]
    for power in _powers(low_x, high_x):
        x, _ = at(power, low_y)
        parts += [
            _line((x, _TOP + 20), (x, bottom), "#eee"),
            _text(x, bottom + 16, _short(power), "middle", size=11, colour="#666"),
        ]
    for value in (step * power for power in _powers(low_y / 10, high_y) for step in (1, 2, 5)):
        if low_y <= value <= high_y:
            _, y = at(low_x, value)
            parts += [
                _line((left, y), (_WIDTH - 170, y), "#eee"),
                _text(left - 6, y + 4, _short(value), "end", size=11, colour="#666"),
            ]
    for name, value in marks.items():
        if low_x < value < high_x:
            x, _ = at(value, low_y)
            parts += [_line((x, _TOP + 20), (x, bottom), "#999", 'stroke-dasharray="4 3"'),
                      _text(x, _TOP + 16, name, "middle", size=10, colour="#666")]  # fmt: skip
    for number, (name, line) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        spots = [at(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in spots]
        parts.append(_text(_WIDTH - 162, spots[-1][1] + 4, name, size=12, colour=colour))
    return _page(height, title, below, parts)


def curves(
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    axes: tuple[str, str],
    marks: Mapping[str, float],
    below: str,
) -> str:
    """Lines over two linear axes from 0 on, and upright marks at values of the first one."""
    height, bottom, left, right = 420, 370, 70, _WIDTH - 190
    points = [point for line in series.values() for point in line]
    most_x, most_y = max(x for x, _ in points), 1.05 * max(y for _, y in points)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * x / most_x, bottom - (bottom - _TOP - 20) * y / most_y

    parts = [_text((left + right) / 2, height - 10, axes[0], "middle"), _text(16, _TOP + 10, axes[1])]
    for value in _steps(most_x):
        x, _ = at(value, 0)
        parts += [
            _line((x, _TOP + 20), (x, bottom), "#eee"),
            _text(x, bottom + 16, f"{value:g}", "middle", size=11, colour="#666"),
        ]
    for value in _steps(most_y):
        _, y = at(0, value)
        parts += [
            _line((left, y), (right, y), "#eee"),
            _text(left - 6, y + 4, f"{value:g}", "end", size=11, colour="#666"),
        ]
    for name, value in marks.items():
        x, _ = at(value, 0)
        parts += [_line((x, _TOP + 20), (x, bottom), "#999", 'stroke-dasharray="4 3"'),
                  _text(x + 4, _TOP + 16, name, size=10, colour="#666")]  # fmt: skip
    for number, (name, line) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(_text(right + 8, at(*line[-1])[1] + 4, name, size=12, colour=colour))
    return _page(height, title, below, parts)


def _steps(most: float) -> list[float]:
    # Some five round values from 0 to `most`.
    power = 10.0 ** math.floor(math.log10(most))
    step = next(power * part for part in (0.2, 0.5, 1, 2) if most / (power * part) <= 7)
    return [step * count for count in range(int(most / step) + 1)]
