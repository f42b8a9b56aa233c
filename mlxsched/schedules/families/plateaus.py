"""Shapes that hold the peak for a while before they decay."""

from __future__ import annotations

from dataclasses import dataclass

from mlxsched.schedules.backends import Backend, Number
from mlxsched.schedules.curves import TAILS, WARMUPS, check_tail, geometric
from mlxsched.schedules.families.whole_run import warmed
from mlxsched.schedules.fields import (
    Duration,
    Positive,
    Rate,
    Ratio,
    Steps,
    below,
    duration_steps,
    fits,
    one_of,
)
from mlxsched.schedules.segments import Segment, Segmented, along, hold


@dataclass(frozen=True)
class wsd(warmed):
    """Warmup, stable, decay: hold the peak, then fall at the end of the run.

    Formula: rate(t) = peak * t / warmup for t < warmup; peak until t = steps - decay;
        then end + (peak - end) * tail((t - steps + decay) / decay); end from t = steps on
    When: a run that may be extended, because the stable part does not depend on its length.
    Source: Hu et al. 2024 (arXiv 2404.06395); tails of Hägele et al. 2024 (arXiv 2405.18392)
    Spec: wsd(peak=2e-4, steps=1000, warmup=50, decay=0.2)

    Args:
        peak: the rate that is held.
        steps: updates of the run; the rate is exactly `end` at step `steps` and after.
        warmup: updates (an int) or a ratio of `steps` (a float below 1).
        decay: length of the fall, in updates or as a ratio of `steps`.
        end: the last rate.
        shape: the tail: linear, cosine, 1-sqrt, 1-square, exponential, geometric (needs `end` above 0) or
            mirror-cosine.
        warmup_shape: the rise: linear, cosine, sqrt, 1-sqrt, quadratic, exponential or radam.

    Raises:
        ScheduleError: an argument does not fit, or warmup and decay together are longer than `steps`.

    >>> schedule = wsd(2e-4, steps=1000, warmup=100, decay=0.2)
    >>> schedule(100), schedule(800), schedule(850), schedule(1000)
    (0.0002, 0.0002, 0.0001, 0.0)
    """

    decay: Duration = 0.2
    end: Rate = 0.0
    shape: str = "1-sqrt"
    warmup_shape: str = "linear"

    @property
    def decay_steps(self) -> int:
        """The decay in updates."""
        return duration_steps(self.decay, self.steps)

    def _check(self) -> None:
        super()._check()
        check_tail(self.shape, self.peak, self.end)
        one_of("warmup_shape", self.warmup_shape, tuple(WARMUPS))
        fits(self.steps, warmup=self.warmup_steps, decay=self.decay_steps)

    def _segments(self) -> tuple[Segment, ...]:
        stable = self.steps - self.warmup_steps - self.decay_steps
        return (
            self._rise(shape=self.warmup_shape),
            hold("stable", stable, self.peak),
            Segment("decay", self.decay_steps, self.peak, self.end, TAILS[self.shape]),
        )


@dataclass(frozen=True)
class trapezoid(warmed):
    """Up, flat, down in straight lines.

    Formula: rate(t) = peak * t / warmup for t < warmup; peak until t = steps - decay; then a straight line to end
        at t = steps; end after
    When: as `wsd`; it is the one with a linear tail.
    Source: Hägele et al. 2024 (arXiv 2405.18392); Zhai et al. 2021 (arXiv 2106.04560)
    Spec: trapezoid(peak=2e-4, steps=1000, warmup=100, decay=0.2)

    Args:
        peak: the rate that is held.
        steps: updates of the run; the rate is exactly `end` at step `steps` and after.
        warmup: updates (an int) or a ratio of `steps` (a float below 1).
        decay: length of the fall, in updates or as a ratio of `steps`.
        end: the last rate.

    Raises:
        ScheduleError: an argument does not fit, or warmup and decay together are longer than `steps`.

    >>> trapezoid(2e-4, steps=1000, warmup=100, decay=200)(900)
    0.0001
    """

    decay: Duration = 0.2
    end: Rate = 0.0

    @property
    def decay_steps(self) -> int:
        """The decay in updates."""
        return duration_steps(self.decay, self.steps)

    def _check(self) -> None:
        super()._check()
        fits(self.steps, warmup=self.warmup_steps, decay=self.decay_steps)

    def _segments(self) -> tuple[Segment, ...]:
        stable = hold("stable", self.steps - self.warmup_steps - self.decay_steps, self.peak)
        return self._rise(), stable, Segment("decay", self.decay_steps, self.peak, self.end, TAILS["linear"])


