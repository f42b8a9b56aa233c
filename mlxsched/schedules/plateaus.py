"""Shapes that hold the peak for a while before they decay."""

from __future__ import annotations

from dataclasses import dataclass

from mlxsched.schedules.checks import Rate, Span, below, one_of, span_steps
from mlxsched.schedules.segments import Segment, hold
from mlxsched.schedules.shapes import TAILS, WARMUPS
from mlxsched.schedules.whole_run import warmed


@dataclass(frozen=True)
class wsd(warmed):
    """Warmup, stable, decay: hold the peak and fall at the end of the run.

    Formula: rate(t) = peak * t / warmup for t < warmup; peak until t = steps - decay;
        then end + (peak - end) * tail((t - steps + decay) / decay); end from t = steps on
    When: a run that may be extended: the stable part does not depend on the length.
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
        warmup_shape: the way up: linear, cosine, sqrt, 1-sqrt, quadratic, exponential or radam.

    Raises:
        ScheduleError: an argument does not fit, or warmup and decay together are longer than `steps`.

    >>> schedule = wsd(2e-4, steps=1000, warmup=100, decay=0.2)
    >>> schedule(100), schedule(800), schedule(850), schedule(1000)
    (0.0002, 0.0002, 0.0001, 0.0)
    """

    decay: Span = 0.2
    end: Rate = 0.0
    shape: str = "1-sqrt"
    warmup_shape: str = "linear"

    @property
    def decay_steps(self) -> int:
        """The decay in updates."""
        return span_steps(self.decay, self.steps)

    def _check(self) -> None:
        super()._check()
        one_of("shape", self.shape, tuple(TAILS))
        one_of("warmup_shape", self.warmup_shape, tuple(WARMUPS))
        below("warmup + decay", self.warmup_steps + self.decay_steps, "steps + 1", self.steps + 1)

    def _segments(self) -> tuple[Segment, ...]:
        stable = self.steps - self.warmup_steps - self.decay_steps
        return (
            self._rise(shape=self.warmup_shape),
            hold("stable", stable, self.peak),
            Segment("decay", self.decay_steps, self.peak, self.end, TAILS[self.shape]),
        )
