"""Estimates the peak of the run from branches: fit, correct for their length, combine with the prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from mlxsched.experiments.rate_finder.prior import Prior
from mlxsched.experiments.rate_finder.result import Candidate

# Chosen on the even cases of benchmarks/rate_finder.py; its table shows the odd ones.
HORIZON = 0.1
"""The best peak falls with the number of updates: a run of N updates wants `at_length` of what is best for branches of n,
``(n / N) ** HORIZON``."""
SPREAD = 1.7
"""Standard deviation of a corrected branch around the best peak, as a factor: its weight against the prior."""
INTERVAL = 1.7
"""The factor from the suggestion to an end of its interval. docs/experiments.md says how often the interval contains
the best peak. The variances of branch and prior alone would give 1.3, which contains less than half of the best
peaks."""


class Estimate(NamedTuple):
    """A peak, and the factor to both ends of an interval around it that should contain the best one."""

    peak: float
    spread: float


def lowest(tried: Sequence[Candidate]) -> tuple[float, bool]:
    """The peak of the lowest loss among branches of one length, and whether higher and lower ones are worse.

    With a worse neighbour on each side it is the vertex of the parabola through the three losses over the logarithm of the peak.

    >>> lowest([Candidate(1.0, 9, 2.0), Candidate(2.0, 9, 1.0), Candidate(4.0, 9, 2.0)])
    (2.0, True)
    >>> lowest([Candidate(1e-4, 9, 2.0), Candidate(1e-3, 9, 1.0)])
    (0.001, False)
    """
    tried = sorted(tried, key=lambda one: one.peak)
    best = min(range(len(tried)), key=lambda at: tried[at].loss)
    if not 0 < best < len(tried) - 1:
        return tried[best].peak, False
    left, middle, right = tried[best - 1 : best + 2]
    a, b = math.log(left.peak / middle.peak), math.log(right.peak / middle.peak)
    rise_a, rise_b = left.loss - middle.loss, right.loss - middle.loss
    bottom = a * rise_b - b * rise_a
    shift = (a * a * rise_b - b * b * rise_a) / (2 * bottom) if bottom else 0.0
    return middle.peak * math.exp(shift), True


def at_length(peak: float, share: float) -> float:
    """The best peak of a run, from that of branches of ``share`` of its updates.

    >>> round(at_length(1e-3, 1 / 32), 6)
    0.000707
    """
    return float(peak * share**HORIZON)


def estimate(prior: Prior, branch: float, bracketed: bool, share: float) -> Estimate:
    """The peak of a run whose branches, of ``share`` of its length, were best at ``branch``.

    The mean of the corrected branch and the prior on the logarithmic scale, weighted by their variances. Where no
    worse branch brackets the best one, the true minimum may be further out: the spread is twice as large. If bracketed
    branches are more than two deviations away from the prior, its deviation is increased until they are two.
    """
    corrected = at_length(branch, share)
    certainty = 1 if bracketed else 2
    own = certainty * math.log(SPREAD)
    guess = math.log(prior.spread)
    if bracketed:
        guess = max(guess, abs(math.log(corrected / prior.peak)) / 2)
    weight = guess**2 / (guess**2 + own**2)
    peak = math.exp(weight * math.log(corrected) + (1 - weight) * math.log(prior.peak))
    return Estimate(peak, INTERVAL**certainty)
