"""The rates of a run with their landmarks, and the facts of the run that the checks look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mlxsched.analysis.findings import Finding
from mlxsched.analysis.rates import Rates, peak_rates
from mlxsched.errors import ScheduleError
from mlxsched.schedules.base import SCAN_LIMIT, Schedule
from mlxsched.schedules.controllers import Controller

SHORTEST = 50  # updates; in shorter runs a gradual phase of a few updates cannot be told from a jump
LOW = 0.1  # share of the peak: the usual floor of a decay (min_lr) and below


@dataclass(frozen=True)
class RunFacts:
    """What is known of the run that a schedule is for.

    Args:
        updates: the length of the run.
        fine_tune_type: ``lora``, ``dora`` or ``full``; empty for a schedule without a run.
        lora_plus_ratio: the rate of LoRA's B matrices over that of A.
        accumulation: iterations per update.
        iters: the length in iterations, where the run gives it so.
        betas: Adam's, if its moments are not corrected for their bias; else None.
        corrected_here: the config is mlx-lm's and says nothing about the bias, which mlxsched corrects.
        block: mlx-lm's ``lr_schedule``, where the schedule comes from it.
    """

    updates: int
    optimizer: str = "adamw"
    fine_tune_type: str = ""
    lora_plus_ratio: float = 1.0
    accumulation: int = 1
    iters: int | None = None
    betas: tuple[float, float] | None = None
    corrected_here: bool = False
    block: Mapping[str, Any] | None = None

    @property
    def peaks(self) -> Rates:
        """The peaks that suit the optimizer and what is trained."""
        return peak_rates(self.optimizer, self.fine_tune_type)


@dataclass(frozen=True)
class ScheduleFinding(Finding):
    """A finding about a schedule, with the update where it is seen."""

    update: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The keys of ``mlxsched check --json``."""
        keys = ("code", "severity", "update", "evidence", "why", "fix")
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class Curve:
    """The rates of all updates of a run, and the landmarks that several checks need."""

    schedule: Schedule
    facts: RunFacts

    @cached_property
    def rates(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The rate of each update, of shape (updates,)."""
        if self.facts.updates > SCAN_LIMIT:
            raise ScheduleError(f"`steps` must be at most {SCAN_LIMIT} to check; got {self.facts.updates}.")
        return self.schedule(np.arange(self.facts.updates))

    @property
    def updates(self) -> int:
        """The length of the run."""
        return self.facts.updates

    @cached_property
    def peak(self) -> float:
        """The highest rate of the run."""
        return float(self.rates.max())

    @cached_property
    def peak_at(self) -> int:
        """The first update that has it."""
        return int(self.rates.argmax())

    @property
    def last(self) -> float:
        """The rate of the last update."""
        return float(self.rates[-1])

    @cached_property
    def warmup(self) -> int:
        """Updates of warmup: the first phase of that name, or a rise from the first update up to the peak."""
        phase = self.schedule.phases[0]
        if phase.name == "warmup" and phase.end is not None:
            return phase.end
        top = int((self.rates >= 0.99 * self.peak).argmax())
        return top if bool((np.diff(self.rates[: top + 1]) >= 0).all()) else 0

    @cached_property
    def never_peaks(self) -> float | None:
        """The peak that the schedule has beyond the run, if it is higher than that of the run."""
        beyond = getattr(self.schedule, "peak", 0.0)
        if self.schedule.steps is not None and self.schedule.steps > self.updates:
            beyond = max(beyond, self.schedule.extrema().high)
        return beyond if beyond > 1.01 * self.peak else None

    @cached_property
    def idle_end(self) -> int:
        """Updates at the end whose rate is 0, or the residue that MLX's float32 schedules leave of 0."""
        if abs(self.last) > 1e-6 * self.peak:
            return 0
        moving = np.flatnonzero(self.rates != self.last)
        return self.updates - 1 - int(moving[-1]) if len(moving) else self.updates

    @property
    def is_flat(self) -> bool:
        """Whether the rate stays within 1% of the peak after the warmup."""
        after = self.rates[self.warmup :]
        return len(after) > 1 and bool(after.max() - after.min() <= 0.01 * self.peak)

    @property
    def is_adaptive(self) -> bool:
        """Whether a metric decides the decay, which no curve shows."""
        return isinstance(self.schedule, Controller)

    @property
    def ends_high(self) -> bool:
        """Whether the run ends above the usual floor although the schedule would go, or has been, far lower."""
        if self.last <= LOW * self.peak:
            return False
        steps = self.schedule.steps
        cut = steps is not None and steps > self.updates and self.schedule(steps) <= 0.5 * self.last
        return cut or float(self.rates[self.peak_at :].min()) < 0.5 * self.last

    @cached_property
    def stairs(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The updates at which the rate drops by a tenth or more from one level stretch to the next."""
        if self.updates < SHORTEST:
            return np.array([], np.int64)
        change = np.diff(self.rates)
        level = np.abs(change) <= 1e-9 * self.peak
        drops = (self.rates[1:] <= 0.9 * self.rates[:-1]) & (change < -1e-6 * self.peak)
        return np.flatnonzero(drops[1:-1] & level[:-2] & level[2:]) + 2

    def by_design(self, update: int) -> bool:
        """Whether the schedule restarts at ``update``: in its cycles, or back from a decay to the stable phase."""
        before = ""
        for name, start, end in self.schedule.phases:
            if start <= update and (end is None or update < end):
                return name.startswith("cycle") or (name == "stable" and before == "decay")
            before = name
        return False
