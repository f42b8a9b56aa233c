"""Single curves from one value to another, without a warmup: parts for `with_warmup` and `join_schedules`.

Each holds exactly `init` at step 0 and exactly `end` at step `steps` and after. Below, p = t / steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import Backend, Number
from mlxsched.schedules.base import Endless
from mlxsched.schedules.curves import TAILS, Blend, Curve, geometric, one_minus_power, to_the_power
from mlxsched.schedules.curves import cosine as cosine_shares
from mlxsched.schedules.fields import Positive, Rate, Real, Steps
from mlxsched.schedules.segments import Segment, Segmented


@dataclass(frozen=True)
class _Decay(Segmented):
    init: Rate
    steps: Steps
    end: Rate = 0.0

    def _curve(self) -> Curve:
        raise NotImplementedError

    def _segments(self) -> tuple[Segment, ...]:
        name = "decay" if self.end <= self.init else "warmup"
        return (Segment(name, self.steps, self.init, self.end, self._curve()),)


@dataclass(frozen=True)
class linear(_Decay):
    """A straight line, up or down, exact at both ends.

    Formula: rate(t) = init + (end - init) * t / steps; end from t = steps on
    When: as a part of a composition; `warmup_linear` covers a whole run.
    Source: common practice; torch's LinearLR, optax.linear_schedule
    Spec: linear(init=2e-4, steps=1000)

    Args:
        init: the rate at step 0.
        steps: updates until `end`.
        end: the last rate.

    Raises:
        ScheduleError: a rate is negative or not finite, or `steps` is below 1.

    >>> linear(2e-4, 1000)(500)
    0.0001
    """

    def _curve(self) -> Curve:
        return TAILS["linear"]


@dataclass(frozen=True)
class cosine(_Decay):
    """Half a cosine wave down, precise up to its last step.

    Formula: rate(t) = end + (init - end) * ((1 + cos(pi p)) / 2)^exponent; with half, 1 - sin(pi p / 2) in place
        of the power; end from t = steps on
    When: as a part of a composition; `warmup_cosine` covers a whole run.
    Source: Loshchilov & Hutter 2016 (arXiv 1608.03983); exponent as in optax, half as in OLMo-core
    Spec: cosine(init=2e-4, steps=1000)

    Args:
        init: the rate at step 0.
        steps: updates until `end`.
        end: the last rate.
        exponent: a power of the cosine; above 1 falls sooner.
        half: follow only the second, flattening half of the wave, stretched to start at `init`.

    Raises:
        ScheduleError: a rate is negative or not finite, `steps` is below 1, `exponent` is not above 0, or is
            combined with `half`.

    >>> round(cosine(2e-4, 1000)(500), 12)
    0.0001
    """

    exponent: Positive = 1.0
    half: bool = False

    def _check(self) -> None:
        if self.half and self.exponent != 1:
            raise ScheduleError(
                f"`exponent` must be 1 with `half`; got {self.exponent}. Leave one of them out."
            )

    def _curve(self) -> Curve:
        if self.half:
            return Blend(_half_cosine, exact=False)
        return TAILS["cosine"] if self.exponent == 1 else Blend(self._powered)

    def _powered(self, done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
        return to_the_power(self.exponent, *cosine_shares(done, left, ops), ops)


def _half_cosine(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    root = ops.sin(math.pi / 4 * left)
    return 2.0 * root * root, ops.sin(math.pi / 2 * done)


@dataclass(frozen=True)
class polynomial(_Decay):
    """A power of the remaining share; with k, the k-decay.

    Formula: rate(t) = end + (init - end) * (1 - p^k)^power; end from t = steps on
    When: power 2 lingers at low rates; power 0.5 and k above 1 hold the rate for longer. In float32 it is within 1e-6
        for powers up to 5 with k from 0.5 to 8, and errs by about 2e-7 times the power beyond.
    Source: transformers, torch and keras have k = 1; Zhang & Li 2020 (arXiv 2004.05909) for k
    Spec: polynomial(init=2e-4, steps=1000, power=2.0)

    Args:
        init: the rate at step 0.
        steps: updates until `end`.
        end: the last rate.
        power: 1 is a straight line.
        k: 1 is no k-decay.

    Raises:
        ScheduleError: a rate is negative or not finite, `steps` is below 1, or `power` or `k` is not above 0.

    >>> polynomial(1e-3, 100, power=2.0)(50)
    0.00025
    """

    power: Positive = 1.0
    k: Positive = 1.0

    def _curve(self) -> Curve:
        return Blend(self._weights)

    def _weights(self, done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
        if self.k == 1:
            return to_the_power(self.power, left, done, ops)
        return to_the_power(self.power, one_minus_power(done, left, self.k, ops), ops.pow(done, self.k), ops)


@dataclass(frozen=True)
class log_sweep(Segmented):
    """A straight line on a logarithmic axis: the sweep of a learning-rate range test.

    Formula: rate(t) = init * (end / init)^p; end from t = steps on
    When: to search for a rate, or for a geometric decay that stays above 0. In float32 it errs by up to
        6e-8 * |log(end / init)|.
    Source: Smith 2015 (arXiv 1506.01186)
    Spec: log_sweep(init=1e-6, end=1e-1, steps=100)

    Args:
        init: the rate at step 0, above 0.
        end: the last rate, above 0.
        steps: updates until `end`.

    Raises:
        ScheduleError: a rate is not above 0, or `steps` is below 1.

    >>> round(log_sweep(1e-6, 1e-2, 100)(50), 12)
    0.0001
    """

    init: Positive
    end: Positive
    steps: Steps

    def _segments(self) -> tuple[Segment, ...]:
        return (Segment("sweep", self.steps, self.init, self.end, geometric),)


@dataclass(frozen=True)
class one_minus_sqrt(_Decay):
    """A steep start and a nearly straight end, for cooldowns.

    Formula: rate(t) = end + (init - end) * (1 - sqrt(p)); end from t = steps on
    When: the cooldown after a constant rate, lower in loss than a linear one; `wsd` covers a whole run.
    Source: Hägele et al. 2024 (arXiv 2405.18392)
    Spec: one_minus_sqrt(init=2e-4, steps=200)

    Args:
        init: the rate at step 0.
        steps: updates until `end`.
        end: the last rate.

    Raises:
        ScheduleError: a rate is negative or not finite, or `steps` is below 1.

    >>> one_minus_sqrt(2e-4, 200)(50)
    0.0001
    """

    def _curve(self) -> Curve:
        return TAILS["1-sqrt"]


@dataclass(frozen=True)
class rex(_Decay):
    """Reflected exponential: high for long, then a late fall.

    Formula: rate(t) = end + (init - end) * (1-p) / (1 - beta + beta (1-p)); end from t = steps on
    When: short budgets; with beta 0.9, axolotl's value, the fall comes even later.
    Source: Chen et al. 2021 (arXiv 2107.04197)
    Spec: rex(init=2e-4, steps=1000)

    Args:
        init: the rate at step 0.
        steps: updates until `end`.
        end: the last rate.
        beta: from 0, a straight line, to below 1; the higher, the later the fall.

    Raises:
        ScheduleError: a rate is negative or not finite, `steps` is below 1, or `beta` is not below 1.

    >>> round(rex(3e-4, 100)(50), 12)
    0.0002
    """

    beta: Rate = 0.5

    def _check(self) -> None:
        if self.beta >= 1:
            raise ScheduleError(f"`beta` must be below 1; got {self.beta}. The paper's value is 0.5.")

    def _curve(self) -> Curve:
        return Blend(self._weights)

    def _weights(self, done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
        scale = (1.0 - self.beta) + self.beta * left
        return left / scale, (1.0 - self.beta) * done / scale


@dataclass(frozen=True)
class tanh(_Decay):
    """A hyperbolic tangent: flat, then a fall, then flat.

    Formula: rate(t) = end + (init - end) * (tanh(upper) - tanh(x)) / (tanh(upper) - tanh(lower)) with
        x = lower (1-p) + upper p; end from t = steps on
    When: to hold the rate for most of the run without an abrupt change.
    Source: Hsueh et al. 2018 (arXiv 1806.01593), stretched to reach both ends
    Spec: tanh(init=2e-4, steps=1000)

    Args:
        init: the rate at step 0.
        steps: updates until `end`.
        end: the last rate.
        lower: where on the tangent the run starts; at least -20.
        upper: where it ends, above `lower`; at most 20.

    Raises:
        ScheduleError: a rate is negative or not finite, `steps` is below 1, or the bounds don't ascend.

    >>> round(tanh(2e-4, 1000, lower=-3, upper=3)(500), 12)
    0.0001
    """

    lower: Real = -7.0
    upper: Real = 3.0

    def _check(self) -> None:
        if not -20 <= self.lower < self.upper <= 20:
            raise ScheduleError(
                f"`lower` must be below `upper`, both within -20..20; got {self.lower} and {self.upper}. "
                "The paper's are -7 and 3."
            )

    def _curve(self) -> Curve:
        return Blend(self._weights, exact=False, unit=2 * (self.upper - self.lower))

    def _weights(self, done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
        first = _tanh_share(left, self.upper, self.lower, ops)
        return first, _tanh_share(done, -self.lower, -self.upper, ops)


def _tanh_share(way: Number, near: float, far: float, ops: Backend) -> Number:
    """(tanh(near) - tanh(near - way / 2)) / (tanh(near) - tanh(far)).

    tanh(b) - tanh(a) = sinh(b - a) / (cosh(b) cosh(a)): a product, so no digits cancel. Here that is
    (e^way - 1) / (e^(2 near) + e^way), times a constant, with the big numbers left to Python.
    """
    whole = math.sinh(near - far) / math.cosh(far)
    grown, lead = math.exp(-near) * whole, math.exp(near) * whole
    rise = ops.expm1(way)
    return rise / ((lead + grown) + grown * rise)


@dataclass(frozen=True)
class exponential(Endless):
    """A constant factor from step to step, precise for factors close to 1.

    Formula: rate(t) = init * factor^t
    When: a slow decay without an end. MLX's `exponential_decay` loses digits: 0.99999^500000 is 0.68% low.
    Source: common practice; torch's ExponentialLR
    Spec: exponential(init=2e-4, factor=0.999)

    Args:
        init: the rate at step 0.
        factor: from one step to the next, above 0.

    Raises:
        ScheduleError: `init` is negative or not finite, or `factor` is not above 0.

    >>> round(exponential(1e-1, 0.9)(5), 9)
    0.059049
    """

    init: Rate
    factor: Positive

    def _value(self, step: Number, ops: Backend) -> Number:
        return self.init * ops.power(self.factor, step) if self.init else 0.0

    def _knots(self, last: int) -> tuple[int, ...]:
        return ()


@dataclass(frozen=True)
class inverse_time(Endless):
    """A decay with the inverse of time.

    Formula: rate(t) = init / (1 + decay * t / every); with staircase, floor(t / every)
    When: convex problems and SGD; for Adam see `inverse_sqrt`.
    Source: Robbins & Monro 1951; keras' InverseTimeDecay
    Spec: inverse_time(init=1e-3, decay=1.0, every=200)

    Args:
        init: the rate at step 0.
        decay: how much the divisor grows in `every` updates.
        every: updates in which it does.
        staircase: change only at multiples of `every`.

    Raises:
        ScheduleError: `init` or `decay` is negative or not finite, or `every` is below 1.

    >>> inverse_time(1e-3, decay=1.0, every=100)(100)
    0.0005
    """

    init: Rate
    decay: Rate
    every: Steps = 1
    staircase: bool = False

    def _value(self, step: Number, ops: Backend) -> Number:
        passed = ops.real(step // self.every) if self.staircase else ops.real(step) / float(self.every)
        return self.init / (1.0 + self.decay * passed)

    def _knots(self, last: int) -> tuple[int, ...]:
        return (last - last % self.every,) if self.staircase else ()
