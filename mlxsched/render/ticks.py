"""Round numbers for the ticks of an axis, for the renderers that draw their own axes."""

from __future__ import annotations

import math

STEPS: tuple[tuple[float, ...], ...] = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
"""Ticks within a power of ten, at roughly equal distances on a logarithmic axis."""


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
    """Round numbers from ``low`` to ``high`` for a logarithmic axis, at most ``about`` + 1.

    Powers of ten, thinned out if there are many. If there is room, also their multiples by 3, by 2 and 5, or by more
    factors. Over a short range, round numbers at equal distances, or the ends if there are too few of these.

    >>> log_ticks(1e-6, 2e-4, 3)
    [1e-06, 1e-05, 0.0001]
    >>> log_ticks(1e-6, 2e-4, 4)
    [1e-06, 3e-06, 1e-05, 3e-05, 0.0001]
    >>> log_ticks(5e-5, 8e-4, 5)
    [5e-05, 0.0001, 0.0002, 0.0005]
    >>> log_ticks(0.29, 0.62, 4)
    [0.3, 0.4, 0.5, 0.6]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in STEPS:
        ticks = [float(f"{step}e{power}") for power in powers for step in steps]
        found = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(found) <= about + 1:
            break
    if len(found) < 3:
        found = max(linear_ticks(low, high, about), found, key=len)
    every = math.ceil(len(found) / (about + 1))
    return found[::every] if len(found) > 1 else [low, high]
