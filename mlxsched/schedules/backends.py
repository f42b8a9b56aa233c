"""One formula for three kinds of step: Python integers, NumPy arrays and MLX arrays.

A schedule's formula is written once, against a `Backend`: `ops.sin`, `ops.where`, ... A Python integer is
computed in float64 with `math`, a NumPy array in float64, an MLX array in float32 (and can be traced).

Steps stay integers (int64) until a remainder has been taken, for two reasons that MLX's own schedules run into:

- float32 stops counting at 2^24 = 16,777,216: a step converted too early no longer advances.
- MLX's optimizers hand the step over as uint64, and ``step - 5`` at step 3 is 18446744073709551614.
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
from mlxsched.schedules.fields import shown

if TYPE_CHECKING:
    import numpy as np

Number: TypeAlias = Any
"""A float, a NumPy array or an MLX array: whatever the backend at hand computes with."""


SELECT_LIMIT = 12
"""Up to this many bounds, a chain of `where` is cheaper than a table lookup: mx.compile fuses the chain into one kernel, a
lookup is two more."""
SIDE_BY_SIDE_LIMIT = 64
"""Up to this many stretches, computing all of them and keeping one is cheaper than looking their numbers up."""
SIDE_BY_SIDE_SIZE = 2**20
"""Steps times stretches, above which side by side would take more than a few megabytes."""
LAST_STEP = 2**62
"""Array steps stop here, so that ``step + 1`` and comparisons stay within int64. Python integers have no limit."""


@dataclass(frozen=True)
class Backend:
    """The functions that a formula may use.

    - `real(x)` converts whole numbers to floating point.
    - `full(like, value)` is `value`, or one number, in the shape of `like`.
    - `pick(values, index)` looks up constants.
    - `count(bounds, step)` is how many of the ascending `bounds` are at or below `step`.
    - `power(base, step)` is base^step for a constant base and a whole number of steps.
    - `gap(low, high)` is high - low, for constants, rounded so that low + gap is never below high.
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
    floor: Callable[[Number], Number]
    pow: Callable[[Number, Number], Number]
    pick: Callable[[tuple[float, ...], Number], Number]
    count: Callable[[tuple[int, ...], Number], Number]
    power: Callable[[float, Number], Number]
    gap: Callable[[float, float], float]

    def done(self, step: Number, start: int, length: int) -> Number:
        """How many of the `length` steps after `start` are done at `step`: a whole number in 0..length."""
        return self.minimum(step if start == 0 else self.since(step, start), length)

    def select(self, bounds: tuple[int, ...], values: tuple[float, ...], step: Number) -> Number:
        """values[0] before the first of the ascending bounds, then values[1], and so on."""
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
        """formula(step, *numbers), with each column's number for the stretch that `step` falls into.

        A column's first number holds before the first of the ascending bounds, its second one from there on, and so on.

        With MLX a training step pays for each kernel and hardly for an array's length, so all stretches are computed
        at once and the right one is kept: shapes step (...,) -> (..., stretches) -> (...,).
        """
        many = len(bounds) >= SIDE_BY_SIDE_LIMIT
        if self is not MLX or many or step.size * len(bounds) > SIDE_BY_SIDE_SIZE:
            index = self.count(bounds, step)
            return formula(step, *(self.pick(column, index) for column in columns))
        steps = mx.expand_dims(step, -1) if step.ndim else step
        values = formula(steps, *(mx.array(column, _dtype_of(column)) for column in columns))
        starts, ends = mx.array((0, *bounds), mx.int64), mx.array((*bounds, 2**63 - 1), mx.int64)
        return mx.where((steps >= starts) & (steps < ends), values, 0.0).sum(-1)

    def since(self, step: Number, start: float) -> Number:
        """Steps after `start`, 0 before it."""
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
    """high - low in a floating-point format given by its rounding, large enough that low + gap reaches high.

    ``low + (high - low)`` can round to just below `high`: in MLX, a warmup that is computed so misses float32(peak) in
    1031 of 4000 random configurations. One more unit in the last place, capped at `high` by the caller, always arrives.
    """
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


# `math` raises where arrays give infinity or NaN. The three backends must agree, so Python's functions follow the arrays.


def _real(value: float) -> float:
    """float(value); an integer beyond float64 becomes the largest float64."""
    try:
        return float(value)
    except OverflowError:
        return sys.float_info.max


def float_power(base: float, exponent: float) -> float:
    """base^exponent, infinite where ``**`` raises OverflowError."""
    try:
        return math.pow(base, _real(exponent))
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan if base else math.inf


def _floor(value: float) -> float:
    return float(math.floor(value)) if math.isfinite(value) else value


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _expm1(value: float) -> float:
    try:
        return math.expm1(value)
    except OverflowError:
        return math.inf


PYTHON = Backend(
    name="python",
    real=_real,
    full=lambda like, value: value,
    where=lambda condition, one, other: one if condition else other,
    minimum=min,
    maximum=max,
    sin=math.sin,
    cos=math.cos,
    tanh=math.tanh,
    exp=_exp,
    expm1=_expm1,
    log=math.log,
    log1p=math.log1p,
    sqrt=math.sqrt,
    floor=_floor,
    pow=float_power,
    pick=operator.getitem,
    count=bisect_right,
    power=float_power,
    gap=_double_gap,
)

