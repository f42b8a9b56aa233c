"""Charts of schedules: one or several over the same updates, and the small chart in a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlxsched.render.chart import Chart, Mark, Series
from mlxsched.render.terminal import Look, draw, look_of_stdout
from mlxsched.schedules.base import Schedule

POINTS = 1000
DEFAULT_STEPS = 1000
"""Updates that are drawn if neither the caller nor a schedule says how many."""
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
    marked. ``log`` makes the rate's axis logarithmic.
    """
    steps = steps or max((schedule.steps or 0 for _, schedule in schedules), default=0) or DEFAULT_STEPS
    series = tuple(Series(name, *schedule.sample(points, steps)) for name, schedule in schedules)
    alone = len(schedules) == 1
    title = schedules[0][0] if alone else f"{len(schedules)} schedules"
    marks = phase_marks(schedules[0][1], steps) if alone else ()
    return Chart(title, "update", "learning rate", series, log_y=log, marks=marks)


def phase_marks(schedule: Schedule, steps: int) -> tuple[Mark, ...]:
    """The start of each phase before ``steps``; none if there is only one phase, or too many."""
    begun = [phase for phase in schedule.phases if phase.start < steps]
    if not 2 <= len(begun) <= MOST_MARKS:
        return ()
    return tuple(Mark(phase.start, phase.name) for phase in begun)


def small_picture(schedule: Schedule, *, steps: int | None = None, look: Look | None = None) -> str:
    """A schedule in about 60 by 10 characters, for the plan that is printed before a run.

    >>> from mlxsched.schedules import warmup_linear
    >>> print(small_picture(warmup_linear(2e-4, 100, 20)).splitlines()[0])
    learning rate
    """
    look = look or replace(look_of_stdout(60, 10), color=False)
    chart = schedule_chart([("", schedule)], steps=steps, points=2 * look.width)
    return draw(chart, look)
