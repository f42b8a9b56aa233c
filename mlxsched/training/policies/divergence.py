"""Handles numerical problems: spikes, non-finite updates, divergence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mlxsched.errors import DivergedError
from mlxsched.runs.events import Notice, UpdateMade
from mlxsched.text import counted
from mlxsched.training.policies.base import Abort, Action, Policy, Report, RollBack
from mlxsched.training.progress import WINDOW, Progress

_FEW = 5  # losses whose median is no longer one bad batch


class Spikes(Policy):
    """Report a loss far above its running mean."""

    def after_update(self, progress: Progress, made: UpdateMade) -> Iterable[Action]:
        if progress.last_was_spike:
            text = f"loss {made.loss:.4g}, far above its running mean of {progress.smoothed:.4g}"
            yield Report(Notice(made.update, "spike", text))


@dataclass(frozen=True)
class NonFinite(Policy):
    """Report updates that are not finite; after ``limit`` in a row, roll back once if ``may_roll_back``, else give up.

    ``rows_of`` names the rows of an update, ``adapter`` is where the last good adapter is, and ``fix`` what to do.
    """

    limit: int
    may_roll_back: bool
    rows_of: Callable[[int], str]
    adapter: str
    fix: str = "Train again with a lower --learning-rate"

    def after_update(self, progress: Progress, made: UpdateMade) -> Iterable[Action]:
        if made.applied:
            return
        yield Report(Notice(made.update, "non_finite", self._describe(made)))
        count = progress.bad_in_a_row
        if count >= self.limit:
            reason = f"{counted(count, 'non-finite update')} up to update {made.update}"
            yield _recover(progress, self.may_roll_back, reason, self._error(count, made))

    def _describe(self, made: UpdateMade) -> str:
        numbers = f"loss {made.loss}, gradient norm {made.grad_norm}: update not applied"
        if math.isfinite(made.loss) and math.isfinite(made.grad_norm):
            # The rows are not the cause: the rate would have made the weights infinite.
            return f"{numbers}, since the weights would not be finite at a rate of {made.lr:.3g}"
        return f"{numbers}; {self.rows_of(made.update)}"

    def _error(self, count: int, made: UpdateMade) -> DivergedError:
        return DivergedError(
            f"{counted(count, 'update')} in a row had a loss, gradient or weights that are not finite; the last was "
            f"update {made.update} at a rate of {made.lr:.3g}. None of them was applied, and {self.adapter} holds the "
            f"last good adapter. {self.fix}; `mlxsched data check` looks for bad rows."
        )


@dataclass(frozen=True)
class Divergence(Policy):
    """Handle a finite loss that has diverged: roll back once if ``may_roll_back``, else give up.

    A run has diverged when one of these holds:

    - the median of its last 5 training losses is a nat above both that of the model before training and ``uniform``,
      the loss of a uniform guess: nothing that the model has learned is left;
    - the median of its last 20 is 1.5 times that of the model before training, after 40 updates, and the
      later ten are no better than the ten before: it does not recover by itself;
    - at the end, the validation loss is a nat above both of these, or 1.5 times that before training.

    The first updates of a healthy run may overshoot: SmolLM2-135M went from 2.72 to 4.02 in four updates of the laptop
    preset before it fell to 2.30. So none of the rules looks at single losses.
    """

    uniform: float
    may_roll_back: bool
    adapter: str
    fix: str = "Train again with a lower --learning-rate"

    def after_update(self, progress: Progress, made: UpdateMade) -> Iterable[Action]:
        level = self._level(progress)
        if made.applied and level is not None:
            reason = (
                f"the training loss rose from {progress.start:.4g} to {level:.4g} by update {made.update}"
            )
            yield _recover(progress, self.may_roll_back, reason, self._error(reason))

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        loss, start = progress.evaluated_loss, progress.start_evaluation
        if not done or loss is None or start is None or progress.update == 0:
            return
        if loss > max(self.uniform, start) + 1 or (loss > 1.5 * start and not _overfits(progress)):
            reason = f"the validation loss rose from {start:.4g} to {loss:.4g}"
            yield _recover(progress, self.may_roll_back, reason, self._error(reason))

    def _level(self, progress: Progress) -> float | None:
        """The training loss that shows the divergence, or None."""
        recent, start = progress.recent_losses, progress.start
        if start is None or len(recent) < _FEW:
            return None
        last = statistics.median(recent[-_FEW:])
        if last > max(self.uniform, start) + 1:
            return last
        if progress.update < 2 * WINDOW or len(recent) < WINDOW:
            return None
        half = WINDOW // 2
        earlier, later = statistics.median(recent[:half]), statistics.median(recent[half:])
        return later if min(earlier, later) > 1.5 * start and later >= earlier else None

    def _error(self, reason: str) -> DivergedError:
        return DivergedError(
            f"The run diverged: {reason}. {self.adapter} holds the best adapter before that. {self.fix}."
        )


def _recover(progress: Progress, may_roll_back: bool, reason: str, error: DivergedError) -> Action:
    """Roll back to the last good checkpoint at half the rate, once; after that, end the run."""
    if may_roll_back and progress.peak_factor == 1:
        return RollBack(0.5, progress.good_update, reason, error)
    return Abort(error)


def _overfits(progress: Progress) -> bool:
    """Whether the training loss is below that before training: a high validation loss then means overfitting."""
    recent = progress.recent_losses
    return bool(recent) and statistics.median(recent) < (progress.start or 0.0)
