"""Round numbers for the ticks of an axis, for the renderers that draw their own axes."""

from __future__ import annotations

import math


def linear_ticks(low: float, high: float, about: int, least_gap: float = 0.0) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) from ``low`` to ``high``, at most ``about`` + 1.

    ``least_gap`` is 1 for axes that count things.

    >>> linear_ticks(0, 2e-4, 4)
    [0.0, 5e-05, 0.0001, 0.00015, 0.0002]
    >>> linear_ticks(0, 1000, 2)
    [0.0, 500.0, 1000.0]
    """
    width = max((high - low) / max(about, 1), least_gap)
    power = 10.0 ** math.floor(math.log10(width))
    gap = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= width * (1 - 1e-9))
    first, last = math.ceil(low / gap - 1e-9), math.floor(high / gap + 1e-9)
    return [float(f"{index * gap:.10g}") for index in range(first, last + 1)]


def log_ticks(low: float, high: float, about: int) -> list[float]:
    """Powers of ten from ``low`` to ``high``, thinned to at most ``about`` + 1; the ends where none lies between.

    >>> log_ticks(1e-6, 2e-4, 4)
    [1e-06, 1e-05, 0.0001]
    >>> log_ticks(2e-4, 3e-4, 4)
    [0.0002, 0.0003]
    """
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first < 1:
        return [low, high]
    every = math.ceil((last - first) / max(about, 1))
    return [float(f"1e{exponent}") for exponent in range(first, last + 1, every)]
