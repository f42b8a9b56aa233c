"""How exactly this device multiplies float32 matrices."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

TF32 = (
    "On this device, MLX by default rounds float32 matrices to 11 bits before it multiplies them (TF32); "
    "the environment variable MLX_ENABLE_TF32=0 makes products exact but slower."
)
_SIZE = 256
# The relative error of a product: 2e-7 with all 24 bits, 3e-4 with 11 of them (H200; users report 8e-4 from an M5).
_LARGEST = 1e-5


@cache  # MLX reads the environment variable once per process
def multiplies_in_tf32() -> bool:
    """Whether MLX's default device rounds float32 matrices before it multiplies them.

    That is the default on CUDA and, according to reports, on Apple's M5 (mlx#3860), for products of two matrices but not for
    those of a matrix and a vector.
    """
    return rounds_inputs(_product)


def rounds_inputs(product: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]) -> bool:
    """Whether ``product`` of two float32 matrices has a larger error than sums in float32 have."""
    draws = np.random.default_rng(0)
    x, y = (draws.standard_normal((_SIZE, _SIZE), dtype=np.float32) for _ in range(2))
    exact = x.astype(np.float64) @ y.astype(np.float64)
    return bool(np.linalg.norm(product(x, y) - exact) > _LARGEST * np.linalg.norm(exact))


def _product(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    import mlx.core as mx

    return np.array(mx.array(x) @ mx.array(y))
