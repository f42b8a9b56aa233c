"""A chart as text for a terminal: curves in braille dots, a legend, and the names of the phases above.

plotext draws the frame and the curves. Ticks, legend and names are ours, so that they cover no curve. plotext keeps one
figure for the whole process: draw from one thread only.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlxsched.render.chart import Chart, Mark, Series, require_points
from mlxsched.render.scale import Scale, horizontal, vertical

COLORS = ("blue", "orange", "green", "magenta", "cyan", "red")
# Without colour, the markers tell curves apart.
MARKERS = ("braille", "•", "x", "+", "o", "*")
ASCII_MARKERS = ("*", "x", "+", "o", "#", "@")
TO_ASCII = str.maketrans("│─┌┐└┘├┤┬┴┼", "|-+++++++++")
BRAILLE_SAMPLE = "⠒"
FAINT = "·"
"""The marker of what is drawn behind a curve: one dot for each point, which no curve looks like."""
MOST_SHIFT = 5
"""How many columns the name of a phase may be shifted to the right of its beginning."""


@dataclass(frozen=True)
class Look:
    """The size of the picture in characters, and what the terminal can show."""

    width: int = 80
    height: int = 20
    color: bool = False
    ascii_only: bool = False


def look_of_stdout(width: int | None = None, height: int | None = None) -> Look:
    """The look for standard output: colour only on a terminal, and not when NO_COLOR is set."""
    columns = shutil.get_terminal_size((80, 24)).columns
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower()
    return Look(width or min(columns, 120), height or 20, color, not encoding.startswith("utf"))


def draw(chart: Chart, look: Look | None = None) -> str:
    """The chart as lines of text, none wider than ``look.width``.

    Raises UsageError when there is nothing to draw.
    """
    look = look or Look()
    require_points(chart)
    rows = max(2, look.height // 5)
    left, right = vertical(chart, "left", rows), vertical(chart, "right", rows)
    frame = _Frame(left, right, horizontal(chart, max(2, look.width // 12)), look)
    axes = frame.above(chart.y_label, chart.right_label)
    lines = [chart.title[: look.width], *_legend(chart, look), axes, frame.names(chart.marks)]
    head = [line.rstrip() for line in lines if line]
    foot = " " * frame.margin + chart.x_label.center(frame.room).rstrip()
    body = _plot(chart, frame, max(5, look.height - len(head) - 1))
    return "\n".join([*head, *body, foot])


@dataclass(frozen=True)
class _Frame:
    """The layout: ``room`` columns for the curves, after ``margin`` columns for the left axis and its labels."""

    left: Scale
    right: Scale
    bottom: Scale
    look: Look

    @property
    def margin(self) -> int:
        return 1 + max(map(len, self.left.labels), default=0)

    @property
    def room(self) -> int:
        right = 1 + max(map(len, self.right.labels), default=0)
        return max(10, self.look.width - self.margin - right)

    def above(self, left: str, right: str) -> str:
        """The titles of the two vertical axes, each above its axis."""
        return left + right.rjust(self.look.width - len(left))

    def names(self, marks: Sequence[Mark]) -> str:
        """One line with the name of each mark above it, shifted a little if needed, left out if there is no room."""
        line = ""
        for mark in sorted(marks, key=lambda mark: mark.x):
            column = self.margin + round(self.bottom.fraction(mark.x) * (self.room - 1))
            last = self.look.width - len(mark.label)
            at = max(min(column, last), len(line))
            if at - column <= MOST_SHIFT and at <= last:
                line = line.ljust(at) + mark.label + " "
        return line


def _curves(chart: Chart) -> list[Series]:
    return [*chart.on("left"), *chart.on("right")]


def _marker(index: int, curves: Sequence[Series], look: Look) -> str:
    """The marker of curve ``index``. Curves of the same axis and style share one if they differ in color."""
    if look.ascii_only:
        return ASCII_MARKERS[index % len(ASCII_MARKERS)]
    if look.color:
        kinds = list(dict.fromkeys((curve.axis, curve.style) for curve in curves))
        index = kinds.index((curves[index].axis, curves[index].style))
    return MARKERS[index % len(MARKERS)]


def _legend(chart: Chart, look: Look) -> list[str]:
    """A line for each curve, if there are several."""
    curves = _curves(chart)
    if len(curves) < 2:
        return []
    markers = [_marker(index, curves, look) for index in range(len(curves))]
    samples = [marker.replace("braille", BRAILLE_SAMPLE) * 2 for marker in markers]
    lines = enumerate(zip(samples, curves, strict=True))
    return [
        f"  {_paint(sample, index, look)} {_name(curve)[: look.width - 5]}"
        for index, (sample, curve) in lines
    ]


def _name(curve: Series) -> str:
    return f"{curve.name} (right)" if curve.axis == "right" else curve.name


def _plotext() -> Any:
    """plotext, imported when the first chart is drawn; it has no types."""
    import plotext

    return plotext


def _paint(text: str, index: int, look: Look) -> str:
    if not look.color:
        return text
    return str(_plotext().colorize(text, COLORS[index % len(COLORS)]))


def _plot(chart: Chart, frame: _Frame, height: int) -> list[str]:
    """The lines of the frame, its ticks and the curves."""
    plotext = _plotext()
    plotext.clear_figure()
    plotext.limit_size(False, False)
    plotext.theme("clear")
    plotext.plot_size(frame.look.width, height)
    _axes(frame)
    for mark in chart.marks:
        plotext.vline(frame.bottom.place(mark.x), "gray" if frame.look.color else None)
    curves = _curves(chart)
    for curve in curves:
        if curve.behind is not None:
            marker = "." if frame.look.ascii_only else FAINT
            _points(replace(curve.behind, style="dots"), frame, marker, "gray")
    for index, curve in enumerate(curves):
        marker, color = _marker(index, curves, frame.look), COLORS[index % len(COLORS)]
        _points(curve, frame, marker, color)
        if curve.style == "marked":
            _points(replace(curve, style="dots"), frame, "*" if frame.look.ascii_only else "●", color)
    text = str(plotext.build())
    plotext.clear_figure()
    return _clean(text, frame.look)


def _axes(frame: _Frame) -> None:
    plotext = _plotext()
    bottom = frame.bottom
    plotext.xlim(bottom.place(bottom.low), bottom.place(bottom.high))
    plotext.xticks([bottom.place(tick) for tick in bottom.ticks], bottom.labels)
    for side, scale in (("left", frame.left), ("right", frame.right)):
        if scale.ticks:
            plotext.ylim(scale.place(scale.low), scale.place(scale.high), side)
            plotext.yticks([scale.place(tick) for tick in scale.ticks], scale.labels, side)


def _points(curve: Series, frame: _Frame, marker: str, color: str) -> None:
    """Draw one curve, in ``color`` where the terminal has colours."""
    plotext = _plotext()
    scale = frame.right if curve.axis == "right" else frame.left
    x, y = [frame.bottom.place(value) for value in curve.x], [scale.place(value) for value in curve.y]
    draw_points = plotext.scatter if curve.style == "dots" else plotext.plot
    draw_points(x, y, marker=marker, color=color if frame.look.color else None, yside=curve.axis)


def _clean(text: str, look: Look) -> list[str]:
    """The lines without trailing blanks and without what the terminal cannot show."""
    if not look.color:
        text = str(_plotext().uncolorize(text))
    if look.ascii_only:
        text = text.translate(TO_ASCII)
    return [line.rstrip() for line in text.splitlines()]
