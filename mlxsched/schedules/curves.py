"""Curves from one value to another, exact at both ends and precise near both.

A curve gets the two values, how many steps are `done` and `left`, and the way's length. Each share of the way is
computed from its own whole number: 1 - done would lose the digits of `left` near the end, and a rate that falls to 0
is all about those digits. Most curves are blends: init * w(done, left) + end * c(done, left).
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
"""The exponential warmup covers five time constants, as far as 1 - e^-5 = 99.3%, rescaled to arrive."""
RADAM_SPAN = 6.0
"""The RAdam-style warmup ends at 6 / (1 - beta2) steps, where RAdam's own factor is 0.9926."""


@dataclass(frozen=True)
class Blend:
    """The curve init * w + end * c of two weights that sum to 1, computed as low + (high - low) * the higher one's.

    So it holds the lower value exactly where that weight is 0, and the higher one where it is 1. With `exact`, the
    weights are 1 at the ends to the last bit and never above; else this is seen to here. A training pays for each
    operation, so what is not needed is left out. `even` says that the way up is the way down in time reversed; the
    weights are functions of the shares done and left, or of those times `unit`. Without `cap`, rounding
    may go beyond the higher value, for a caller that cuts it off anyway.
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
        """The two weights when `done` of `length` steps are done and `left` are left."""
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
    """(1 + cos(pi * done)) / 2, as the square of a sine: no cancellation near the end."""
    return squared_sines(HALF_PI * done, HALF_PI * left, ops)


def squared_sines(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """The cosine's weights; its unit is a quarter of a turn."""
    first, second = ops.sin(left), ops.sin(done)
    return first * first, second * second


def to_the_power(exponent: float, first: Number, second: Number, ops: Backend) -> tuple[Number, Number]:
    """first^exponent and what it leaves of 1, from two precise shares."""
    share = ops.pow(first, exponent)
    # Where the power is close to 1, what it leaves comes from the small share: 1 - share would cancel.
    early = -ops.expm1(exponent * ops.log1p(-ops.minimum(second, 0.5)))
    return share, ops.where(second < 0.5, early, 1.0 - share)


def one_minus_power(done: Number, left: Number, exponent: float, ops: Backend) -> Number:
    """1 - done^exponent; in the second half from log(1 - left), where the plain difference would cancel."""
    late = -ops.expm1(exponent * ops.log1p(-ops.minimum(left, 0.5)))
    return ops.where(done < left, 1.0 - ops.pow(done, exponent), late)


def mirror_cosine(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """The cosine mirrored at the straight line: 2 * linear - cosine."""
    first, second = cosine(done, left, ops)
    return 2.0 * left - first, 2.0 * done - second


def one_minus_sqrt(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """1 - sqrt(done), as left / (1 + sqrt(done))."""
    root = ops.sqrt(done)
    return left / (1.0 + root), root


def sqrt_left(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """sqrt(left): the square-root warmup, in time reversed."""
    root = ops.sqrt(left)
    return root, done / (1.0 + root)


def one_minus_square(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """1 - done^2, as left * (1 + done)."""
    return left * (1.0 + done), done * done


def half_life(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """Megatron's exponential, 2 * 0.5^done - 1 = 2^left - 1; its unit is log 2."""
    return ops.expm1(left), -2.0 * ops.expm1(-done)


def saturating(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """An exponential approach, 1 - (1 - e^(-k done)) / (1 - e^-k); its unit is k."""
    whole = math.expm1(-EXPONENTIAL_RATE)
    return ops.exp(-done) * ops.expm1(-left) / whole, ops.expm1(-done) / whole


def rectified(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """RAdam's rectification in the limit of beta2 near 1: sqrt(1 - x / (e^x - 1)), rescaled to arrive at 1.

    Its unit is the span.
    """
    x = done
    # Below 1/2 the difference cancels: there the series stands in for it, with an error below 1e-10.
    square = x * x
    small = x * (0.5 - x * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600))))
    safe = ops.maximum(x, 0.5)
    share = ops.where(x < 0.5, small, 1.0 - safe / ops.expm1(safe))
    rise = ops.sqrt(share) / math.sqrt(1 - RADAM_SPAN / math.expm1(RADAM_SPAN))
    return ops.where(left > 0, ops.maximum(1.0 - rise, 0.0), 0.0), rise


def geometric(init: float, end: float, done: Number, left: Number, length: float, ops: Backend) -> Number:
    """init^left * end^done, from the nearer end: the exponent, and so its rounding, stays small."""
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
"""Ways up, by name: at a share p of the warmup the rate has risen by p, sin^2(pi p/2), sqrt(p),
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
"""Ways down, by name: at a share p of the decay 1-p, cos^2(pi p/2), 1-sqrt(p), 1-p^2, 2 * 0.5^p - 1,
(end/peak)^p (needs an end above 0), 2(1-p) - cos^2(pi p/2)."""


def check_tail(shape: str, init: float, end: float) -> None:
    """Refuse an unknown tail, and a geometric one that could never arrive."""
    one_of("shape", shape, tuple(TAILS))
    if shape == "geometric" and min(init, end) <= 0:
        raise ScheduleError(
            f"`end` and the rate before it must be above 0 for the geometric shape; got {end} and {init}. "
            "Use a thousandth of the peak, say, or another shape."
        )
