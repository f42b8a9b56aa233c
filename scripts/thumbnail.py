"""A small SVG picture of a chart's first curve, without a drawing library; a check compares the gallery's files byte for byte.

Coordinates are rounded to a tenth of a pixel, so the last bit of a cosine does not change the file. Colours follow the
reader's light or dark theme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from mlxsched.render.chart import Chart, require_points
from mlxsched.render.scale import Scale, ends_at_mark, horizontal, vertical, with_room

Place = tuple[float, float]
WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 48, 16, 18, 22
PIXELS_A_CHARACTER = 6
STYLE = (
    "text{font:10px sans-serif;fill:#666}.a{stroke:#999;fill:none}.m{stroke:#999;stroke-dasharray:2 3}"
    ".c{stroke:#0072b2;stroke-width:2;fill:none;stroke-linejoin:round}"
    "@media(prefers-color-scheme:dark){text{fill:#aaa}.c{stroke:#56b4e9}}"
)


def thumbnail(chart: Chart) -> str:
    """The SVG text of a picture of ``WIDTH`` by ``HEIGHT`` pixels: curve, marks, and round numbers on the axes.

    Raises UsageError if there is nothing to draw.
    """
    require_points(chart)
    across, up = horizontal(chart, 4), vertical(chart, "left", 2)
    curve = chart.on("left")[0]
    places = [(_x(across, x), _y(up, y)) for x, y in zip(curve.x, curve.y, strict=True)]
    points = " ".join(f"{x:g},{y:g}" for x, y in simplified(places))
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(chart.title)}</title>",
        f"<style>{STYLE}</style>",
        f'<path class="a" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>',
        *_numbers(across, up),
        *_marks(chart, across),
        f'<polyline class="c" points="{points}"/>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def simplified(places: Sequence[Place], tolerance: float = 0.15) -> list[Place]:
    """The fewest of ``places`` whose polyline stays within ``tolerance`` pixels of them all (Douglas and Peucker).

    >>> simplified([(0, 0), (1, 1), (2, 2), (3, 0)])
    [(0, 0), (2, 2), (3, 0)]
    """
    kept, stack = {0, len(places) - 1}, [(0, len(places) - 1)]
    while stack:
        first, last = stack.pop()
        middle = range(first + 1, last)
        farthest = max(
            middle, key=lambda at: _distance(places[at], places[first], places[last]), default=first
        )
        if _distance(places[farthest], places[first], places[last]) > tolerance:
            kept.add(farthest)
            stack += [(first, farthest), (farthest, last)]
    return [places[at] for at in sorted(kept)]


def _distance(place: Place, first: Place, last: Place) -> float:
    """From ``place`` to the line through ``first`` and ``last``."""
    across, up = last[0] - first[0], last[1] - first[1]
    if across == up == 0:
        return math.dist(place, first)
    return abs(across * (place[1] - first[1]) - up * (place[0] - first[0])) / math.hypot(across, up)


def _x(across: Scale, value: float) -> float:
    return round(LEFT + across.fraction(value) * (WIDTH - LEFT - RIGHT), 1)


def _y(up: Scale, value: float) -> float:
    return round(HEIGHT - BOTTOM - up.fraction(value) * (HEIGHT - TOP - BOTTOM), 1)


def _numbers(across: Scale, up: Scale) -> list[str]:
    """The numbers below and to the left of the curve."""
    below = [
        f'<text x="{_x(across, tick):g}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{label}</text>'
        for tick, label in zip(across.ticks, across.labels, strict=True)
    ]
    left = [
        f'<text x="{LEFT - 6}" y="{_y(up, tick):g}" dy="3" text-anchor="end">{label}</text>'
        for tick, label in zip(up.ticks, up.labels, strict=True)
    ]
    return below + left


def _marks(chart: Chart, across: Scale) -> list[str]:
    """A dotted line for each mark, and the names that fit."""
    room = (WIDTH - LEFT - RIGHT) // PIXELS_A_CHARACTER
    named = with_room(chart.marks, across, room)
    lines = [f'<path class="m" d="M{_x(across, mark.x):g} {TOP}V{HEIGHT - BOTTOM}"/>' for mark in chart.marks]
    end = {mark: ' text-anchor="end"' * ends_at_mark(mark, across, room) for mark in named}
    names = [
        f'<text x="{_x(across, mark.x):g}" y="{TOP - 6}"{end[mark]}>{escape(mark.label)}</text>'
        for mark in named
    ]
    return lines + names
