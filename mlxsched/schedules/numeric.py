"""One formula for three kinds of step: Python integers, NumPy arrays and MLX arrays.

A schedule's formula is written once, against a `Backend`: `ops.sin`, `ops.where`, ... A Python integer is
computed in float64 with `math`, a NumPy array in float64, an MLX array in float32 (and can be traced).

Steps stay integers (int64) until a remainder has been taken, because float32 stops counting at 2^24 and MLX
hands its step over as uint64, which wraps around when something is subtracted from it.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import mlx.core as mx

from mlxsched.errors import ScheduleError

if TYPE_CHECKING:
    import numpy as np

Number: TypeAlias = Any
"""A float, a NumPy array or an MLX array: whatever the backend at hand computes with."""


@dataclass(frozen=True)
class Backend:
    """The functions that a formula may use; `real` turns whole numbers into floating ones."""

    name: str
    real: Callable[[Number], Number]
    full: Callable[[Number, float], Number]
    where: Callable[[Number, Number, Number], Number]
    minimum: Callable[[Number, Number], Number]
    maximum: Callable[[Number, Number], Number]
    sin: Callable[[Number], Number]
    cos: Callable[[Number], Number]
    tanh: Callable[[Number], Number]
    exp: Callable[[Number], Number]
    expm1: Callable[[Number], Number]
    sqrt: Callable[[Number], Number]
    rsqrt: Callable[[Number], Number]
    pow: Callable[[Number, Number], Number]
    pick: Callable[[tuple[float, ...], Number], Number]

    def done(self, step: Number, start: int, length: int) -> Number:
        """How many of the `length` steps after `start` are behind `step`: a whole number in 0..length."""
        return self.minimum(self.maximum(step - start, 0), length)

    def since(self, step: Number, start: int) -> Number:
        """Whole steps after `start`, 0 before it."""
        return self.maximum(step - start, 0)

    def within(self, value: Number, one: float, other: float) -> Number:
        """`value`, kept between two bounds given in any order."""
        return self.minimum(self.maximum(value, min(one, other)), max(one, other))


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
    sqrt=math.sqrt,
    rsqrt=lambda x: 1.0 / math.sqrt(x),
    pow=_pow,
    pick=operator.getitem,
)

MLX = Backend(
    name="mlx",
    real=lambda x: x.astype(mx.float32),
    full=lambda like, value: mx.full(like.shape, value, mx.float32),
    where=mx.where,
    minimum=mx.minimum,
    maximum=mx.maximum,
    sin=mx.sin,
    cos=mx.cos,
    tanh=mx.tanh,
    exp=mx.exp,
    expm1=mx.expm1,
    sqrt=mx.sqrt,
    rsqrt=mx.rsqrt,
    pow=mx.power,
    # The array is made anew in each call: mx.compile refuses arrays captured from outside.
    pick=lambda values, index: mx.array(values, mx.float32)[index],
)


@cache
def numpy_backend() -> Backend:
    """NumPy's backend, made on first use because `import mlxsched` does without NumPy."""
    import numpy as np

    return Backend(
        name="numpy",
        real=lambda x: x.astype(np.float64),
        full=lambda like, value: np.full(like.shape, value, np.float64),
        where=np.where,
        minimum=np.minimum,
        maximum=np.maximum,
        sin=np.sin,
        cos=np.cos,
        tanh=np.tanh,
        exp=np.exp,
        expm1=np.expm1,
        sqrt=np.sqrt,
        rsqrt=lambda x: 1.0 / np.sqrt(x),
        pow=lambda base, exponent: np.power(np.float64(base), exponent),
        pick=lambda values, index: np.asarray(values, np.float64)[index],
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
        return max(math.floor(float(step)), 0)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ScheduleError(
            f"a step is a whole number, a NumPy array or an mx.array; got {step!r}. Pass the update's index."
        ) from None


def numpy_array(step: object) -> np.ndarray[Any, Any] | None:
    """`step` if it is a NumPy array. NumPy is not imported for the question."""
    numpy = sys.modules.get("numpy")
    return step if numpy is not None and isinstance(step, numpy.ndarray) else None
