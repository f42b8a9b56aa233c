"""Shapes that only other libraries have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from mlxsched.errors import ScheduleError
from mlxsched.schedules import curves as shapes
from mlxsched.schedules.backends import PYTHON, Backend, Number
from mlxsched.schedules.base import Endless, Phase, Schedule
from mlxsched.schedules.curves import HALF_PI, TAILS, cosine, one_minus_power
from mlxsched.schedules.fields import Count, Positive, Rate, Real, Steps, ascending, one_of
from mlxsched.schedules.segments import Segment, Segmented, hold

HORIZON = 2**40
"""Steps for which growing cycles are laid out, a trillion."""


@dataclass(frozen=True)
class through(Segmented):
    """A curve through given points, which may lie between two updates.

    Formula: rate(at[i]) = values[i]; between two points a line or half a cosine; held before and after
    When: one-cycle policies as torch, optax and fastai have them, which turn between two steps.
    Source: optax.piecewise_interpolate_schedule; fastai's combine_scheds
    Spec: through(at=[0, 29.5, 99], values=[4e-5, 1e-3, 4e-9], shape="cosine")

    Args:
        at: ascending steps, whole or not; two equal ones make a jump.
        values: the rate at each of them.
        shape: linear or cosine.

    Raises:
        ScheduleError: there are fewer than two points, or not as many values as steps, or steps descend.

    >>> schedule = through(at=[0, 10, 20.5], values=[0.0, 1e-3, 1e-4])
    >>> schedule(5), schedule(10), schedule(21)
    (0.0005, 0.001, 0.0001)
    """

    at: Sequence[Real]
    values: Sequence[Rate]
    shape: str = "linear"

    def _check(self) -> None:
        one_of("shape", self.shape, ("linear", "cosine"))
        if len(self.at) < 2 or len(self.at) != len(self.values):
            raise ScheduleError(
                f"`at` and `values` must be two or more points; got {len(self.at)} and {len(self.values)}. Give pairs."
            )
        # Ratios of a run give steps like 29.999999999999996, which are meant to be whole.
        object.__setattr__(self, "at", tuple(round(step, 9) for step in self.at))
        ascending("at", self.at, strictly=False)

    def _pieces(self) -> list[tuple[float, float, float, float]]:
        """Start, end, first and last value of each piece that a step falls into."""
        ways = zip(self.at, self.at[1:], self.values, self.values[1:], strict=False)
        return [
            (start, end, low, high) for start, end, low, high in ways if math.ceil(start) < math.ceil(end)
        ]

    def _segments(self) -> tuple[Segment, ...]:
        """The pieces between whole steps."""
        pieces = [
            Segment(_way(low, high), int(stop) - int(start), low, high, TAILS[self.shape])
            for start, stop, low, high in self._pieces()
        ]
        return hold("before", int(self.at[0]), self.values[0]), *pieces, hold("end", 1, self.values[-1])

    def _value(self, step: Number, ops: Backend) -> Number:
        if all(step >= 0 and step.is_integer() for step in self.at):
            return super()._value(step, ops)
        value: Number = self.values[0]
        for start, end, first, last in self._pieces():
            here = self._along(start, end, first, last, step, ops)
            value = ops.where(step < math.ceil(start), value, here)
        return ops.where(step < math.ceil(self.at[-1]), value, self.values[-1])

    def _along(
        self, start: float, end: float, first: float, last: float, step: Number, ops: Backend
    ) -> Number:
        """A piece at its own steps: whole ones are counted before a fraction comes off, so both ends stay precise."""
        done = ops.real(step - round(start)) - (start - round(start))
        left = ops.real(round(end) - step) + (end - round(end))
        return TAILS[self.shape](first, last, done, left, end - start, ops)

    def _knots(self, last: int) -> tuple[int, ...]:
        near = {side for at in self.at for side in (math.ceil(at) - 1, math.floor(at), math.ceil(at))}
        return tuple(sorted(step for step in near if step >= 0))

    @property
    def steps(self) -> int | None:
        """The update from which on the rate no longer changes; None without an end."""
        return max(math.ceil(self.at[-1]), 1)

    @property
    def phases(self) -> tuple[Phase, ...]:
        parts = [
            Phase(_way(first, last), max(math.ceil(start), 0), math.ceil(end))
            for start, end, first, last in self._pieces()
            if end > 0
        ]
        return (*parts, Phase("end", max(math.ceil(self.at[-1]), 0), None))


def _way(first: float, last: float) -> str:
    return "hold" if first == last else "warmup" if first < last else "decay"


@dataclass(frozen=True)
class cosine_wave(Endless):
    """A cosine that rises again after its end, as transformers' and torch's do.

    Formula: rate(t) = end + (peak - end) * (1 + cos(2 pi cycles t / decay_steps)) / 2 for all t;
        with half a cycle, `end` at t = decay_steps and `peak` again at t = 2 * decay_steps
    When: to have the values of a library that does not clamp; `cosine` stays at its end.
    Source: transformers.get_cosine_schedule_with_warmup; torch.optim.lr_scheduler.CosineAnnealingLR
    Spec: cosine_wave(peak=2e-4, decay_steps=1000)

    Args:
        peak: the rate at step 0.
        decay_steps: updates that `cycles` waves take; with half a wave, from the peak to `end`.
        cycles: how many waves, peak to peak, in `decay_steps` updates.
        end: the lowest rate.

    Raises:
        ScheduleError: an argument does not fit.

    >>> schedule = cosine_wave(2e-4, decay_steps=1000)
    >>> schedule(0), schedule(1000), schedule(2000)
    (0.0002, 0.0, 0.0002)
    """

    peak: Rate
    decay_steps: Steps
    cycles: Positive = 0.5
    end: Rate = 0.0

    def _value(self, step: Number, ops: Backend) -> Number:
        # The wave's place is (step * up) mod (2 * half) in whole numbers: no digit is lost late in a run.
        ratio = (2 * Fraction(repr(self.cycles))).limit_denominator(10**6)
        up, half = ratio.numerator, ratio.denominator * self.decay_steps
        place = step % (2 * half)
        place = place * up % (2 * half) if up > 1 else place
        behind = ops.minimum(place, 2 * half - place)
        return TAILS["cosine"](
            self.peak, self.end, ops.real(behind), ops.real(abs(half - place)), float(half), ops
        )


@dataclass(frozen=True)
class restarts(Schedule):
    """Cycles that start again, at any length, as transformers, torch, timm and keras have them.

    Formula: cycle i takes first * multiplier^i updates from high_i = peak * decay^i down to `end`:
        rate(t) = end + (high_i - end) * shape(p), p the share of the cycle; end from t = until on
    When: to have the values of a library; `cosine_restarts` covers a run with whole cycles.
    Source: Loshchilov & Hutter 2016 (arXiv 1608.03983); timm's CosineLRScheduler; keras' CosineDecayRestarts
    Spec: restarts(peak=2e-4, first=100, multiplier=2.0)

    Args:
        peak: the rate at step 0.
        first: updates of the first cycle; may be a fraction.
        multiplier: each cycle's length over that of the one before, 1 or more.
        decay: the factor from one cycle's peak to the next one's.
        until: the step from which on the rate is `end`; None restarts for ever.
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
        if self.multiplier < 1:
            raise ScheduleError(
                f"`multiplier` must be 1 or more; got {self.multiplier}. Cycles don't shrink."
            )

    def _value(self, step: Number, ops: Backend) -> Number:
        value = self._even(step, ops) if self.multiplier == 1 else self._growing(step, ops)
        return value if self.until is None else ops.where(step < self.until, value, self.end)

    def _cycle(self, high: Number, done: Number, left: Number, length: Number, ops: Backend) -> Number:
        """The rate when so much of a cycle that starts at `high` is done and left."""
        down = self._down(done, left, length, ops)
        return high * down + self.end * (1.0 - down) if self.end else high * down

    def _high(self, index: Number, ops: Backend) -> Number:
        """The peak of cycle `index`."""
        if self.decay == 1:
            return self.peak
        kept = ops.pow(self.decay, index)
        return self.peak * kept if self.shrinks == "peak" else self.end + (self.peak - self.end) * kept

    def _even(self, step: Number, ops: Backend) -> Number:
        """The rate in cycles of one length; which cycle, and the shares done and left, come from whole numbers."""
        length = Fraction(self.first).limit_denominator(10**4)
        parts = step * length.denominator if length.denominator > 1 else step
        inside = parts % length.numerator
        high = self._high(ops.real(parts // length.numerator), ops)
        left = ops.real(length.numerator - inside)
        return self._cycle(high, ops.real(inside), left, float(length.numerator), ops)

    def _growing(self, step: Number, ops: Backend) -> Number:
        """The rate in cycles that each have their own length."""
        starts = self._starts()
        rows = [
            (*_ends(start, end), self._high(float(index), PYTHON))
            for index, (start, end) in enumerate(itertools.pairwise(starts))
        ]
        fractions = any(start % 1 for start in starts)

        def rate(
            step: Number, first: Number, late: Number, last: Number, early: Number, size: Number, high: Number
        ) -> Number:
            done, left = ops.real(step - first), ops.real(last - step)
            if fractions:
                done, left = done - late, left - early
            return self._cycle(high, ops.minimum(done, size), ops.maximum(left, 0.0), size, ops)

        bounds = tuple(math.ceil(start) for start in starts[1:-1])
        return ops.choose(bounds, list(zip(*rows, strict=True)), rate, step)

    def _starts(self) -> list[float]:
        """The starts of the cycles, as far as anyone will train."""
        last = HORIZON if self.until is None else self.until
        starts = [0.0]
        while starts[-1] < last:
            power = self.multiplier ** len(starts)
            start = self.first * (power - 1) / (self.multiplier - 1)
            # A start that is whole but for rounding must not fall behind its step.
            starts.append(float(round(start)) if abs(start - round(start)) < 1e-9 * start else start)
        return starts

    def _down(self, done: Number, left: Number, length: Number, ops: Backend) -> Number:
        """The shape, from 1 to 0."""
        if self.shape == "cosine" and self.k == 1:
            return shapes.squared_sines(done * (HALF_PI / length), left * (HALF_PI / length), ops)[0]
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


def _ends(start: float, end: float) -> tuple[float, ...]:
    """Whole steps at or around a cycle's two ends, each with how far the end is from it, and the length."""
    first, last = math.floor(start), math.ceil(end)
    return first, start - first, last, last - end, end - start


@dataclass(frozen=True)
class stretched_polynomial(Endless):
    """A polynomial decay that stretches itself each time it would end, as keras' ``cycle=True`` does.

    Formula: rate(t) = end + (init - end) * (1 - t / n)^power, n the next multiple of decay_steps;
        `end` at each multiple of decay_steps
    When: to have keras' values; a decay that ends is `polynomial`.
    Source: keras.optimizers.schedules.PolynomialDecay
    Spec: stretched_polynomial(init=1e-3, decay_steps=500)

    Args:
        init: the rate at step 0.
        decay_steps: updates of the first decay.
        end: the lowest rate.
        power: the exponent.

    Raises:
        ScheduleError: an argument does not fit.

    >>> schedule = stretched_polynomial(1e-3, decay_steps=500)
    >>> schedule(500), schedule(750)
    (0.0, 0.00025)
    """

    init: Rate
    decay_steps: Steps
    end: Rate = 0.0
    power: Positive = 1.0

    def _value(self, step: Number, ops: Backend) -> Number:
        whole = ops.maximum((step + self.decay_steps - 1) // self.decay_steps, 1) * self.decay_steps
        done, left = ops.real(step) / ops.real(whole), ops.real(whole - step) / ops.real(whole)
        return self.init * ops.pow(left, self.power) + self.end * one_minus_power(left, done, self.power, ops)


@dataclass(frozen=True)
class falling_plateau(Schedule):
    """The stable part and the decay of WSD as timm has them: the stable part may fall; more tails.

    Formula: held(t) = max(end, peak * (1 + t / timescale)^-stable_power), or peak without a timescale;
        rate(t) = held(t) for t <= stable_steps, then end + (held(t) - end) * tail(p); end from
        t = stable_steps + decay_steps on
    When: to have timm's values; `wsd` covers a run.
    Source: timm's WSDLRScheduler
    Spec: falling_plateau(peak=2e-4, stable_steps=800, decay_steps=200, timescale=100.0)

    Args:
        peak: the rate at step 0.
        stable_steps: updates before the decay.
        decay_steps: updates of the decay.
        end: the last rate, and the lowest.
        timescale: how fast the stable part falls, in updates; None holds the peak.
        stable_power: the exponent of that fall.
        tail: linear, 1-sqrt, cosine, power (1 - p^tail_power) or exp ((r^p - r) / (1 - r)).
        tail_power: of the power tail.
        tail_ratio: r of the exp tail, between 0 and 1.

    Raises:
        ScheduleError: an argument does not fit.

    >>> schedule = falling_plateau(2e-4, stable_steps=800, decay_steps=200, tail="linear")
    >>> schedule(800), schedule(900), schedule(1000)
    (0.0002, 0.0001, 0.0)
    """

    peak: Rate
    stable_steps: Count
    decay_steps: Steps
    end: Rate = 0.0
    timescale: Positive | None = None
    stable_power: Positive = 0.5
    tail: str = "1-sqrt"
    tail_power: Positive = 0.5
    tail_ratio: Positive = 0.1

    def _check(self) -> None:
        one_of("tail", self.tail, ("linear", "1-sqrt", "cosine", "power", "exp"))
        if self.tail_ratio >= 1:
            raise ScheduleError(f"`tail_ratio` must be below 1; got {self.tail_ratio}. Try 0.1.")

    def _value(self, step: Number, ops: Backend) -> Number:
        passed = ops.done(step, self.stable_steps, self.decay_steps)
        done = ops.real(passed) / float(self.decay_steps)
        left = ops.real(self.decay_steps - passed) / float(self.decay_steps)
        down = self._down(done, left, ops)
        value = self._held(step, ops) * down
        if self.end:
            value = value + self.end * (1.0 - down)
        return ops.where(step < self.stable_steps + self.decay_steps, value, self.end)

    def _held(self, step: Number, ops: Backend) -> Number:
        if self.timescale is None:
            return self.peak
        fallen = ops.pow(1.0 + ops.real(step) / self.timescale, -self.stable_power)
        return ops.maximum(self.peak * fallen, self.end) if self.end else self.peak * fallen

    def _down(self, done: Number, left: Number, ops: Backend) -> Number:
        """The tail, from 1 to 0."""
        if self.tail == "power":
            return one_minus_power(done, left, self.tail_power, ops)
        if self.tail == "exp":
            ratio = self.tail_ratio
            return ops.expm1(-math.log(ratio) * left) * (ratio / (1.0 - ratio))
        weights = {"linear": shapes.linear, "1-sqrt": shapes.one_minus_sqrt, "cosine": cosine}[self.tail]
        return weights(done, left, ops)[0]

    @property
    def steps(self) -> int:
        """The update from which on the rate no longer changes."""
        return self.stable_steps + self.decay_steps

    @property
    def phases(self) -> tuple[Phase, ...]:
        stable = (Phase("stable", 0, self.stable_steps),) if self.stable_steps else ()
        return (*stable, Phase("decay", self.stable_steps, self.steps), Phase("end", self.steps, None))
