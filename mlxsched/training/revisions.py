"""Revisions of a horizon that keep the shape of its schedule: a run gets longer or shorter without a jump in its rate."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from mlxsched.errors import ScheduleError
from mlxsched.schedules import Schedule, from_dict
from mlxsched.schedules.combinators import cooldown
from mlxsched.schedules.controllers import Controller
from mlxsched.schedules.families.plateaus import trapezoid, wsd
from mlxsched.schedules.fields import duration_steps
from mlxsched.schedules.warping import warp
from mlxsched.training.pace import Horizon, RateFunction, Revision

STEEPEST = 10
"""A warmup that was planned longer gets no shorter than this many updates, so a rate rises by a tenth of its peak at most."""

LOW = 0.1
"""A rate may rise again if it is below the planned one by at least this share of the peak."""
RISE = 0.1
"""The share of the remaining updates over which it rises."""

Trunk = wsd | trapezoid | cooldown
"""Schedules whose cooldown can start at any update, since what comes before does not depend on the run's length."""


def reshaped(
    horizon: Horizon,
    at: int,
    updates: int,
    *,
    warmup: int | None = None,
    back: bool = False,
    reason: str = "",
) -> Revision:
    """The revision that ends the run after ``updates`` updates with its schedule completed.

    The rate of update ``at`` does not change; from there on:

    - A trunk with a cooldown (wsd, trapezoid, cooldown) moves the start of its cooldown. A cooldown given as a
      ratio takes that share of the revised run; one in updates keeps its length, at most half of the run. If less than that
      is left, it starts at once and takes what is left.
    - Any other shape with an end is traversed faster or slower, so that the rest of it is spread over the
      remaining updates: ``rate(u) = shape(position(u))``, where position(at) is unchanged and position(updates) is the
      shape's end.
    - A warmup that is not over keeps its pace in a run that gets longer, and shrinks with the shape in one that gets
      shorter, to no less than a warmup of `STEEPEST` updates in all. Its peak falls on a whole update, so it is reached. If
      that would take more than half of what is left, the rate rises for that half and decays from there: the warp skips
      the part of the shape that is above.
    - A shape without an end, an adaptive schedule, and a user's own function keep their values: the run is cut to
      ``updates``.

    - With ``back``, a rate that is far below that of a run planned for ``updates`` first rises to it.

    Repeated revisions traverse the original shape and never nest.

    Args:
        horizon: of the run so far.
        at: the next update; those before it keep their rates.
        updates: the new length of the run, ``at`` or more.
        warmup: the update at which an unfinished warmup reaches its peak, if later than by the rule above.
        back: whether the rate may rise again after it has begun to decay.
        reason: what a reader of the run should know.

    >>> from mlxsched.schedules import warmup_linear
    >>> horizon = Horizon(100, warmup_linear(1e-3, 100))
    >>> shorter = horizon.revise(reshaped(horizon, at=50, updates=60))
    >>> shorter.rate(49), shorter.rate(50), shorter.rate(55), shorter.rate(60)
    (0.00051, 0.0005, 0.00025, 0.0)
    """
    schedule = _with_end(horizon.schedule)
    cut = Revision(at, updates, None, reason)
    if updates <= at or schedule is None:
        return cut
    walk = _walk(schedule, horizon, at)
    if walk.position >= (walk.shape.steps or 0):
        return cut
    if _soonest(walk, at) > _last_rise(at, updates):
        return Revision(at, updates, _without_peak(walk, at, updates).to_dict(), reason)
    peak_at = _peak_at(walk, at, updates, warmup)
    revised = (
        _moved(schedule, peak_at, at, updates)
        or (_risen(schedule, walk, at, updates) if back else None)
        or _rewarped(walk, peak_at, at, updates)
    )
    return Revision(at, updates, revised.to_dict(), reason)


def cuts_warmup(revision: Revision) -> bool:
    """Whether ``revision`` leaves no time for the peak: the rate decays from somewhere below it."""
    schedule = from_dict(dict(revision.schedule)) if revision.schedule else None
    if not isinstance(schedule, warp) or not isinstance(schedule.schedule, Schedule):
        return False
    length = warmup_of(schedule.schedule)
    return length > 0 and schedule.extrema().high < (1 - 1e-6) * schedule.schedule(length)


