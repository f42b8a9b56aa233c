"""Which variant of a comparison is the best, at which peak, and whether the difference is more than noise.

Each variant is compared at its own best peak. Differences are paired within each seed, where the trials start with the
same parameters and see the same rows, so the spread between seeds cancels. The intervals of all differences to the best
variant hold jointly with 95% (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlxsched.analysis.intervals import LEVEL, Interval, interval, seeds_needed
from mlxsched.text import counted


@dataclass(frozen=True)
class Measured:
    """The loss of one variant at one peak with one seed; None where it diverged."""

    variant: str
    peak: float
    seed: int
    loss: float | None


@dataclass(frozen=True)
class Point:
    """A variant at one peak: the loss of each seed, and whether one of them diverged."""

    variant: str
    peak: float
    losses: Mapping[int, float]
    diverged: bool

    @property
    def interval(self) -> Interval:
        """The mean over the seeds."""
        return interval(list(self.losses.values()))


@dataclass(frozen=True)
class Best:
    """A variant at its best peak, compared with the best variant of all.

    Args:
        point: the losses at the best peak.
        edge: "low" or "high" where the best peak is an end of the grid, so that a better one may lie beyond it.
        difference: its loss less that of the best variant, within each seed; None for the best variant, and where no seed
            is common to both.
        needed: how many seeds would make the difference significant, at its present size; None for too many.
    """

    point: Point
    edge: str = ""
    difference: Interval | None = None
    needed: int | None = None

    @property
    def variant(self) -> str:
        """The name of the variant."""
        return self.point.variant

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        mean, difference = self.point.interval, self.difference
        return {
            "peak": self.point.peak,
            "loss": mean.mean,
            "interval": mean.to_list(),
            "seeds": sorted(self.point.losses),
            "edge": self.edge or None,
            "difference": None if difference is None else difference.mean,
            "difference_interval": None if difference is None else difference.to_list(),
            "significant": None if difference is None else difference.excludes_zero,
        }


def points_of(measured: Iterable[Measured]) -> list[Point]:
    """The measurements by variant and peak, peaks ascending; variants keep their order."""
    groups: dict[str, dict[float, dict[int, float | None]]] = {}
    for one in measured:
        groups.setdefault(one.variant, {}).setdefault(one.peak, {})[one.seed] = one.loss
    return [
        Point(
            variant,
            peak,
            {seed: loss for seed, loss in peaks[peak].items() if loss is not None},
            None in peaks[peak].values(),
        )
        for variant, peaks in groups.items()
        for peak in sorted(peaks)
    ]


def rank(points: Sequence[Point], tried: Mapping[str, Sequence[float]] | None = None) -> list[Best]:
    """Each variant at its best peak, the best variant first. A peak at which a seed diverged is not the best one.

    ``tried`` are the peaks of each variant, where more were tried than there are points.
    """
    chosen = []
    for variant in dict.fromkeys(point.variant for point in points):
        own = [point for point in points if point.variant == variant]
        sane = [point for point in own if point.losses and not point.diverged]
        if sane:
            best = min(sane, key=lambda point: point.interval.mean)
            peaks = (tried or {}).get(variant) or [point.peak for point in own]
            chosen.append(Best(best, _edge(best.peak, peaks)))
    chosen.sort(key=lambda one: one.point.interval.mean)
    level = 1 - (1 - LEVEL) / max(len(chosen) - 1, 1)
    return [chosen[0], *(_compared(one, chosen[0], level) for one in chosen[1:])] if chosen else []


def _edge(best: float, peaks: Sequence[float]) -> str:
    if len(peaks) < 2:
        return ""
    return "low" if best == min(peaks) else "high" if best == max(peaks) else ""


def _compared(one: Best, best: Best, level: float) -> Best:
    seeds = sorted(one.point.losses.keys() & best.point.losses.keys())
    if not seeds:
        return one
    differences = [one.point.losses[seed] - best.point.losses[seed] for seed in seeds]
    difference = interval(differences, level)
    needed = None if difference.excludes_zero else seeds_needed(differences, level=level)
    return Best(one.point, one.edge, difference, needed)


def verdict(ranked: Sequence[Best]) -> list[str]:
    """What the comparison says, one sentence for each variant behind the best one."""
    if len(ranked) < 2:
        return []
    best, lines = ranked[0], []
    for one in ranked[1:]:
        lead = f"{best.variant} against {one.variant}"
        if one.difference is None:
            lines.append(f"{lead}: no seed is common to both, so nothing is known about the difference")
        elif one.difference.half is None:
            lines.append(
                f"{lead}: {-one.difference.mean:+.4f} with a single seed, which can't tell it from noise"
            )
        elif one.difference.mean < 0:
            lines.append(_contradiction(best, one, one.difference))
        elif one.difference.excludes_zero:
            lines.append(f"{lead}: lower by {one.difference.text()}, a significant difference")
        else:
            more = f"; about {counted(one.needed, 'seed')} would settle it" if one.needed else ""
            lines.append(f"{lead}: lower by {one.difference.text()}, which is not significant{more}")
    return lines


def _contradiction(best: Best, one: Best, difference: Interval) -> str:
    """Where the best mean is one over other seeds: on those that both have, the other variant is lower."""
    common = sorted(best.point.losses.keys() & one.point.losses.keys())
    sure = "a significant difference" if difference.excludes_zero else "which is not significant"
    higher = Interval(-difference.mean, difference.half)
    return (
        f"{best.variant} against {one.variant}: lower in the mean of its seeds, but higher by {higher.text()} on the "
        f"{counted(len(common), 'seed')} that both have, {sure}; train both with the same seeds"
    )
