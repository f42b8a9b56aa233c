"""Averages of the run's adapters: collected at every update, measured whenever the run is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from mlxsched.model.trees import Tensors
from mlxsched.runs.events import Notice, UpdateMade
from mlxsched.training.averaging import Averager
from mlxsched.training.optimizers import Packed
from mlxsched.training.policies.base import Action, Policy, Report
from mlxsched.training.progress import Progress


class Outlets(NamedTuple):
    """The callbacks that averaging needs from a run.

    Args:
        parameters: returns the present parameters.
        measure: returns the validation loss of tensors, or None without validation rows.
        use: writes tensors as the adapter to use.
        keep: writes tensors as the last average.
    """

    parameters: Callable[[], Packed]
    measure: Callable[[Tensors], float | None]
    use: Callable[[Tensors], None]
    keep: Callable[[Tensors], None]


class Averaging(Policy):
    """Evaluate the average before each evaluation of the adapter; the better of the two is the candidate for the best.

    At the end of the run the average is also kept by itself, whether it is the best or not. Asked before `Evaluation`: a
    signal during the measurement leaves nothing recorded, and a resume repeats it.
    """

    def __init__(self, averager: Averager, every: int, outlets: Outlets) -> None:
        self._averager, self._every, self._outlets = averager, every, outlets

    def after_update(self, progress: Progress, made: UpdateMade) -> Iterable[Action]:
        self._averager.see(progress.update, self._outlets.parameters())
        return ()

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        update = progress.update
        is_due = done or update % self._every == 0 or self._averager.ends_cycle(update)
        average = self._averager.mean(update, self._outlets.parameters()) if is_due else None
        if average is None:
            return
        if done:
            self._outlets.keep(average)
        if progress.averaged_update != update:
            yield self._measured(progress, average)

    def _measured(self, progress: Progress, average: Tensors) -> Report:
        loss = self._outlets.measure(average)
        best = progress.see_average(str(self._averager.average), loss)
        if best:
            self._outlets.use(average)
        result = "" if loss is None else f", validation loss {loss:.4f}{', the best so far' if best else ''}"
        return Report(Notice(progress.update, "average", f"average {self._averager.average}{result}"))
