"""MLX's own five schedules: the same signatures, and the same values bit for bit for an ``mx.array`` step.

Changing ``from mlx.optimizers import cosine_decay`` to ``from mlxsched import cosine_decay`` changes no number of a
training. What MLX computes imprecisely stays so for MLX arrays (`cosine`, `linear`, `exponential` are the precise
ones); Python and NumPy steps get the float64 value of the same formula.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import MLX, Backend, Number
from mlxsched.schedules.base import Endless, Phase, Schedule
from mlxsched.schedules.curves import TAILS
from mlxsched.schedules.fields import Count, Real, Steps, as_items, ascending
from mlxsched.schedules.parts import Part, checked_part, knots_of, phases_of, steps_of, value_of
from mlxsched.schedules.segments import Segment, Segmented


@dataclass(frozen=True)
class exponential_decay(Endless):
    """MLX's exponential decay.

    Formula: rate(t) = init * decay_rate^t
    When: in place of mlx.optimizers.exponential_decay; `exponential` keeps more digits at rates close to 1.
    Source: MLX, mlx.optimizers.exponential_decay
    Spec: exponential_decay(init=1e-1, decay_rate=0.99)

    Args:
        init: the rate at step 0.
        decay_rate: the factor from one step to the next.

    Raises:
        ScheduleError: an argument is not a finite number.

    >>> round(exponential_decay(1e-1, 0.9)(5), 9)
    0.059049
    """

    init: Real
    decay_rate: Real

    def _value(self, step: Number, ops: Backend) -> Number:
        return self.init * ops.pow(self.decay_rate, step)

    def _knots(self, last: int) -> tuple[int, ...] | None:
        return () if self.decay_rate >= 0 else None


@dataclass(frozen=True)
class step_decay(Endless):
    """MLX's staircase: a factor every so many steps.

    Formula: rate(t) = init * decay_rate^floor(t / step_size); the drop is at t = step_size itself
    When: in place of mlx.optimizers.step_decay.
    Source: MLX, mlx.optimizers.step_decay
    Spec: step_decay(init=1e-1, decay_rate=0.5, step_size=200)

    Args:
        init: the rate of the first stair.
        decay_rate: the factor from one stair to the next.
        step_size: updates of a stair.

    Raises:
        ScheduleError: `step_size` is below 1, or another argument is not a finite number.

    >>> round(step_decay(1e-1, 0.9, 10)(21), 9)
    0.081
    """

    init: Real
    decay_rate: Real
    step_size: Steps

    def _value(self, step: Number, ops: Backend) -> Number:
        return self.init * ops.pow(self.decay_rate, step // self.step_size)

    def _knots(self, last: int) -> tuple[int, ...] | None:
        return (last - last % self.step_size,) if self.decay_rate >= 0 else None


@dataclass(frozen=True)
class cosine_decay(Segmented):
    """MLX's cosine decay.

    Formula: rate(t) = end + (init - end) * (1 + cos(pi t / decay_steps)) / 2; end from t = decay_steps on
    When: in place of mlx.optimizers.cosine_decay; `cosine` is precise near the end, `warmup_cosine` warms up.
    Source: MLX, mlx.optimizers.cosine_decay; Loshchilov & Hutter 2016 (arXiv 1608.03983)
    Spec: cosine_decay(init=1e-1, decay_steps=1000)

    Args:
        init: the rate at step 0.
        decay_steps: updates until `end`.
        end: the last rate.

    Raises:
        ScheduleError: `decay_steps` is below 1, or another argument is not a finite number.

    >>> round(cosine_decay(1e-1, 1000)(5), 9)
    0.099993832
    """

    init: Real
    decay_steps: Steps
    end: Real = 0.0

    def _segments(self) -> tuple[Segment, ...]:
        return (Segment("decay", self.decay_steps, self.init, self.end, TAILS["cosine"]),)

    def _value(self, step: Number, ops: Backend) -> Number:
        if ops is not MLX:
            return super()._value(step, ops)
        passed = mx.minimum(step, self.decay_steps)
        decay = 0.5 * (1.0 + mx.cos((math.pi / self.decay_steps) * passed))
        return self.end + decay * (self.init - self.end)

    @property
    def steps(self) -> int:
        """The update from which on the rate no longer changes."""
        return self.decay_steps


@dataclass(frozen=True)
class linear_schedule(Segmented):
    """MLX's straight line.

    Formula: rate(t) = init + (end - init) * t / steps; end from t = steps on
    When: in place of mlx.optimizers.linear_schedule, whose float32 values can end slightly off `end`, even below 0;
        `linear` is exact at both ends.
    Source: MLX, mlx.optimizers.linear_schedule
    Spec: linear_schedule(init=0.0, end=1e-1, steps=100)

    Args:
        init: the rate at step 0.
        end: the last rate.
        steps: updates until `end`.

    Raises:
        ScheduleError: `steps` is below 1, or another argument is not a finite number.

    >>> linear_schedule(0, 1e-1, 100)(50)
    0.05
    """

    init: Real
    end: Real
    steps: Steps

    def _segments(self) -> tuple[Segment, ...]:
        name = "decay" if self.end <= self.init else "warmup"
        return (Segment(name, self.steps, self.init, self.end, TAILS["linear"]),)

    def _value(self, step: Number, ops: Backend) -> Number:
        if ops is not MLX:
            return super()._value(step, ops)
        return mx.minimum(step, self.steps) * ((self.end - self.init) / self.steps) + self.init


@dataclass(frozen=True)
class join_schedules(Schedule):
    """One schedule after the other, each counting from its own start.

    Formula: rate(t) = schedules[i](t - boundaries[i-1]) for boundaries[i-1] <= t < boundaries[i]
    When: in place of mlx.optimizers.join_schedules, and for any shape that has no name here.
    Source: MLX, mlx.optimizers.join_schedules
    Spec: join_schedules(schedules=[linear_schedule(init=0.0, end=1e-1, steps=10), cosine_decay(init=1e-1,
        decay_steps=200)], boundaries=[10])

    Args:
        schedules: schedules, or functions of the step.
        boundaries: the steps at which the next one takes over, ascending, one fewer than the schedules.

    Raises:
        ScheduleError: there is no schedule, or the boundaries don't fit them.

    >>> join_schedules([linear_schedule(0, 1e-1, 10), cosine_decay(1e-1, 200)], [10])(10)
    0.1
    """

    schedules: Sequence[Part]
    boundaries: Sequence[Count]

    def _check(self) -> None:
        parts, marks = as_items("schedules", self.schedules, checked_part), self.boundaries
        if len(parts) != len(marks) + 1:
            raise ScheduleError(
                f"`boundaries` must be one fewer than `schedules`; got {len(marks)} for {len(parts)}. "
                "Give the step at which each schedule but the first takes over."
            )
        ascending("boundaries", marks, strictly=False)
        object.__setattr__(self, "schedules", parts)

    def _value(self, step: Number, ops: Backend) -> Number:
        value = value_of(self.schedules[0], step, ops)
        for mark, part in zip(self.boundaries, self.schedules[1:], strict=True):
            value = ops.where(step < mark, value, value_of(part, ops.since(step, mark), ops))
        return value

    def _spans(self) -> list[tuple[Part, int, int | None]]:
        """Each part with the steps at which it takes over and ends."""
        return list(zip(self.schedules, (0, *self.boundaries), (*self.boundaries, None), strict=True))

    def _knots(self, last: int) -> tuple[int, ...] | None:
        knots: set[int] = set()
        for part, start, end in self._spans():
            own = knots_of(part, max(last - start, 0))
            if own is None:
                return None
            knots |= {max(start - 1, 0), start}
            knots |= {start + knot for knot in own if end is None or start + knot < end}
        return tuple(sorted(knots))

    @property
    def steps(self) -> int | None:
        """The update from which on the rate no longer changes; None without an end."""
        last, start, _ = self._spans()[-1]
        own = steps_of(last)
        return None if own is None else start + own

    @property
    def phases(self) -> tuple[Phase, ...]:
        return tuple(phase for part, start, end in self._spans() for phase in phases_of(part, start, end))
