"""Decays as a power of time: they need no length; `cooldown` ends them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import Backend, Number
from mlxsched.schedules.base import Endless, Phase
from mlxsched.schedules.fields import Count, Rate, Real, Steps


@dataclass(frozen=True)
class _Powered(Endless):
    """A linear warmup to `_top()`, then `_rest`, which never rises."""

    if TYPE_CHECKING:

        @property
        def warmup(self) -> int:
            """Updates until the peak."""

    def _top(self) -> float:
        raise NotImplementedError

    def _rest(self, step: Number, ops: Backend) -> Number:
        """The rate at a step that is at least `warmup`."""
        raise NotImplementedError

    def _value(self, step: Number, ops: Backend) -> Number:
        rest = ops.within(self._rest(ops.maximum(step, self.warmup), ops), 0.0, self._top())
        rise = self._top() * (ops.real(ops.done(step, 0, self.warmup)) / float(max(self.warmup, 1)))
        return ops.where(step < self.warmup, rise, rest)

    def _knots(self, last: int) -> tuple[int, ...]:
        return (self.warmup,)

    @property
    def phases(self) -> tuple[Phase, ...]:
        rest = Phase("decay", self.warmup, None)
        return (Phase("warmup", 0, self.warmup), rest) if self.warmup else (rest,)


@dataclass(frozen=True)
class inverse_sqrt(_Powered):
    """A decay with the inverse square root of time, after a linear warmup.

    Formula: rate(t) = peak * t / warmup for t < warmup; then peak / sqrt(1 + max(0, t - shift) / timescale)
    When: runs of unknown length with Adam; `cooldown` gives it an end.
    Source: Vaswani et al. 2017 (arXiv 1706.03762); Zhai et al. 2021 (arXiv 2106.04560) for the timescale
    Spec: inverse_sqrt(peak=2e-4, warmup=100)

    Args:
        peak: the rate, held exactly from step `warmup` to step `shift`.
        warmup: updates until the peak; the rate is 0 at step 0.
        timescale: updates in which the rate falls by sqrt(2) first; default `warmup`, or 10000 without one.
        shift: the step at which the fall starts; default `warmup`, and not below it.

    Raises:
        ScheduleError: `peak` is negative or not finite, a count is not a whole number, or `shift` is too early.

    >>> schedule = inverse_sqrt(2e-4, warmup=100)
    >>> schedule(50), schedule(100), schedule(400)
    (0.0001, 0.0002, 0.0001)
    """

    peak: Rate
    warmup: Count = 0
    timescale: Steps | None = None
    shift: Count | None = None

    def _check(self) -> None:
        if self.shift is not None and self.shift < self.warmup:
            raise ScheduleError(
                f"`shift` must not be below `warmup`; got {self.shift} and {self.warmup}. Raise it or leave it out."
            )

    def _top(self) -> float:
        return self.peak

    def _rest(self, step: Number, ops: Backend) -> Number:
        shift = self.warmup if self.shift is None else self.shift
        passed = ops.real(ops.since(step, shift)) / float(self.timescale or self.warmup or 10_000)
        return self.peak / ops.sqrt(1.0 + passed)

    def _knots(self, last: int) -> tuple[int, ...]:
        return self.warmup, self.shift or self.warmup


@dataclass(frozen=True)
class noam(_Powered):
    """The schedule of the first Transformer, whose peak follows from the width and the warmup.

    Formula: rate(t) = scale * d_model^-0.5 * min(t^-0.5, t * warmup^-1.5); 0 at t = 0
    When: to reproduce older Transformer recipes.
    Source: Vaswani et al. 2017 (arXiv 1706.03762)
    Spec: noam(d_model=512, warmup=4000)

    Args:
        d_model: the model's width.
        warmup: updates until the peak, scale / sqrt(d_model * warmup).
        scale: a factor.

    Raises:
        ScheduleError: `scale` is negative or not finite, or a count is below 1.

    >>> noam(512, warmup=4000)(4000) == (512 * 4000) ** -0.5
    True
    """

    d_model: Steps
    warmup: Steps
    scale: Rate = 1.0

    def _top(self) -> float:
        return float(self.scale * (self.d_model * self.warmup) ** -0.5)

    def _rest(self, step: Number, ops: Backend) -> Number:
        return self._top() / ops.sqrt(ops.real(step) / float(self.warmup))


@dataclass(frozen=True)
class power_law(_Powered):
    """Any power of time, after a linear warmup.

    Formula: rate(t) = peak * t / warmup for t < warmup; then peak * (t / warmup)^exponent
    When: runs of unknown length; `inverse_sqrt` is exponent -0.5.
    Source: OLMo's power-law scheduler; exponent of Shen et al. 2024 (arXiv 2408.13359)
    Spec: power_law(peak=2e-4, warmup=100)

    Args:
        peak: the rate at step `warmup`.
        warmup: updates until the peak, at least 1; the rate is 0 at step 0.
        exponent: 0 or below.

    Raises:
        ScheduleError: `peak` is negative or not finite, `warmup` is below 1, or `exponent` is above 0.

    >>> round(power_law(2e-4, warmup=100, exponent=-1.0)(400), 12)
    5e-05
    """

    peak: Rate
    warmup: Steps
    exponent: Real = -0.51

    def _check(self) -> None:
        _not_rising("exponent", self.exponent)

    def _top(self) -> float:
        return self.peak

    def _rest(self, step: Number, ops: Backend) -> Number:
        return self.peak * ops.pow(ops.real(step) / float(self.warmup), self.exponent)


@dataclass(frozen=True)
class power(_Powered):
    """A rate that follows from the tokens seen, for any batch size and length: Granite's power scheduler.

    Formula: rate(t) = min(peak, batch_size * a * n^b) with n = t * tokens tokens seen; for t < warmup a straight line
        from 0 to the value at t = warmup
    When: pretraining of unknown length with a rate tuned on a small proxy; end it with `cooldown`.
    Source: Shen et al. 2024 (arXiv 2408.13359)
    Spec: power(peak=2e-2, batch_size=128, tokens=524288, warmup=500)

    Args:
        peak: the highest rate allowed.
        batch_size: rows of an update.
        tokens: tokens of an update.
        warmup: updates of the warmup.
        a: the paper's 4.6.
        b: the paper's -0.51; 0 or below.

    Raises:
        ScheduleError: a rate or `a` is negative or not finite, a count is below 1, or `b` is above 0.

    >>> power(2e-2, batch_size=128, tokens=524288, warmup=500)(500)
    0.02
    """

    peak: Rate
    batch_size: Steps
    tokens: Steps
    warmup: Count = 0
    a: Rate = 4.6
    b: Real = -0.51

    def _check(self) -> None:
        _not_rising("b", self.b)

    def _top(self) -> float:
        return min(self.peak, self._coefficient() * float(max(self.warmup, 1) ** self.b))

    def _coefficient(self) -> float:
        return float(self.batch_size * self.a * self.tokens**self.b)

    def _rest(self, step: Number, ops: Backend) -> Number:
        return self._coefficient() * ops.pow(ops.real(ops.maximum(step, 1)), self.b)


def _not_rising(name: str, exponent: float) -> None:
    if exponent > 0:
        raise ScheduleError(
            f"`{name}` must be 0 or below; got {exponent}. A power above 0 would never stop rising."
        )
