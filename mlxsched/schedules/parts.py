"""Parts of a composed schedule: each is a `Schedule` or a user's own function of the step.

The combinators ask these functions instead of the part itself, so a plain function is accepted wherever a schedule is. It
has values but no knots, no steps and no dictionary form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import mlx.core as mx

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import MLX, PYTHON, Backend, Number
from mlxsched.schedules.base import Phase, Schedule
from mlxsched.schedules.fields import shown

Part: TypeAlias = Schedule | Callable[[Any], Any]
"""A schedule, or a user's own function of the step."""


def value_of(part: Part, step: Number, ops: Backend) -> Number:
    """The rate of a part, in the backend's own kind of number."""
    if isinstance(part, Schedule):
        return part._value(step, ops)
    if ops is PYTHON:
        return float(part(step))
    # A user's function is written for MLX, so NumPy steps go through it as MLX arrays.
    result = part(step if ops is MLX else mx.array(step))
    if not isinstance(result, mx.array):
        return float(result)
    if ops is MLX:
        return result.astype(mx.float32)
    import numpy as np

    return np.array(result.astype(mx.float32), np.float64)


def checked_part(name: str, part: object) -> Part:
    """`part`, refused if it is neither a schedule nor a function."""
    if callable(part):
        return part
    hint = f" For a fixed rate, use constant({part!r})." if isinstance(part, int | float) else ""
    raise ScheduleError(f"`{name}` must be a schedule or a function of the step; got {shown(part)}.{hint}")


def steps_of(part: Part) -> int | None:
    """A part's steps; None for a user's function."""
    return part.steps if isinstance(part, Schedule) else None


def knots_of(part: Part, last: int) -> tuple[int, ...] | None:
    """A part's knots; None for a user's function."""
    return part._knots(last) if isinstance(part, Schedule) else None


def phases_of(part: Part, start: int, end: int | None) -> list[Phase]:
    """A part's phases when it runs from update `start` to `end`."""
    if not isinstance(part, Schedule):
        return [Phase(getattr(part, "__name__", "function"), start, end)]
    placed = [(p.name, start + p.start, end if p.end is None else start + p.end) for p in part.phases]
    cut = [
        # A part that ends before the next one takes over holds its last rate until then.
        Phase(
            "hold" if name == "end" and end else name,
            first,
            last if end is None or last is None else min(last, end),
        )
        for name, first, last in placed
    ]
    return [phase for phase in cut if phase.end is None or phase.start < phase.end]
