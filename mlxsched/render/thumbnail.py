"""A small SVG picture of a chart's first curve, without a drawing library: for galleries that a check compares.

Coordinates are rounded to a tenth of a pixel, so that the last bit of a cosine does not change the file; colours
follow the reader's light or dark theme.
"""

from __future__ import annotations

from html import escape

from mlxsched.render.chart import Chart, require_points
from mlxsched.render.scale import Scale, horizontal, vertical, with_room

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

    Raises UsageError where there is nothing to draw.
    """
    require_points(chart)
    across, up = horizontal(chart, 4), vertical(chart, "left", 2)
    curve = chart.on("left")[0]
    points = " ".join(f"{_x(across, x)},{_y(up, y)}" for x, y in zip(curve.x, curve.y, strict=True))
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


def _x(across: Scale, value: float) -> str:
    return _short(LEFT + across.fraction(value) * (WIDTH - LEFT - RIGHT))


def _y(up: Scale, value: float) -> str:
    return _short(HEIGHT - BOTTOM - up.fraction(value) * (HEIGHT - TOP - BOTTOM))


def _short(pixels: float) -> str:
    return f"{pixels:.1f}".removesuffix(".0")


def _numbers(across: Scale, up: Scale) -> list[str]:
    """The numbers below and to the left of the curve."""
    below = [
        f'<text x="{_x(across, tick)}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{label}</text>'
        for tick, label in zip(across.ticks, across.labels, strict=True)
    ]
    beside = [
        f'<text x="{LEFT - 6}" y="{_y(up, tick)}" dy="3" text-anchor="end">{label}</text>'
        for tick, label in zip(up.ticks, up.labels, strict=True)
    ]
    return below + beside


def _marks(chart: Chart, across: Scale) -> list[str]:
    """A dotted line for each mark, and the names that have room."""
    named = with_room(chart.marks, across, (WIDTH - LEFT - RIGHT) // PIXELS_A_CHARACTER)
    lines = [f'<path class="m" d="M{_x(across, mark.x)} {TOP}V{HEIGHT - BOTTOM}"/>' for mark in chart.marks]
    names = [f'<text x="{_x(across, mark.x)}" y="{TOP - 6}">{escape(mark.label)}</text>' for mark in named]
    return lines + names
