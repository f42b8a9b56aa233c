"""Shapes that rise and fall, once or many times."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import Backend, Number
from mlxsched.schedules.base import Endless, Phase
from mlxsched.schedules.curves import TAILS, between
from mlxsched.schedules.families.whole_run import warmed
from mlxsched.schedules.fields import (
    MAX_COUNT,
    Count,
    Duration,
    Positive,
    Rate,
    Ratio,
    Steps,
    below,
    duration_steps,
    one_of,
    split,
)
from mlxsched.schedules.segments import Segment, Segmented

ANNEALS = ("cosine", "linear")


@dataclass(frozen=True)
class one_cycle(Segmented):
    """One rise to the peak and one fall to far below the first rate.

    Formula: from peak/div to peak in `warmup` updates; then to peak/div/final_div at t = steps, or, with three
        phases, back to peak/div in as many updates and on to peak/div/final_div
    When: few epochs with a high peak; comparable results in less training.
    Source: Smith & Topin 2017 (arXiv 1708.07120); defaults of torch's OneCycleLR
    Spec: one_cycle(peak=1e-3, steps=1000)

    Args:
        peak: the highest rate, held exactly at step `warmup`.
        steps: updates of the run; the rate is exactly peak/div/final_div at step `steps` and after.
        warmup: the rise, in updates or as a ratio of `steps`.
        div: peak / first rate.
        final_div: first rate / last rate.
        anneal: cosine or linear.
        three_phase: fall back to the first rate as slowly as it rose, then to the last one.

    Raises:
        ScheduleError: an argument does not fit, or the phases are longer than `steps`.

    >>> schedule = one_cycle(1e-3, steps=1000)
    >>> schedule(0), schedule(300), schedule(1000)
    (4e-05, 0.001, 4e-09)
    """

    peak: Rate
    steps: Steps
    warmup: Duration = 0.3
    div: Positive = 25.0
    final_div: Positive = 1e4
    anneal: str = "cosine"
    three_phase: bool = False

    @property
    def warmup_steps(self) -> int:
        """The rise in updates."""
        return duration_steps(self.warmup, self.steps)

    def _check(self) -> None:
        one_of("anneal", self.anneal, ANNEALS)
        rises = 2 if self.three_phase else 1  # the second one falls back
        below("warmup" if rises == 1 else "2 * warmup", rises * self.warmup_steps, "steps", self.steps)

    def _segments(self) -> tuple[Segment, ...]:
        first, rise, curve = self.peak / self.div, self.warmup_steps, TAILS[self.anneal]
        last = first / self.final_div
        up = Segment("warmup", rise, first, self.peak, curve)
        if not self.three_phase:
            return up, Segment("decay", self.steps - rise, self.peak, last, curve)
        back = Segment("decay", rise, self.peak, first, curve)
        return up, back, Segment("annihilation", self.steps - 2 * rise, first, last, curve)


@dataclass(frozen=True)
class cosine_restarts(warmed):
    """Half cosines, one after the other, each starting at its peak again (SGDR).

    Formula: in cycle i (from 0), over its length, end + (peak * decay^i - end) * (1 + cos(pi p)) / 2; lengths grow by
        `multiplier` from cycle to cycle; end from t = steps on
    When: to get several models from one run, one at the end of each cycle, or to escape a poor minimum.
    Source: Loshchilov & Hutter 2016 (arXiv 1608.03983)
    Spec: cosine_restarts(peak=2e-4, steps=1000, cycles=3, warmup=50, multiplier=2.0, decay=0.8)

    Args:
        peak: the rate at the start of the first cycle, held exactly at step `warmup`.
        steps: updates of the run; the rate is exactly `end` at step `steps` and after.
        warmup: updates (an int) or a ratio of `steps` (a float below 1).
        cycles: how many fill the run; 3 by default, fewer if the run has fewer updates. One cycle would be
            `warmup_cosine`, without a restart.
        first: instead of `cycles`: updates of the first cycle; the end of the run cuts the last one off.
        multiplier: length of a cycle / length of the one before, at least 1 with `first`.
        decay: peak of a cycle / peak of the one before; peaks don't go below `end`.
        end: the rate that each cycle falls towards.

    Raises:
        ScheduleError: an argument does not fit, `cycles` and `first` are both given, or a cycle has no update.

    >>> schedule = cosine_restarts(2e-4, steps=1000, cycles=2, decay=0.5)
    >>> schedule(0), schedule(500), schedule(1000)
    (0.0002, 0.0001, 0.0)
    """

    cycles: Steps | None = None
    first: Steps | None = None
    multiplier: Positive = 1.0
    decay: Ratio = 1.0
    end: Rate = 0.0

    def _check(self) -> None:
        super()._check()
        if self.cycles is not None and self.first is not None:
            raise ScheduleError(
                f"`first` must be left out with `cycles`; got {self.first}. Give one of the two."
            )
        if self.cycles is None and self.first is None:
            # Written into the field, so that `repr` and the plan of a run say how many there are.
            object.__setattr__(self, "cycles", min(DEFAULT_CYCLES, self.steps - self.warmup_steps))
        if self.first is not None and self.multiplier < 1:
            raise ScheduleError(
                f"`multiplier` must be at least 1 with `first`; got {self.multiplier}. Use `cycles`."
            )
        if self.first is None and abs(math.log(self.multiplier)) * (self.cycles or 1) > MAX_GROWTH:
            raise ScheduleError(
                f"`multiplier` must not make the last of {self.cycles} cycles more than e^{MAX_GROWTH:g} times as long as "
                f"the first, or as short; got {self.multiplier}. Use a value near 1."
            )
        if min(self._lengths()) < 1 or len(self._lengths()) > MAX_CYCLES:
            raise ScheduleError(
                f"`cycles` must leave each at least one update and be at most {MAX_CYCLES}; "
                f"got {len(self._lengths())} in {self.steps} updates. Use fewer."
            )

    def _lengths(self) -> list[int]:
        """Updates of each cycle; with `first`, the last one as if it were not cut off."""
        total = self.steps - self.warmup_steps
        if self.first is None:
            count = min(self.cycles or 1, MAX_CYCLES + 1)
            return split(total, [self.multiplier**index for index in range(count)])
        lengths, covered = [self.first], self.first
        while covered < total and len(lengths) <= MAX_CYCLES:
            length = self.first * self.multiplier ** len(lengths)
            lengths.append(round(min(length, MAX_COUNT)))
            covered += lengths[-1]
        return lengths

    def _segments(self) -> tuple[Segment, ...]:
        peaks = [max(self.peak * self.decay**index, min(self.end, self.peak)) for index in range(MAX_CYCLES)]
        cycles = zip(self._lengths(), peaks, strict=False)
        return self._rise(), *(
            Segment("cycle", length, top, self.end, TAILS["cosine"]) for length, top in cycles
        )

    def _value(self, step: Number, ops: Backend) -> Number:
        value = super()._value(step, ops)
        cut_off = sum(self._lengths()) > self.steps - self.warmup_steps
        return ops.where(step < self.steps, value, self.end) if cut_off else value

    def _knots(self, last: int) -> tuple[int, ...] | None:
        return *(super()._knots(last) or ()), self.steps - 1, self.steps

    @property
    def phases(self) -> tuple[Phase, ...]:
        cycles = [one._replace(end=min(one.end or self.steps, self.steps)) for one in super().phases[:-1]]
        return *cycles, Phase("end", self.steps, None)


DEFAULT_CYCLES = 3
MAX_GROWTH = 100.0
"""The logarithm of the largest ratio between two cycles; no run has that many updates."""
MAX_CYCLES = 1000
"""Cycles with their own lengths; `repeat` has no limit."""


@dataclass(frozen=True)
class cyclic(Endless):
    """A rate that rises and falls between two values, linearly.

    Formula: rate(t) = low + (high - low) * s * tri, where tri rises from 0 to 1 in `up` updates and falls back in
        `down`, c = floor(t / (up + down)), and s = 1 (triangular), 2^-c (triangular2) or gamma^t (exp_range)
    When: the best rate is unknown but its range is; with triangular2 the range narrows.
    Source: Smith 2015 (arXiv 1506.01186); torch's CyclicLR
    Spec: cyclic(low=2e-5, high=2e-4, up=100)

    Args:
        low: the rate at the start of each cycle.
        high: the rate at the top of the first one.
        up: updates of a rise.
        down: updates of a fall; default `up`.
        mode: triangular, triangular2 or exp_range.
        gamma: for exp_range: above 0, at most 1.

    Raises:
        ScheduleError: a rate is negative or not finite, `high` is below `low`, or another argument does not fit.

    >>> schedule = cyclic(1e-4, 3e-4, up=10)
    >>> schedule(0), schedule(10), round(schedule(15), 12), schedule(20)
    (0.0001, 0.0003, 0.0002, 0.0001)
    """

    low: Rate
    high: Rate
    up: Steps
    down: Steps | None = None
    mode: str = "triangular"
    gamma: Ratio = 1.0

    def _check(self) -> None:
        one_of("mode", self.mode, ("triangular", "triangular2", "exp_range"))
        if self.high < self.low:
            raise ScheduleError(f"`high` must not be below `low`; got {self.high} and {self.low}. Swap them.")

    @property
    def period(self) -> int:
        """Updates of a cycle."""
        return self.up + (self.down or self.up)

    def _value(self, step: Number, ops: Backend) -> Number:
        here = step % self.period
        rising = ops.real(here) / float(self.up)
        falling = ops.real(self.period - here) / float(self.period - self.up)
        share = ops.minimum(rising, falling) * self._strength(step, ops)
        return between(self.low, self.high, share, ops)

    def _strength(self, step: Number, ops: Backend) -> Number:
        if self.mode == "triangular2":
            return ops.power(0.5, step // self.period)
        return ops.power(self.gamma, step) if self.mode == "exp_range" else 1.0

    def _knots(self, last: int) -> tuple[int, ...] | None:
        """The first cycle's: later ones stay within its range, unless exp_range bends the slopes."""
        if self.mode == "exp_range" and self.gamma < 1:
            return None
        return self.up, self.period

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase("up", 0, self.up),
            Phase("down", self.up, self.period),
            Phase("cycles", self.period, None),
        )


