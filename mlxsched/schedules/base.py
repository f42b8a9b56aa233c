"""`Schedule`, the base class of every schedule: a frozen value that is called with a step.

A subclass is a frozen dataclass with a lower-case name, because it is used like a function, as MLX's factories are. Its
fields are annotated with the types of `fields`, which check them, and `_value(step, ops)` is its formula, written
once for Python, NumPy and MLX. This module imports neither the registry nor the parser: both build on it.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
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
    numpy_step,
    whole_step,
)
from mlxsched.schedules.fields import as_steps, rules_of

if TYPE_CHECKING:
    import numpy as np

    FloatArray: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

SCAN_LIMIT = 20_000_000
"""The most steps that `extrema` evaluates one by one: about a second and 160 MB of float64."""


class Phase(NamedTuple):
    """A named stretch of a schedule: updates `start` (included) to `end` (excluded); None means without end."""

    name: str
    start: int
    end: int | None


class Extrema(NamedTuple):
    """The lowest and the highest rate over a range of updates, each with the first update that has it."""

    low: float
    low_at: int
    high: float
    high_at: int


@dataclass(frozen=True)
class Schedule:
    """A learning rate as a function of the update's index, 0 for the first update.

    An ``int`` step gives a ``float`` (float64 arithmetic), a NumPy array gives a float64 array, an ``mx.array`` gives
    a new float32 ``mx.array`` and can be traced by ``mx.compile``. Negative steps count as 0. Schedules are
    immutable, comparable, hashable and picklable, and their ``repr`` is a spec that `mlxsched.parse` reads.
    """

    def __post_init__(self) -> None:
        for name, rule in rules_of(type(self)).items():
            object.__setattr__(self, name, rule(name, getattr(self, name)))
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
        return ops.full(array, self._value(numpy_step(array), ops))

    # What a subclass defines

    def _check(self) -> None:
        """Checks that involve several fields; raises ScheduleError."""

    def _value(self, step: Number, ops: Backend) -> Number:
        """The rate at `step`, an int or an int64 array, 0 or more.

        A rate that is the same at every step may be returned as one number.
        """
        raise NotImplementedError

    def _knots(self, last: int) -> tuple[int, ...] | None:
        """Steps up to `last` between which the schedule is monotone and continuous; None if they are unknown.

        A jump at step b is given as the two knots b - 1 and b, a flat stretch by its first step. Steps 0 and
        `last` may be left out, and steps beyond `last` are ignored.
        """
        return None

    if TYPE_CHECKING:
        # Only for the type checker: many subclasses have a field of this name, and dataclasses would take an
        # inherited property for the field's default.
        @property
        def steps(self) -> int | None:
            """The update from which on the rate no longer changes; None if it never stops changing."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The named stretches in order; the last one has no end."""
        return (Phase(type(self).__name__, 0, None),)

    # What all schedules share

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
        """The dictionary form, ``{"name": ..., argument: value, ...}``, ready for YAML and JSON.

        Schedules among the arguments become dictionaries too; `mlxsched.from_dict` reads them back.

        Raises:
            ScheduleError: a user's own function is part of the schedule, which has no dictionary form.
        """
        values = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {"name": type(self).__name__, **values}

    def extrema(self, steps: int | None = None) -> Extrema:
        """The exact lowest and highest rate over updates 0 to `steps` (default: the schedule's own steps).

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
        """At most `points` + 1 evenly spaced updates from 0 to `steps`, plus the knots, and their rates."""
        last = self.horizon(steps)
        points = min(as_steps("points", points), last)
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
        """`steps` if given, else the schedule's own steps, at least 1.

        Raises:
            ScheduleError: neither is known.
        """
        if steps is not None:
            return as_steps("steps", steps)
        if self.steps is None:
            raise ScheduleError(
                f"`steps` must be given for {type(self).__name__}, which has no end; got None. Say how many updates."
            )
        return max(math.ceil(self.steps), 1)

    def plot(self, steps: int | None = None, *, log: bool = False) -> Any:
        """A picture of the rate over `steps` updates, by default the schedule's own: a notebook shows it, `print` draws
        it in characters, and its `save(path)` writes a file. Needs matplotlib, except for `print`.
        """
        return _notebook().schedule_picture(self, steps, log=log)

    def _repr_html_(self) -> str | None:
        """What Jupyter shows: the picture above the spec; the spec alone without matplotlib or an end."""
        if self.steps is None or importlib.util.find_spec("matplotlib") is None:
            return None
        return str(_notebook().schedule_html(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Endless(Schedule):
    """A schedule that keeps changing, or never changes."""

    @property
    def steps(self) -> int | None:
        """None: there is no update from which on the rate no longer changes."""
        return None


def _notebook() -> Any:
    """The module that draws, by its name: it imports this one, and only who asks for a picture pays for it."""
    return importlib.import_module("mlxsched.render.notebook")


def to_dict(schedule: Schedule) -> dict[str, Any]:
    """The dictionary form of a schedule: `Schedule.to_dict` as a function."""
    return schedule.to_dict()


def _plain(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if callable(value):
        raise ScheduleError(
            f"a function of your own cannot be saved; got {value!r}. "
            "Use named schedules (`table` holds any values), or keep this schedule in code."
        )
    return value


def _scan(schedule: Schedule, last: int) -> Extrema:
    """The extrema by evaluating every step, which is exact because steps are whole numbers."""
    import numpy as np

    if last > SCAN_LIMIT:
        raise ScheduleError(
            f"`steps` must be at most {SCAN_LIMIT} to find the extrema of {type(schedule).__name__}; got {last}."
        )
    values = schedule(np.arange(last + 1))
    low, high = int(values.argmin()), int(values.argmax())
    return Extrema(float(values[low]), low, float(values[high]), high)
