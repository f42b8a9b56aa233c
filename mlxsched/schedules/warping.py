"""A schedule at another speed: what stretches or squeezes a shape when the length of its run changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import PYTHON, Backend, Number
from mlxsched.schedules.base import Phase
from mlxsched.schedules.combinators import Wrapped
from mlxsched.schedules.fields import Count, Rate, ascending
from mlxsched.schedules.parts import knots_of, phases_of, steps_of, value_of

# Positions are whole multiples of this part of a step, so that they are exact integers with every backend: a float32
# position has no digits left near the end of a long schedule, where the rate is a small difference.
UNIT = 2**16
MOST = 2**62  # the largest product of updates and units between two points that int64 holds


@dataclass(frozen=True)
class warp(Wrapped):
    """A schedule that is walked through at another speed, which may change on the way.

    Formula: rate(t) = schedule(position(t)) with straight lines from position(updates[i]) = positions[i] to the next one;
        positions[0] before the first point, and the last one after the last. A position between two steps
        gives the value in proportion between theirs
    When: to end a shape earlier or later than it was made for, without a jump of the rate.
    Source: Budgeted training of Li et al. 2020 (arXiv 1905.04753): the rate follows the share of the budget that is spent
    Spec: warp(schedule=warmup_cosine(peak=2e-4, steps=1000, warmup=100), updates=[0, 100, 400], positions=[0, 100, 1000])

    Args:
        schedule: what is walked through.
        updates: ascending.
        positions: the step of `schedule` at each of them; kept to 1/65536 of a step. Falling ones walk back.

    Raises:
        ScheduleError: `schedule` is no schedule, the points are not in order, or two of them are too far apart for
            exact integer arithmetic (updates times steps between them 2^46 or more).

    >>> from mlxsched import linear
    >>> schedule = warp(linear(1e-3, 100), updates=[0, 50, 60], positions=[0, 50, 100])
    >>> schedule(50), schedule(55), schedule(60)
    (0.0005, 0.00025, 0.0)
    """

    updates: Sequence[Count]
    positions: Sequence[Rate]

    def _check(self) -> None:
        super()._check()
        ascending("updates", self.updates)
        if len(self.updates) < 2 or len(self.updates) != len(self.positions):
            raise ScheduleError(
                f"`positions` must be as many as `updates`, at least two; got {len(self.positions)} and "
                f"{len(self.updates)}. Give one position for each update."
            )
        if (
            max(length * abs(rise) for _, length, _, rise in self._stretches()) >= MOST
            or max(self._units()) >= MOST
        ):
            raise ScheduleError(
                f"`positions` must be closer together; got {max(self.positions):g} in {self.updates[-1]} updates. "
                "Updates times steps between two points must be below 2^46."
            )
        kept = tuple(units / UNIT for units in self._units())
        object.__setattr__(self, "positions", kept)

    def _units(self) -> list[int]:
        return [round(position * UNIT) for position in self.positions]

    def _stretches(self) -> list[tuple[int, int, int, int]]:
        """First update, length, first position and its rise between each two points."""
        return [
            (start, stop - start, low, high - low)
            for (start, stop), (low, high) in zip(
                pairwise(self.updates), pairwise(self._units()), strict=True
            )
        ]

    def position(self, update: int) -> float:
        """The step of the inner schedule that `update` is at.

        >>> warp(lambda step: 0.1, [10, 20], [10, 60]).position(11)
        15.0
        """
        return float(self._position(update, PYTHON)) / UNIT

    def _position(self, step: Number, ops: Backend) -> Number:
        """The position in units: a stretch that is over adds all of its rise or fall, exactly."""
        position = self._units()[0]
        for start, length, _, rise in self._stretches():
            done = ops.done(step, start, length)
            # Rounded down either way. Negative numbers are not divided: backends round those differently.
            position = position + (
                done * rise // length if rise >= 0 else -((done * -rise + length - 1) // length)
            )
        return position

    def _value(self, step: Number, ops: Backend) -> Number:
        units = self._position(step, ops)
        one = value_of(self.schedule, units // UNIT, ops)
        other = value_of(self.schedule, units // UNIT + 1, ops)
        share = ops.real(units % UNIT) / UNIT
        # Weights, not one + (other - one) * share: near the end of a decay that difference has no digits.
        return ops.minimum(one * (1 - share) + other * share, ops.maximum(one, other))

    def _knots(self, last: int) -> tuple[int, ...] | None:
        """Both updates next to each knot of the inner schedule, which may fall between them.

        None for cycles: their knots are those of the first one, and a warp meets other steps of each.
        """
        furthest = int(max(self.position(last), *self.positions)) + 2
        own = knots_of(self.schedule, furthest)
        cycles = any(phase.name.startswith("cycle") for phase in phases_of(self.schedule, 0, None))
        if own is None or cycles:
            return None
        found = [update for knot in own for update in self._passes(min(knot, furthest))]
        return (0, *(max(mark, 0) for update in found for mark in (update - 1, update)), *self.updates)

    def _passes(self, step: int) -> list[int]:
        """Every update that is the first one at or beyond `step` of the inner schedule, in either direction."""
        target = step * UNIT
        return [
            start + -(-abs(target - low) * length // abs(rise))
            for start, length, low, rise in self._stretches()
            if rise and min(low, low + rise) <= target <= max(low, low + rise)
        ]

    def _reached(self, step: int) -> int | None:
        """The first update from which on the walk is at or beyond `step` of the inner schedule; None if it never is."""
        target = step * UNIT
        reached = 0 if self._units()[0] >= target else None
        for start, length, low, rise in self._stretches():
            if low < target <= low + rise:
                reached = start + -(-(target - low) * length // rise)
            elif low + rise < target <= low:
                reached = None
        return reached

    @property
    def steps(self) -> int:
        """The update from which on the rate no longer changes."""
        own = steps_of(self.schedule)
        reached = None if own is None else self._reached(own)
        return self.updates[-1] if reached is None else reached

    @property
    def phases(self) -> tuple[Phase, ...]:
        inner = [(phase.name, self._reached(phase.start)) for phase in phases_of(self.schedule, 0, None)]
        starts = [(name, 0 if index == 0 else start) for index, (name, start) in enumerate(inner)]
        reached = [(name, start) for name, start in starts if start is not None]
        ends = [start for _, start in reached[1:]]
        pairs = zip(reached, (*ends, None), strict=True)
        return tuple(Phase(name, start, end) for (name, start), end in pairs if end is None or start < end)
