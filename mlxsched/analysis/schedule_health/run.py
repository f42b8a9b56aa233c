"""Checks of the rates against the run: its length, its iterations, and the peaks that suit its optimizer."""

from __future__ import annotations

from collections.abc import Iterator

from mlxsched.analysis.schedule_health.curve import Curve, RunFacts, ScheduleFinding
from mlxsched.text import counted, number


def zero_updates(facts: RunFacts) -> Iterator[ScheduleFinding]:
    """Too few iterations for one update."""
    short = facts.iters is not None and facts.iters < facts.accumulation
    if short or facts.updates < 1:
        yield ScheduleFinding(
            "zero_updates",
            "error",
            f"{counted(facts.iters or 0, 'iteration')} with accumulation {facts.accumulation} make no full update",
            why="mlx-lm updates after every `grad_accumulation_steps` iterations, and would train nothing",
        )


def rate(curve: Curve) -> Iterator[ScheduleFinding]:
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


def dropped_iterations(curve: Curve) -> Iterator[ScheduleFinding]:
    """Iterations that don't fill the last update."""
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
