"""Shapes for a whole run: an optional warmup to the peak, then a decay or a constant rate."""

from __future__ import annotations

from dataclasses import dataclass

from mlxsched.schedules.backends import Backend, Number
from mlxsched.schedules.base import Endless, Phase
from mlxsched.schedules.curves import TAILS, WARMUPS
from mlxsched.schedules.fields import Count, Duration, Rate, Steps, below, duration_steps
from mlxsched.schedules.segments import Segment, Segmented, hold


@dataclass(frozen=True)
class constant(Endless):
    """The same rate at every step.

    Formula: rate(t) = peak
    When: short runs, debugging, and runs of unknown length, which a `cooldown` can end. Without a decay the last
        updates stay noisy: end the run with one for a lower loss.
    Source: common practice; optax.constant_schedule
    Spec: constant(peak=2e-4)

    Args:
        peak: the rate.

    Raises:
        ScheduleError: `peak` is negative or not finite.

    >>> constant(2e-4)(7)
    0.0002
    """

    peak: Rate

    def _value(self, step: Number, ops: Backend) -> Number:
        return self.peak

    def _knots(self, last: int) -> tuple[int, ...]:
        return ()


@dataclass(frozen=True)
class warmed(Segmented):
    """The base of shapes with a warmup, which ends before `steps`."""

    peak: Rate
    steps: Steps
    warmup: Duration = 0

    @property
    def warmup_steps(self) -> int:
        """The warmup in updates."""
        return duration_steps(self.warmup, self.steps)

    def _check(self) -> None:
        below("warmup", self.warmup_steps, "steps", self.steps)

    def _rise(self, init: float = 0.0, shape: str = "linear") -> Segment:
        return Segment("warmup", self.warmup_steps, init, self.peak, WARMUPS[shape])


@dataclass(frozen=True)
class warmup_constant(Segmented):
    """A linear warmup, then the peak.

    Formula: rate(t) = peak * t / warmup for t < warmup; peak from t = warmup on
    When: a run of unknown length, or one that a `cooldown` ends later.
    Source: transformers' constant_with_warmup
    Spec: warmup_constant(peak=2e-4, warmup=100)

    Args:
        peak: the rate after the warmup.
        warmup: updates until the peak; the rate is 0 at step 0 and exactly `peak` at step `warmup`.

    Raises:
        ScheduleError: `peak` is negative or not finite, or `warmup` is not a whole number.

    >>> schedule = warmup_constant(2e-4, 100)
    >>> schedule(0), schedule(50), schedule(100)
    (0.0, 0.0001, 0.0002)
    """

    peak: Rate
    warmup: Count = 0

    def _segments(self) -> tuple[Segment, ...]:
        return (
            Segment("warmup", self.warmup, 0.0, self.peak, WARMUPS["linear"]),
            hold("constant", 1, self.peak),
        )

    @property
    def steps(self) -> int | None:
        """None: the rate is constant from `warmup` on, but there is no end to plan for."""
        return None

    @property
    def phases(self) -> tuple[Phase, ...]:
        rest = Phase("constant", self.warmup, None)
        return (Phase("warmup", 0, self.warmup), rest) if self.warmup else (rest,)


@dataclass(frozen=True)
class warmup_linear(warmed):
    """A linear warmup, then a straight line down: "linear to zero" with its default end.

    Formula: rate(t) = peak * t / warmup for t < warmup; then peak + (end - peak) * (t - warmup) / (steps - warmup);
        end from t = steps on
    When: the default for fine-tuning of known length. Linear to zero reaches a lower loss than cosine to 10% (0.8% at
        20 tokens per parameter), and tolerates a peak that is too high better than other shapes.
    Source: Defazio et al. 2023 (arXiv 2310.07831); Bergsma et al. 2025 (arXiv 2502.15938)
    Spec: warmup_linear(peak=2e-4, steps=1000, warmup=100)

    Args:
        peak: the highest rate, held exactly at step `warmup`.
        steps: updates of the run, warmup included; the rate is exactly `end` at step `steps` and after.
        warmup: updates (an int) or a ratio of `steps` (a float below 1); 0 starts at the peak.
        end: the last rate.

    Raises:
        ScheduleError: a rate is negative or not finite, `steps` is below 1, or `warmup` leaves no update.

    >>> schedule = warmup_linear(2e-4, steps=1000, warmup=0.1)
    >>> schedule(0), schedule(100), schedule(550), schedule(1000)
    (0.0, 0.0002, 0.0001, 0.0)
    """

    end: Rate = 0.0

    def _segments(self) -> tuple[Segment, ...]:
        return self._rise(), Segment(
            "decay", self.steps - self.warmup_steps, self.peak, self.end, TAILS["linear"]
        )


@dataclass(frozen=True)
class warmup_cosine(warmed):
    """A linear warmup, then half a cosine down.

    Formula: rate(t) = peak * t / warmup for t < warmup;
        then end + (peak - end) * (1 + cos(pi (t - warmup) / (steps - warmup))) / 2; end from t = steps on
    When: the most common choice; in pretraining often with an `end` of a tenth of the peak.
    Source: Loshchilov & Hutter 2016 (arXiv 1608.03983)
    Spec: warmup_cosine(peak=2e-4, steps=1000, warmup=100)

    Args:
        peak: the highest rate, held exactly at step `warmup`.
        steps: updates of the run, warmup included; the rate is exactly `end` at step `steps` and after.
        warmup: updates (an int) or a ratio of `steps` (a float below 1); 0 starts at the peak.
        end: the last rate.

    Raises:
        ScheduleError: a rate is negative or not finite, `steps` is below 1, or `warmup` leaves no update.

    >>> schedule = warmup_cosine(2e-4, steps=1000, warmup=100)
    >>> schedule(0), schedule(100), round(schedule(550), 12), schedule(1000)
    (0.0, 0.0002, 0.0001, 0.0)
    """

    end: Rate = 0.0

    def _segments(self) -> tuple[Segment, ...]:
        return self._rise(), Segment(
            "decay", self.steps - self.warmup_steps, self.peak, self.end, TAILS["cosine"]
        )


@dataclass(frozen=True)
class budgeted(Segmented):
    """A straight line to zero over a fixed budget.

    Formula: rate(t) = peak * (1 - t / steps); 0 from t = steps on
    When: the number of updates is fixed in advance and nothing else shall be tuned.
    Source: Li et al. 2019 (arXiv 1905.04753)
    Spec: budgeted(peak=2e-4, steps=1000)

    Args:
        peak: the rate at step 0.
        steps: updates of the budget; the rate is exactly 0 at step `steps` and after.

    Raises:
        ScheduleError: `peak` is negative or not finite, or `steps` is below 1.

    >>> budgeted(2e-4, steps=1000)(500)
    0.0001
    """

    peak: Rate
    steps: Steps

    def _segments(self) -> tuple[Segment, ...]:
        return (Segment("decay", self.steps, self.peak, 0.0, TAILS["linear"]),)
