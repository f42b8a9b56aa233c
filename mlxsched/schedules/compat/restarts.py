"""Warm restarts of any length, as other libraries have them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from mlxsched.errors import ScheduleError
from mlxsched.schedules import curves
from mlxsched.schedules.backends import LAST_STEP, MLX, PYTHON, SIDE_BY_SIDE_LIMIT, Backend, Number
from mlxsched.schedules.base import Phase, Schedule
from mlxsched.schedules.curves import HALF_PI, cosine, one_minus_power
from mlxsched.schedules.fields import MAX_COUNT, Positive, Rate, Real, Steps, one_of

HORIZON = 2**40
"""Steps for which the cycles are laid out in a table, a trillion."""
MAX_TABLE = 2**14
"""Cycles in that table; later ones are found by logarithm. Enough for a trillion steps from a multiplier of 1.0015 on."""


MAX_PHASES = 1000
"""Cycles that `phases` names one by one."""


@dataclass(frozen=True)
class restarts(Schedule):
    """Cycles that start again, of any length, as in transformers, torch, timm and keras.

    Formula: cycle i takes first * multiplier^i updates from high_i = peak * decay^i down to `end`:
        rate(t) = end + (high_i - end) * shape(p), with p the fraction of the cycle that is done; end from t = until on
    When: to have the values of a library; `cosine_restarts` covers a run with whole cycles.
    Source: Loshchilov & Hutter 2016 (arXiv 1608.03983); timm's CosineLRScheduler; keras' CosineDecayRestarts
    Spec: restarts(peak=2e-4, first=100, multiplier=2.0)

    Args:
        peak: the rate at step 0.
        first: updates of the first cycle; may be a fraction.
        multiplier: length of a cycle / length of the one before, 1 or more.
        decay: peak of a cycle / peak of the one before.
        until: the step from which on the rate is `end`; None restarts indefinitely.
        end: the rate at the end of each cycle.
        shrinks: what `decay` acts on, the whole peak (timm) or its height above `end` (keras).
        shape: cosine, polynomial ((1 - p^k)^power) or tanh ((1 - tanh(lower (1 - p) + upper p)) / 2).
        power, k: of the polynomial; `k` also bends the cosine's p to p^k.
        lower, upper: of tanh.

    Raises:
        ScheduleError: an argument does not fit.

    >>> schedule = restarts(2e-4, first=100, multiplier=2.0)
    >>> schedule(0), schedule(100), schedule(300)
    (0.0002, 0.0002, 0.0002)
    """

    peak: Rate
    first: Positive
    multiplier: Positive = 1.0
    decay: Positive = 1.0
    until: Steps | None = None
    end: Rate = 0.0
    shrinks: str = "peak"
    shape: str = "cosine"
    power: Positive = 1.0
    k: Positive = 1.0
    lower: Real = -7.0
    upper: Real = 3.0

    def _check(self) -> None:
        one_of("shrinks", self.shrinks, ("peak", "height"))
        one_of("shape", self.shape, ("cosine", "polynomial", "tanh"))
        if not 1 <= self.multiplier <= MAX_MULTIPLIER:
            raise ScheduleError(
                f"`multiplier` must be from 1 to {MAX_MULTIPLIER}; got {self.multiplier}. Cycles don't get shorter."
            )
        if not SHORTEST <= self.first <= HORIZON:
            raise ScheduleError(
                f"`first` must be from {SHORTEST} to {HORIZON} updates; got {self.first}. Give the first cycle's length."
            )

    def _value(self, step: Number, ops: Backend) -> Number:
        step = ops.minimum(step, LAST_STEP)
        if self.multiplier == 1:
            value = self._even(step, ops)
        elif ops is MLX:
            value = self._tabulated(step, ops)
        else:
            value = self._in_cycle(*self._found(step, 0, self.first, ops), ops)
        return value if self.until is None else ops.where(step < self.until, value, self.end)

    def _in_cycle(self, index: Number, done: Number, left: Number, length: Number, ops: Backend) -> Number:
        """The rate in cycle `index` with `done` of its updates done and `left` left."""
        high = self._high(index, ops)
        down = self._down(done, left, length, ops)
        return high * down + self.end * (1.0 - down) if self.end else high * down

    def _high(self, index: Number, ops: Backend) -> Number:
        """The peak of cycle `index`."""
        if self.decay == 1:
            return self.peak
        kept = ops.pow(self.decay, index)
        return self.peak * kept if self.shrinks == "peak" else self.end + (self.peak - self.end) * kept

    def _even(self, step: Number, ops: Backend) -> Number:
        """The rate in cycles of one length, all of it in whole numbers.

        A length of size / parts updates puts step t at the place t * parts mod size. The remainder by `size` is taken
        first, so that the product stays within int64.
        """
        most = min(10**6, math.isqrt(LAST_STEP // math.ceil(self.first)))
        length = Fraction(self.first).limit_denominator(most)
        size, parts = length.numerator, length.denominator
        inside, cycles = step % size, step // size
        if parts > 1:
            cycles = cycles * parts + inside * parts // size
            inside = inside * parts % size
        return self._in_cycle(ops.real(cycles), ops.real(inside), ops.real(size - inside), float(size), ops)

    def _found(
        self, step: Number, origin: int, length: float, ops: Backend
    ) -> tuple[Number, Number, Number, Number]:
        """Index, updates done, updates left and length of the cycle at `step`, by logarithm.

        Cycle i starts length * (multiplier^i - 1) / (multiplier - 1) after `origin`, where a cycle of `length` starts. The
        logarithm can be one off at a boundary, so its neighbours are compared with the step.
        """
        growth, log_growth = self.multiplier - 1.0, math.log(self.multiplier)
        place = ops.real(ops.maximum(step - origin, 0))

        def start(index: Number) -> Number:
            exact = length * ops.expm1(index * log_growth) / growth
            # A start that is whole but for rounding must not come after its own step.
            whole = ops.floor(exact + 0.5)
            return ops.where(abs(exact - whole) <= 1e-9 + 1e-13 * exact, whole, exact)

        index = ops.floor(ops.log1p(place * (growth / length)) / log_growth)
        index = ops.where(start(index) > place, index - 1.0, index)
        index = ops.where(start(index + 1.0) <= place, index + 1.0, index)
        first, last = start(index), start(index + 1.0)
        return index, place - first, last - place, last - first

    def _tabulated(self, step: Number, ops: Backend) -> Number:
        """The rate from a table of the cycles in whole numbers, because float32 cannot tell late starts apart."""
        starts = _starts(self.first, self.multiplier, min(self.until or HORIZON, HORIZON), MAX_TABLE)
        bounds, columns, fractions = _table(self, starts)

        def value(step: Number, *row: Number) -> Number:
            first, late, last, early, scale, unit, length, high = row
            done, left = step - first, last - step
            if fractions:
                done, left = done * scale - late, left * scale - early
            done, left = ops.real(ops.maximum(done, 0)), ops.real(ops.maximum(left, 0))
            if fractions:
                done, left = done * unit, left * unit
            down = self._down(ops.minimum(done, length), left, length, ops)
            return high * down + self.end * (1.0 - down) if self.end else high * down

        found = ops.choose(bounds, columns, value, step)
        if len(starts) <= MAX_TABLE:
            return found
        origin, count = math.ceil(starts[-1]), len(starts) - 1
        index, done, left, length = self._found(step, origin, self.first * self.multiplier**count, ops)
        done, left = ops.minimum(done, length), ops.maximum(left, 0.0)
        return ops.where(step < origin, found, self._in_cycle(count + index, done, left, length, ops))

    def _down(self, done: Number, left: Number, length: Number, ops: Backend) -> Number:
        """The shape, from 1 to 0."""
        if self.shape == "cosine" and self.k == 1:
            return curves.squared_sines(done * (HALF_PI / length), left * (HALF_PI / length), ops)[0]
        done, left = done / length, left / length
        if self.shape == "tanh":
            return 1.0 / (1.0 + ops.exp(2.0 * (self.lower * left + self.upper * done)))
        if self.k != 1:
            done, left = ops.pow(done, self.k), one_minus_power(done, left, self.k, ops)
        return cosine(done, left, ops)[0] if self.shape == "cosine" else ops.pow(left, self.power)

    @property
    def steps(self) -> int | None:
        """The update from which on the rate no longer changes; None without an end."""
        return self.until

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The cycles up to `until`, at most `MAX_PHASES` of them; without it, the first one and the rest."""
        last, most = (self.until, MAX_PHASES) if self.until else (LAST_STEP, 2)
        starts = _starts(self.first, self.multiplier, last, most)
        marks = sorted({min(math.ceil(start), last) for start in starts})
        named = [Phase("cycle", start, end) for start, end in itertools.pairwise(marks)]
        return *named, Phase("end" if marks[-1] == self.until else "cycles", marks[-1], None)


