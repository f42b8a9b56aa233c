"""Schedules that are a chain of curves: warmup, hold, decay, ..., and then the last value for ever.

A subclass lists its `Segment`s; value, phases, steps and extrema follow from the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mlxsched.schedules.base import Phase, Schedule
from mlxsched.schedules.numeric import Backend, Number
from mlxsched.schedules.shapes import Curve

CHAIN_LIMIT = 4
"""Segments up to which each one is computed and the right one chosen; beyond, its numbers are selected first."""


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
        curves = {segment.curve for _, segment in placed[1:]} - {None}
        value = along(placed[0][1], placed[0][0], step, ops)
        if len(placed) > CHAIN_LIMIT and len(curves) <= 1:
            value = ops.where(step < placed[1][0], value, _selected(placed[1:], step, ops))
        else:
            for index in range(1, len(placed)):
                value = _followed(value, placed[:index], *placed[index], step, ops)
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


def along(segment: Segment, start: Number, step: Number, ops: Backend) -> Number:
    """A segment's value: its first one before it starts, its last one after it ends."""
    curve, init, end, length = segment.curve, segment.init, segment.end, segment.steps
    if curve is None or (isinstance(init, float) and isinstance(end, float) and init == end):
        return init
    size = float(length) if isinstance(length, int) else ops.real(length)
    # What is done and what is left come from the step by different ways; a curve that needs one costs one.
    done = ops.real(ops.done(step, start, length)) / size
    left = ops.real(ops.within((start + length) - step, 0, length)) / size
    return curve(init, end, done, left, ops)


def _followed(
    value: Number, before: list[tuple[int, Segment]], start: int, segment: Segment, step: Number, ops: Backend
) -> Number:
    """`value` up to `start` and the segment from then on.

    Each holds its end value beyond its own steps. So where a rise meets a fall at the same height, the smaller of the
    two is the right one everywhere, and that is cheaper than a choice.
    """
    joint = before[-1][1].end
    meets = segment.init == joint
    if meets and (segment.curve is None or segment.init == segment.end):
        return value
    here = along(segment, start, step, ops)
    reached = [rate for _, one in before for rate in (one.init, one.end)]
    if meets and all(rate <= joint for rate in (*reached, segment.end)):
        return ops.minimum(value, here)
    if meets and all(rate >= joint for rate in (*reached, segment.end)):
        return ops.maximum(value, here)
    return ops.where(step < start, value, here)


def _selected(placed: list[tuple[int, Segment]], step: Number, ops: Backend) -> Number:
    """The value of segments that share one curve: the numbers of the right one are selected, then computed with."""
    starts = tuple(start for start, _ in placed)
    curve = next((segment.curve for _, segment in placed if segment.curve is not None), None)
    columns = zip(*((segment.steps, segment.init, segment.end) for _, segment in placed), strict=True)
    start, steps, init, end = (ops.select(starts[1:], column, step) for column in (starts, *columns))
    # A hold is the same curve between equal values.
    return along(Segment("", steps, init, end, curve), start, step, ops)
