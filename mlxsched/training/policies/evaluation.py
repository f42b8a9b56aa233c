"""When the validation loss is measured, and when it has stopped improving for too long."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mlxsched.runs.events import Notice
from mlxsched.text import counted
from mlxsched.training.policies.base import Action, Evaluate, Finish, Policy, Report
from mlxsched.training.progress import Progress


@dataclass(frozen=True)
class Evaluation(Policy):
    """Evaluate every ``every()`` updates, update 0 included, and at the end of the run."""

    every: Callable[[], int]

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        due = done or progress.update % self.every() == 0
        if due and progress.evaluated_update != progress.update:
            yield Evaluate()


class NameBadRows(Policy):
    """Report, once, why the validation loss is not finite; ``bad_rows`` finds and names the rows that make it so.

    Rows whose loss was finite before the training are not to blame: the updates made the weights useless.
    """

    def __init__(self, bad_rows: Callable[[], str]) -> None:
        self._bad_rows = bad_rows
        self._reported = False

    def after_evaluation(self, progress: Progress, loss: float) -> Iterable[Action]:
        if math.isfinite(loss) or self._reported:
            return
        self._reported = True
        first = progress.start_evaluation
        if first is not None and math.isfinite(first):
            text = f"the validation loss is {loss}; it was {first:.4f} before training. Lower --learning-rate"
        else:
            text = f"the validation loss is {loss} because of {self._bad_rows()}. Remove or fix these rows"
        yield Report(Notice(progress.update, "non_finite_validation", text))


@dataclass(frozen=True)
class Patience(Policy):
    """Finish after ``evaluations`` evaluations in a row without a lower validation loss."""

    evaluations: int

    def after_evaluation(self, progress: Progress, loss: float) -> Iterable[Action]:
        if progress.evaluations_since_best >= self.evaluations:
            yield Finish(f"no better validation loss in {counted(self.evaluations, 'evaluation')}")
