"""Short trainings from one start: the start is restored after each, and their cost is counted in updates."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mlxsched.data.rows import Rows
from mlxsched.experiments.restoring import restoring
from mlxsched.model.evaluate import Evaluator
from mlxsched.training.acceleration import Acceleration
from mlxsched.training.assembly import make_engine, make_loader, make_pace
from mlxsched.training.engine import Engine
from mlxsched.training.session import Session

FORWARD = 0.5
"""The cost of evaluating a row, relative to training on it: a LoRA update is a forward and a backward pass, plus a
little for the gradients of A and B."""
TIMED = 4
"""Updates that are trained to measure the time of one."""
LOST = 1e3
"""Replaces a loss that is larger or not finite: its size carries no information."""


Judge = Callable[[Engine], tuple[float, float]]
"""Measures the loss of an engine's parameters on held-out rows; returns it with its cost in updates."""


class Trials:
    """Branches and sweeps of a planned run, which all begin with its first update.

    A branch trains on the first rows of the run, so branches that differ in their rates only are compared on the same
    rows, and is evaluated on held-out ones: the first validation rows, or, without any, the training rows at the end of
    the first epoch.

    Args:
        session: the planned run; it is not changed.
        paths: how its rows go through the model.
    """

    def __init__(self, session: Session, paths: Acceleration) -> None:
        self._session, self._paths = session, paths
        self._engine = make_engine(session, paths.training)
        self._load = make_loader(session, paths.training, make_pace(session))
        self._judge: Judge | None = None
        self._judged_from: float = math.inf  # the first update of the run whose rows judge
        self.held_out = 1
        self.spent = 0.0
        self.on_spent: Callable[[float], None] = lambda spent: None

    def seconds_per_update(self) -> float:
        """Measured in `TIMED` updates, the first of which is traced and does not count."""
        seconds: list[float] = []
        with restoring(self._engine):
            for update in range(TIMED):
                started = time.perf_counter()
                self._engine.update(self._load(update), 0.0).wait()
                seconds.append(time.perf_counter() - started)
                self._spend(1.0)
        return statistics.median(seconds[1:])

    def branch(self, peak: float, updates: int) -> float:
        """The held-out loss after ``updates`` with the schedule of the whole run at ``peak``, compressed to that length.

        0 updates measure the untrained model.
        """
        with restoring(self._engine):
            for update in range(updates):
                self._engine.update(self._load(update), self._rate(peak, update, updates)).wait()
                self._spend(1.0)
            self._judge = self._judge or self._make_judge()
            loss, price = self._judge(self._engine)
            self._spend(price)
        return loss if loss < LOST else LOST

    def trains_on_judged(self, updates: int) -> bool:
        """Whether a branch of ``updates`` was evaluated on rows that it trained on, because there are no others."""
        return updates > self._judged_from

    def sweep(self, rates: list[float], rows_of: Callable[[int], int]) -> Iterator[float]:
        """The loss before each update of a sweep over ``rates``; the caller may stop it.

        Update number ``rows_of(i)`` of the run has the rows of number ``i`` of the sweep.
        """
        with restoring(self._engine):
            for position, rate in enumerate(rates):
                loss = self._engine.update(self._load(rows_of(position)), rate).loss
                self._spend(1.0)
                yield loss if loss < LOST else LOST

    def _rate(self, peak: float, update: int, updates: int) -> float:
        """The rate of an update of a branch: that of the update of the run that it stands for.

        Without bias correction, Adam's first updates are larger (6.6 times at update 12); a branch gets the excess of
        the corresponding updates of the run, not that of its own first updates.
        """
        plan = self._session.plan
        of_run = stands_for(update, updates, self._head(updates), plan.updates)
        excess = self._excess(of_run) / self._excess(update)
        return self._session.rate(of_run) * peak / plan.peak * excess

    def _head(self, updates: int) -> Head:
        """The part of the run that a branch does not compress.

        A warmup keeps its length, up to a quarter of the branch: compressed to less than an update, it no longer
        protects the branch, which then diverges at a peak that suits the run. Without bias correction, half of the
        branch is the run's own first updates: such a run diverges in these or not at all, and two large updates instead
        of twenty do not make it diverge.
        """
        warmup = self._session.plan.warmup
        if self._excess(updates) == 1:
            return Head(min(warmup, updates // 4), warmup)
        return Head(updates // 2, max(updates // 2, warmup))

    def _excess(self, update: int) -> float:
        config = self._session.config
        return adam_excess(update, config.optimizer, bias_correction=config.bias_correction)

    def _make_judge(self) -> Judge:
        """Evaluate at most `held_out` rows: validation rows, or rows from the end of the first epoch, which a branch
        does not reach."""
        session, plan = self._session, self._session.plan
        valid = session.dataset.valid
        if valid is not None and session.config.val_batches != 0:
            return _on_rows(session, valid, self._paths, self.held_out)
        end, updates = plan.updates_per_epoch, math.ceil(self.held_out / plan.batch_size)
        start = self._judged_from = max(end - updates, 0)
        batches = [self._load(update) for update in range(start, end)]
        targets = sum(one.n_targets for one in batches)

        def judge(engine: Engine) -> tuple[float, float]:
            total = sum(engine.loss(one) * one.n_targets for one in batches)
            return total / targets, float(len(batches))

        return judge

    def _spend(self, price: float) -> None:
        self.spent += price
        self.on_spent(self.spent)


def _on_rows(session: Session, rows: Rows, paths: Acceleration, count: int) -> Judge:
    """Evaluate the first ``count`` of ``rows``."""
    tokens, config = session.micro_batch_tokens, session.config
    if config.val_batches > 0:  # the run uses no more rows, and stores activations of no others
        count = min(count, config.val_batches * config.batch_size)
    evaluator = Evaluator(session.loaded.model, rows, paths.validation, max_tokens=tokens, limit=count)
    price = FORWARD * evaluator.n_rows / session.plan.batch_size
    return lambda engine: (engine.evaluate(evaluator).loss, price)


class Head(NamedTuple):
    """The first updates of a branch, and the updates of its run that they stand for."""

    updates: int
    of_run: int


def stands_for(update: int, updates: int, head: Head, run: int) -> int:
    """The update of a ``run`` that an ``update`` of a branch of ``updates`` stands for: what follows the head is compressed.

    The middle of the update counts, so that a short branch does not waste its first one on the 0 of a warmup.

    >>> [stands_for(update, 10, Head(2, 2), run=100) for update in (0, 1, 2, 9)]
    [0, 1, 8, 93]
    """
    if update < head.updates:
        return int((update + 0.5) * head.of_run / head.updates)
    share = (update - head.updates + 0.5) / (updates - head.updates)
    return min(head.of_run + int(share * (run - head.of_run)), run - 1)


def adam_excess(
    update: int, optimizer: str, *, bias_correction: bool, b1: float = 0.9, b2: float = 0.999
) -> float:
    """How much larger an update of Adam is without bias correction: ``(1 - b1^t) / sqrt(1 - b2^t)``, t from 1.

    >>> round(adam_excess(11, "adamw", bias_correction=False), 2), adam_excess(11, "adamw", bias_correction=True)
    (6.57, 1.0)
    """
    if bias_correction or optimizer not in ("adam", "adamw"):
        return 1.0
    return float((1 - b1 ** (update + 1)) / math.sqrt(1 - b2 ** (update + 1)))
