"""Schedules that are a chain of curves: warmup, hold, decay, ..., and then the last value for ever.

A subclass lists its `Segment`s; value, phases, steps and extrema follow from the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mlxsched.schedules.base import Phase, Schedule
from mlxsched.schedules.numeric import Backend, Number
from mlxsched.schedules.shapes import Curve

CHAIN_LIMIT = 8
"""Segments up to which each one is computed and the right one chosen; beyond, its numbers are looked up."""


class Segment(NamedTuple):
    """From `init` to `end` in `steps` updates along a monotone `curve`; without a curve, `init` is held."""

    name: str
    steps: int
    init: float
    end: float
    curve: Curve | None = None


def hold(name: str, steps: int, value: float) -> Segment:
    return Segment(name, steps, value, value)


@dataclass(frozen=True)
class Segmented(Schedule):
    """A chain of segments; the end of the last one is held."""

    def _segments(self) -> tuple[Segment, ...]:
        raise NotImplementedError

    def _placed(self) -> list[tuple[int, Segment]]:
        """Each segment that is not empty, with the step at which it starts."""
        placed, start = [], 0
        for segment in self._segments():
            if segment.steps > 0:
                placed.append((start, segment))
            start += segment.steps
        return placed

    def _value(self, step: Number, ops: Backend) -> Number:
        placed = self._placed()
        if len(placed) > CHAIN_LIMIT:
            return _looked_up(placed, step, ops)
        # From the last to the first: each one stands before what follows it.
        value: Number = placed[-1][1].end
        for start, segment in reversed(placed):
            here = along(segment, start, step, ops)
            value = ops.where(step < start + segment.steps, here, value)
        return ops.full(step, value) if isinstance(value, float) else value

    def _knots(self, last: int) -> tuple[int, ...] | None:
        edges = [(start, start + segment.steps) for start, segment in self._placed()]
        return tuple(sorted({max(step, 0) for edge in edges for step in (edge[0], edge[1] - 1, edge[1])}))

    @property
    def phases(self) -> tuple[Phase, ...]:
        placed = self._placed()
        ends = [start + segment.steps for start, segment in placed]
        phases = [Phase(part.name, start, end) for (start, part), end in zip(placed, ends, strict=True)]
        return (*phases, Phase("end", ends[-1], None))


def along(segment: Segment, start: int, step: Number, ops: Backend) -> Number:
    """A segment's value, its first before it starts and its last after it ends."""
    curve, init, end = segment.curve, segment.init, segment.end
    if curve is None or (isinstance(init, float) and init == end):
        return init
    size = float(segment.steps) if isinstance(segment.steps, int) else ops.real(segment.steps)
    passed = ops.done(step, start, segment.steps)
    value = curve(init, end, ops.real(passed) / size, ops.real(segment.steps - passed) / size, ops)
    return ops.within(value, init, end)


def _looked_up(placed: list[tuple[int, Segment]], step: Number, ops: Backend) -> Number:
    """The value from the numbers of the one segment that a step is in, looked up in tables."""
    stop, last = placed[-1][0] + placed[-1][1].steps, placed[-1][1].end
    placed = [*placed, (stop, hold("end", 1, last))]
    starts = tuple(start for start, _ in placed)
    index = ops.count(starts[1:], step)
    _, *columns = zip(*(segment for _, segment in placed), strict=True)
    steps, init, end = (ops.pick(column, index) for column in columns[:3])
    curves = list(dict.fromkeys(columns[3]))
    kind = ops.pick(tuple(curves.index(curve) for curve in columns[3]), index)
    value = init
    for number, curve in enumerate(curves):
        here = along(Segment("", steps, init, end, curve), ops.pick(starts, index), step, ops)
        value = ops.where(kind == number, here, value)
    return value
