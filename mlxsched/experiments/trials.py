"""Short trainings from one start, in memory: the trials of a grid of schedules and rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mlxsched.errors import DivergedError, Stopped, UsageError
from mlxsched.experiments.restoring import restoring
from mlxsched.planning.schedule import ScheduleLike
from mlxsched.runs.events import Sink
from mlxsched.schedules.controllers import Controller
from mlxsched.training.acceleration import accelerate
from mlxsched.training.assembly import make_engine, make_evaluator, make_loader, uniform_loss
from mlxsched.training.loop import Loop
from mlxsched.training.pace import Horizon, Pace
from mlxsched.training.policies.base import Abort, Action, Policy
from mlxsched.training.policies.divergence import Divergence, NonFinite
from mlxsched.training.policies.evaluation import Evaluation
from mlxsched.training.progress import Progress
from mlxsched.training.session import Session


class Trials:
    """Trainings of ``session`` that differ in their schedule alone.

    All of them begin with the same parameters and see the same rows in the same order, so a difference between two
    losses comes from the schedules. What is compiled and cached is shared, which makes a trial as cheap as its updates.

    Args:
        session: the model with its adapter attached, and the rows; no other session may use the model meanwhile.
        emit: receives the events of every trial.
        stop_signal: the number of a signal that came, 0 for none.
    """

    def __init__(
        self,
        session: Session,
        emit: Sink = lambda event: None,
        stop_signal: Callable[[], int] = lambda: 0,
    ) -> None:
        self._session, self._emit, self._stop_signal = session, emit, stop_signal
        paths = accelerate(session, None, lambda text: None)
        self._path = paths.training
        evaluator = make_evaluator(session, paths.validation)
        if evaluator is None:
            raise UsageError(
                "a comparison needs validation rows, and there are none. Add a valid.jsonl, or leave out --val-batches 0."
            )
        self._evaluator = evaluator
        self._engine = make_engine(session, paths.training)

    def loss(self, schedule: ScheduleLike, updates: int) -> float | None:
        """The validation loss at the end of ``updates`` updates along ``schedule``; None if the training diverged.

        Raises:
            Stopped: a signal came.
        """
        plan = self._session.plan
        last_rows = plan.last_rows if updates == plan.updates else None
        pace = Pace(Horizon(updates, schedule, last_rows))
        loop = Loop(
            self._engine,
            make_loader(self._session, self._path, pace),
            pace,
            self._emit,
            policies=self._policies(schedule),
            evaluator=self._evaluator,
        )
        with restoring(self._engine):
            self._session.loaded.model.train()
            try:
                loop.run()
            except DivergedError:
                return None
            if loop.progress.evaluated_update != updates:
                loop.evaluate()
        return loop.progress.evaluated_loss

    def _policies(self, schedule: ScheduleLike) -> list[Policy]:
        session = self._session
        every = session.plan.steps_per_eval
        observed: list[Policy] = [Evaluation(lambda: every)] if isinstance(schedule, Controller) else []
        limit = session.config.max_bad_updates
        return [
            _StopTrial(self._stop_signal),
            *observed,
            NonFinite(limit, may_roll_back=False, rows_of=lambda update: "", adapter=""),
            Divergence(uniform_loss(session), may_roll_back=False, adapter=""),
        ]


@dataclass(frozen=True)
class _StopTrial(Policy):
    """End a trial immediately after a signal: it is short, and can start again."""

    signal: Callable[[], int]

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        if self.signal():
            yield Abort(Stopped("Stopped.", self.signal()))

    def during_work(self, progress: Progress) -> Iterable[Action]:
        return self.between_updates(progress, done=False)
