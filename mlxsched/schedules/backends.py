"""One formula for three kinds of step: Python integers, NumPy arrays and MLX arrays.

A schedule's formula is written once, against a `Backend`: `ops.sin`, `ops.where`, ... A Python integer is
computed in float64 with `math`, a NumPy array in float64, an MLX array in float32 (and can be traced).

Steps stay integers (int64) until a remainder has been taken, because float32 stops counting at 2^24 and MLX
hands its step over as uint64, which wraps around when something is subtracted from it.
"""

from __future__ import annotations

import ctypes
import math
import operator
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import mlx.core as mx

from mlxsched.errors import ScheduleError

if TYPE_CHECKING:
    import numpy as np

Number: TypeAlias = Any
"""A float, a NumPy array or an MLX array: whatever the backend at hand computes with."""


SELECT_LIMIT = 12
"""Bounds up to which a chain of choices is cheaper than a lookup."""
BESIDE_LIMIT = 64
"""Stretches up to which computing all of them side by side is cheaper than looking numbers up."""
BESIDE_SIZE = 2**20
"""Values up to which it does not cost too much memory."""


@dataclass(frozen=True)
class Backend:
    """The functions that a formula may use.

    `real` makes whole numbers floating; `full(like, value)` is `value`, or one number, in the shape of `like`; `pick(values, index)`
    looks up constants; `count(bounds, step)` is how many of the ascending `bounds` are at or below `step`;
    `power(base, step)` is base^step for a constant base and a whole number of steps; `gap(low, high)` is high - low,
    for constants, rounded so that low + gap is not below high.
    """

    name: str
    real: Callable[[Number], Number]
    full: Callable[[Number, Number], Number]
    where: Callable[[Number, Number, Number], Number]
    minimum: Callable[[Number, Number], Number]
    maximum: Callable[[Number, Number], Number]
    sin: Callable[[Number], Number]
    cos: Callable[[Number], Number]
    tanh: Callable[[Number], Number]
    exp: Callable[[Number], Number]
    expm1: Callable[[Number], Number]
    log: Callable[[Number], Number]
    log1p: Callable[[Number], Number]
    sqrt: Callable[[Number], Number]
    pow: Callable[[Number, Number], Number]
    pick: Callable[[tuple[float, ...], Number], Number]
    count: Callable[[tuple[int, ...], Number], Number]
    power: Callable[[float, Number], Number]
    gap: Callable[[float, float], float]

    def done(self, step: Number, start: int, length: int) -> Number:
        """How many of the `length` steps after `start` are behind `step`: a whole number in 0..length."""
        return self.minimum(step if start == 0 else self.since(step, start), length)

    def select(self, bounds: tuple[int, ...], values: tuple[float, ...], step: Number) -> Number:
        """values[0] before the first of the ascending bounds, then values[1], ...: looked up when there are many."""
        if all(value == values[0] for value in values):
            return values[0]
        if len(bounds) > SELECT_LIMIT or self is PYTHON:
            return self.pick(values, self.count(bounds, step))
        chosen: Number = values[0]
        for bound, value in zip(bounds, values[1:], strict=True):
            chosen = self.where(step < bound, chosen, value)
        return chosen

    def choose(
        self,
        bounds: tuple[int, ...],
        columns: Sequence[tuple[float, ...]],
        formula: Callable[..., Number],
        step: Number,
    ) -> Number:
        """formula(step, *numbers), the numbers being each column's for the stretch that `step` falls into.

        The columns' first numbers hold before the first of the ascending bounds, and so on. A training pays for each
        operation and hardly for an array's length, so MLX computes all stretches at once and keeps the right one.
        """
        if self is not MLX or len(bounds) >= BESIDE_LIMIT or step.size * len(bounds) > BESIDE_SIZE:
            index = self.count(bounds, step)
            return formula(step, *(self.pick(column, index) for column in columns))
        beside = mx.expand_dims(step, -1) if step.ndim else step
        values = formula(beside, *(mx.array(column, _dtype_of(column)) for column in columns))
        begun, over = mx.array((0, *bounds), mx.int64), mx.array((*bounds, 2**63 - 1), mx.int64)
        return mx.where((beside >= begun) & (beside < over), values, 0.0).sum(-1)

    def since(self, step: Number, start: int) -> Number:
        """Whole steps after `start`, 0 before it."""
        return self.maximum(step - start, 0)

    def ahead(self, step: Number, start: int, stop: int) -> Number:
        """Whole steps from `step` to `stop`, at most those from `start`."""
        left = self.maximum(stop - step, 0)
        return left if start == 0 else self.minimum(left, stop - start)

    def within(self, value: Number, one: Number, other: Number) -> Number:
        """`value`, kept between two bounds given in any order."""
        constant = isinstance(one, float | int) and isinstance(other, float | int)
        low, high = (min, max) if constant else (self.minimum, self.maximum)
        return self.minimum(self.maximum(value, low(one, other)), high(one, other))


def _gap(low: float, high: float, rounded: Callable[[float], float], precision: float) -> float:
    """high - low in a kind of number given by how it rounds, not so low that low + gap would miss high."""
    low, high = rounded(low), rounded(high)
    gap = rounded(high - low)
    while rounded(low + gap) < high < math.inf:
        gap = rounded(gap + max(high - (low + gap), gap * precision))
    return gap


@lru_cache(4096)
def _double_gap(low: float, high: float) -> float:
    return _gap(low, high, float, 2.0**-52)


@lru_cache(4096)
def _single_gap(low: float, high: float) -> float:
    return _gap(low, high, lambda value: ctypes.c_float(value).value, 2.0**-23)


