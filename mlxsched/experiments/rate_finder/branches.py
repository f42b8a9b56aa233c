"""The branches of a search, in two rounds: a few short ones find the region, and longer ones refine it."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import NamedTuple

from mlxsched.experiments.rate_finder.estimate import at_length, lowest, minimum
from mlxsched.experiments.rate_finder.layout import EXTRA, FIRST, FIRST_STEP, SECOND, SECOND_STEP, Layout
from mlxsched.experiments.rate_finder.result import Candidate
from mlxsched.experiments.rate_finder.trials import Trials


class Rounds(NamedTuple):
    """The branches of both rounds."""

    first: list[Candidate]
    second: list[Candidate]

    @property
    def best(self) -> float:
        """The best peak for the branches of the second round."""
        return lowest(self.second)[0]

    @property
    def bracketed(self) -> bool:
        """Whether higher and lower peaks were worse, in either round."""
        return lowest(self.first)[1] or lowest(self.second)[1]

    def for_run(self, updates: int, optimizer: str) -> tuple[float, bool]:
        """The best peak for a run of ``updates``, by both rounds, and whether a round has worse branches on both sides.

        If the fit has no minimum, but a round has worse branches on both sides of its best one, the best one is used. This
        happens where the loss rises so steeply that the branches above it have no weight in the fit: with a prior 5 times
        too low in 2 of 16 searches, whose regrets fell from 33% and 6% to 11% and -2%.
        """
        rounds = [
            [replace(one, peak=at_length(one.peak, one.updates / updates, optimizer)) for one in tried]
            for tried in self
        ]
        fitted, inside = minimum(rounds)
        bottoms = [peak for peak, bracketed in map(lowest, rounds) if bracketed]
        peak = fitted if inside or not bottoms else statistics.geometric_mean(bottoms)
        # Overlapping rounds can have a vertex between them although neither has worse branches on both sides.
        return peak, bool(bottoms)


def two_rounds(trials: Trials, centre: float, most: float, layout: Layout) -> Rounds:
    """Train branches around ``centre``, none with a peak above ``most``.

    Additional branches of the first round shorten those of the second, so that the search stays within its budget.
    """
    peaks = spread_around(min(centre, most / FIRST_STEP), FIRST, FIRST_STEP)
    first = [_branch(trials, peak, layout.first) for peak in peaks]
    for _ in range(EXTRA):
        beyond = _beyond(first)
        if beyond is None or beyond > most:
            break
        first.append(_branch(trials, beyond, layout.first))
    left = int((layout.cost - trials.spent) / SECOND - layout.judging)
    updates = max(min(layout.second, left), layout.first)
    centre = min(lowest(first)[0], most / SECOND_STEP)
    return Rounds(
        first, [_branch(trials, peak, updates) for peak in spread_around(centre, SECOND, SECOND_STEP)]
    )


def _beyond(first: list[Candidate]) -> float | None:
    """The next peak in the direction in which the losses fall; None if the best one has worse neighbors."""
    tried = sorted(first, key=lambda one: one.peak)
    best = min(tried, key=lambda one: one.loss)
    if best is tried[-1]:
        return best.peak * FIRST_STEP
    return best.peak / FIRST_STEP if best is tried[0] else None


def spread_around(centre: float, count: int, step: float) -> list[float]:
    """``count`` peaks, a factor of ``step`` apart, centered on ``centre``.

    >>> spread_around(1.0, 3, 2.0)
    [0.5, 1.0, 2.0]
    """
    return [centre * step ** (index - (count - 1) / 2) for index in range(count)]


def _branch(trials: Trials, peak: float, updates: int) -> Candidate:
    return Candidate(peak, updates, trials.branch(peak, updates))
