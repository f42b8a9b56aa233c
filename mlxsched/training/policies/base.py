"""What a policy is asked, and what it may answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mlxsched.errors import MlxschedError
from mlxsched.runs.events import Notice, UpdateMade
from mlxsched.training.pace import Revision
from mlxsched.training.progress import Progress


@dataclass(frozen=True)
class Evaluate:
    """Measure the validation loss now."""


@dataclass(frozen=True)
class Save:
    """Write a checkpoint now."""


@dataclass(frozen=True)
class Report:
    """Record ``notice`` and show it."""

    notice: Notice


@dataclass(frozen=True)
class Finish:
    """End the run here as if its plan ended here; ``reason`` is shown and recorded."""

    reason: str


@dataclass(frozen=True)
class Abort:
    """End the run now with ``error``."""

    error: MlxschedError


@dataclass(frozen=True)
class RollBack:
    """Continue from the last checkpoint of at most ``up_to`` updates, at ``factor`` times the rate.

    Where there is none, the run ends with ``otherwise``.
    """

    factor: float
    up_to: int
    reason: str
    otherwise: MlxschedError


@dataclass(frozen=True)
class Revise:
    """Change the length or the schedule of the run."""

    revision: Revision


Action = Evaluate | Save | Report | Finish | Abort | RollBack | Revise


class Policy:
    """Looks at a run and says what is to happen; the loop carries it out.

    Each method yields actions. The loop carries out each one before it asks for the next, so a policy can look at
    the result. To add a policy, override what it needs and add it to `mlxsched.training.assembly.policies_of`.
    """

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        """Asked before each update, and once more when the run is ``done``."""
        return ()

    def after_update(self, progress: Progress, made: UpdateMade) -> Iterable[Action]:
        """Asked after each update; ``progress.update`` counts it already."""
        return ()

    def after_evaluation(self, progress: Progress, loss: float) -> Iterable[Action]:
        """Asked after each evaluation, whose result is in ``progress`` already."""
        return ()

    def during_work(self, progress: Progress) -> Iterable[Action]:
        """Asked every now and then inside an evaluation or a generation, which may take minutes."""
        return ()
