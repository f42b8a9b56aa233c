"""Curves from one value to another, exact at both ends and precise near both.

A curve gets the two values and the two shares of the way, `done` and `left` (done + left = 1), each computed
from its own whole number of steps: 1 - done would lose the digits of `left` near the end, and a rate that falls to
0 is all about those digits. Most curves are blends: init * w(done, left) + end * c(done, left).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from mlxsched.errors import ScheduleError
from mlxsched.schedules.checks import one_of
from mlxsched.schedules.numeric import Backend, Number

Curve: TypeAlias = Callable[[float, float, Number, Number, Backend], Number]
Weights: TypeAlias = Callable[[Number, Number, Backend], tuple[Number, Number]]

HALF_PI = math.pi / 2
LN2 = math.log(2)
EXPONENTIAL_RATE = 5.0
"""The exponential warmup covers five time constants, as far as 1 - e^-5 = 99.3%, rescaled to arrive."""
RADAM_SPAN = 6.0
"""The RAdam-style warmup ends at 6 / (1 - beta2) steps, where RAdam's own factor is 0.9926."""


def blend(weights: Weights, exact: bool = True) -> Curve:
    """The curve init * w + end * c of two weights that sum to 1.

    With `exact`, the weights are 1 and 0 at the ends to the last bit, and never outside; else this is seen to here.
    A training pays for each operation, so what is multiplied by a constant 0 is left out.
    """

    def curve(init: float, end: float, done: Number, left: Number, ops: Backend) -> Number:
        first, second = weights(done, left, ops)
        if isinstance(end, float) and end == 0:
            value = init * first
        elif isinstance(init, float) and init == 0:
            value = end * second
        else:
            # Beside the greater value the lesser one's weight needs no digits of its own.
            constant = isinstance(init, float) and isinstance(end, float)
            if constant and init >= end:
                second = 1.0 - first
            elif constant:
                first = 1.0 - second
            value = init * first + end * second
            value = ops.within(value, init, end)
        return value if exact else _pinned(ops.within(value, init, end), init, end, done, left, ops)

    return curve


def _pinned(value: Number, init: float, end: float, done: Number, left: Number, ops: Backend) -> Number:
    """`value`, with the two ends put right where the weights leave them a rounding away."""
    return ops.where(left <= 0, end, ops.where(done <= 0, init, value))


def linear(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    return left, done


def cosine(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """(1 + cos(pi * done)) / 2, as the square of a sine: no cancellation near the end."""
    first, second = ops.sin(HALF_PI * left), ops.sin(HALF_PI * done)
    return first * first, second * second


def to_the_power(exponent: float, first: Number, second: Number, ops: Backend) -> tuple[Number, Number]:
    """first^exponent and what it leaves of 1, from two precise shares."""
    share = ops.pow(first, exponent)
    # Where the power is close to 1, what it leaves comes from the small share: 1 - share would cancel.
    early = -ops.expm1(exponent * ops.log1p(-ops.minimum(second, 0.5)))
    return share, ops.where(second < 0.5, early, 1.0 - share)


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
    """Megatron's exponential, 2 * 0.5^done - 1 = 2^left - 1."""
    return ops.expm1(LN2 * left), -2.0 * ops.expm1(-LN2 * done)


def saturating(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """An exponential approach, 1 - (1 - e^(-k done)) / (1 - e^-k)."""
    k, whole = EXPONENTIAL_RATE, math.expm1(-EXPONENTIAL_RATE)
    return ops.exp(-k * done) * ops.expm1(-k * left) / whole, ops.expm1(-k * done) / whole


def rectified(done: Number, left: Number, ops: Backend) -> tuple[Number, Number]:
    """RAdam's rectification in the limit of beta2 near 1: sqrt(1 - x / (e^x - 1)), rescaled to arrive at 1."""
    x = RADAM_SPAN * done
    # Below 1/2 the difference cancels: there the series stands in for it, with an error below 1e-10.
    small = x * (0.5 - x * (1 / 12 - x * x * (1 / 720 - x * x / 30240)))
    safe = ops.maximum(x, 0.5)
    share = ops.where(x < 0.5, small, 1.0 - safe / ops.expm1(safe))
    rise = ops.sqrt(share) / math.sqrt(1 - RADAM_SPAN / math.expm1(RADAM_SPAN))
    return 1.0 - rise, rise


def geometric(init: float, end: float, done: Number, left: Number, ops: Backend) -> Number:
    """init^left * end^done, from the nearer end: the exponent, and so its rounding, stays small."""
    constant = isinstance(init, float) and isinstance(end, float)
    log_ratio = math.log(end / init) if constant else ops.log(end / init)
    early = done < left
    exponent = ops.where(early, done * log_ratio, left * -log_ratio)
    return ops.within(ops.where(early, init, end) * ops.exp(exponent), init, end)


WARMUPS: dict[str, Curve] = {
    "linear": blend(linear),
    "cosine": blend(cosine),
    "sqrt": blend(one_minus_sqrt),
    "1-sqrt": blend(sqrt_left),
    "quadratic": blend(one_minus_square),
    "exponential": blend(saturating, exact=False),
    "radam": blend(rectified, exact=False),
}
"""Ways up, by name: at a share p of the warmup the rate has risen by p, sin^2(pi p/2), sqrt(p),
1 - sqrt(1-p), p^2, (1 - e^-5p) / (1 - e^-5), or RAdam's rectification."""

TAILS: dict[str, Curve] = {
    "linear": blend(linear),
    "cosine": blend(cosine),
    "1-sqrt": blend(one_minus_sqrt),
    "1-square": blend(one_minus_square),
    "exponential": blend(half_life, exact=False),
    "geometric": geometric,
    "mirror-cosine": blend(mirror_cosine, exact=False),
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
