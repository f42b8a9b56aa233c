"""Shapes that only other libraries have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from mlxsched.errors import ScheduleError
from mlxsched.schedules import curves as shapes
from mlxsched.schedules.backends import LAST_STEP, Backend, Number
from mlxsched.schedules.base import Endless, Phase, Schedule
from mlxsched.schedules.curves import TAILS, cosine, one_minus_power
from mlxsched.schedules.fields import MAX_COUNT, Count, Positive, Rate, Real, Steps, ascending, one_of, shown
from mlxsched.schedules.segments import Segment, Segmented, hold


@dataclass(frozen=True)
class through(Segmented):
    """A curve through given points, which may lie between two updates.

    Formula: rate(at[i]) = values[i]; between two points a straight line or half a cosine; the first value before, the last one after
    When: one-cycle policies of torch, optax and fastai, which turn between two steps.
    Source: optax.piecewise_interpolate_schedule; fastai's combine_scheds
    Spec: through(at=[0, 29.5, 99], values=[4e-5, 1e-3, 4e-9], shape="cosine")

    Args:
        at: ascending steps, whole or not; two equal ones are a jump.
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
        if max(map(abs, self.at)) > MAX_COUNT:
            raise ScheduleError(
                f"`at` must be steps of at most {MAX_COUNT}; got {shown(list(self.at))}. Lower it."
            )
        # Ratios of a run give steps like 29.999999999999996, which are meant to be whole.
        object.__setattr__(self, "at", tuple(round(step, 9) for step in self.at))
        ascending("at", self.at, strictly=False)

    def _pieces(self) -> list[tuple[float, float, float, float]]:
        """Start, end, first and last value of each piece that a step falls into."""
        pieces = zip(self.at, self.at[1:], self.values, self.values[1:], strict=False)
        return [
            (start, end, low, high) for start, end, low, high in pieces if math.ceil(start) < math.ceil(end)
        ]

    def _segments(self) -> tuple[Segment, ...]:
        """The pieces between whole steps."""
        pieces = [
            Segment(_direction(low, high), int(stop) - int(start), low, high, TAILS[self.shape])
            for start, stop, low, high in self._pieces()
        ]
        return hold("before", int(self.at[0]), self.values[0]), *pieces, hold("end", 1, self.values[-1])

    def _value(self, step: Number, ops: Backend) -> Number:
        if all(step >= 0 and step.is_integer() for step in self.at):
            return super()._value(step, ops)
        step = ops.minimum(
            step, LAST_STEP
        )  # pieces are computed at all steps, and sin(infinity) does not exist
        value: Number = self.values[0]
        for start, end, first, last in self._pieces():
            here = self._along(start, end, first, last, step, ops)
            value = ops.where(step < math.ceil(start), value, here)
        return ops.where(step < math.ceil(self.at[-1]), value, self.values[-1])

    def _along(
        self, start: float, end: float, first: float, last: float, step: Number, ops: Backend
    ) -> Number:
        """A piece at its own steps. Whole steps are subtracted before a fraction is, so both ends stay precise."""
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
            Phase(_direction(first, last), max(math.ceil(start), 0), math.ceil(end))
            for start, end, first, last in self._pieces()
            if end > 0
        ]
        return (*parts, Phase("end", max(math.ceil(self.at[-1]), 0), None))


def _direction(first: float, last: float) -> str:
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

    def _check(self) -> None:
        if self.cycles * self.decay_steps > 2**58:
            raise ScheduleError(
                f"`cycles` must be fewer for {self.decay_steps} steps; got {self.cycles:g}. "
                "No step could tell such waves apart."
            )

    def _value(self, step: Number, ops: Backend) -> Number:
        # The wave's place is (step * up) mod (2 * half) in whole numbers: no digit is lost late in a run.
        # The denominator is limited so that place * up stays within int64.
        most = math.isqrt(2**60 // math.ceil(self.decay_steps * max(self.cycles, 1.0)))
        ratio = (2 * Fraction(repr(self.cycles))).limit_denominator(max(min(most, 10**6), 1))
        up, half = ratio.numerator, ratio.denominator * self.decay_steps
        if not up:
            return self.peak  # a wave too long to have begun
        place = step % (2 * half)
        place = place * up % (2 * half) if up > 1 else place
        behind = ops.minimum(place, 2 * half - place)
        return TAILS["cosine"](
            self.peak, self.end, ops.real(behind), ops.real(abs(half - place)), float(half), ops
        )


@dataclass(frozen=True)
class stretched_polynomial(Endless):
    """A polynomial decay that is stretched each time it would end, as with keras' ``cycle=True``.

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
    """The stable part and the decay of timm's WSD: the stable part may fall, and there are more tails.

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
        timescale: updates in which the stable part falls by 2^-stable_power first; None holds the peak.
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
