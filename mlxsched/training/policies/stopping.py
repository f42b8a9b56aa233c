"""What ends a run before its plan does: a signal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mlxsched.errors import Stopped
from mlxsched.text import counted
from mlxsched.training.policies.base import Abort, Action, Policy, Save
from mlxsched.training.progress import Progress


@dataclass(frozen=True)
class StopOnSignal(Policy):
    """Save and stop once ``signal`` returns the number of a signal that came (0: none).

    ``planned`` returns the updates of the run, and ``resume_command`` is what continues it.
    """

    signal: Callable[[], int]
    planned: Callable[[], int]
    resume_command: str

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        return self.during_work(progress)

    def during_work(self, progress: Progress) -> Iterable[Action]:
        number = self.signal()
        if not number:
            return
        if progress.saved_update != progress.update:
            yield Save()
        stopped = Stopped(
            f"Stopped after {progress.update} of {counted(self.planned(), 'update')}; everything is saved. "
            f"Resume with: {self.resume_command}",
            number,
        )
        yield Abort(stopped)
