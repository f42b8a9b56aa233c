"""Schedules given by numbers: milestones, points to connect, or every single rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import Backend, Number, float_power
from mlxsched.schedules.base import Phase, Schedule
from mlxsched.schedules.curves import TAILS
from mlxsched.schedules.fields import Count, Rate, ascending, one_of
from mlxsched.schedules.segments import Segment, Segmented, hold


@dataclass(frozen=True)
class table(Schedule):
    """Every rate given: element t of a list or an array, then the last one.

    Formula: rate(t) = values[min(t, len(values) - 1)]
    When: to replay a recorded run, or for a shape without a formula.
    Source: fairseq's manual scheduler
    Spec: table(values=[0.0, 5e-5, 1e-4, 2e-4, 1.5e-4, 1e-4, 5e-5, 2e-5, 0.0])

    Args:
        values: the rates from step 0 on: a list, a NumPy array or an ``mx.array``.

    Raises:
        ScheduleError: there is no value, or one is negative or not finite.

    >>> table([1e-4, 2e-4, 5e-5])(1), table([1e-4, 2e-4, 5e-5])(10)
    (0.0002, 5e-05)
    """

    values: Sequence[Rate]

    def _check(self) -> None:
        if not self.values:
            raise ScheduleError("`values` must hold at least one rate; got none. Give the rates in order.")

    def _value(self, step: Number, ops: Backend) -> Number:
        return ops.pick(tuple(self.values), ops.minimum(step, len(self.values) - 1))

    @property
    def steps(self) -> int:
        """The update from which on the rate no longer changes."""
        return len(self.values) - 1


@dataclass(frozen=True)
class multistep(Schedule):
    """A factor at each milestone.

    Formula: rate(t) = init * factor^(number of milestones <= t); a milestone m drops at t = m itself
    When: vision models with SGD, for which it is the classic choice.
    Source: torch's MultiStepLR
    Spec: multistep(init=1e-1, milestones=[300, 600, 900], factor=0.1)

    Args:
        init: the rate before the first milestone.
        milestones: steps at which the rate drops, ascending.
        factor: of each drop.

    Raises:
        ScheduleError: a rate is negative or not finite, or the milestones don't ascend.

    >>> schedule = multistep(0.1, [30, 60], factor=0.5)
    >>> schedule(29), schedule(30), schedule(60)
    (0.1, 0.05, 0.025)
    """

    init: Rate
    milestones: Sequence[Count]
    factor: Rate = 0.1

    def _check(self) -> None:
        ascending("milestones", self.milestones)
        if not math.isfinite(self._stairs()[-1]):
            raise ScheduleError(
                f"`factor` must not raise the rate beyond any number; got {self.factor} for {len(self.milestones)} "
                "milestones. Use a factor below 1."
            )

    def _stairs(self) -> tuple[float, ...]:
        """The rate before each milestone and after the last one."""
        return tuple(self.init * float_power(self.factor, drops) for drops in range(len(self.milestones) + 1))

    def _value(self, step: Number, ops: Backend) -> Number:
        return ops.select(tuple(self.milestones), self._stairs(), step)

    def _knots(self, last: int) -> tuple[int, ...]:
        return tuple(self.milestones)

    @property
    def steps(self) -> int:
        """The update from which on the rate no longer changes."""
        return max(self.milestones, default=0)

    @property
    def phases(self) -> tuple[Phase, ...]:
        starts = sorted({0, *self.milestones})
        return tuple(Phase("stair", *pair) for pair in zip(starts, (*starts[1:], None), strict=True))


@dataclass(frozen=True)
class piecewise(Segmented):
    """Rates at given steps, connected by lines, half cosines or stairs.

    Formula: rate(boundaries[i]) = values[i]; between two of them a straight line, half a cosine or, with constant,
        the earlier value; values[0] before the first and the last value after the last
    When: any other shape.
    Source: optax.piecewise_interpolate_schedule, optax.piecewise_constant_schedule
    Spec: piecewise(boundaries=[0, 100, 600, 1000], values=[0.0, 2e-4, 1e-4, 0.0])

    Args:
        boundaries: steps, ascending.
        values: the rate at each of them.
        shape: linear, cosine or constant.

    Raises:
        ScheduleError: a rate is negative or not finite, the boundaries don't ascend, or the lengths differ.

    >>> piecewise([0, 100, 200], [0.0, 2e-4, 0.0])(150)
    0.0001
    """

    boundaries: Sequence[Count]
    values: Sequence[Rate]
    shape: str = "linear"

    def _check(self) -> None:
        one_of("shape", self.shape, ("linear", "cosine", "constant"))
        ascending("boundaries", self.boundaries)
        if not self.values or len(self.boundaries) != len(self.values):
            raise ScheduleError(
                f"`values` must be as many as `boundaries`, at least one; got {len(self.values)} and "
                f"{len(self.boundaries)}. Give one rate for each step."
            )

    def _segments(self) -> tuple[Segment, ...]:
        curve = TAILS.get(self.shape)
        marks, ends = pairwise(self.boundaries), pairwise(self.values)
        lead = hold("before", self.boundaries[0], self.values[0])
        pieces = [
            Segment(self.shape, stop - start, init, end, curve)
            if curve
            else hold("stair", stop - start, init)
            for (start, stop), (init, end) in zip(marks, ends, strict=True)
        ]
        return lead, *pieces, hold("end", 1, self.values[-1])

    @property
    def steps(self) -> int:
        """The update from which on the rate no longer changes."""
        return self.boundaries[-1]
