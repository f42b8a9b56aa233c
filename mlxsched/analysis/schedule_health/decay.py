"""Checks of the way down: whether there is a decay, how fast it is, and where the run ends in it."""

from __future__ import annotations

from collections.abc import Iterator

from mlxsched.analysis.findings import Severity
from mlxsched.analysis.schedule_health.curve import LOW, Curve, ScheduleFinding
from mlxsched.text import counted, number

SLOW = 0.25  # share of the peak: a run that ends above it has hardly decayed
STEEP = 0.3  # share of the updates after the peak that must have at least LOW of it
TINY = 200  # updates; a constant rate is common in tests and on tiny data


def flat(curve: Curve) -> Iterator[ScheduleFinding]:
    """A constant rate, or updates at a rate of 0 at the beginning or the end."""
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


def too_steep(curve: Curve) -> Iterator[ScheduleFinding]:
    """A long decay that is below a tenth of the peak for most of its length."""
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


def too_slow(curve: Curve) -> Iterator[ScheduleFinding]:
    """A decay whose last rate is still a large share of the peak."""
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


def never_ends(curve: Curve) -> Iterator[ScheduleFinding]:
    """A decay that is planned for more updates than the run makes."""
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