@dataclass(frozen=True)
class knee(warmed):
    """Explore, then exploit: hold the peak, then a straight line to zero.

    Formula: rate(t) = peak * t / warmup for t < warmup; peak for `hold` updates; then a straight line to 0 at
        t = steps; 0 after
    When: as `trapezoid`, if the length of the plateau is known rather than that of the decay.
    Source: Iyer et al. 2020 (arXiv 2003.03977)
    Spec: knee(peak=2e-4, steps=1000, warmup=50, hold=0.5)

    Args:
        peak: the rate that is held.
        steps: updates of the run; the rate is exactly 0 at step `steps` and after.
        warmup: updates (an int) or a ratio of `steps` (a float below 1).
        hold: length of the plateau, in updates or as a ratio of `steps`.

    Raises:
        ScheduleError: an argument does not fit, or warmup and hold together are longer than `steps`.

    >>> knee(2e-4, steps=1000, warmup=0, hold=500)(750)
    0.0001
    """

    hold: Duration = 0.5

    @property
    def hold_steps(self) -> int:
        """The plateau in updates."""
        return duration_steps(self.hold, self.steps)

    def _check(self) -> None:
        super()._check()
        fits(self.steps, warmup=self.warmup_steps, hold=self.hold_steps)

    def _segments(self) -> tuple[Segment, ...]:
        rest = self.steps - self.warmup_steps - self.hold_steps
        plateau = hold("hold", self.hold_steps, self.peak)
        return self._rise(), plateau, Segment("decay", rest, self.peak, 0.0, TAILS["linear"])


@dataclass(frozen=True)
class flat_cosine(warmed):
    """Hold the peak for most of the run, then half a cosine down.

    Formula: rate(t) = peak for t < flat; then end + (peak - end) * (1 + cos(pi (t - flat) / (steps - flat))) / 2; end
        from t = steps on; a warmup, if any, is the first part of `flat`
    When: with optimizers that need no warmup, such as Ranger.
    Source: fastai's fit_flat_cos
    Spec: flat_cosine(peak=2e-4, steps=1000, flat=0.75)

    Args:
        peak: the rate that is held.
        steps: updates of the run; the rate is exactly `end` at step `steps` and after.
        warmup: updates (an int) or a ratio of `steps` (a float below 1).
        flat: when the cosine starts, in updates or as a ratio of `steps`; not before the warmup's end.
        end: the last rate.

    Raises:
        ScheduleError: an argument does not fit, or `flat` ends before the warmup or not before `steps`.

    >>> flat_cosine(2e-4, steps=1000)(750)
    0.0002
    """

    flat: Duration = 0.75
    end: Rate = 0.0

    @property
    def flat_steps(self) -> int:
        """The step at which the cosine starts."""
        return duration_steps(self.flat, self.steps)

    def _check(self) -> None:
        super()._check()
        below("warmup", self.warmup_steps, "flat + 1", self.flat_steps + 1)
        below("flat", self.flat_steps, "steps", self.steps)

    def _segments(self) -> tuple[Segment, ...]:
        flat = hold("flat", self.flat_steps - self.warmup_steps, self.peak)
        return (
            self._rise(),
            flat,
            Segment("decay", self.steps - self.flat_steps, self.peak, self.end, TAILS["cosine"]),
        )


