"""A list of numbers as one line of block characters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.-=+*%#"


def sparkline(values: Sequence[float], width: int = 24, *, ascii_only: bool = False) -> str:
    """``values`` in at most ``width`` characters, from zero (or the lowest, if below) to the highest.

    With more values than characters, each character shows the mean of several values. A value that is not finite
    becomes a blank.

    >>> sparkline([0, 1, 2, 3, 4, 5, 6, 7])
    '▁▂▃▄▅▆▇█'
    >>> sparkline([float("nan"), 0.0, 1.0], ascii_only=True)
    ' _#'
    """
    blocks = ASCII_BLOCKS if ascii_only else BLOCKS
    means = _shares([float(value) for value in values], width)
    finite = [value for value in means if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    low = min(low, 0.0)
    return "".join(_block(value, low, high, blocks) for value in means)


def _shares(values: list[float], width: int) -> list[float]:
    """The means of ``width`` stretches of ``values``, over the finite ones; NaN if there are none."""
    count = min(width, len(values))
    edges = [index * len(values) // count for index in range(count + 1)] if count else [0]
    shares = [values[start:end] for start, end in itertools.pairwise(edges)]
    return [_mean([value for value in share if math.isfinite(value)]) for share in shares]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _block(value: float, low: float, high: float, blocks: str) -> str:
    if not math.isfinite(value):
        return " "
    fraction = (value - low) / (high - low) if high > low else 0.0
    return blocks[min(int(fraction * len(blocks)), len(blocks) - 1)]
