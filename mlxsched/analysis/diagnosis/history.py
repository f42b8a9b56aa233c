"""`History`: the input of a diagnosis, from a run directory or from another tool's log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlxsched.analysis.diagnosis.robust import Floats, deviation, running_median
from mlxsched.analysis.rates import Rates, next_peak
from mlxsched.runs.events import Recorded
from mlxsched.runs.recording import EventColumns

WINDOW = 21
"""Updates of the running median of the training loss."""

UNKNOWN = "unknown"
"""The status of a log that does not say how the run ended."""


@dataclass(frozen=True)
class History(EventColumns):
    """The records of a run, and what is known of its plan.

    Args:
        events: the records, in the order in which they were written; other kinds than updates and evaluations are ignored.
        planned: updates of the plan; None where nothing says so.
        status: how the run ended: finished, stopped, failed, interrupted, running or `UNKNOWN`.
        peaks: the lowest, the usual and the highest peak rate for what is trained and its optimizer; None where that is
            not known.
        schedule_steps: updates that the planned schedule is made for; None where it has no end or is not known.
        target: the run directory or file, for the commands of fixes.
        is_run: whether `target` is a run directory of mlxsched.
        saved: updates that its last checkpoint holds.
        rate_factor: the highest rate of any parameter divided by the learning rate: the ratio of LoRA+, else 1.
        results: what was measured before and after the run.
        best_update: the update with the best adapter; None if it is not known.
    """

    events: Sequence[Recorded]
    planned: int | None = None
    status: str = UNKNOWN
    peaks: tuple[float, float, float] | None = None
    schedule_steps: int | None = None
    target: str = "RUN"
    is_run: bool = False
    saved: int = 0
    rate_factor: float = 1.0
    results: Mapping[str, object] = field(default_factory=dict)
    best_update: int | None = None

    @cached_property
    def good(self) -> NDArray[np.bool_]:
        """Which updates were applied and have a finite loss, of shape (updates,)."""
        return np.asarray(self.train["applied"] & np.isfinite(self.train["loss"]))

    @cached_property
    def updates(self) -> NDArray[np.int64]:
        """The indices of the good updates."""
        return np.asarray(self.train["update"][self.good])

    @cached_property
    def losses(self) -> Floats:
        """Their training losses."""
        return np.asarray(self.train["loss"][self.good])

    @cached_property
    def rates(self) -> Floats:
        """Their learning rates."""
        return np.asarray(self.train["lr"][self.good])

    @cached_property
    def seen(self) -> tuple[Floats, Floats]:
        """Updates and losses of the evaluations that are finite."""
        known = np.isfinite(self.evaluations["loss"])
        return self.evaluations["update"][known].astype(float), self.evaluations["loss"][known]

    @property
    def made(self) -> int:
        """Updates made."""
        return int(self.train["update"][-1]) + 1 if len(self.train) else 0

    @property
    def peak(self) -> float:
        """The highest rate of all updates; NaN without any."""
        known = self.train["lr"][np.isfinite(self.train["lr"])]
        return float(known.max()) if len(known) else math.nan

    def lower_rate(self, factor: float) -> str:
        """A peak for the next run: the current one divided by ``factor``, or the usual one if that is lower."""
        return next_peak(
            self.peak / factor, Rates(*self.peaks).start(self.rate_factor) if self.peaks else math.inf
        )

    @cached_property
    def start(self) -> float:
        """The loss before training: that of an evaluation at update 0, else of the first updates.

        The first training loss was computed before any weight changed, but one batch is noise: the median of three counts
        if it is higher.
        """
        updates, losses = self.seen
        first = float(max(self.losses[0], np.median(self.losses[:3]))) if len(self.losses) else math.nan
        return float(losses[0]) if len(losses) and updates[0] == 0 else first

    @cached_property
    def train_start(self) -> float:
        """`start`, or the first training loss if that is higher: training rows may be harder than validation rows."""
        first = self.losses[:1] if len(self.updates) and self.updates[0] == 0 else self.losses[:0]
        return float(max([self.start, *first.tolist()]))

    @cached_property
    def end(self) -> float:
        """The training loss that the run ended with: the median of its last tenth, of 5 updates at least."""
        return (
            float(np.median(self.losses[-max(5, len(self.losses) // 10) :])) if len(self.losses) else math.nan
        )

    @cached_property
    def memorized(self) -> bool:
        """Whether the training loss ended below a third of the lowest validation loss: the rows are memorized.

        The validation loss then wanders at any rate.
        """
        losses = self.seen[1]
        return len(losses) > 0 and self.end < float(losses.min()) / 3

    @cached_property
    def noise(self) -> float:
        """The standard deviation of the training loss around its running median, as a share of it."""
        if len(self.losses) < WINDOW:
            return 0.0
        return deviation(self.losses / np.maximum(running_median(self.losses, WINDOW), 1e-9))