def _pow(base: float, exponent: float) -> float:
    """math.pow, with infinity where it would raise OverflowError, as arrays have it."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf


PYTHON = Backend(
    name="python",
    real=float,
    full=lambda like, value: value,
    where=lambda condition, one, other: one if condition else other,
    minimum=min,
    maximum=max,
    sin=math.sin,
    cos=math.cos,
    tanh=math.tanh,
    exp=math.exp,
    expm1=math.expm1,
    log=math.log,
    log1p=math.log1p,
    sqrt=math.sqrt,
    pow=_pow,
    pick=operator.getitem,
    count=bisect_right,
    power=_pow,
    gap=_double_gap,
)

FRACTION_BITS = 54


def _mlx_power(base: float, step: mx.array) -> mx.array:
    """base^step as 2^(step * log2(base)), with the product in fixed point.

    In float32 the product alone would cost 6e-8 times its size, 1e-6 where the power is e^-17; as an int64 it is
    exact, and splits exactly into a whole exponent and a fraction.
    """
    exponent = math.log2(base) if base > 0 else math.inf
    if not 0 < abs(exponent) < 100:
        return mx.power(base, step)
    fixed = round(exponent * 2**FRACTION_BITS)
    # 2^62 in fixed point is 2^-256 or 2^256: nothing or infinity in float32, so later steps may stop there.
    product = mx.minimum(step, 2**62 // abs(fixed)) * fixed
    whole = product >> FRACTION_BITS
    fraction = product - (whole << FRACTION_BITS)
    return mx.exp(fraction * (math.log(2) / 2**FRACTION_BITS)) * mx.power(2.0, whole)


def _mlx_pow(base: Number, exponent: Number) -> Number:
    """base^exponent; a constant exponent is taken in halves, by multiplication, as far as that goes.

    mx.power errs by 6e-8 * |exponent * log(base)|, which is above 1e-6 where the result is below e^-17.
    """
    if not isinstance(exponent, float) or not isinstance(base, mx.array) or abs(exponent) > 16:
        return mx.power(base, exponent)
    halves = math.floor(2 * exponent)
    rest = exponent - halves / 2
    factors = [base] * (abs(halves) // 2) + [mx.sqrt(base)] * (halves % 2)
    whole = math.prod(factors[1:], start=factors[0]) if factors else None
    if whole is not None and halves < 0:
        whole = 1.0 / whole
    if rest == 0:
        return mx.ones_like(base) if whole is None else whole
    return mx.power(base, rest) if whole is None else whole * mx.power(base, rest)


def _mlx_full(like: mx.array, value: Number) -> mx.array:
    if not isinstance(value, mx.array):
        return mx.full(like.shape, value, mx.float32)
    return value if value.shape == like.shape else mx.broadcast_to(value, like.shape)


def mlx_step(step: mx.array) -> mx.array:
    """The step as int64; unsigned ones, as MLX has them, cannot be negative."""
    whole = step.astype(mx.int64)
    return whole if step.dtype in (mx.uint64, mx.uint32) else mx.maximum(whole, 0)


def _dtype_of(values: tuple[float, ...]) -> mx.Dtype:
    return mx.int64 if all(isinstance(value, int) for value in values) else mx.float32


MLX = Backend(
    name="mlx",
    real=lambda x: x.astype(mx.float32),
    full=_mlx_full,
    where=mx.where,
    minimum=mx.minimum,
    maximum=mx.maximum,
    sin=mx.sin,
    cos=mx.cos,
    tanh=mx.tanh,
    exp=mx.exp,
    expm1=mx.expm1,
    log=mx.log,
    log1p=mx.log1p,
    sqrt=mx.sqrt,
    pow=_mlx_pow,
    # The array is made anew in each call: mx.compile refuses arrays captured from outside.
    pick=lambda values, index: mx.array(values, _dtype_of(values))[index],
    count=lambda bounds, step: (mx.expand_dims(step, -1) >= mx.array(bounds, mx.int64)).sum(-1),
    power=_mlx_power,
    gap=_single_gap,
)


@cache
def numpy_backend() -> Backend:
    """NumPy's backend, made on first use because `import mlxsched` does without NumPy."""
    import numpy as np

    return Backend(
        name="numpy",
        real=lambda x: x.astype(np.float64),
        full=lambda like, value: (
            value if np.shape(value) == like.shape else np.full(like.shape, value, np.float64)
        ),
        where=np.where,
        minimum=np.minimum,
        maximum=np.maximum,
        sin=np.sin,
        cos=np.cos,
        tanh=np.tanh,
        exp=np.exp,
        expm1=np.expm1,
        log=np.log,
        log1p=np.log1p,
        sqrt=np.sqrt,
        pow=lambda base, exponent: np.power(np.float64(base), exponent),
        pick=lambda values, index: np.asarray(values)[index],
        count=lambda bounds, step: np.searchsorted(np.asarray(bounds, np.int64), step, side="right"),
        power=lambda base, step: np.power(np.float64(base), step),
        gap=_double_gap,
    )


def whole_step(step: object) -> int:
    """A Python number as a step; a fraction of a step is dropped and a negative step counts as 0.

    Raises:
        ScheduleError: `step` is not a number.
    """
    try:
        return max(operator.index(step), 0)  # type: ignore[arg-type]
    except TypeError:
        pass
    try:
        if not isinstance(step, str | bytes):
            return max(math.floor(float(step)), 0)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        pass
    raise ScheduleError(
        f"a step is a whole number, a NumPy array or an mx.array; got {step!r}. Pass the update's index."
    )


def numpy_array(step: object) -> np.ndarray[Any, Any] | None:
    """`step` if it is a NumPy array. NumPy is not imported for the question."""
    numpy = sys.modules.get("numpy")
    return step if numpy is not None and isinstance(step, numpy.ndarray) else None
