"""Whether a schedule suits its run: findings from the rate of every update and a few facts of the run.

A healthy curve rises over a short warmup, holds or falls gradually, and ends low when the run ends. Each check below
looks for one departure from that. The thresholds are rules of thumb, which the comments give with their source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mlxsched.analysis.findings import Finding, Severity
from mlxsched.analysis.rates import Rates, peak_rates
from mlxsched.errors import ScheduleError
from mlxsched.schedules.base import SCAN_LIMIT, Schedule
from mlxsched.schedules.controllers import Controller
from mlxsched.text import counted, number

SHORTEST = 50  # updates; in shorter runs a gradual phase of a few updates cannot be told from a jump
LONG_WARMUP = 0.1  # share of a run; usual warmups are 1 to 10% of it
LOW = 0.1  # share of the peak: the usual floor of a decay (min_lr) and below
SLOW = 0.25  # share of the peak: a run that ends above it has hardly decayed
JUMP = 0.25  # share of the peak: a change of this size within one update is sudden
STEEP = 0.3  # share of the updates after the peak that must have at least LOW of it
TINY = 200  # updates; a constant rate is common in tests and on tiny data


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


def schedule_health(schedule: Schedule, facts: RunFacts) -> list[ScheduleFinding]:
    """The findings about a schedule in a run, in the order of their updates and without fixes.

    >>> from mlxsched.schedules import constant, warmup_cosine
    >>> schedule_health(warmup_cosine(2e-4, 1000, 50), RunFacts(1000))
    []
    >>> [finding.code for finding in schedule_health(constant(2e-4), RunFacts(1000))]
    ['no_warmup', 'flat']

    Raises:
        ScheduleError: the run is too long for every update to be evaluated.
    """
    if facts.updates < 1:
        return list(_zero_updates(facts))
    curve = Curve(schedule, facts)
    checks = SHAPE_CHECKS if curve.peak > 0 and facts.updates > 2 else ()
    found = [*_zero_updates(facts), *_rate(curve), *(one for check in checks for one in check(curve))]
    return sorted(found, key=lambda finding: finding.update)


def is_healthy(findings: list[ScheduleFinding]) -> bool:
    """Whether none of the findings is an error or a warning."""
    return all(finding.severity == "note" for finding in findings)


# The run


def _zero_updates(facts: RunFacts) -> Iterator[ScheduleFinding]:
    short = facts.iters is not None and facts.iters < facts.accumulation
    if short or facts.updates < 1:
        yield ScheduleFinding(
            "zero_updates",
            "error",
            f"{counted(facts.iters or 0, 'iteration')} with accumulation {facts.accumulation} make no full update",
            why="mlx-lm updates after every `grad_accumulation_steps` iterations, and would train nothing",
        )


def _rate(curve: Curve) -> Iterator[ScheduleFinding]:
    """The peak, compared with what suits the optimizer and what is trained."""
    facts, (low, _, high) = curve.facts, curve.facts.peaks
    peak = curve.peak * max(facts.lora_plus_ratio, 1.0)
    what = f"{facts.optimizer}{f' with {facts.fine_tune_type}' if facts.fine_tune_type else ''}"
    times = f" times lora_plus_ratio {facts.lora_plus_ratio:g}" if facts.lora_plus_ratio > 1 else ""
    if curve.peak == 0:
        yield ScheduleFinding(
            "rate_too_low", "error", "the rate is 0 in every update", why="Nothing will be learned"
        )
    elif peak > high * (1 + 1e-9):
        yield ScheduleFinding(
            "rate_too_high",
            "warning",
            f"the peak is {number(curve.peak)}{times}; {what} is likely to diverge above {number(high)}",
            why="The loss explodes, or jumps and never comes back",
            update=curve.peak_at,
        )
    elif peak < low * (1 - 1e-9):
        yield ScheduleFinding(
            "rate_too_low",
            "warning",
            f"the peak is {number(curve.peak)}{times}; {what} learns slowly below {number(low)}",
            why="The run ends long before the model has learned what it could",
            update=curve.peak_at,
        )


# The warmup


def _no_warmup(curve: Curve) -> Iterator[ScheduleFinding]:
    """Half of the peak is reached at once, or within a warmup of under 0.2% of the run."""
    half = int((curve.rates >= 0.5 * curve.peak).argmax())
    if half > 0 and 2 * half > min(curve.updates / 500, 50):
        return
    mild = curve.updates < 10 or curve.facts.optimizer == "sgd"
    yield ScheduleFinding(
        "no_warmup",
        "note" if mild else "warning",
        f"update {half} already has a rate of {number(float(curve.rates[half]))}, "
        f"{curve.rates[half] / curve.peak:.0%} of the peak",
        why="Adam's first updates rest on few gradients: at a high rate they cause early spikes of the loss",
        update=half,
    )


def _warmup_too_long(curve: Curve) -> Iterator[ScheduleFinding]:
    if curve.never_peaks is not None or curve.warmup <= LONG_WARMUP * curve.updates + 1:
        return
    # One-cycle rises for 25 to 45% of the run by design. It starts above 0 and ends far below its start.
    if 0 < curve.last < 0.1 * curve.rates[0] and curve.warmup <= 0.45 * curve.updates + 1:
        return
    yield ScheduleFinding(
        "warmup_too_long",
        "warning",
        f"the warmup takes {curve.warmup:,} of {counted(curve.updates, 'update')}, "
        f"{curve.warmup / curve.updates:.0%} of the run; 1 to 10% is usual",
        why="Most of the learning happens near the peak, and this run spends little time there",
        update=min(curve.warmup, curve.updates - 1),
    )


def _never_peaks(curve: Curve) -> Iterator[ScheduleFinding]:
    if curve.never_peaks is None:
        return
    yield ScheduleFinding(
        "never_peaks",
        "warning",
        f"the highest rate in {counted(curve.updates, 'update')} is {number(curve.peak)}, "
        f"{curve.peak / curve.never_peaks:.0%} of the schedule's peak of {number(curve.never_peaks)}",
        why="The run ends before the peak, or the decay begins before the warmup is over",
        update=curve.peak_at,
    )


def _warmup_target(curve: Curve) -> Iterator[ScheduleFinding]:
    """mlx-lm warms up to ``arguments[0]``, which is not the peak of a rising schedule."""
    block = curve.facts.block or {}
    if not block.get("warmup"):
        return
    target = float(block["arguments"][0])
    if target < 0.99 * curve.peak:
        yield ScheduleFinding(
            "warmup_target",
            "warning",
            f"the warmup of {counted(int(block['warmup']), 'update')} ends at {number(target)}; the peak is "
            f"{number(curve.peak)}, at update {curve.peak_at}",
            why="mlx-lm warms up to `arguments[0]`, the initial rate of the schedule, and not to its highest rate",
            update=min(int(block["warmup"]), curve.updates - 1),
        )


def _adam_early_excess(curve: Curve) -> Iterator[ScheduleFinding]:
    """Adam without bias correction: an update is (1 - b1^n) / sqrt(1 - b2^n) times that of Adam with it."""
    if curve.facts.betas is None:
        return
    first, second = curve.facts.betas
    count = np.arange(1, curve.updates + 1)
    excess = (1 - first**count) / np.sqrt(1 - second**count)
    at = int((curve.rates * excess).argmax())
    if curve.rates[at] * excess[at] <= 1.5 * curve.peak:
        return
    by = "mlx-lm's Adam" if curve.facts.corrected_here else "Adam without bias correction"
    yield ScheduleFinding(
        "adam_early_excess",
        "note" if curve.facts.corrected_here else "warning",
        f"{by} makes update {at} {excess[at]:.2f} times as large: as if its rate were "
        f"{number(float(curve.rates[at] * excess[at]))}, {curve.rates[at] * excess[at] / curve.peak:.2f} times the peak",
        why="mlxsched corrects the bias by default"
        if curve.facts.corrected_here
        else "Early updates run far hotter than the schedule says",
        update=at,
    )


# The shape


def _spike(curve: Curve) -> Iterator[ScheduleFinding]:
    """A sudden rise after the first updates; a warmup of fewer than five updates looks like one."""
    rises = np.diff(curve.rates) >= JUMP * curve.peak
    sudden = np.flatnonzero(rises & (curve.rates[1:] >= 1.5 * curve.rates[:-1])) + 1
    sudden = sudden[sudden > 4]
    if curve.updates < SHORTEST or not len(sudden):
        return
    at = int(sudden[0])
    restart = curve.by_design(at)
    yield ScheduleFinding(
        "spike",
        "note" if restart else "warning",
        f"the rate jumps from {number(float(curve.rates[at - 1]))} to {number(float(curve.rates[at]))} in one update"
        + _times(len(sudden)),
        why="The loss rises at each restart: keep the best model of each cycle"
        if restart
        else "A sudden rise of the rate makes the loss jump",
        update=at,
    )


def _cliff(curve: Curve) -> Iterator[ScheduleFinding]:
    falls = -np.diff(curve.rates) >= JUMP * curve.peak
    sudden = np.flatnonzero(falls & (curve.rates[1:] <= 0.5 * curve.rates[:-1])) + 1
    if curve.updates < SHORTEST or len(curve.stairs) > 1 or not len(sudden):
        return
    at = int(sudden[0])
    yield ScheduleFinding(
        "cliff",
        "note" if curve.by_design(at) else "warning",
        f"the rate falls from {number(float(curve.rates[at - 1]))} to {number(float(curve.rates[at]))} in one update"
        + _times(len(sudden)),
        why="Learning stops where a gradual decay would still improve the model",
        update=at,
    )


def _times(count: int) -> str:
    return "" if count == 1 else f", and {count - 1} more such"


def _staircase(curve: Curve) -> Iterator[ScheduleFinding]:
    if len(curve.stairs) < 2:
        return
    at = int(curve.stairs[0])
    sgd = curve.facts.optimizer == "sgd"
    yield ScheduleFinding(
        "staircase",
        "note" if sgd else "warning",
        f"the rate falls in {len(curve.stairs)} steps, the first from {number(float(curve.rates[at - 1]))} to "
        f"{number(float(curve.rates[at]))}",
        why="The classical recipe for SGD"
        if sgd
        else "A smooth decay ends at the same rate without the jolts; stairs are a recipe for SGD",
        update=at,
    )


def _flat(curve: Curve) -> Iterator[ScheduleFinding]:
    why = "Without a decay the loss stays on a plateau, above what the same run reaches with one"
    if curve.is_flat and not curve.is_adaptive:
        severity: Severity = "note" if curve.updates <= TINY else "warning"
        evidence = f"the rate stays at {number(curve.peak)} until the end"
        yield ScheduleFinding(
            "flat", severity, evidence, why=why, update=min(curve.warmup, curve.updates - 1)
        )
    idle_start = int((curve.rates > 0).argmax())
    if idle_start > max(1, curve.updates // 100):
        evidence = f"the rate is 0 in the first {counted(idle_start, 'update')}"
        yield ScheduleFinding("flat", "warning", evidence, why="They change nothing")
    if curve.idle_end > max(1, LOW * curve.updates):
        evidence = f"the rate is 0 in the last {counted(curve.idle_end, 'update')}, {curve.idle_end / curve.updates:.0%} of the run"
        yield ScheduleFinding(
            "flat", "warning", evidence, why="They change nothing", update=curve.updates - curve.idle_end
        )


def _too_steep(curve: Curve) -> Iterator[ScheduleFinding]:
    after = curve.rates[curve.peak_at :]
    share = float((after >= LOW * curve.peak).mean())
    if len(after) < 0.5 * curve.updates or share >= STEEP or curve.idle_end > LOW * curve.updates:
        return
    at = curve.peak_at + int((after < LOW * curve.peak).argmax())
    yield ScheduleFinding(
        "too_steep",
        "warning",
        f"the rate is below a tenth of its peak from update {at} on, for {1 - share:.0%} of the decay",
        why="The model stops learning early and underfits",
        update=at,
    )


def _too_slow(curve: Curve) -> Iterator[ScheduleFinding]:
    # A decay reaches its end one update after the last: that matters in a run of a few updates.
    end = min(curve.last, curve.schedule(curve.updates))
    explained = curve.is_flat or curve.ends_high or curve.never_peaks is not None
    if explained or curve.is_adaptive or end <= SLOW * curve.peak:
        return
    yield ScheduleFinding(
        "too_slow",
        "warning",
        f"the rate ends at {number(curve.last)}, {curve.last / curve.peak:.0%} of its peak; at most a tenth is usual",
        why="The last updates are still large: the loss stays noisy, and small data is overfitted",
        update=curve.updates - 1,
    )


def _never_ends(curve: Curve) -> Iterator[ScheduleFinding]:
    if not curve.ends_high:
        return
    facts, steps = curve.facts, curve.schedule.steps
    share = f"it ends at {curve.last / curve.peak:.0%} of its peak"
    counts_iterations = (
        steps is not None
        and facts.iters is not None
        and facts.accumulation > 1
        and curve.updates < steps <= 1.1 * facts.iters + curve.warmup
    )
    if counts_iterations:
        yield ScheduleFinding(
            "accumulation_mismatch",
            "warning",
            f"the schedule takes {counted(steps or 0, 'update')}; {counted(facts.iters or 0, 'iteration')} with accumulation "
            f"{facts.accumulation} are {counted(curve.updates, 'update')}: {share}",
            why="A schedule counts updates, not iterations, in mlx-lm too",
            update=curve.updates - 1,
        )
        return
    made = f"is made for {counted(steps, 'update')}" if steps else "is in the middle of a cycle"
    yield ScheduleFinding(
        "never_ends",
        "warning",
        f"the schedule {made} when the run ends after {counted(curve.updates, 'update')}: {share}",
        why="The decay is what lowers the loss at the end of a run",
        update=curve.updates - 1,
    )


def _dropped_iterations(curve: Curve) -> Iterator[ScheduleFinding]:
    facts = curve.facts
    left = (facts.iters or 0) % facts.accumulation
    if left and (facts.iters or 0) > facts.accumulation:
        yield ScheduleFinding(
            "accumulation_mismatch",
            "note",
            f"{counted(facts.iters or 0, 'iteration')} are not a multiple of accumulation {facts.accumulation}: "
            f"{counted(left, 'iteration')} left over",
            why="mlx-lm discards them; mlxsched makes a smaller last update of them",
            update=curve.updates - 1,
        )


SHAPE_CHECKS: tuple[Callable[[Curve], Iterator[ScheduleFinding]], ...] = (
    _no_warmup,
    _warmup_too_long,
    _never_peaks,
    _warmup_target,
    _adam_early_excess,
    _spike,
    _cliff,
    _staircase,
    _flat,
    _too_steep,
    _too_slow,
    _never_ends,
    _dropped_iterations,
)
