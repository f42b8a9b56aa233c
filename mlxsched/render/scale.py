"""The scale of an axis: its range, its ticks, and the position of a value on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlxsched.render.chart import Axis, Chart, Mark, span
from mlxsched.render.ticks import linear_ticks, log_ticks
from mlxsched.text import number


@dataclass(frozen=True)
class Scale:
    """From ``low`` to ``high``, linear or logarithmic, with ``ticks``; without ticks, the axis has no curve."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]

    @property
    def labels(self) -> list[str]:
        """The ticks as text."""
        return [number(tick) for tick in self.ticks]

    def place(self, value: float) -> float:
        """The value in the units that are drawn evenly: the value itself, or its logarithm to base ten."""
        return math.log10(value) if self.log else float(value)

    def fraction(self, value: float) -> float:
        """The position of ``value``: 0 at ``low``, 1 at ``high``."""
        return (self.place(value) - self.place(self.low)) / (self.place(self.high) - self.place(self.low))


def vertical(chart: Chart, axis: Axis, about: int) -> Scale:
    """The left or the right axis of ``chart``; a linear left axis starts at zero, where rates end."""
    values = chart.heights(axis)
    log = chart.log_y and axis == "left"
    scale = fit(values, log, about, from_zero=axis == "left" and not log)
    return scale if values else Scale(scale.low, scale.high, log, ())


def horizontal(chart: Chart, about: int) -> Scale:
    """The axis that all curves share; it covers every step, also those whose value cannot be drawn."""
    places = [x for curve in chart.series for x in curve.x if math.isfinite(x) and (x > 0 or not chart.log_x)]
    return fit(places, chart.log_x, about)


def fit(values: Iterable[float], log: bool, about: int, *, from_zero: bool = False) -> Scale:
    """The scale that covers ``values``, with about ``about`` gaps between ticks; whole numbers get whole ticks.

    >>> fit([0.0, 2e-4], False, 2).labels
    ['0', '1e-4', '2e-4']
    """
    held = list(values)
    low, high = span(held, from_zero=from_zero)
    least_gap = 1.0 if all(float(value).is_integer() for value in held) else 0.0
    ticks = log_ticks(low, high, about) if log else linear_ticks(low, high, about, least_gap)
    return Scale(low, high, log, tuple(ticks))


def with_room(marks: Sequence[Mark], scale: Scale, characters: int) -> list[Mark]:
    """The marks whose names fit next to each other on a line of ``characters``; the others stay unnamed.

    A name that would go beyond the line ends at its mark (`ends_at_mark`) and does not begin there.

    >>> marks = [Mark(0, "warmup"), Mark(1, "hold"), Mark(50, "decay")]
    >>> [mark.label for mark in with_room(marks, fit([0, 100], False, 4), 60)]
    ['warmup', 'decay']
    """
    named, free = [], -math.inf
    for mark in sorted(marks, key=lambda mark: mark.x):
        at = scale.fraction(mark.x) * characters - len(mark.label) * ends_at_mark(mark, scale, characters)
        if free <= at:
            named.append(mark)
            free = at + len(mark.label) + 1
    return named


def ends_at_mark(mark: Mark, scale: Scale, characters: int) -> bool:
    """Whether there is no room for the name of ``mark`` to the right of it."""
    return scale.fraction(mark.x) * characters > characters - len(mark.label)
