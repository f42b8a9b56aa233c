"""MLX's own five schedules: the same signatures, and the same values bit for bit for an ``mx.array`` step.

Changing ``from mlx.optimizers import cosine_decay`` to ``from mlxsched import cosine_decay`` changes no number of a
training. What MLX computes imprecisely stays so for MLX arrays (`cosine`, `linear`, `exponential` are the precise
ones); Python and NumPy steps get the float64 value of the same formula.

In MLX an int step gives an array or a float, depending on the schedule. Here it gives a float that also has the array's
``item()``, so code and tests written for either work. Lengths may be fractions, as in MLX: ``cosine_decay(0.1, 10.5)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import mlx.core as mx

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import LAST_STEP, MLX, Backend, Number
from mlxsched.schedules.base import Endless, Phase, Schedule
from mlxsched.schedules.curves import TAILS
from mlxsched.schedules.fields import Real, Rule, as_count, as_items, as_rate, ascending, shown
from mlxsched.schedules.parts import Part, checked_part, knots_of, phases_of, steps_of, value_of
from mlxsched.schedules.segments import Segment, Segmented


class ItemFloat(float):
    """A float that has the `item` method of an array with one element."""

    __slots__ = ()

    def item(self) -> float:
        """The value as a plain float."""
        return float(self)


def as_length(name: str, value: object) -> int | float:
    """A number of steps, 1 or more, which MLX lets be a fraction; a whole one becomes an int."""
    fraction = isinstance(value, float) and math.isfinite(value) and not value.is_integer()
    length = value if isinstance(value, float) and fraction else as_count(name, value)
    if length < 1:
        raise ScheduleError(f"`{name}` must be at least 1; got {shown(value)}. Give the number of updates.")
    return length


def as_boundary(name: str, value: object) -> int | float:
    """A step, 0 or more, which MLX lets be a fraction; a whole one becomes an int."""
    fraction = isinstance(value, float) and math.isfinite(value) and not value.is_integer()
    return as_rate(name, value) if fraction else as_count(name, value)


Length: TypeAlias = Annotated[int | float, Rule(as_length)]
Boundary: TypeAlias = Annotated[int | float, Rule(as_boundary)]


@dataclass(frozen=True)
class DropIn(Schedule):
    """What the five have in common: floats have an `item` method, and steps that are fractions are understood."""

    def __call__(self, step: Any) -> Any:
        rate = super().__call__(step)
        return ItemFloat(rate) if isinstance(rate, float) else rate


@dataclass(frozen=True)
class exponential_decay(DropIn, Endless):
    """MLX's exponential decay.

    Formula: rate(t) = init * decay_rate^t
    When: instead of mlx.optimizers.exponential_decay; `exponential` keeps more digits at rates close to 1.
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
class step_decay(DropIn, Endless):
    """MLX's staircase: a factor every `step_size` steps.

    Formula: rate(t) = init * decay_rate^floor(t / step_size); the drop is at t = step_size itself
    When: instead of mlx.optimizers.step_decay.
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
    step_size: Length

    def _value(self, step: Number, ops: Backend) -> Number:
        if isinstance(self.step_size, float):
            step = ops.minimum(step, LAST_STEP)  # a larger integer does not divide by a float
        return self.init * ops.pow(self.decay_rate, step // self.step_size)

    def _knots(self, last: int) -> tuple[int, ...] | None:
        # Monotone over all stairs, so only the last one's start matters, for the first step that has its value.
        return (math.ceil(last - last % self.step_size),) if self.decay_rate >= 0 else None


@dataclass(frozen=True)
class cosine_decay(DropIn, Segmented):
    """MLX's cosine decay.

    Formula: rate(t) = end + (init - end) * (1 + cos(pi t / decay_steps)) / 2; end from t = decay_steps on
    When: instead of mlx.optimizers.cosine_decay; `cosine` is precise near the end, `warmup_cosine` warms up.
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
    decay_steps: Length
    end: Real = 0.0

    def _segments(self) -> tuple[Segment, ...]:
        return (Segment("decay", math.ceil(self.decay_steps), self.init, self.end, TAILS["cosine"]),)

    def _value(self, step: Number, ops: Backend) -> Number:
        if ops is not MLX:
            return _along("cosine", self.init, self.end, self.decay_steps, step, ops)
        passed = mx.minimum(step, self.decay_steps)
        decay = 0.5 * (1.0 + mx.cos((math.pi / self.decay_steps) * passed))
        return self.end + decay * (self.init - self.end)

    @property
    def steps(self) -> int:
        """The update from which on the rate no longer changes."""
        return math.ceil(self.decay_steps)


