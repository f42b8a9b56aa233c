"""Building blocks of other libraries' names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlxsched.errors import ScheduleError
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.compat.mlx import join_schedules
from mlxsched.schedules.families.decays import linear
from mlxsched.schedules.families.tables import piecewise
from mlxsched.schedules.families.whole_run import constant
from mlxsched.schedules.fields import as_rate, shown
from mlxsched.text import did_you_mean


def after_warmup(init: float, peak: float, warmup: int, rest: Schedule) -> Schedule:
    """A straight line from `init` to `peak` in `warmup` updates, then `rest`, counted from its own start."""
    return join_schedules([linear(init, warmup, peak), rest], [warmup]) if warmup else rest


def line(init: float, end: float, steps: int) -> Schedule:
    """A straight line; if it has no length, its end."""
    return linear(init, steps, end) if steps > 0 else constant(end)


def chain(parts: Sequence[tuple[int, Schedule]], last: Schedule) -> Schedule:
    """Each schedule for its number of updates, then `last`; those of no length are skipped."""
    marks, end = [], 0
    for length, _ in parts:
        end += length
        marks.append(end)
    kept = [(mark, part) for mark, (length, part) in zip(marks, parts, strict=True) if length > 0]
    if not kept:
        return last
    return join_schedules([*(part for _, part in kept), last], [mark for mark, _ in kept])


def stairs(values: Mapping[int, float]) -> Schedule:
    """The value of the last key at or before the step; the first key is 0."""
    steps = sorted(values)
    return piecewise(steps, [values[step] for step in steps], shape="constant")


def boundaries(pairs: Mapping[Any, float] | Sequence[Sequence[float]] | None) -> list[tuple[int, float]]:
    """optax's ``{boundary: scale}``, sorted; a spec, which has no mappings, gives pairs instead."""
    items = pairs.items() if isinstance(pairs, Mapping) else pairs or ()
    try:
        return sorted((int(step), as_rate("boundaries_and_scales", scale)) for step, scale in items)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ScheduleError):
            raise
        raise ScheduleError(
            f"`boundaries_and_scales` must be {{boundary: scale}} or [[boundary, scale], ...]; got {shown(pairs)}."
        ) from None


def called(function: Callable[..., Schedule], name: str, arguments: Mapping[str, Any]) -> Schedule:
    """``function(**arguments)``; an unknown or a missing argument is refused by name."""
    known = inspect.signature(function).parameters
    for key in arguments:
        if key not in known:
            near = did_you_mean(key, list(known)) if isinstance(key, str) else ""
            raise ScheduleError(f"{name} has no argument `{key}`; it has {', '.join(known)}.{near}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise ScheduleError(f"{name} needs `{key}`; got {', '.join(arguments) or 'nothing'}. Add it.")
    return function(**arguments)