@dataclass(frozen=True)
class tri_stage(Segmented):
    """Warmup, hold, exponential decay, as in speech recognition.

    Formula: rate(t) rises in a straight line from init_scale * peak to peak in `warmup` updates; peak for `hold`
        updates; then geometrically to final_scale * peak at t = steps, which is held
    When: wav2vec-like speech models.
    Source: Park et al. 2019 (arXiv 1904.08779); fairseq's tri_stage
    Spec: tri_stage(peak=2e-4, steps=1000, warmup=0.1, hold=0.4)

    Args:
        peak: the rate that is held.
        steps: updates of the run.
        warmup: updates (an int) or a ratio of `steps` (a float below 1).
        hold: length of the plateau, in updates or as a ratio of `steps`.
        init_scale: first rate / peak.
        final_scale: last rate / peak, above 0.

    Raises:
        ScheduleError: an argument does not fit, or warmup and hold together are longer than `steps`.

    >>> schedule = tri_stage(2e-4, steps=1000, warmup=100, hold=400)
    >>> schedule(100), schedule(500), schedule(1000)
    (0.0002, 0.0002, 1e-05)
    """

    peak: Positive
    steps: Steps
    warmup: Duration = 0.1
    hold: Duration = 0.4
    init_scale: Rate = 0.01
    final_scale: Positive = 0.05

    @property
    def warmup_steps(self) -> int:
        """The warmup in updates."""
        return duration_steps(self.warmup, self.steps)

    @property
    def hold_steps(self) -> int:
        """The plateau in updates."""
        return duration_steps(self.hold, self.steps)

    def _check(self) -> None:
        fits(self.steps, warmup=self.warmup_steps, hold=self.hold_steps)

    def _segments(self) -> tuple[Segment, ...]:
        rest = self.steps - self.warmup_steps - self.hold_steps
        return (
            Segment("warmup", self.warmup_steps, self.init_scale * self.peak, self.peak, WARMUPS["linear"]),
            hold("hold", self.hold_steps, self.peak),
            Segment("decay", rest, self.peak, self.final_scale * self.peak, geometric),
        )


@dataclass(frozen=True)
class infinite(warmed):
    """Warmup, a cosine down to a constant rate, that rate for as long as needed, and a final anneal.

    Formula: rate(t) = peak * t / warmup for t < warmup; half a cosine from peak to `constant` in `cooldown` updates;
        `constant` until t = steps - anneal; then geometrically to end at t = steps, which is held
    When: continual pretraining: new data starts from the constant part, without a re-warmup.
    Source: Ibrahim et al. 2024 (arXiv 2403.08763); Singh et al. 2025 (arXiv 2503.02844)
    Spec: infinite(peak=2e-4, steps=1000, warmup=50, cooldown=0.3, constant=1e-4, anneal=0.2, end=1e-5)

    Args:
        peak: the rate after the warmup.
        steps: updates until the end of the anneal.
        warmup: updates (an int) or a ratio of `steps` (a float below 1).
        cooldown: length of the cosine, in updates or as a ratio of `steps`.
        constant: the rate that is held; default half of the peak.
        anneal: length of the last part, in updates or as a ratio of `steps`.
        end: the last rate, above 0; default a tenth of `constant`.

    Raises:
        ScheduleError: an argument does not fit, or the parts together are longer than `steps`.

    >>> schedule = infinite(2e-4, steps=1000, warmup=100, cooldown=300, anneal=200)
    >>> schedule(100), schedule(400), schedule(800), schedule(1000)
    (0.0002, 0.0001, 0.0001, 1e-05)
    """

    cooldown: Duration = 0.3
    constant: Positive | None = None
    anneal: Duration = 0.1
    end: Positive | None = None

    def _check(self) -> None:
        super()._check()
        cooldown, anneal = self._lengths()
        fits(self.steps, warmup=self.warmup_steps, cooldown=cooldown, anneal=anneal)

    def _lengths(self) -> tuple[int, int]:
        return duration_steps(self.cooldown, self.steps), duration_steps(self.anneal, self.steps)

    def _segments(self) -> tuple[Segment, ...]:
        cooldown, anneal = self._lengths()
        held = self.peak / 2 if self.constant is None else self.constant
        end = held / 10 if self.end is None else self.end
        return (
            self._rise(),
            Segment("cooldown", cooldown, self.peak, held, TAILS["cosine"]),
            hold("constant", self.steps - self.warmup_steps - cooldown - anneal, held),
            Segment("anneal", anneal, held, end, geometric),
        )


