"""Schedules that are a chain of curves: warmup, hold, decay, ..., and then the last value, held.

A subclass lists its `Segment`s; value, phases, steps and extrema follow from the list.

How the value is computed depends on the backend, because their costs differ. A Python step finds its segment and
evaluates that one. An array evaluates segments at all steps, and a training step pays for each kernel that `mx.compile`
cannot fuse into another (it fuses chains of up to eleven operations). So joints are taken by `minimum` and `maximum`
where the heights allow it, and long chains of one curve are computed side by side, with one more array axis in place
of one more operation per segment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from mlxsched.schedules.backends import PYTHON, Backend, Number
from mlxsched.schedules.base import Phase, Schedule
from mlxsched.schedules.curves import Blend, Curve

CHAIN_LIMIT = 4
"""From this many segments after the first, computing them side by side is cheaper than combining them one by one."""


class Segment(NamedTuple):
    """From `init` to `end` in `steps` updates along a monotone `curve`; without a curve, `init` is held throughout."""

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
        """Each segment that is not empty, with its first step."""
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
            return _side_by_side(placed, step, ops)
        if len(rest) >= CHAIN_LIMIT and _alike([segment for _, segment in rest]):
            # Usually a linear warmup before many cycles of another curve.
            rise = along(placed[0][1], 0, step, ops)
            return ops.where(step < rest[0][0], rise, _side_by_side(rest, step, ops))
        value = along(placed[0][1], 0, step, ops)
        for index in range(1, len(placed)):
            value = _followed(value, placed[:index], *placed[index], step, ops)
        return value

    def _knots(self, last: int) -> tuple[int, ...] | None:
        # Each curve is monotone, so only its ends matter; end - 1 and end differ where the next one starts with a jump.
        edges = [(start, start + segment.steps) for start, segment in self._placed()]
        return tuple(sorted({max(step, 0) for edge in edges for step in (edge[0], edge[1] - 1, edge[1])}))

    @property
    def phases(self) -> tuple[Phase, ...]:
        placed = self._placed()
        ends = [start + segment.steps for start, segment in placed]
        phases = [Phase(part.name, start, end) for (start, part), end in zip(placed, ends, strict=True)]
        return (*phases, Phase("end", ends[-1], None))


def along(segment: Segment, start: int, step: Number, ops: Backend) -> Number:
    """A segment's value at any step: `init` before `start`, `end` from start + segment.steps on."""
    curve, init, end, length = segment.curve, segment.init, segment.end, segment.steps
    if curve is None or init == end:
        return init
    # `left` is not 1 - `done`: near the end that difference has no digits left. MLX's cosine_decay, computed so, is
    # 21% off one step before the end of 10,000 and 0 at 100,000. Both are whole numbers until here, so each is
    # exact. A curve that uses only one of them pays for one: the other is never evaluated.
    done = ops.real(ops.done(step, start, length))
    left = ops.real(ops.ahead(step, start, start + length))
    return curve(init, end, done, left, float(length), ops)


def _followed(
    value: Number, before: list[tuple[int, Segment]], start: int, segment: Segment, step: Number, ops: Backend
) -> Number:
    """`value` before `start`, the segment from then on.

    Each holds its own boundary value outside of its steps. So where a rise meets a fall at the same height, the smaller of
    the two is right everywhere, and `minimum` fuses where a `where` with its comparison costs two operations.
    """
    joint = before[-1][1].end
    meets = segment.init == joint
    if meets and (segment.curve is None or segment.init == segment.end):
        return value  # a hold at the height that is held anyway
    reached = [rate for _, one in before for rate in (one.init, one.end)]
    if meets and all(rate <= joint for rate in (*reached, segment.end)):
        if isinstance(segment.curve, Blend):
            # The minimum with `value`, which is at most `joint`, already caps the curve.
            segment = segment._replace(curve=replace(segment.curve, cap=False))
        return ops.minimum(value, along(segment, start, step, ops))
    here = along(segment, start, step, ops)
    if meets and all(rate >= joint for rate in (*reached, segment.end)):
        return ops.maximum(value, here)
    return ops.where(step < start, value, here)


def _alike(segments: list[Segment]) -> bool:
    """Whether one formula serves all segments: holds, and falls along one exact blend; rises too if it is symmetric."""
    curves = {one.curve for one in segments if one.curve is not None and one.init != one.end}
    blend = next(iter(curves), None)
    if len(curves) != 1 or not isinstance(blend, Blend) or not blend.exact:
        return False
    return blend.even or all(one.init >= one.end for one in segments)


def _side_by_side(placed: list[tuple[int, Segment]], step: Number, ops: Backend) -> Number:
    """The value of segments that are `_alike`, with the numbers of each as a row of a table.

    Shapes with MLX: step (...,), each column (segments,), result (...,); see `Backend.choose`.
    """
    blend = next(one.curve for _, one in placed if isinstance(one.curve, Blend))

    def height(step: Number, foot: Number, steps: Number, low: Number, gap: Number, high: Number) -> Number:
        # The distance to the lowest point, which is the start of a rise and the end of a fall: one formula for both.
        left = ops.minimum(abs(foot - step), steps)
        share, _ = blend.shares(ops.real(steps - left), ops.real(left), ops.real(steps), ops)
        return ops.minimum(low + gap * share, high)

    start, last = placed[-1]
    placed = [*placed, (start + last.steps, hold("end", 1, last.end))]
    rows = [_row(start, segment, ops) for start, segment in placed]
    starts = tuple(start for start, _ in placed[1:])
    return ops.choose(starts, list(zip(*rows, strict=True)), height, step)


def _row(start: int, segment: Segment, ops: Backend) -> tuple[float, ...]:
    """A segment's lowest step, its length, its lowest value, its height and its highest value."""
    low, high = sorted((segment.init, segment.end))
    foot = start if segment.init < segment.end else start + segment.steps
    return foot, segment.steps, low, ops.gap(low, high), high
