"""Shapes that go up and down, once or many times."""

from __future__ import annotations

from dataclasses import dataclass

from mlxsched.schedules.checks import Above0, Rate, Span, Steps, below, one_of, span_steps
from mlxsched.schedules.segments import Segment, Segmented
from mlxsched.schedules.shapes import TAILS

ANNEALS = ("cosine", "linear")


@dataclass(frozen=True)
class one_cycle(Segmented):
    """One rise to the peak and one fall, far below where it started.

    Formula: from peak/div to peak in `warmup` updates; then to peak/div/final_div at t = steps, or, with three
        phases, back to peak/div in as many updates and on to peak/div/final_div
    When: training with a bold peak in few epochs.
    Source: Smith & Topin 2017 (arXiv 1708.07120); defaults of torch's OneCycleLR
    Spec: one_cycle(peak=1e-3, steps=1000)

    Args:
        peak: the highest rate, held exactly at step `warmup`.
        steps: updates of the run; the rate is exactly peak/div/final_div at step `steps` and after.
        warmup: the way up, in updates or as a ratio of `steps`.
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
    warmup: Span = 0.3
    div: Above0 = 25.0
    final_div: Above0 = 1e4
    anneal: str = "cosine"
    three_phase: bool = False

    @property
    def warmup_steps(self) -> int:
        """The way up in updates."""
        return span_steps(self.warmup, self.steps)

    def _check(self) -> None:
        one_of("anneal", self.anneal, ANNEALS)
        ways = 2 if self.three_phase else 1
        below("warmup" if ways == 1 else "2 * warmup", ways * self.warmup_steps, "steps", self.steps)

    def _segments(self) -> tuple[Segment, ...]:
        first, rise, curve = self.peak / self.div, self.warmup_steps, TAILS[self.anneal]
        last = first / self.final_div
        up = Segment("warmup", rise, first, self.peak, curve)
        if not self.three_phase:
            return up, Segment("decay", self.steps - rise, self.peak, last, curve)
        back = Segment("decay", rise, self.peak, first, curve)
        return up, back, Segment("annihilation", self.steps - 2 * rise, first, last, curve)
