"""The chart model: what is drawn, as plain data; the renderers decide how.

A chart is a set of curves over one horizontal axis, with a left and a right vertical axis and vertical marks
(the boundaries of a schedule's phases). ``terminal`` and ``image`` draw it. Nothing here
imports a drawing library, so that building a chart costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mlxsched.errors import UsageError
from mlxsched.text import without_controls

Axis = Literal["left", "right"]
Style = Literal["line", "dots", "marked"]
"""``marked`` is a line with a dot at each point."""


@dataclass(frozen=True)
class Series:
    """A curve: ``y`` over ``x``, of equal lengths, drawn against the left or the right axis.

    ``behind`` is drawn faintly behind it in the same colour, and has no name in the legend: the losses of single updates
    behind their running mean.

    >>> Series("rate", (0, 1), (0.0, 2e-4)).axis
    'left'
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    axis: Axis = "left"
    style: Style = "line"
    behind: Series | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _label(self.name))
        if len(self.x) != len(self.y):
            lengths = f"{len(self.x)} and {len(self.y)}"
            raise ValueError(f"`x` and `y` of {self.name!r} must be equally long; got {lengths}")


@dataclass(frozen=True)
class Mark:
    """A vertical line at ``x``, with the name of the phase that begins there."""

    x: float
    label: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", _label(self.label))


@dataclass(frozen=True)
class Chart:
    """Curves, axis titles, whether each axis is logarithmic, and marks.

    Names may come from a stranger's file: control characters are removed from every text.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    right_label: str = ""
    log_x: bool = False
    log_y: bool = False
    marks: tuple[Mark, ...] = ()

    def __post_init__(self) -> None:
        for field in ("title", "x_label", "y_label", "right_label"):
            object.__setattr__(self, field, _label(getattr(self, field)))

    def on(self, axis: Axis) -> tuple[Series, ...]:
        """The series of one vertical axis, as they can be drawn (see ``drawable``)."""
        log_y = self.log_y and axis == "left"
        return tuple(drawable(curve, self.log_x, log_y) for curve in self.series if curve.axis == axis)

    def heights(self, axis: Axis) -> list[float]:
        """All values that one vertical axis has to cover."""
        return [y for curve in self.on(axis) for one in (curve, curve.behind) if one for y in one.y]


def _label(text: str) -> str:
    """`text` on one line, without control characters."""
    return " ".join(without_controls(text).split())


def drawable(curve: Series, log_x: bool = False, log_y: bool = False) -> Series:
    """The points of ``curve`` that can be drawn: finite, and above zero on a logarithmic axis.

    >>> drawable(Series("rate", (0, 1, 2), (0.0, 1e-4, float("nan"))), log_y=True).x
    (1,)
    """
    kept = [
        (x, y)
        for x, y in zip(curve.x, curve.y, strict=True)
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x) and (y > 0 or not log_y)
    ]
    x, y = tuple(x for x, _ in kept), tuple(y for _, y in kept)
    behind = None if curve.behind is None else drawable(curve.behind, log_x, log_y)
    return replace(curve, x=x, y=y, behind=behind)


def require_points(chart: Chart) -> None:
    """Raise UsageError for a chart in which nothing can be drawn, saying why."""
    if any(curve.x for curve in (*chart.on("left"), *chart.on("right"))):
        return
    why = "no value is above zero, and the axis is logarithmic" if chart.log_y else "it holds no finite value"
    fix = "Leave out --log." if chart.log_y else "Give it at least one point."
    raise UsageError(f"nothing to draw in {chart.title!r}: {why}. {fix}")


def span(values: Iterable[float], *, from_zero: bool = False) -> tuple[float, float]:
    """Lowest and highest of ``values``, widened if they are equal, so that the axis has a length.

    >>> span([2.0, 2.0], from_zero=True)
    (0.0, 2.0)
    >>> span([0.0])
    (0.0, 1.0)
    """
    held = list(values)
    low, high = min(held, default=0.0), max(held, default=1.0)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        half = abs(low) / 2
        low, high = (low - half, high + half) if low else (0.0, 1.0)
    return float(low), float(high)


def overlay(first: Chart, second: Chart) -> Chart:
    """The curves of both charts over the axes of ``first``, without marks, which belong to only one of them."""
    return replace(
        first,
        title=f"{first.title} and {second.title}",
        series=(*first.series, *second.series),
        right_label=first.right_label or second.right_label,
        marks=(),
    )
