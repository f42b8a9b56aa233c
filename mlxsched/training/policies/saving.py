"""When a checkpoint is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from mlxsched.training.policies.base import Action, Policy, Save
from mlxsched.training.progress import Progress


class Saving(Policy):
    """Save every ``every`` updates, after ``minutes`` if that is sooner, before the cooldown, and at the end of the run.

    Update 0 is saved too: a run that is killed in its first minutes resumes without measuring the model again.
    ``trunk`` returns the number of updates before the cooldown, None where the run has none: a run that is made longer
    later goes on from there.
    """

    def __init__(
        self, every: int, minutes: float | None = None, trunk: Callable[[], int | None] = lambda: None
    ) -> None:
        self._every, self._minutes, self._trunk = every, minutes, trunk
        self._saved_at = time.monotonic()

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        planned = progress.update % self._every == 0 or progress.update == self._trunk()
        due = done or planned or self._minutes_are_up()
        if due and progress.saved_update != progress.update:
            yield Save()
            self._saved_at = time.monotonic()

    def _minutes_are_up(self) -> bool:
        minutes = (time.monotonic() - self._saved_at) / 60
        return self._minutes is not None and minutes >= self._minutes
