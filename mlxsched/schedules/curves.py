"""Curves from one value to another, exact at both ends and precise near both.

A curve takes the two values, the steps `done` and `left`, and the length of the curve. The fractions done and left are
each computed from their own whole number: near the end, 1 - done has no digits left, and a rate that falls to 0
consists of those digits. One step before the end of a cosine over 10,000 steps, (1 + cos) / 2 in float32 is 21% off, and
at 100,000 steps it is 0; the sine of the fraction left, squared, errs by 3e-7.

Most curves are blends: init * w(done, left) + end * c(done, left), with weights that sum to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import Backend, Number
from mlxsched.schedules.fields import one_of

Curve: TypeAlias = Callable[[float, float, Number, Number, float, Backend], Number]
Weights: TypeAlias = Callable[[Number, Number, Backend], tuple[Number, Number]]

HALF_PI = math.pi / 2
LN2 = math.log(2)
EXPONENTIAL_RATE = 5.0
"""The exponential warmup covers five time constants, 1 - e^-5 = 99.3% of the rise, rescaled to reach the end."""
RADAM_SPAN = 6.0
"""The RAdam-style warmup ends at 6 / (1 - beta2) steps, where RAdam's own factor is 0.9926."""


@dataclass(frozen=True)
class Blend:
    """The curve init * w + end * c, computed as low + (high - low) * (the weight of the higher value).

    So it is exactly the lower value where that weight is 0 and exactly the higher one where it is 1. A weighted sum is
    not: MLX's linear_schedule to 0 ends slightly below 0 in 574 of 4000 random configurations.

    A training step pays for each operation, so the attributes say which ones a curve can do without.

    Attributes:
        weights: the two weights as functions of the fractions done and left, each multiplied with `unit`.
        exact: the weights are 0 and 1 at the ends to the last bit, and never above 1; otherwise the ends are set here.
        even: a rise is a fall reversed in time.
        unit: saves a multiplication in the weights.
        cap: keep rounding from going beyond the higher value; without it the caller does.
    """

    weights: Weights
    exact: bool = True
    even: bool = False
    unit: float = 1.0
    cap: bool = True

    def __call__(
        self, init: float, end: float, done: Number, left: Number, length: float, ops: Backend
    ) -> Number:
        first, second = self.shares(done, left, length, ops)
        falls = init >= end
        low, high, share = (end, init, first) if falls else (init, end, second)
        value = high * share if low == 0 else low + ops.gap(low, high) * share
        if self.cap and not (self.exact and low == 0):
            value = ops.minimum(value, high)
        return value if self.exact else ops.where((done if falls else left) <= 0, high, value)

    def shares(self, done: Number, left: Number, length: Number, ops: Backend) -> tuple[Number, Number]:
        """The two weights with `done` of `length` steps done and `left` left."""
        if self.unit == 1:
            return self.weights(done / length, left / length, ops)
        scale = self.unit / length
        return self.weights(done * scale, left * scale, ops)


def between(low: float, high: float, share: Number, ops: Backend) -> Number:
    """low + (high - low) * share: exactly `high` at a share of 1, and never above."""
    return high * share if low == 0 else ops.minimum(low + ops.gap(low, high) * share, high)


