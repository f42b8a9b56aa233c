"""Checks of the first updates: whether there is a warmup, how long it takes, and where it leads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlxsched.analysis.schedule_health.curve import Curve, ScheduleFinding
from mlxsched.text import counted, number

LONG_WARMUP = 0.1  # share of a run; usual warmups are 1 to 10% of it


def no_warmup(curve: Curve) -> Iterator[ScheduleFinding]:
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


def warmup_too_long(curve: Curve) -> Iterator[ScheduleFinding]:
    """A warmup over an unusually large share of the run."""
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


def never_peaks(curve: Curve) -> Iterator[ScheduleFinding]:
    """A rate that stays below the peak of its schedule."""
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


def warmup_target(curve: Curve) -> Iterator[ScheduleFinding]:
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


def adam_early_excess(curve: Curve) -> Iterator[ScheduleFinding]:
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
        else "Early updates are far larger than the schedule implies",
        update=at,
    )
