"""The learning-rate range test: the loss while the rate grows exponentially (Smith, 2015, arXiv 1506.01186).

It finds the rate at which training diverges, which bounds the peak from above. The well-known rules that choose a rate
from its curve are included for comparison: with LoRA they are unreliable, since the loss hardly changes in a sweep.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlxsched.experiments.rate_finder.trials import Trials

RISE = 0.5
"""In nats. A sweep ends when the loss is this far above its lowest value. A multiple of the lowest ("4x best") is never
reached: the loss of a language model saturates near the logarithm of its vocabulary."""


@dataclass(frozen=True)
class RangeTest:
    """The loss at ``rates``, a mean over the repeats; ``broke`` is the mean rate of divergence (None: none)."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    broke: float | None

    @property
    def marks(self) -> dict[str, float]:
        """The rates that the well-known rules choose."""
        found = {}
        if len(self.rates) > 3:
            found = {"valley": valley(self.rates, self.losses), "steepest": steepest(self.rates, self.losses)}
        return found | ({} if self.broke is None else {"tenth_of_divergence": self.broke / 10})


def range_test(trials: Trials, low: float, high: float, updates: int, repeats: int) -> RangeTest:
    """Sweep from ``low`` to ``high`` in ``updates``, ``repeats`` times.

    Each repeat trains on the rows of one update again and again: with other rows at each rate, the loss of a small
    batch jumps by more than `RISE` long before training diverges. Each repeat has other rows.
    """
    rates = exponential(low, high, updates)
    curves, broke = [], []
    for repeat in range(repeats):
        losses, end = _one_sweep(trials, rates, repeat)
        curves.append(losses)
        broke += [] if end is None else [rates[end]]
    length = min(map(len, curves))
    means = [statistics.fmean(curve[at] for curve in curves) for at in range(length)]
    place = math.exp(statistics.fmean(map(math.log, broke))) if broke else None
    return RangeTest(tuple(rates[:length]), tuple(means), place)


def exponential(low: float, high: float, count: int) -> list[float]:
    """``count`` rates from ``low`` to ``high``: ``low * (high / low) ** (t / (count - 1))``.

    >>> exponential(1e-5, 1e-3, 3)
    [1e-05, 0.0001, 0.001]
    """
    return [float(rate) for rate in np.geomspace(low, high, count)]


def _one_sweep(trials: Trials, rates: list[float], rows: int) -> tuple[list[float], int | None]:
    """The losses, and the position at which the sweep had diverged (None: it did not)."""
    losses: list[float] = []
    for position, loss in enumerate(trials.sweep(rates, lambda _: rows)):
        losses.append(loss)
        if loss > min(losses) + RISE:
            # A loss is measured before its update, so the previous rate caused it. The rates are far apart, and the
            # bound should rather be too high: it only excludes rates at which every run diverges.
            return losses, position
    return losses, None


def steepest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The rate at which the loss falls most for a factor of the rate: the gradient is against ``log(rate)``.

    Lightning takes it against the linear rate, where small rates always win: it is off by up to 1000 times.

    >>> steepest([1e-5, 1e-4, 1e-3, 1e-2], [3.0, 2.9, 2.0, 1.95])
    0.0001
    """
    return float(rates[int(np.argmin(np.gradient(np.asarray(losses), np.log(rates))))])


def valley(rates: Sequence[float], losses: Sequence[float]) -> float:
    """fastai's rule: the middle of the longest decreasing subsequence of the losses.

    >>> valley([1, 2, 3, 4, 5, 6, 7], [3.0, 2.9, 2.8, 2.7, 2.6, 2.5, 9.0])
    3.0
    """
    lengths = [1] * len(losses)
    for end in range(len(losses)):
        lengths[end] += max((lengths[at] for at in range(end) if losses[at] > losses[end]), default=0)
    end = lengths.index(max(lengths))
    start = end - lengths[end]  # as in fastai: the subsequence may have gaps, which count as its own
    third = (end - start) / 3
    return float(rates[max(start + int(third) + int(third / 2), 0)])