def linear(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """A straight line."""
    return left, done


def cosine(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """(1 + cos(pi * done)) / 2 as sin(pi/2 * left)^2: no cancellation near the end, 3e-7 off at most."""
    return squared_sines(HALF_PI * done, HALF_PI * left, ops)


def squared_sines(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """The weights of a cosine; their unit is a quarter turn."""
    first, second = ops.sin(left), ops.sin(done)
    return first * first, second * second


def to_the_power(exponent: float, first: Number, second: Number, ops: Backend) -> tuple[Number, Number]:
    """first^exponent and 1 minus it, from two precise fractions that sum to 1."""
    share = ops.pow(first, exponent)
    # Where the power is close to 1, 1 - share cancels; there it follows from the small fraction by log1p and expm1.
    early = -ops.expm1(exponent * ops.log1p(-ops.minimum(second, 0.5)))
    return share, ops.where(second < 0.5, early, 1.0 - share)


def one_minus_power(done: Number, left: Number, exponent: float, ops: Backend) -> Number:
    """1 - done^exponent; in the second half, where that difference cancels, from log(1 - left)."""
    late = -ops.expm1(exponent * ops.log1p(-ops.minimum(left, 0.5)))
    return ops.where(done < left, 1.0 - ops.pow(done, exponent), late)


def mirror_cosine(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """The cosine, reflected in the straight line: 2 * linear - cosine."""
    first, second = cosine(done, left, ops)
    return 2.0 * left - first, 2.0 * done - second


def one_minus_sqrt(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """1 - sqrt(done) as left / (1 + sqrt(done)): 1.2e-7 off in float32, where the plain difference is 3.5e-5 off."""
    root = ops.sqrt(done)
    return left / (1.0 + root), root


def sqrt_left(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """sqrt(left), the square-root warmup reversed in time."""
    root = ops.sqrt(left)
    return root, done / (1.0 + root)


def one_minus_square(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """1 - done^2 as left * (1 + done), for the same reason."""
    return left * (1.0 + done), done * done


def half_life(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """Megatron's exponential, 2 * 0.5^done - 1 = 2^left - 1; its unit is log 2."""
    return ops.expm1(left), -2.0 * ops.expm1(-done)


def saturating(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """An exponential approach, 1 - (1 - e^(-k done)) / (1 - e^-k); its unit is k."""
    whole = math.expm1(-EXPONENTIAL_RATE)
    return ops.exp(-done) * ops.expm1(-left) / whole, ops.expm1(-done) / whole


def rectified(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """RAdam's rectification in the limit of beta2 near 1: sqrt(1 - x / (e^x - 1)), rescaled to reach 1.

    Its unit is the span.
    """
    x = done
    # Below 1/2 the difference cancels, so the series takes its place there, with an error below 1e-10.
    square = x * x
    small = x * (0.5 - x * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600))))
    safe = ops.maximum(x, 0.5)
    share = ops.where(x < 0.5, small, 1.0 - safe / ops.expm1(safe))
    rise = ops.sqrt(share) / math.sqrt(1 - RADAM_SPAN / math.expm1(RADAM_SPAN))
    return ops.where(left > 0, ops.maximum(1.0 - rise, 0.0), 0.0), rise


def geometric(init: float, end: float, done: Number, left: Number, length: float, ops: Backend) -> Number:
    """init^left * end^done, from the nearer end: the exponent stays small, and with it its rounding error."""
    log_rate = math.log(end / init) / length
    early = done < left
    exponent = ops.where(early, done * log_rate, left * -log_rate)
    return ops.where(early, init, end) * ops.exp(exponent)


WARMUPS: dict[str, Curve] = {
    "linear": Blend(linear, even=True),
    "cosine": Blend(squared_sines, even=True, unit=HALF_PI),
    "sqrt": Blend(one_minus_sqrt),
    "1-sqrt": Blend(sqrt_left),
    "quadratic": Blend(one_minus_square),
    "exponential": Blend(saturating, exact=False, unit=EXPONENTIAL_RATE),
    "radam": Blend(rectified, exact=False, unit=RADAM_SPAN),
}
"""Rises by name: at a fraction p of the warmup the rate has risen by p, sin^2(pi p/2), sqrt(p),
1 - sqrt(1-p), p^2, (1 - e^-5p) / (1 - e^-5), or RAdam's rectification."""

TAILS: dict[str, Curve] = {
    "linear": Blend(linear, even=True),
    "cosine": Blend(squared_sines, even=True, unit=HALF_PI),
    "1-sqrt": Blend(one_minus_sqrt),
    "1-square": Blend(one_minus_square),
    "exponential": Blend(half_life, exact=False, unit=LN2),
    "geometric": geometric,
    "mirror-cosine": Blend(mirror_cosine, exact=False),
}
"""Falls by name: at a fraction p of the decay 1-p, cos^2(pi p/2), 1-sqrt(p), 1-p^2, 2 * 0.5^p - 1,
(end/peak)^p (needs an end above 0), 2(1-p) - cos^2(pi p/2)."""


def check_tail(shape: str, init: float, end: float) -> None:
    """Refuse an unknown tail, and a geometric one from or to 0."""
    one_of("shape", shape, tuple(TAILS))
    if shape == "geometric" and min(init, end) <= 0:
        raise ScheduleError(
            f"`end` and the rate before it must be above 0 for the geometric shape; got {end} and {init}. "
            "Use a thousandth of the peak, for example, or another shape."
        )
