"""Whether a schedule suits its run: findings from the rate of every update and a few facts of the run.

A healthy curve rises over a short warmup, holds or falls gradually, and ends low when the run ends. Each check looks for
one departure from that. The thresholds are rules of thumb, which the comments give with their source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mlxsched.analysis.schedule_health import decay, jumps, run, warmup
from mlxsched.analysis.schedule_health.curve import LOW, Curve, RunFacts, ScheduleFinding
from mlxsched.analysis.schedule_health.warmup import LONG_WARMUP
from mlxsched.schedules.base import Schedule

__all__ = ["LONG_WARMUP", "LOW", "Curve", "RunFacts", "ScheduleFinding", "is_healthy", "schedule_health"]

SHAPE_CHECKS: tuple[Callable[[Curve], Iterator[ScheduleFinding]], ...] = (
    warmup.no_warmup,
    warmup.warmup_too_long,
    warmup.never_peaks,
    warmup.warmup_target,
    warmup.adam_early_excess,
    jumps.spike,
    jumps.cliff,
    jumps.staircase,
    decay.flat,
    decay.too_steep,
    decay.too_slow,
    decay.never_ends,
    run.dropped_iterations,
)


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
        return list(run.zero_updates(facts))
    curve = Curve(schedule, facts)
    checks = SHAPE_CHECKS if curve.peak > 0 and facts.updates > 2 else ()
    found = [*run.zero_updates(facts), *run.rate(curve), *(one for check in checks for one in check(curve))]
    return sorted(found, key=lambda finding: finding.update)


def is_healthy(findings: list[ScheduleFinding]) -> bool:
    """Whether none of the findings is an error or a warning."""
    return all(finding.severity == "note" for finding in findings)
