"""The search for the peak of a planned run: prior, range test, branches, estimate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from mlxsched.experiments.rate_finder.budget import Budget
from mlxsched.experiments.rate_finder.estimate import WIDEST, Estimate, estimate, lowest
from mlxsched.experiments.rate_finder.layout import (
    FIRST,
    FIRST_STEP,
    SECOND,
    SECOND_STEP,
    SWEEPS,
    layout_of,
)
from mlxsched.experiments.rate_finder.prior import hidden_size, prior_of
from mlxsched.experiments.rate_finder.range_test import RangeTest, range_test
from mlxsched.experiments.rate_finder.result import Candidate, Found
from mlxsched.experiments.rate_finder.trials import LOST, Trials
from mlxsched.training.acceleration import accelerate
from mlxsched.training.session import Session

BELOW, ABOVE = 100.0, 100.0
"""A sweep goes from the prior divided by `BELOW` to `ABOVE` times the prior, unless it breaks before."""
SAFETY = 2.0
"""No branch has more than the rate at which the sweeps broke, divided by this."""

OnSpent = Callable[[float, float], None]
"""Called with the updates spent so far, and with those that are planned in all."""


class Search:
    """A search for the peak of ``session``, planned within ``budget``; `run` carries it out.

    Making it takes a few updates, which tell their time.

    Nothing of the session changes: its adapter is back at its start after each branch, and nothing is written.
    """

    def __init__(self, session: Session, budget: Budget) -> None:
        self.session = session
        self.prior = prior_of(session.config, hidden_size(session.loaded.config), session.plan.updates)
        self._started = time.monotonic()
        # Activations of frozen layers are shared with the run through its cache, where it has one.
        self._trials = Trials(session, accelerate(session, None, lambda text: None))
        self.seconds_per_update = self._trials.seconds_per_update()
        updates = budget.in_updates(self.seconds_per_update)
        self.layout = layout_of(updates, session.plan.updates, session.plan.batch_size)
        self._trials.held_out = self.layout.held_out

    def run(self, on_spent: OnSpent = lambda spent, planned: None) -> Found:
        """Search; KeyboardInterrupt ends it at any point and leaves the session as it was."""
        trials, layout, peak = self._trials, self.layout, self.prior.peak
        trials.on_spent = lambda spent: on_spent(spent, layout.cost)
        test = range_test(trials, peak / BELOW, peak * ABOVE, layout.sweep, SWEEPS)
        candidates = self._branches(trials, test)
        return self._found(candidates, test, trials.spent, time.monotonic() - self._started)

    def _branches(self, trials: Trials, test: RangeTest) -> list[Candidate]:
        """Two rounds: a few short branches around the prior, then longer ones around the best of them."""
        most = math.inf if test.broke is None else test.broke / SAFETY
        centre = min(self.prior.peak, most / FIRST_STEP)
        first = _round(trials, spread_around(centre, FIRST, FIRST_STEP), self.layout.first)
        best, _ = lowest(first)
        centre = min(best, most / SECOND_STEP)
        return [*first, *_round(trials, spread_around(centre, SECOND, SECOND_STEP), self.layout.second)]

    def _found(self, candidates: list[Candidate], test: RangeTest, spent: float, seconds: float) -> Found:
        layout, updates = self.layout, self.session.plan.updates
        last = [one for one in candidates if one.updates == layout.second]
        best, bracketed = lowest(last)
        found = estimate(self.prior, best, bracketed, layout.second / updates)
        marks = {"prior": self.prior.peak, "branches": best, **test.marks}
        conclusive, reason = _judged(found, last, bracketed)
        lost = min(one.loss for one in last) >= LOST
        return Found(
            suggestion=None if lost else found.peak,
            low=None if lost else found.peak / found.spread,
            high=None if lost else found.peak * found.spread,
            conclusive=conclusive,
            reason=reason,
            candidates=tuple(candidates),
            test=test,
            marks=marks,
            cost_updates=spent,
            updates=updates,
            seconds=seconds,
        )


def spread_around(centre: float, count: int, step: float) -> list[float]:
    """``count`` peaks, a factor of ``step`` apart, with ``centre`` in their middle.

    >>> spread_around(1.0, 3, 2.0)
    [0.5, 1.0, 2.0]
    """
    return [centre * step ** (index - (count - 1) / 2) for index in range(count)]


def _round(trials: Trials, peaks: list[float], updates: int) -> list[Candidate]:
    return [Candidate(peak, updates, trials.branch(peak, updates)) for peak in peaks]


def _judged(found: Estimate, last: list[Candidate], bracketed: bool) -> tuple[bool, str]:
    """Whether an estimate may be relied on, and why, or what would settle it."""
    if min(one.loss for one in last) >= LOST:
        return False, "every branch diverged; check the data and the model with `mlxsched data check`"
    if found.spread > WIDEST:
        return False, "the interval is wide; a larger --budget narrows it"
    if not bracketed:
        side = "highest" if last[-1].loss == min(one.loss for one in last) else "lowest"
        return True, f"the {side} peak of the branches was the best, and the prior bounds it"
    return True, "higher and lower peaks were worse"
