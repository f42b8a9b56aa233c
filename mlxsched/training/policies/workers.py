"""What the leader owes the other workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mlxsched.training.policies.base import Action, Policy
from mlxsched.training.progress import Progress


@dataclass(frozen=True)
class KeepWorkers(Policy):
    """Call ``rest`` while the leader does something alone, such as generating answers, which may take minutes.

    The others would take a leader that is silent for too long for dead.
    """

    rest: Callable[[], None]

    def during_work(self, progress: Progress) -> Iterable[Action]:
        self.rest()
        return ()