@dataclass(frozen=True)
class linear_schedule(DropIn, Segmented):
    """MLX's straight line.

    Formula: rate(t) = init + (end - init) * t / steps; end from t = steps on
    When: instead of mlx.optimizers.linear_schedule, whose float32 values can end slightly off `end`, even below 0;
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
    steps: Length  # type: ignore[assignment]  # a fraction, if that is what was given

    def _segments(self) -> tuple[Segment, ...]:
        name = "decay" if self.end <= self.init else "warmup"
        return (Segment(name, math.ceil(self.steps), self.init, self.end, TAILS["linear"]),)

    def _value(self, step: Number, ops: Backend) -> Number:
        if ops is not MLX:
            return _along("linear", self.init, self.end, self.steps, step, ops)
        return mx.minimum(step, self.steps) * ((self.end - self.init) / self.steps) + self.init


def _along(curve: str, init: float, end: float, length: float, step: Number, ops: Backend) -> Number:
    """A curve at `step`; `length` may be a fraction."""
    done = ops.minimum(step, length)
    return TAILS[curve](init, end, ops.real(done), ops.real(length - done), float(length), ops)


@dataclass(frozen=True)
class join_schedules(DropIn):
    """One schedule after the other, each counting from its own start.

    Formula: rate(t) = schedules[i](t - boundaries[i-1]) for boundaries[i-1] <= t < boundaries[i]
    When: instead of mlx.optimizers.join_schedules, and for any shape that has no name here.
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
    boundaries: Sequence[Boundary]

    def _check(self) -> None:
        parts, marks = as_items("schedules", self.schedules, checked_part), self.boundaries
        if len(parts) != len(marks) + 1:
            raise ScheduleError(
                f"`boundaries` must be one fewer than `schedules`; got {len(marks)} for {len(parts)}. "
                "Give the step at which each schedule but the first takes over."
            )
        ascending("boundaries", marks, strictly=False)
        for mark, part in zip(marks, parts[1:], strict=True):
            if isinstance(mark, float) and not _takes_fractions(part):
                raise ScheduleError(
                    f"`boundaries` must be whole numbers before {type(part).__name__}; got {mark}. Round it."
                )
        object.__setattr__(self, "schedules", parts)

    def _value(self, step: Number, ops: Backend) -> Number:
        value = value_of(self.schedules[0], step, ops)
        if any(isinstance(mark, float) for mark in self.boundaries):
            step = ops.minimum(step, LAST_STEP)  # nor subtract one
        for mark, part in zip(self.boundaries, self.schedules[1:], strict=True):
            value = ops.where(step < mark, value, value_of(part, ops.since(step, mark), ops))
        return value

    def _placed(self) -> list[tuple[Part, int, int | None]]:
        """Each part with its first step and the one at which the next part takes over."""
        marks = [math.ceil(mark) for mark in self.boundaries]
        return list(zip(self.schedules, (0, *marks), (*marks, None), strict=True))

    def _knots(self, last: int) -> tuple[int, ...] | None:
        knots: set[int] = set()
        for part, start, end in self._placed():
            own = knots_of(part, max(last - start, 0))
            if own is None:
                return None
            knots |= {max(start - 1, 0), start}
            knots |= {start + knot for knot in own if end is None or start + knot < end}
        return tuple(sorted(knots))

    @property
    def steps(self) -> int | None:
        """The update from which on the rate no longer changes; None if it never stops changing."""
        last, start, _ = self._placed()[-1]
        own = steps_of(last)
        return None if own is None else start + math.ceil(own)

    @property
    def phases(self) -> tuple[Phase, ...]:
        return tuple(phase for part, start, end in self._placed() for phase in phases_of(part, start, end))


def _takes_fractions(part: Part) -> bool:
    """Whether a part may be called with a step that is not whole, as MLX's formulas and users' functions may."""
    if isinstance(part, join_schedules):
        return all(_takes_fractions(one) for one in part.schedules)
    return isinstance(part, DropIn) or not isinstance(part, Schedule)