def rises_again(revision: Revision) -> bool:
    """Whether ``revision`` first walks back, to a higher rate."""
    schedule = from_dict(dict(revision.schedule)) if revision.schedule else None
    if not isinstance(schedule, warp):
        return False
    return schedule.position(revision.at + STEEPEST) < schedule.position(revision.at)


class _Walk(NamedTuple):
    """A shape, the points of its warp so far, the present position, and its end."""

    shape: Schedule
    points: list[tuple[int, float]]
    position: float
    end: float


def _with_end(schedule: RateFunction) -> Schedule | None:
    """``schedule`` if it ends at a known update, can be saved, and does not follow a metric; else None."""
    if not isinstance(schedule, Schedule) or isinstance(schedule, Controller) or schedule.steps is None:
        return None
    try:
        schedule.to_dict()
    except ScheduleError:  # a user's own function is a part of it
        return None
    return schedule


def _walk(schedule: Schedule, horizon: Horizon, at: int) -> _Walk:
    if isinstance(schedule, warp) and isinstance(schedule.schedule, Schedule):
        points = list(zip(schedule.updates, schedule.positions, strict=True))
        kept = [(update, position) for update, position in points if update < at]
        return _Walk(schedule.schedule, kept, schedule.position(at), schedule.positions[-1])
    # A staircase may take its last step long before the run's end: the run is what is stretched then.
    end = max(schedule.steps or 0, horizon.updates)
    return _Walk(schedule, [(0, 0.0)] if at else [], at, end)


def _peak_at(walk: _Walk, at: int, updates: int, warmup: int | None) -> int | None:
    """The update at which the warmup reaches its peak; None where it is over."""
    length = warmup_of(walk.shape)
    if walk.position >= length:
        return None
    speed = max((walk.end - walk.position) / (updates - at), 1.0)
    reached = at + math.ceil((length - walk.position) / speed)
    return min(max(warmup or 0, reached, _soonest(walk, at)), updates - 1)


def _steepest(walk: _Walk) -> float:
    """The most steps of a warmup that an update may make."""
    return max(warmup_of(walk.shape) / STEEPEST, 1.0)


def _soonest(walk: _Walk, at: int) -> int:
    """The first update that may have the peak; ``at`` where the warmup is over."""
    return at + max(math.ceil((warmup_of(walk.shape) - walk.position) / _steepest(walk)), 0)


def _last_rise(at: int, updates: int) -> int:
    """The update after which the rest of the run decays at the latest."""
    return at + (updates - at - 1) // 2


def _without_peak(walk: _Walk, at: int, updates: int) -> warp:
    """The shape with its warmup up to `_last_rise`, and the decay from the rate that is reached there."""
    top = _last_rise(at, updates)
    reached = walk.position + (top - at) * _steepest(walk)
    points = {**dict(walk.points), at: walk.position, top: reached}
    if top + 1 < updates:
        points[top + 1] = _decayed(walk, reached, 1 / (updates - top))
    points[updates] = walk.end
    return warp(walk.shape, tuple(points), tuple(points.values()))


def _decayed(walk: _Walk, reached: float, share: float) -> float:
    """The position after which no rate is above that of ``reached`` less ``share`` of the way to the end's rate.

    ``reached`` is in the warmup. Restarts above the target are skipped as well.
    """
    rates, step, part = walk.shape.table(int(walk.end)), int(reached), reached % 1
    rate = rates[step] * (1 - part) + rates[step + 1] * part  # as `warp` has it between two steps
    return _fallen_to(rates, rate + share * (rates[-1] - rate), warmup_of(walk.shape))


def _fallen_to(rates: Sequence[float], target: float, first: int) -> float:
    """The position, ``first`` or later, after which none of the ``rates`` is above ``target``."""
    last = len(rates) - 1
    above = next((step for step in range(last, first - 1, -1) if rates[step] > target), first)
    if above == last or rates[above] <= target:
        return float(above)
    return above + (rates[above] - target) / (rates[above] - rates[above + 1])