MAX_MULTIPLIER = 2**20
"""The largest growth from cycle to cycle, so that the end of a cycle that starts within the horizon fits into int64."""
SHORTEST = 1e-3
"""The shortest first cycle, in updates."""


@lru_cache(256)
def _starts(first: float, multiplier: float, last: int, most: int) -> tuple[float, ...]:
    """The starts of the cycles up to step `last`, at most `most` of them and one more."""
    starts = [0.0]
    while starts[-1] < last and len(starts) <= most:
        cycles = float(len(starts))
        if multiplier > 1:
            cycles = math.expm1(cycles * math.log(multiplier)) / (multiplier - 1.0)
        start = first * cycles
        whole = float(round(start))
        starts.append(whole if abs(start - whole) <= 1e-9 + 1e-13 * start else start)
    return tuple(starts)


@lru_cache(64)
def _table(schedule: restarts, starts: tuple[float, ...]) -> tuple[Any, list[Any], bool]:
    """The first steps of all cycles but the first, the columns of `_ends`, length and peak, and whether starts are whole.

    Long columns are NumPy arrays, which MLX takes over a hundred times faster than tuples.
    """
    fractions = any(start % 1 for start in starts)
    rows = [
        (*_ends(start, end, fractions), end - start, schedule._high(float(index), PYTHON))
        for index, (start, end) in enumerate(itertools.pairwise(starts))
    ]
    bounds, columns = tuple(math.ceil(start) for start in starts[1:-1]), list(zip(*rows, strict=True))
    if len(rows) < SIDE_BY_SIDE_LIMIT:
        return bounds, columns, fractions
    import numpy as np

    return np.array(bounds), [np.array(column) for column in columns], fractions


def _ends(start: float, end: float, fractions: bool) -> tuple[float, ...]:
    """The whole steps around a cycle's two ends, how far each end is from its own, and the unit of these distances.

    The distances are whole numbers of `unit` = 1 / scale updates. In float32, 1 - 0.998 is 3e-5 off, and with it the rate
    one update before the end. As integers both are exact; `scale` leaves room for the cycle's length in int64.
    """
    first, last = math.floor(start), math.ceil(end)
    scale = 2 ** max(0, min(40, 61 - (last - first + 1).bit_length())) if fractions else 1
    return first, round((start - first) * scale), last, round((last - end) * scale), scale, 1.0 / scale


def end_of_cycles(first: float, multiplier: float, cycles: int) -> int | None:
    """The step at which the last of the cycles ends; None if that is beyond `MAX_COUNT`."""
    if multiplier == 1:
        end = first * cycles
    else:
        growth = cycles * math.log(multiplier)
        end = first * math.expm1(growth) / (multiplier - 1.0) if growth < 700 else math.inf
    # A whole end must not be rounded up to the step after it.
    return math.ceil(end - 1e-9 - 1e-13 * end) if end < MAX_COUNT else None
