"""Schedules made of schedules. Each also accepts a user's own function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import PYTHON, Backend, Number
from mlxsched.schedules.base import Phase, Schedule
from mlxsched.schedules.curves import TAILS, WARMUPS, check_tail
from mlxsched.schedules.fields import Count, Rate, Steps, Whole, as_items, one_of
from mlxsched.schedules.parts import Part, checked_part, knots_of, phases_of, steps_of, value_of
from mlxsched.schedules.segments import Segment, along


@dataclass(frozen=True)
class Wrapped(Schedule):
    """The base of the combinators over one schedule."""

    schedule: Part

    def _check(self) -> None:
        checked_part("schedule", self.schedule)

    def _knots(self, last: int) -> tuple[int, ...] | None:
        return knots_of(self.schedule, last)

    @property
    def steps(self) -> int | None:
        """The update from which on the rate no longer changes; None if it never stops changing."""
        return steps_of(self.schedule)

    @property
    def phases(self) -> tuple[Phase, ...]:
        return tuple(phases_of(self.schedule, 0, None))


@dataclass(frozen=True)
class with_warmup(Wrapped):
    """A warmup in front of a schedule, which then counts from the warmup's end.

    Formula: rate(t) goes from init to schedule(0) in `warmup` updates; then schedule(t - warmup)
    When: to add a warmup to a schedule that has none, or one of another shape.
    Source: Goyal et al. 2017 (arXiv 1706.02677) for linear; Liu et al. 2019 (arXiv 1908.03265) for radam
    Spec: with_warmup(schedule=cosine(init=2e-4, steps=900), warmup=100, shape="cosine")

    Args:
        schedule: what follows the warmup.
        warmup: updates; the rate is exactly schedule(0) at step `warmup`.
        init: the rate at step 0.
        shape: linear, cosine, sqrt, 1-sqrt, quadratic, exponential or radam (RAdam's variance rectification).

    Raises:
        ScheduleError: `schedule` is no schedule, or another argument does not fit.

    >>> from mlxsched import constant
    >>> with_warmup(constant(2e-4), 100)(50)
    0.0001
    """

    warmup: Count
    init: Rate = 0.0
    shape: str = "linear"

    def _check(self) -> None:
        super()._check()
        one_of("shape", self.shape, tuple(WARMUPS))

    def _value(self, step: Number, ops: Backend) -> Number:
        rest = value_of(self.schedule, ops.since(step, self.warmup), ops)
        if self.warmup == 0:
            return rest
        top = float(value_of(self.schedule, 0, PYTHON))
        rise = along(Segment("warmup", self.warmup, self.init, top, WARMUPS[self.shape]), 0, step, ops)
        return ops.where(step < self.warmup, rise, rest)

    def _knots(self, last: int) -> tuple[int, ...] | None:
        own = knots_of(self.schedule, max(last - self.warmup, 0))
        if own is None:
            return None
        return max(self.warmup - 1, 0), self.warmup, *(self.warmup + knot for knot in own)

    @property
    def steps(self) -> int | None:
        """The update from which on the rate no longer changes; None if it never stops changing."""
        own = steps_of(self.schedule)
        return None if own is None else self.warmup + own

    @property
    def phases(self) -> tuple[Phase, ...]:
        rest = phases_of(self.schedule, self.warmup, None)
        return (Phase("warmup", 0, self.warmup), *rest) if self.warmup else tuple(rest)


@dataclass(frozen=True)
class cooldown(Wrapped):
    """A decay from the rate at a given step, to end a run.

    Formula: rate(t) = schedule(t) for t < start; then from schedule(start) to end by the shape; end from
        t = start + decay_steps on
    When: to end a constant or inverse-square-root run, or to branch finished models off a long one.
    Source: Hägele et al. 2024 (arXiv 2405.18392); OLMo's override-decay
    Spec: cooldown(schedule=warmup_constant(peak=2e-4, warmup=50), start=800, decay_steps=200)

    Args:
        schedule: the schedule before `start`.
        start: the step at which the decay starts.
        decay_steps: updates of the decay.
        end: the last rate.
        shape: linear, cosine, 1-sqrt, 1-square, exponential, geometric (needs `end` above 0) or mirror-cosine.

    Raises:
        ScheduleError: `schedule` is no schedule, or another argument does not fit.

    >>> from mlxsched import constant
    >>> schedule = cooldown(constant(2e-4), start=800, decay_steps=200, shape="linear")
    >>> schedule(800), schedule(900), schedule(1000)
    (0.0002, 0.0001, 0.0)
    """

    start: Count
    decay_steps: Steps
    end: Rate = 0.0
    shape: str = "1-sqrt"

    def _check(self) -> None:
        super()._check()
        check_tail(self.shape, self._top(), self.end)

    def _top(self) -> float:
        return float(value_of(self.schedule, self.start, PYTHON))

    def _value(self, step: Number, ops: Backend) -> Number:
        tail = Segment("cooldown", self.decay_steps, self._top(), self.end, TAILS[self.shape])
        fall = ops.where(step < self.start + self.decay_steps, along(tail, self.start, step, ops), self.end)
        return ops.where(step < self.start, value_of(self.schedule, step, ops), fall)

    def _knots(self, last: int) -> tuple[int, ...] | None:
        own = knots_of(self.schedule, min(last, self.start))
        if own is None:
            return None
        stop = self.start + self.decay_steps
        marks = max(self.start - 1, 0), self.start, stop - 1, stop
        return (*(knot for knot in own if knot < self.start), *marks)

    @property
    def steps(self) -> int:
        """The update from which on the rate no longer changes."""
        return self.start + self.decay_steps

    @property
    def phases(self) -> tuple[Phase, ...]:
        before = phases_of(self.schedule, 0, self.start)
        return (*before, Phase("cooldown", self.start, self.steps), Phase("end", self.steps, None))


@dataclass(frozen=True)
class scale(Wrapped):
    """A schedule times a constant factor.

    Formula: rate(t) = factor * schedule(t)
    When: one shape for several groups of weights, each with its own rate.
    Source: folklore
    Spec: scale(schedule=warmup_linear(peak=2e-4, steps=1000, warmup=100), factor=0.1)

    Args:
        schedule: what is scaled.
        factor: 0 or more.

    Raises:
        ScheduleError: `schedule` is no schedule, or `factor` is negative or not finite.

    >>> from mlxsched import constant
    >>> scale(constant(2e-4), 0.5)(0)
    0.0001
    """

    factor: Rate

    def _value(self, step: Number, ops: Backend) -> Number:
        return value_of(self.schedule, step, ops) * self.factor


@dataclass(frozen=True)
class clamp(Wrapped):
    """A schedule kept between two rates.

    Formula: rate(t) = min(max(schedule(t), low), high)
    When: a floor under a decay, a ceiling over a rate that a formula gives.
    Source: folklore
    Spec: clamp(schedule=inverse_sqrt(peak=2e-4, warmup=100), low=5e-5)

    Args:
        schedule: what is clamped.
        low: the floor.
        high: the ceiling; default none.

    Raises:
        ScheduleError: `schedule` is no schedule, a bound is negative or not finite, or they don't ascend.

    >>> from mlxsched import linear
    >>> clamp(linear(2e-4, 100), low=5e-5)(100)
    5e-05
    """

    low: Rate = 0.0
    high: Rate | None = None

    def _check(self) -> None:
        super()._check()
        if self.high is not None and self.high < self.low:
            raise ScheduleError(f"`high` must not be below `low`; got {self.high} and {self.low}. Swap them.")

    def _value(self, step: Number, ops: Backend) -> Number:
        value = ops.maximum(value_of(self.schedule, step, ops), self.low)
        return value if self.high is None else ops.minimum(value, self.high)

    def _knots(self, last: int) -> tuple[int, ...] | None:
        return None  # the first step at a bound is not a knot of the schedule: a scan finds it


@dataclass(frozen=True)
class shift(Wrapped):
    """A schedule moved in time.

    Formula: rate(t) = schedule(max(t - updates, 0))
    When: a positive shift holds the first rate for a while; a negative one skips the beginning.
    Source: folklore
    Spec: shift(schedule=warmup_linear(peak=2e-4, steps=1000, warmup=100), updates=50)

    Args:
        schedule: what is moved.
        updates: how far, later if positive.

    Raises:
        ScheduleError: `schedule` is no schedule, or `updates` is not a whole number.

    >>> from mlxsched import linear
    >>> shift(linear(1e-3, 100), 20)(20), shift(linear(1e-3, 100), -50)(0)
    (0.001, 0.0005)
    """

    updates: Whole

    def _value(self, step: Number, ops: Backend) -> Number:
        return value_of(self.schedule, ops.since(step, self.updates), ops)

    def _knots(self, last: int) -> tuple[int, ...] | None:
        """None where the start is cut off: a periodic schedule's knots are those of its first period."""
        own = knots_of(self.schedule, max(last - self.updates, 0))
        return None if own is None or self.updates < 0 else tuple(self.updates + knot for knot in own)

    @property
    def steps(self) -> int | None:
        """The update from which on the rate no longer changes; None if it never stops changing."""
        own = steps_of(self.schedule)
        return None if own is None else max(own + self.updates, 0)

    @property
    def phases(self) -> tuple[Phase, ...]:
        moved = phases_of(self.schedule, self.updates, None)
        later = [
            Phase(one.name, max(one.start, 0), one.end) for one in moved if one.end is None or one.end > 0
        ]
        return (Phase("before", 0, self.updates), *later) if self.updates > 0 else tuple(later)


@dataclass(frozen=True)
class repeat(Wrapped):
    """A schedule that is repeated.

    Formula: rate(t) = schedule(t mod period); with times, schedule(period) from t = times * period on
    When: restarts of any shape with a constant period; in `cosine_restarts` the cycles may grow.
    Source: Loshchilov & Hutter 2016 (arXiv 1608.03983)
    Spec: repeat(schedule=warmup_cosine(peak=2e-4, steps=250, warmup=25), period=250, times=4)

    Args:
        schedule: what is repeated.
        period: updates after which it starts again.
        times: how often it runs; by default without end.

    Raises:
        ScheduleError: `schedule` is no schedule, or a count is below 1.

    >>> from mlxsched import linear
    >>> schedule = repeat(linear(1e-3, 100), period=100, times=2)
    >>> schedule(0), schedule(100), schedule(150), schedule(200)
    (0.001, 0.001, 0.0005, 0.0)
    """

    period: Steps
    times: Steps | None = None

    def _value(self, step: Number, ops: Backend) -> Number:
        here = step % self.period
        if self.times is not None:
            here = ops.where(step < self.times * self.period, here, self.period)
        return value_of(self.schedule, here, ops)

    def _knots(self, last: int) -> tuple[int, ...] | None:
        """Those of the first round: later rounds repeat its values."""
        own = knots_of(self.schedule, min(last, self.period))
        if own is None:
            return None
        stop = (self.period - 1, self.period) if self.times is None else (self.period - 1, self.steps or 0)
        return (*(knot for knot in own if knot < self.period), *stop)

    @property
    def steps(self) -> int | None:
        """The update from which on the rate no longer changes; None if it never stops changing."""
        return None if self.times is None else self.times * self.period

    @property
    def phases(self) -> tuple[Phase, ...]:
        if self.times is None:
            return (Phase("cycle", 0, self.period), Phase("cycles", self.period, None))
        starts = [index * self.period for index in range(min(self.times, MAX_PHASES))]
        shown = [Phase("cycle", start, start + self.period) for start in starts]
        return (*shown, Phase("end" if len(starts) == self.times else "cycles", shown[-1].end or 0, None))


MAX_PHASES = 1000
"""Cycles that `phases` names one by one."""


@dataclass(frozen=True)
class product(Schedule):
    """Schedules multiplied with each other.

    Formula: rate(t) = schedules[0](t) * schedules[1](t) * ...
    When: an envelope over cycles, or any correction that is itself a function of the step.
    Source: torch's MultiplicativeLR and ChainedScheduler
    Spec: product(schedules=[warmup_linear(peak=2e-4, steps=1000, warmup=100), cyclic(low=0.5, high=1.0, up=50)])

    Args:
        schedules: at least one.

    Raises:
        ScheduleError: there is no schedule, or one is not a schedule.

    >>> from mlxsched import constant, linear
    >>> product([constant(2e-4), linear(1.0, 100)])(50)
    0.0001
    """

    schedules: Sequence[Part]

    def _check(self) -> None:
        object.__setattr__(self, "schedules", as_items("schedules", self.schedules, checked_part))
        if not self.schedules:
            raise ScheduleError("`schedules` must hold at least one schedule; got none. Give the factors.")

    def _value(self, step: Number, ops: Backend) -> Number:
        return math.prod(value_of(part, step, ops) for part in self.schedules)

    @property
    def steps(self) -> int | None:
        """The update from which on the rate no longer changes; None if it never stops changing."""
        own = [steps_of(part) for part in self.schedules]
        known = [steps for steps in own if steps is not None]
        return max(known) if len(known) == len(own) else None

    @property
    def phases(self) -> tuple[Phase, ...]:
        return tuple(phases_of(self.schedules[0], 0, None))
