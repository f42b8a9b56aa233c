"""When a checkpoint is written."""

from __future__ import annotations

import time
from collections.abc import Iterable

from mlxsched.training.policies.base import Action, Policy, Save
from mlxsched.training.progress import Progress


class Saving(Policy):
    """Save every ``every`` updates, after ``minutes`` if that is sooner, and at the end of the run.

    Update 0 is saved too: a run that is killed in its first minutes resumes without measuring the model again.
    """

    def __init__(self, every: int, minutes: float | None = None) -> None:
        self._every, self._minutes = every, minutes
        self._saved_at = time.monotonic()

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        due = done or progress.update % self._every == 0 or self._minutes_are_up()
        if due and progress.saved_update != progress.update:
            yield Save()
            self._saved_at = time.monotonic()

    def _minutes_are_up(self) -> bool:
        minutes = (time.monotonic() - self._saved_at) / 60
        return self._minutes is not None and minutes >= self._minutes
