"""Estimates the peak of the run from branches: fit, correct for their length, combine with the prior."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlxsched.experiments.rate_finder.prior import Prior
from mlxsched.experiments.rate_finder.result import Candidate

# Chosen on the even cases with benchmarks/rate_constants.py; the tables of benchmarks/rate_finder.py show other cases.
HORIZON = 0.2
"""The best peak falls with the number of updates: that of a run of N updates is ``(n / N) ** HORIZON`` times that of
branches of n updates (`at_length`). With SGD it did not fall in the only two cases."""
SHARPNESS = 10
"""The weight of a branch in the fit is its loss, relative to the lowest loss of its round, to the power of -SHARPNESS. A
parabola describes the loss only near its minimum; the weight of a loss 5% above it is 0.6."""
LEAST_LOSS = 1e-9  # of a model that knows all rows; its logarithm is still finite
SPREAD = 1.5
"""Standard deviation of the corrected minimum around the best peak, as a factor: its weight against the prior.

The loss rises more steeply above the best peak than below it, but a factor of 0.85 to 0.95 on the result does not lower
the regret of the even cases."""
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


def at_length(peak: float, share: float, optimizer: str = "adamw") -> float:
    """The best peak of a run, from that of branches of ``share`` of its updates.

    >>> at_length(1e-3, 1 / 32), at_length(0.1, 1 / 32, "sgd")
    (0.0005, 0.1)
    """
    return peak if optimizer == "sgd" else float(peak * share**HORIZON)


def minimum(rounds: Sequence[Sequence[Candidate]]) -> tuple[float, bool]:
    """The peak with the lowest loss according to the branches of all ``rounds``, and whether it lies between them.

    Least squares of ``log(loss) = a * (log(peak) - m) ** 2 + level`` with one ``a`` and ``m``, and a level for each
    round. If the losses fall (or rise) throughout, it is the highest (or lowest) peak.

    >>> minimum([[Candidate(1.0, 9, 2.0), Candidate(2.0, 9, 1.0), Candidate(4.0, 9, 2.0)]])
    (2.0, True)
    """
    sizes = [len(tried) for tried in rounds]
    places = np.log([one.peak for tried in rounds for one in tried])
    losses = np.log([max(one.loss, LEAST_LOSS) for tried in rounds for one in tried])
    of_round = np.repeat(np.arange(len(rounds)), sizes)
    levels = np.eye(len(rounds))[of_round]
    above = losses - np.array([losses[of_round == at].min() for at in range(len(rounds))])[of_round]
    middle = places.mean()
    terms = np.column_stack([(places - middle) ** 2, places - middle, levels])
    weights = np.exp(-SHARPNESS * above)
    a, b = np.linalg.lstsq(terms * weights[:, None], above * weights, rcond=None)[0][:2]
    if a <= 0:
        return float(np.exp(places.max() if b < 0 else places.min())), False
    vertex = middle - b / (2 * a)
    inside = bool(places.min() < vertex < places.max())
    return float(np.exp(np.clip(vertex, places.min(), places.max()))), inside


def estimate(prior: Prior, best: float, sure: bool) -> Estimate:
    """The peak of a run, from the ``best`` one according to its branches, corrected for their length.

    The mean of ``best`` and the prior on the logarithmic scale, weighted by the inverse of their variances. If the branches
    are not ``sure``, with no minimum between them, the true one may be further out: their spread is twice as large. If a
    sure minimum is more than two deviations away from the prior, the prior's deviation is increased until it is two.
    """
    certainty = 1 if sure else 2
    own = certainty * math.log(SPREAD)
    guess = math.log(prior.spread)
    if sure:
        guess = max(guess, abs(math.log(best / prior.peak)) / 2)
    weight = guess**2 / (guess**2 + own**2)
    peak = math.exp(weight * math.log(best) + (1 - weight) * math.log(prior.peak))
    return Estimate(peak, INTERVAL**certainty)