MAX_CYCLES = 1000


@dataclass(frozen=True)
class wsd_cycles(warmed):
    """Repeated WSD: each cycle holds the peak and ends with a decay, so each gives a usable model.

    Formula: after the warmup, `cycles` stretches of equal length (the first one takes the remainder); each is
        peak and then, over its last share `decay`, end + (peak - end) * tail; end from t = steps on
    When: long runs that are evaluated at several lengths.
    Source: Wen et al. 2024 (arXiv 2410.05192), WSD-S
    Spec: wsd_cycles(peak=2e-4, steps=1000, cycles=4, warmup=50, decay=0.2)

    Args:
        peak: the rate that is held.
        steps: updates of the run; the rate is exactly `end` at step `steps` and after.
        warmup: updates (an int) or a ratio of `steps` (a float below 1).
        cycles: how many.
        decay: the share of a cycle that falls, above 0, at most 1.
        end: the rate that a cycle falls towards.
        shape: the tail, as in `wsd`.

    Raises:
        ScheduleError: an argument does not fit, a cycle has no update, or there are more than 1000.

    >>> schedule = wsd_cycles(2e-4, steps=1000, cycles=2, decay=0.5, shape="linear")
    >>> schedule(250), schedule(375), schedule(500), schedule(1000)
    (0.0002, 0.0001, 0.0002, 0.0)
    """

    cycles: Steps = 2
    decay: Ratio = 0.1
    end: Rate = 0.0
    shape: str = "1-sqrt"

    def _check(self) -> None:
        super()._check()
        check_tail(self.shape, self.peak, self.end)
        below("cycles", self.cycles, "steps - warmup + 1", self.steps - self.warmup_steps + 1)
        below("cycles", self.cycles, "1001", MAX_CYCLES + 1)

    @property
    def _cycle(self) -> int:
        """Updates of a cycle."""
        return (self.steps - self.warmup_steps) // self.cycles

    @property
    def _fall(self) -> int:
        """Updates of a decay."""
        return max(1, round(self.decay * self._cycle))

    def _segments(self) -> tuple[Segment, ...]:
        spare = (self.steps - self.warmup_steps) % self.cycles
        fall = Segment("decay", self._fall, self.peak, self.end, TAILS[self.shape])
        segments = [self._rise(), hold("stable", spare + self._cycle - self._fall, self.peak), fall]
        for _ in range(self.cycles - 1):
            segments += [hold("stable", self._cycle - self._fall, self.peak), fall]
        return tuple(segments)

    def _value(self, step: Number, ops: Backend) -> Number:
        """The segments' value, with the place in the cycle found by division, so that many cycles cost no more than one."""
        place = ops.since(step, self.steps - self.cycles * self._cycle) % self._cycle
        left = ops.minimum(self._cycle - place, self._fall)
        done, length = ops.real(self._fall - left), float(self._fall)
        value = TAILS[self.shape](self.peak, self.end, done, ops.real(left), length, ops)
        if self.warmup_steps:
            value = ops.minimum(along(self._rise(), 0, step, ops), value)
        return ops.where(step < self.steps, value, self.end)
