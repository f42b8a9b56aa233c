"""Charts of schedules: one or several over the same updates, and the small chart in a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlxsched.render.chart import Chart, Mark, Series
from mlxsched.render.terminal import Look, draw, look_of_stdout
from mlxsched.schedules import log_sweep
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.controllers import Controller

POINTS = 1000
DEFAULT_STEPS = 1000
"""Updates that are drawn if neither the caller nor a schedule says how many."""
OBSERVATIONS = 20
"""Evaluations of the run in the picture of a controller."""
MOST_MARKS = 12
"""With more phases than this, as in a long run with restarts, their marks would hide the curve."""


def schedule_chart(
    schedules: Sequence[tuple[str, Schedule]],
    *,
    steps: int | None = None,
    points: int = POINTS,
    log: bool = False,
) -> Chart:
    """The rates of named schedules over updates 0 to ``steps`` (default: those of the longest that has an end).

    ``points`` is the number of intervals; boundaries of phases are always included. The phases of a single schedule are
    marked. ``log`` makes the rate's axis logarithmic, as it always is for a `log_sweep` alone. A controller acts on
    `metric_of_a_picture`.
    """
    steps = steps or max((schedule.steps or 0 for _, schedule in schedules), default=0) or DEFAULT_STEPS
    series = tuple(Series(name, *_sampled(schedule, points, steps)) for name, schedule in schedules)
    log = log or all(isinstance(schedule, log_sweep) for _, schedule in schedules)
    alone = len(schedules) == 1
    title = schedules[0][0] if alone else f"{len(schedules)} schedules"
    marks = phase_marks(schedules[0][1], steps) if alone else ()
    return Chart(title, "update", "learning rate", series, log_y=log, marks=marks)


def _sampled(schedule: Schedule, points: int, steps: int) -> tuple[list[int], list[float]]:
    """Steps and rates; a controller without a metric would be drawn as if it did nothing."""
    at, rates = schedule.sample(points, steps)
    if not isinstance(schedule, Controller):
        return at, rates
    live, observed = schedule.live(), 0
    for index, step in enumerate(at):
        while (observed + 1) * steps <= step * OBSERVATIONS:
            observed += 1
            live.observe(metric_of_a_picture(observed / OBSERVATIONS))
        rates[index] = float(live(step))
    return at, rates


def metric_of_a_picture(progress: float) -> float:
    """A validation loss that falls for a third of the run and then stays where it is.

    >>> [metric_of_a_picture(progress) for progress in (0.0, 1 / 3, 1.0)]
    [2.0, 1.0, 1.0]
    """
    return 2.0 - min(3 * progress, 1.0)


def phase_marks(schedule: Schedule, steps: int) -> tuple[Mark, ...]:
    """The start of each phase before ``steps``; none if there is only one phase, or too many."""
    begun = [phase for phase in schedule.phases if phase.start < steps]
    if not 2 <= len(begun) <= MOST_MARKS:
        return ()
    return tuple(Mark(phase.start, phase.name) for phase in begun)


def small_picture(
    schedule: Schedule, *, steps: int | None = None, look: Look | None = None, marks: Sequence[Mark] = ()
) -> str:
    """A schedule in about 60 by 10 characters, for the plan that is printed before a run.

    ``marks`` are drawn in place of the phases.

    >>> from mlxsched.schedules import warmup_linear
    >>> print(small_picture(warmup_linear(2e-4, 100, 20)).splitlines()[0])
    learning rate
    """
    look = look or replace(look_of_stdout(60, 10), color=False)
    chart = schedule_chart([("", schedule)], steps=steps, points=2 * look.width)
    return draw(replace(chart, marks=tuple(marks)) if marks else chart, look)
