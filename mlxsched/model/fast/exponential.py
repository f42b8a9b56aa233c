"""The exponential function for arguments up to 0, as softmax needs it."""

from __future__ import annotations

import math
import sys

import mlx.core as mx

_LOG2_E = math.log2(math.e)


def exp(x: mx.array) -> mx.array:
    """``exp(x)`` for x up to 0. On Linux CPUs, MLX's ``exp`` takes 13 to 22 ns per number, and ``2 ** y`` only 5 to 7 ns.

    MLX's wheels emulate fused multiply-add in its polynomial: in attention, that takes longer than the matrix products.
    """
    scalar = mx.default_device().type == mx.DeviceType.cpu and sys.platform != "darwin"
    return mx.power(2.0, x * _LOG2_E) if scalar else mx.exp(x)
