"""`Schedule`, the base of all: a frozen value that is called with a step.

A subclass is a frozen dataclass with a lower-case name (it is used like a function, as MLX's factories are), with
fields annotated by the names of `checks`, and with `_value(step, ops)`: the formula, written once for
Python, NumPy and MLX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeAlias, overload

import mlx.core as mx

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import (
    MLX,
    PYTHON,
    Backend,
    Number,
    mlx_step,
    numpy_array,
    numpy_backend,
    whole_step,
)
from mlxsched.schedules.fields import checked
from mlxsched.schedules.fields import steps as checked_steps

if TYPE_CHECKING:
    import numpy as np

    FloatArray: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

SCAN_LIMIT = 20_000_000
"""Steps that `extrema` is willing to look at one by one."""


class Phase(NamedTuple):
    """A named stretch of a schedule: updates `start` to `end`, without `end`; None is for ever."""

    name: str
    start: int
    end: int | None


class Extrema(NamedTuple):
    """The least and the greatest rate over a range of updates, each with the first update that has it."""

    low: float
    low_at: int
    high: float
    high_at: int


@dataclass(frozen=True)
class Schedule:
    """A learning rate as a function of the update's index, 0 for the first.

    ``int`` in gives ``float`` out (float64 arithmetic), a NumPy array gives a float64 array, an ``mx.array``
    gives a fresh float32 ``mx.array`` and can be traced by ``mx.compile``. Negative steps count as 0.
    Schedules are immutable, comparable, hashable and picklable, and their ``repr`` is a spec that
    `mlxsched.parse` reads.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            value = checked(str(field.type), field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        self._check()

    @overload
    def __call__(self, step: mx.array) -> mx.array: ...
    @overload
    def __call__(self, step: np.ndarray[Any, Any]) -> FloatArray: ...
    @overload
    def __call__(self, step: float) -> float: ...
    def __call__(self, step: Any) -> Any:
        if isinstance(step, mx.array):
            return MLX.full(step, self._value(mlx_step(step), MLX))
        array = numpy_array(step)
        if array is None:
            return float(self._value(whole_step(step), PYTHON))
        ops = numpy_backend()
        return ops.full(array, self._value(ops.maximum(array.astype("int64"), 0), ops))

    # What a subclass says about itself

    def _check(self) -> None:
        """Tests that concern several fields; raises ScheduleError."""

    def _value(self, step: Number, ops: Backend) -> Number:
        """The rate at `step`, a whole number or an int64 array of them, none below 0.

        A rate that is the same at every step may be returned as one number.
        """
        raise NotImplementedError

    def _knots(self, last: int) -> tuple[int, ...] | None:
        """Steps up to `last` between which the schedule neither turns nor jumps; None where they are not known.

        A jump at step b is given as the two knots b - 1 and b, a flat stretch by its first step. Steps 0 and
        `last` need no mention, and steps beyond `last` do no harm.
        """
        return None

    if TYPE_CHECKING:
        # Only for the type checker: many subclasses have a field of this name, and dataclasses would take an
        # inherited property for the field's default.
        @property
        def steps(self) -> int | None:
            """The update from which on the rate no longer changes; None for a schedule without an end."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The named stretches in order; the last one goes on for ever."""
        return (Phase(type(self).__name__, 0, None),)

    # What is the same for all

    def replace(self, **changes: Any) -> Self:
        """A copy with some arguments changed.

        Raises:
            ScheduleError: there is no such argument, or its value does not fit.
        """
        names = [field.name for field in fields(self)]
        for name in changes:
            if name not in names:
                raise ScheduleError(
                    f"`{name}` is not an argument of {type(self).__name__}; it has {', '.join(names)}."
                )
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The dictionary form: ``{"name": ..., argument: value, ...}``, ready for YAML and JSON.

        Raises:
            ScheduleError: a user's own function is part of the schedule, which has no dictionary form.
        """
        from mlxsched.schedules.serialization import to_dict

        return to_dict(self)

    def extrema(self, steps: int | None = None) -> Extrema:
        """The exact least and greatest rate over updates 0 to `steps` (default: the schedule's own steps).

        Raises:
            ScheduleError: the schedule has no end and `steps` is not given, or there are too many to scan.
        """
        last = self.horizon(steps)
        knots = self._knots(last)
        if knots is None:
            return _scan(self, last)
        marks = sorted({0, last, *(min(knot, last) for knot in knots)})
        values = [(self(mark), mark) for mark in marks]
        low, high = min(values), max(values, key=lambda pair: (pair[0], -pair[1]))
        return Extrema(low[0], low[1], high[0], high[1])

    def sample(self, points: int = 200, steps: int | None = None) -> tuple[list[int], list[float]]:
        """At most `points` + 1 evenly spaced updates from 0 to `steps`, knots among them, and their rates."""
        last = self.horizon(steps)
        points = min(checked_steps("points", points), last)
        knots = [knot for knot in self._knots(last) or () if knot <= last]
        marks = {last * index // points for index in range(points + 1)}
        if len(knots) <= points:
            marks.update(knots)
        at = sorted(marks)
        return at, [self(step) for step in at]

    def table(self, steps: int | None = None) -> list[float]:
        """The rate of every update from 0 to `steps`, both included."""
        import numpy as np

        values: list[float] = self(np.arange(self.horizon(steps) + 1)).tolist()
        return values

    def horizon(self, steps: int | None = None) -> int:
        """`steps` if given, else the schedule's own; refuses when neither is known."""
        if steps is not None:
            return checked_steps("steps", steps)
        if self.steps is None:
            raise ScheduleError(
                f"`steps` must be given for {type(self).__name__}, which has no end; got None. Say how many updates."
            )
        return max(self.steps, 1)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Endless(Schedule):
    """A schedule that changes for ever, or never."""

    @property
    def steps(self) -> int | None:
        """None: there is no update from which on the rate no longer changes."""
        return None


Part: TypeAlias = Schedule | Callable[[Any], Any]
"""A schedule, or a user's own function of the step."""


def value_of(part: Part, step: Number, ops: Backend) -> Number:
    """The rate of a schedule or of a user's own function, in the backend's own kind of number."""
    if isinstance(part, Schedule):
        return part._value(step, ops)
    if ops is PYTHON:
        return float(part(step))
    # A user's function is made for MLX, so NumPy's steps go through it as MLX arrays.
    result = part(step if ops is MLX else mx.array(step))
    if not isinstance(result, mx.array):
        return float(result)
    if ops is MLX:
        return result.astype(mx.float32)
    import numpy as np

    return np.array(result.astype(mx.float32), np.float64)


def check_part(name: str, part: object) -> None:
    """Refuse what is neither a schedule nor a function."""
    if not callable(part):
        raise ScheduleError(
            f"`{name}` must be a schedule or a function of the step; got {part!r}. For a fixed rate, use constant({part!r})."
        )


def steps_of(part: Part) -> int | None:
    """A part's steps; a user's function has none that we know of."""
    return part.steps if isinstance(part, Schedule) else None


def knots_of(part: Part, last: int) -> tuple[int, ...] | None:
    """A part's knots; those of a user's function are not known."""
    return part._knots(last) if isinstance(part, Schedule) else None


def phases_of(part: Part, start: int, end: int | None) -> list[Phase]:
    """A part's phases when it runs from update `start` to `end`."""
    if not isinstance(part, Schedule):
        return [Phase(getattr(part, "__name__", "function"), start, end)]
    placed = [(p.name, start + p.start, end if p.end is None else start + p.end) for p in part.phases]
    cut = [
        # What ends before another one takes over is held until then.
        Phase(
            "hold" if name == "end" and end else name,
            first,
            last if end is None or last is None else min(last, end),
        )
        for name, first, last in placed
    ]
    return [phase for phase in cut if phase.end is None or phase.start < phase.end]


def _scan(schedule: Schedule, last: int) -> Extrema:
    """Extrema by looking at every step: exact, since steps are whole numbers."""
    import numpy as np

    if last > SCAN_LIMIT:
        raise ScheduleError(
            f"`steps` must be at most {SCAN_LIMIT} to find the extrema of {type(schedule).__name__}; got {last}."
        )
    values = schedule(np.arange(last + 1))
    low, high = int(values.argmin()), int(values.argmax())
    return Extrema(float(values[low]), low, float(values[high]), high)