@dataclass(frozen=True)
class jagged(warmed):
    """A cosine with a new warmup after each restart of ReLoRA.

    Formula: rate(t) = c(t) * min(1, (t mod every) / rewarm) for t >= every, where c is the whole run's
        `warmup_cosine`; c(t) before; end from t = steps on
    When: ReLoRA, which merges the adapters and resets the optimizer every `every` updates.
    Source: Lialin et al. 2023 (arXiv 2307.05695)
    Spec: jagged(peak=2e-4, steps=1000, warmup=50, every=250, rewarm=20)

    Args:
        peak: the highest rate, held exactly at step `warmup`.
        steps: updates of the run; the rate is exactly `end` at step `steps` and after.
        warmup: updates (an int) or a ratio of `steps` (a float below 1), within the first `every`.
        every: updates between restarts.
        rewarm: updates of each re-warmup, at most `every`.
        end: the last rate.

    Raises:
        ScheduleError: an argument does not fit.

    >>> schedule = jagged(2e-4, steps=1000, warmup=50, every=250, rewarm=20)
    >>> schedule(50), schedule(250), schedule(260) < schedule(270)
    (0.0002, 0.0, True)
    """

    every: Steps = 1000
    rewarm: Count = 10
    end: Rate = 0.0

    def _check(self) -> None:
        super()._check()
        below("warmup", self.warmup_steps, "every + 1", self.every + 1)
        below("rewarm", self.rewarm, "every + 1", self.every + 1)

    def _segments(self) -> tuple[Segment, ...]:
        return self._rise(), Segment(
            "decay", self.steps - self.warmup_steps, self.peak, self.end, TAILS["cosine"]
        )

    def _value(self, step: Number, ops: Backend) -> Number:
        smooth = super()._value(step, ops)
        if not self.rewarm:
            return smooth
        ramp = ops.real(ops.minimum(step % self.every, self.rewarm)) / float(self.rewarm)
        return ops.where((step >= self.every) & (step < self.steps), smooth * ramp, smooth)

    def _knots(self, last: int) -> tuple[int, ...] | None:
        return None  # a rising ramp times a falling cosine turns somewhere in between: a scan finds it