def _risen(schedule: Schedule, walk: _Walk, at: int, updates: int) -> warp | None:
    """The shape from where a run planned for ``updates`` would be, after a rise to its rate there.

    None if the rate is not far below that one, if too little is left of the run, or if the shape has a restart on the way.
    The rise takes a tenth of what is left, in `STEEPEST` steps of the same height: walked back at an even pace, 1-sqrt would
    rise by a third of the peak in the last of ten.
    """
    rates = walk.shape.table(int(walk.end))
    top = rates.index(max(rates))
    position_of: Callable[[int], float] = schedule.position if isinstance(schedule, warp) else float
    began = bisect_left(range(at), float(top), key=position_of)
    length = max(round(RISE * (updates - at)), STEEPEST)
    if began >= at or 2 * length > updates - at:
        return None
    planned = _rewarped(_Walk(walk.shape, [], float(top), walk.end), None, began, updates)
    rate, goal = schedule(at), planned(at + length)
    passed, least = rates[: math.ceil(walk.position) + 1], int(planned.position(at + length))
    back = passed[least:]  # empty if the planned run is ahead of the walk: a restart may lie between them
    if goal - rate < LOW * rates[top] or not back or any(one < other for one, other in pairwise(back)):
        return None
    points = [*walk.points, (at, walk.position)]
    for step in range(1, STEEPEST + 1):
        share = step / STEEPEST
        points.append((at + round(share * length), _fallen_to(passed, rate + share * (goal - rate), least)))
    reached, position = points.pop()
    return _rewarped(_Walk(walk.shape, points, position, walk.end), None, reached, updates)


def warmup_of(schedule: Schedule) -> int:
    """Updates of the warmup that a schedule begins with; 0 without one."""
    first = schedule.phases[0]
    return int(first.end or 0) if first.name == "warmup" else 0


def cooldown_of(schedule: Trunk, updates: int) -> int:
    """Updates of the cooldown of ``schedule`` in a run of ``updates``.

    >>> from mlxsched.schedules import wsd
    >>> cooldown_of(wsd(1e-3, 100), 500), cooldown_of(wsd(1e-3, 100, decay=20), 500)
    (100, 20)
    """
    if not isinstance(schedule, cooldown) and isinstance(schedule.decay, float):
        return max(duration_steps(schedule.decay, updates), 1)
    return max(min(schedule.decay_steps, updates // 2), 1)


def _moved(schedule: Schedule, peak_at: int | None, at: int, updates: int) -> Schedule | None:
    """A trunk with its cooldown at the end of the new run; None if more than that has to change."""
    if not isinstance(schedule, Trunk):
        return None
    length = cooldown_of(schedule, updates)
    start = updates - length
    warmup = warmup_of(schedule)
    if not at <= min(start, schedule.steps - schedule.decay_steps) or warmup > start:
        return None
    if peak_at is not None and peak_at != warmup:
        return None
    if isinstance(schedule, cooldown):
        return schedule.replace(start=start, decay_steps=length)
    # A ratio stays one: the next revision would otherwise keep the length of this one.
    decay = schedule.decay if isinstance(schedule.decay, float) else length
    return schedule.replace(steps=updates, warmup=warmup, decay=decay)


def _rewarped(walk: _Walk, peak_at: int | None, at: int, updates: int) -> warp:
    """The shape warped through the old points, the present one, the end of the warmup, and the shape's end."""
    points = [*walk.points, (at, walk.position)]
    if peak_at is not None and peak_at > at:
        points.append((peak_at, float(warmup_of(walk.shape))))
    if isinstance(walk.shape, wsd | trapezoid):
        fall = walk.shape.steps - walk.shape.decay_steps
        start = updates - cooldown_of(walk.shape, updates)
        last, position = points[-1]
        if position < fall and start > last:
            points.append((start, float(fall)))
        # Otherwise the stable part is skipped: at once, or in one update after a warmup, whose rates must not change.
        elif position < fall and last == at:
            points[-1] = (last, float(fall))
        elif position < fall and last + 1 < updates:
            points.append((last + 1, float(fall)))
    points.append((updates, float(walk.end)))
    marks, positions = zip(*points, strict=True)
    return warp(walk.shape, marks, positions)
