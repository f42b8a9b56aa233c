"""Schedules that are a chain of curves: warmup, hold, decay, ..., and then the last value for ever.

A subclass lists its `Segment`s; value, phases, steps and extrema follow from the list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from mlxsched.schedules.backends import PYTHON, Backend, Number
from mlxsched.schedules.base import Phase, Schedule
from mlxsched.schedules.curves import Blend, Curve

CHAIN_LIMIT = 4
"""Segments after the first that are cheaper combined one by one than computed side by side."""


class Segment(NamedTuple):
    """From `init` to `end` in `steps` updates along a monotone `curve`; without a curve, `init` is held."""

    name: str
    steps: int
    init: float
    end: float
    curve: Curve | None = None


def hold(name: str, steps: int, value: float) -> Segment:
    """A flat segment."""
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
        if ops is PYTHON:
            start, segment = next((one for one in reversed(placed) if step >= one[0]), placed[0])
            return along(segment, start, step, ops)
        rest = placed[1:]
        if len(rest) >= CHAIN_LIMIT and _alike([segment for _, segment in placed]):
            return _beside(placed, step, ops)
        if len(rest) >= CHAIN_LIMIT and _alike([segment for _, segment in rest]):
            return ops.where(step < rest[0][0], along(placed[0][1], 0, step, ops), _beside(rest, step, ops))
        value = along(placed[0][1], 0, step, ops)
        for index in range(1, len(placed)):
            value = _followed(value, placed[:index], *placed[index], step, ops)
        return value

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
    """A segment's value: its first one before it starts, its last one after it ends."""
    curve, init, end, length = segment.curve, segment.init, segment.end, segment.steps
    if curve is None or init == end:
        return init
    # What is done and what is left come from the step by different ways; a curve that needs one costs one.
    done = ops.real(ops.done(step, start, length))
    left = ops.real(ops.ahead(step, start, start + length))
    return curve(init, end, done, left, float(length), ops)


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
    reached = [rate for _, one in before for rate in (one.init, one.end)]
    if meets and all(rate <= joint for rate in (*reached, segment.end)):
        if isinstance(segment.curve, Blend):
            segment = segment._replace(curve=replace(segment.curve, cap=False))
        return ops.minimum(value, along(segment, start, step, ops))
    here = along(segment, start, step, ops)
    if meets and all(rate >= joint for rate in (*reached, segment.end)):
        return ops.maximum(value, here)
    return ops.where(step < start, value, here)


def _alike(segments: list[Segment]) -> bool:
    """Whether all are holds or falls along one blend, or rises and falls if its way up is its way down reversed."""
    curves = {one.curve for one in segments if one.curve is not None and one.init != one.end}
    blend = next(iter(curves), None)
    if len(curves) != 1 or not isinstance(blend, Blend) or not blend.exact:
        return False
    return blend.even or all(one.init >= one.end for one in segments)


def _beside(placed: list[tuple[int, Segment]], step: Number, ops: Backend) -> Number:
    """The value of segments that are `_alike`."""
    blend = next(one.curve for _, one in placed if isinstance(one.curve, Blend))

    def height(step: Number, foot: Number, steps: Number, low: Number, gap: Number, high: Number) -> Number:
        left = ops.minimum(abs(foot - step), steps)
        share, _ = blend.shares(ops.real(steps - left), ops.real(left), ops.real(steps), ops)
        return ops.minimum(low + gap * share, high)

    start, last = placed[-1]
    placed = [*placed, (start + last.steps, hold("end", 1, last.end))]
    rows = [_row(start, segment, ops) for start, segment in placed]
    starts = tuple(start for start, _ in placed[1:])
    return ops.choose(starts, list(zip(*rows, strict=True)), height, step)


def _row(start: int, segment: Segment, ops: Backend) -> tuple[float, ...]:
    """The step at which a segment is lowest, its length, its lowest value, its height and its highest value."""
    low, high = sorted((segment.init, segment.end))
    foot = start if segment.init < segment.end else start + segment.steps
    return foot, segment.steps, low, ops.gap(low, high), high
