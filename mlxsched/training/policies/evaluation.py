"""When the validation loss is measured, and when it has stopped improving for too long."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mlxsched.text import counted
from mlxsched.training.policies.base import Action, Evaluate, Finish, Policy
from mlxsched.training.progress import Progress


@dataclass(frozen=True)
class Evaluation(Policy):
    """Evaluate every ``every`` updates, update 0 included, and at the end of the run."""

    every: int

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        due = done or progress.update % self.every == 0
        if due and progress.evaluated_update != progress.update:
            yield Evaluate()


@dataclass(frozen=True)
class Patience(Policy):
    """Finish after ``evaluations`` evaluations in a row without a lower validation loss."""

    evaluations: int

    def after_evaluation(self, progress: Progress, loss: float) -> Iterable[Action]:
        if progress.evaluations_since_best >= self.evaluations:
            yield Finish(f"no better validation loss in {counted(self.evaluations, 'evaluation')}")
