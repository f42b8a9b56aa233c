"""Confidence intervals of means by Student's t, for a few repetitions with different seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and half the width of its confidence interval; ``half`` is None for a single value."""

    mean: float
    half: float | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the mean differs significantly from zero; never for a single value."""
        return self.half is not None and abs(self.mean) > self.half

    def to_list(self) -> list[float] | None:
        """The lower and the upper end."""
        return None if self.half is None else [self.mean - self.half, self.mean + self.half]

    def text(self, *, signed: bool = False) -> str:
        """``mean ± half``, with four decimals.

        >>> Interval(-0.012345, 0.004).text(signed=True), Interval(0.5, None).text()
        ('-0.0123 ± 0.0040', '0.5000')
        """
        mean = f"{self.mean:+.4f}" if signed else f"{self.mean:.4f}"
        return mean if self.half is None else f"{mean} ± {self.half:.4f}"


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean of ``values`` with its confidence interval at ``level``."""
    if len(values) < 2:
        return Interval(statistics.fmean(values), None)
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Interval(statistics.fmean(values), student_t(level, len(values) - 1) * error)


def student_t(level: float, degrees: int) -> float:
    """The t with probability ``level`` between -t and t, for ``degrees`` degrees of freedom.

    Found by bisection of the closed form for whole degrees (Abramowitz and Stegun, 1964, 26.7.3 and 26.7.4).

    >>> round(student_t(0.95, 2), 3), round(student_t(0.95, 7), 3)
    (4.303, 2.365)
    """
    low, high = 0.0, math.pi / 2  # of the angle atan(t / sqrt(degrees)), in which the search is bounded
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _probability(middle, degrees) < level else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _probability(angle: float, degrees: int) -> float:
    """The probability between -t and t, with t = sqrt(degrees) tan(angle)."""
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0 if degrees == 1 else term
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= (k - 1) / k * math.cos(angle) ** 2
        total += term
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total


def seeds_needed(differences: Sequence[float], most: int = 50, level: float = LEVEL) -> int | None:
    """How many seeds would make a mean difference like that of ``differences`` significant; None for more than ``most``.

    >>> seeds_needed([-0.02, -0.01, -0.03]), seeds_needed([0.01, -0.01, 0.0001])
    (4, None)
    """
    if len(differences) < 2 or not (mean := abs(statistics.fmean(differences))):
        return None
    spread = statistics.stdev(differences)
    counts = range(2, most + 1)
    return next((n for n in counts if student_t(level, n - 1) * spread / math.sqrt(n) < mean), None)
