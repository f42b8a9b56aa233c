"""The search for the peak of a planned run: prior, range test, branches, estimate."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

from mlxsched.config.origins import DEFAULT, from_flag
from mlxsched.experiments.rate_finder.branches import Rounds, two_rounds
from mlxsched.experiments.rate_finder.budget import Budget
from mlxsched.experiments.rate_finder.estimate import Estimate, estimate, lowest
from mlxsched.experiments.rate_finder.layout import SWEEPS, layout_of
from mlxsched.experiments.rate_finder.prior import SPREAD, Facts, Prior, hidden_size, prior_of
from mlxsched.experiments.rate_finder.range_test import RangeTest, range_test
from mlxsched.experiments.rate_finder.result import Found
from mlxsched.experiments.rate_finder.trials import LOST, Trials
from mlxsched.model.trees import flatten
from mlxsched.text import number
from mlxsched.training.acceleration import accelerate
from mlxsched.training.session import Session

BELOW, ABOVE = 30.0, 100.0
"""A sweep goes from the prior divided by `BELOW` to `ABOVE` times the prior, unless it diverges earlier."""
SAFETY = 2.0
"""No branch has a peak above the rate at which the sweeps diverged, divided by this."""

LEARNED = 0.005
"""A branch that lowers the loss of the untrained model by a smaller share has learned too little to be compared."""

NEAR = 0.05
"""Two peaks whose logarithms differ by less need no explanation."""

SAMPLES = 1000
"""The mean rate of a run is computed from at least this many of its updates; from all of a shorter run."""

OnSpent = Callable[[float, float], None]
"""Called with the number of updates spent so far, and with the total planned."""


class Search:
    """A search for the peak of ``session`` within ``budget``; `run` executes it.

    The constructor trains a few updates to measure their time.

    The session does not change: its adapter is restored after each branch, and nothing is written.
    """

    def __init__(self, session: Session, budget: Budget) -> None:
        self.session = session
        self.prior = _prior(session)
        self._started = time.monotonic()
        # Activations of frozen layers are shared with the run through its cache, where it has one.
        self.trials = Trials(session, accelerate(session, None, lambda text: None))
        self.seconds_per_update = self.trials.seconds_per_update()
        updates = budget.in_updates(self.seconds_per_update)
        self.layout = layout_of(updates, session.plan.updates, session.plan.batch_size)
        self.trials.held_out = self.layout.held_out

    def run(self, on_spent: OnSpent = lambda spent, planned: None) -> Found:
        """Search; KeyboardInterrupt ends it at any point without changing the session."""
        trials, layout, peak = self.trials, self.layout, self.prior.peak
        trials.on_spent = lambda spent: on_spent(spent, layout.cost)
        untrained = trials.branch(peak, 0)
        test = range_test(trials, peak / BELOW, peak * ABOVE, layout.sweep, SWEEPS)
        most = math.inf if test.broke is None else test.broke / SAFETY
        rounds = two_rounds(trials, peak, most, layout)
        found, why_other = None, ""
        if learned(rounds, untrained):
            config, updates = self.session.config, self.session.plan.updates
            fitted, sure = rounds.for_run(updates, config.optimizer)
            found = estimate(self.prior, fitted, sure)
            why_other = explained(rounds, updates, fitted, self.prior.peak, found.peak)
        marks = {"prior": peak, "branches": rounds.best, **test.marks}
        why = doubt(rounds, untrained, held_out=not trials.trains_on_judged(layout.second))
        return replace(self._found(found, why, rounds, test, marks), explanation=why_other)

    def _found(
        self, found: Estimate | None, doubt: str, rounds: Rounds, test: RangeTest, marks: dict[str, float]
    ) -> Found:
        return Found(
            suggestion=found.peak if found else None,
            low=found.peak / found.spread if found else None,
            high=found.peak * found.spread if found else None,
            conclusive=not doubt,
            reason=doubt or bracket(rounds),
            candidates=(*rounds.first, *rounds.second),
            test=test,
            marks=marks,
            cost_updates=self.trials.spent,
            updates=self.session.plan.updates,
            seconds=time.monotonic() - self._started,
        )


def bracket(rounds: Rounds) -> str:
    """The evidence of a conclusive search: the round whose best peak has worse ones on both sides."""
    tried = rounds.second if lowest(rounds.second)[1] else rounds.first
    return f"in branches of {tried[0].updates} updates, higher and lower peaks were worse"


def explained(rounds: Rounds, updates: int, fitted: float, prior: float, suggestion: float) -> str:
    """Why the ``suggestion`` is not the best peak of the branches; ``fitted`` is their estimate for the whole run."""
    best, length = rounds.best, rounds.second[0].updates
    text = f"branches of {length} updates did best at {_short(best)}"
    if abs(math.log(fitted / best)) > NEAR:
        side = "lower" if fitted < best else "higher"
        text += f"; for a run of {updates:,}, the losses of all branches give a {side} peak"
    if abs(math.log(suggestion / fitted)) > NEAR:
        text += f", {_short(fitted)}, which is averaged with the prior, {_short(prior)}"
    return text if abs(math.log(suggestion / best)) > NEAR else ""


def _short(rate: float) -> str:
    return number(float(f"{rate:.3g}"))


def learned(rounds: Rounds, untrained: float) -> bool:
    """Whether a branch of the second round has a lower loss than the ``untrained`` model."""
    best = min(one.loss for one in rounds.second)
    return best < LOST and best <= untrained * (1 - LEARNED)


def doubt(rounds: Rounds, untrained: float, *, held_out: bool = True) -> str:
    """Why a search is inconclusive, and how to resolve that; empty if it is conclusive.

    ``held_out``: whether no branch was judged on rows that it trained on.
    """
    if min(one.loss for one in rounds.second) >= LOST:
        return "every branch diverged; check the rows with `mlxsched data check`"
    if not learned(rounds, untrained):
        return f"no branch learned anything from a loss of {untrained:.3f}; a larger --budget trains longer branches"
    if not rounds.bracketed:
        tried = sorted(rounds.first, key=lambda one: one.peak)
        end = min(tried, key=lambda one: one.loss).peak
        side = "highest" if end == tried[-1].peak else "lowest"
        return f"the {side} peak was the best; search around it with --learning-rate {rounds.best:.1e}"
    if not held_out:
        return "branches were judged on rows that they trained on; add validation rows (valid.jsonl)"
    return ""


def _prior(session: Session) -> Prior:
    """The formula, or the peak that the user gave on the command line, which may be far from the best one."""
    if from_flag(session.origins.get("learning_rate", DEFAULT)):
        return Prior(session.config.learning_rate, 2 * SPREAD)
    return prior_of(session.config, _facts(session))


def _facts(session: Session) -> Facts:
    adapted = sum(path.endswith("lora_b") for path in flatten(session.loaded.model.trainable_parameters()))
    modules = adapted / max(session.trained_layers, 1) or 1.0
    return Facts(hidden_size(session.loaded.config), modules, session.plan.updates, _mean_rate(session))


def _mean_rate(session: Session) -> float:
    """The mean rate of the run as a share of its peak, from at most about a thousand of its updates."""
    updates = session.plan.updates
    rates = [session.rate(update) for update in range(0, updates, max(updates // SAMPLES, 1))]
    return statistics.fmean(rates) / session.plan.peak