FRACTION_BITS = 54
"""Of an int64: leaves 8 bits for the whole part of an exponent, 2^-256 to 2^256, more than float32 can hold."""


def _mlx_power(base: float, step: mx.array) -> mx.array:
    """base^step as 2^(step * log2(base)), with the product in fixed point.

    ``mx.power`` converts the step to float32 and is 0.68% low at 0.99999^500000. ``exp(step * log(base))`` rounds the
    product, which costs 6e-8 times its size: 1e-6 where the power is e^-17. As an int64 the product is exact, and
    splits exactly into a whole exponent and a fraction.
    """
    exponent = math.log2(base) if base > 0 else math.inf
    if not 0 < abs(exponent) < 100:
        return mx.power(base, step)
    fixed = round(exponent * 2**FRACTION_BITS)
    # 2^62 in fixed point is an exponent of 256: 0 or infinity in float32, so the step may stop there before it overflows.
    product = mx.minimum(step, 2**62 // abs(fixed)) * fixed
    whole = product >> FRACTION_BITS
    fraction = product - (whole << FRACTION_BITS)
    return mx.exp(fraction * (math.log(2) / 2**FRACTION_BITS)) * mx.power(2.0, whole)


def _mlx_pow(base: Number, exponent: Number) -> Number:
    """base^exponent, a constant exponent as a product of whole and half powers and a small rest.

    mx.power errs by 6e-8 * |exponent * log(base)|, which is above 1e-6 where the result is below e^-17. Multiplications
    and a square root each err by 6e-8, whatever the base.
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
    """The step as int64, 0 or more. MLX's own uint64 steps cannot be negative, and need no further operation."""
    if mx.issubdtype(step.dtype, mx.floating):
        step = mx.minimum(step.astype(mx.float32), float(LAST_STEP))  # a conversion beyond int64 is undefined
    whole = step.astype(mx.int64)
    return whole if step.dtype in (mx.uint64, mx.uint32) else mx.maximum(whole, 0)


def _dtype_of(values: Any) -> mx.Dtype:
    """int64 for whole numbers, so that they stay exact; float32 otherwise. `values` is a tuple or a NumPy array."""
    kind = values.dtype.kind if hasattr(values, "dtype") else ""
    whole = kind == "i" if kind else all(isinstance(value, int) for value in values)
    return mx.int64 if whole else mx.float32


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
    floor=mx.floor,
    pow=_mlx_pow,
    # A new array in each call: mx.compile refuses arrays captured from outside the traced function.
    pick=lambda values, index: mx.array(values, _dtype_of(values))[index],
    count=lambda bounds, step: (mx.expand_dims(step, -1) >= mx.array(bounds, mx.int64)).sum(-1),
    power=_mlx_power,
    gap=_single_gap,
)


@cache
def numpy_backend() -> Backend:
    """NumPy's backend, built on first use because `import mlxsched` does not load NumPy (0.13 s)."""
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
        floor=np.floor,
        pow=lambda base, exponent: np.power(np.float64(base), exponent),
        pick=lambda values, index: np.asarray(values)[index],
        count=lambda bounds, step: np.searchsorted(np.asarray(bounds, np.int64), step, side="right"),
        power=lambda base, step: np.power(np.float64(base), step),
        gap=_double_gap,
    )


def whole_step(step: object) -> int:
    """A Python number as a step: a fraction is dropped, and a negative step counts as 0.

    Raises:
        ScheduleError: `step` is not a finite number.
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
        f"a step is a whole number, a NumPy array or an mx.array; got {shown(step)}. Pass the update's index."
    )


def numpy_array(step: object) -> np.ndarray[Any, Any] | None:
    """`step` if it is a NumPy array. The question itself does not import NumPy."""
    numpy = sys.modules.get("numpy")
    return step if numpy is not None and isinstance(step, numpy.ndarray) else None


def numpy_step(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array of numbers as int64 steps, 0 or more; fractions are dropped, and steps beyond `LAST_STEP` stop there.

    Raises:
        ScheduleError: it holds something other than finite numbers.
    """
    import numpy as np

    kind = array.dtype.kind
    if kind == "u":  # uint64 first: int64 would wrap around, and a smaller type cannot hold the limit
        limited: np.ndarray[Any, Any] = np.minimum(array.astype(np.uint64), LAST_STEP)
    elif kind in "ib":
        limited = np.clip(array.astype(np.int64), 0, LAST_STEP)
    elif kind == "f" and np.isfinite(array).all():
        limited = np.clip(array.astype(np.float64), 0.0, float(LAST_STEP))
    elif kind == "O":
        limited = np.array([min(whole_step(one), LAST_STEP) for one in array.flat]).reshape(array.shape)
    else:
        raise ScheduleError(
            f"an array of steps must hold finite numbers; got dtype {array.dtype}. Pass integers."
        )
    return limited.astype(np.int64)
