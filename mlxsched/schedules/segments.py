"""Schedules that are a chain of curves: warmup, hold, decay, ..., and then the last value for ever.

A subclass lists its `Segment`s; value, phases, steps and extrema follow from the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mlxsched.schedules.base import Phase, Schedule
from mlxsched.schedules.numeric import Backend, Number
from mlxsched.schedules.shapes import Curve


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
        # From the last to the first: each one stands before what follows it.
        value: Number = placed[-1][1].end
        for start, segment in reversed(placed):
            here = _along(segment, start, step, ops)
            value = ops.where(step < start + segment.steps, here, value)
        return ops.full(step, value) if isinstance(value, float) else value

    def _knots(self) -> tuple[int, ...]:
        edges = [(start, start + segment.steps) for start, segment in self._placed()]
        return tuple(sorted({max(step, 0) for edge in edges for step in (edge[0], edge[1] - 1, edge[1])}))

    @property
    def phases(self) -> tuple[Phase, ...]:
        placed = self._placed()
        ends = [start + segment.steps for start, segment in placed]
        phases = [Phase(part.name, start, end) for (start, part), end in zip(placed, ends, strict=True)]
        return (*phases, Phase("end", ends[-1], None))


def _along(segment: Segment, start: int, step: Number, ops: Backend) -> Number:
    """A segment's value, its first before it starts and its last after it ends."""
    if segment.curve is None or segment.init == segment.end:
        return segment.init
    passed = ops.done(step, start, segment.steps)
    done = ops.real(passed) / float(segment.steps)
    left = ops.real(segment.steps - passed) / float(segment.steps)
    value = segment.curve(segment.init, segment.end, done, left, ops)
    return ops.within(value, segment.init, segment.end)