@dataclass(frozen=True)
class chebyshev(Endless):
    """The step sizes that minimize a quadratic fastest, in an order that keeps them stable.

    Formula: rate(t) = 1 / ((1/low + 1/high) / 2 - (1/low - 1/high) / 2 * cos((2 k + 1) pi / (2 period))), with k the
        fractal permutation's element t mod period
    When: experiments with full-batch or nearly quadratic problems; single rates are far above the usual ones.
    Source: Agarwal et al. 2021 (arXiv 2103.01338)
    Spec: chebyshev(low=2e-5, high=2e-4, period=16)

    Args:
        low: below the smallest rate: 1 / the largest curvature.
        high: above the largest rate: 1 / the smallest curvature.
        period: updates until the pattern repeats, a power of 2 up to 4096.

    Raises:
        ScheduleError: the rates are not above 0 and ascending, or `period` is no power of 2.

    >>> schedule = chebyshev(1e-4, 1e-3, period=2)
    >>> 1e-4 < schedule(0) < 1e-3, schedule(0) == schedule(2)
    (True, True)
    """

    low: Positive
    high: Positive
    period: Steps = 32

    def _check(self) -> None:
        if self.high < self.low:
            raise ScheduleError(f"`high` must not be below `low`; got {self.high} and {self.low}. Swap them.")
        if self.period > 4096 or self.period & (self.period - 1):
            raise ScheduleError(f"`period` must be a power of 2 up to 4096; got {self.period}. Use 32, say.")

    def _rates(self) -> tuple[float, ...]:
        middle, swing = (1 / self.low + 1 / self.high) / 2, (1 / self.low - 1 / self.high) / 2
        angles = ((2 * node + 1) * math.pi / (2 * self.period) for node in _fractal(self.period))
        return tuple(1 / (middle - swing * math.cos(angle)) for angle in angles)

    def _value(self, step: Number, ops: Backend) -> Number:
        return ops.pick(self._rates(), step % self.period)

    def _knots(self, last: int) -> tuple[int, ...]:
        return tuple(range(self.period))

    @property
    def phases(self) -> tuple[Phase, ...]:
        return Phase("cycle", 0, self.period), Phase("cycles", self.period, None)


def _fractal(size: int) -> list[int]:
    """The permutation that puts each node next to its mirror image, doubled from 1 element to `size`."""
    order = [0]
    while len(order) < size:
        mirror = 2 * len(order) - 1
        order = [node for one in order for node in (one, mirror - one)]
    return order
