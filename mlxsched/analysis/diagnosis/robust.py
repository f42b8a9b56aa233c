"""Statistics that a few wild values do not move."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NORMAL = (
    1.4826  # the median absolute deviation of a normal distribution times this is its standard deviation
)
_MOST = 400  # points of a slope: it takes all pairs of them


def ratio(value: float, to: float) -> float:
    """``value / to``; NaN, with which no comparison holds, where ``to`` is not above 0.

    >>> ratio(3.0, 2.0), ratio(3.0, 0.0)
    (1.5, nan)
    """
    return float(value) / float(to) if to > 0 else math.nan


def deviation(values: Floats) -> float:
    """The standard deviation by the median absolute deviation from the median; 0 for fewer than two values.

    >>> round(deviation(np.array([1.0, 2.0, 3.0, 1000.0])), 3)
    1.483
    """
    return float(_NORMAL * np.median(np.abs(values - np.median(values)))) if len(values) > 1 else 0.0


def running_median(values: Floats, width: int) -> Floats:
    """The median of ``width`` values (odd) around each one; at both ends of those that there are.

    >>> running_median(np.array([1.0, 9.0, 2.0, 3.0, 4.0]), 3).tolist()
    [5.0, 2.0, 3.0, 3.0, 3.5]
    """
    half = width // 2
    if len(values) <= 2 * width:
        padded = np.concatenate([np.full(half, np.nan), values, np.full(half, np.nan)])
        return np.asarray(np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1))
    # nanmedian takes several times as long: it is for the ends alone.
    inside = np.median(np.lib.stride_tricks.sliding_window_view(values, width), axis=1)
    first, last = running_median(values[: 2 * width], width), running_median(values[-2 * width :], width)
    return np.concatenate([first[:half], inside, last[-half:]] if half else [inside])


def slope(positions: Floats, values: Floats) -> float:
    """The Theil-Sen slope: the median of the slopes of all pairs (Sen, 1968); 0 for fewer than two points.

    Of more than 400 points, 400 at equal distances are used: all pairs of 100,000 would take hours.

    >>> slope(np.arange(5.0), np.array([0.0, 2.0, 4.0, 600.0, 8.0]))
    2.0
    """
    if len(values) < 2:
        return 0.0
    chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST)).astype(int))
    x, y = positions[chosen], values[chosen]
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))


def falls(values: Floats) -> float:
    """The share of pairs in which the later value is lower, of those that differ: 1 for a steady fall, 0.5 for noise.

    This is Kendall's tau (1938) on a scale from 0 to 1.

    >>> falls(np.array([3.0, 2.0, 1.0])), falls(np.array([1.0, 1.0]))
    (1.0, 0.5)
    """
    chosen = values[np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST)).astype(int))]
    first, second = np.triu_indices(len(chosen), 1)
    lower, higher = (chosen[second] < chosen[first]).sum(), (chosen[second] > chosen[first]).sum()
    return float(lower / (lower + higher)) if lower + higher else 0.5
