"""Reduces the points of a curve without changing its appearance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = tuple[NDArray[np.float64], NDArray[np.float64]]


def decimated(x: Sequence[float], y: Sequence[float], most: int) -> Points:
    """At most ``most`` of the points, an even number: the lowest and the highest of each of ``most / 2`` equal parts.

    A spike of a single update therefore stays visible; taking every n-th point would miss it.

    >>> decimated([0, 1, 2, 3, 4, 5], [1, 9, 1, 1, 0, 1], 4)[1].tolist()
    [1.0, 9.0, 1.0, 0.0]
    """
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    if len(xs) <= most:
        return xs, ys
    kept: list[int] = []
    for part in np.array_split(np.arange(len(xs)), most // 2):
        kept += sorted((part[int(ys[part].argmin())], part[int(ys[part].argmax())]))
    return xs[kept], ys[kept]


def smoothed(y: Sequence[float], share: float = 0.9) -> list[float]:
    """The running mean of ``y`` with ``share`` of the old value, corrected for its start (Kingma and Ba, 2015).

    >>> smoothed([1.0, 1.0, 1.0])
    [1.0, 1.0, 1.0]
    """
    means, mean, weight = [], 0.0, 0.0
    for value in y:
        mean, weight = share * mean + (1 - share) * value, share * weight + 1 - share
        means.append(round(mean / weight, 12))
    return means
