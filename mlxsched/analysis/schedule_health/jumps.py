"""Checks for changes that come at once: spikes, cliffs, stairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlxsched.analysis.schedule_health.curve import SHORTEST, Curve, ScheduleFinding
from mlxsched.text import number

JUMP = 0.25  # share of the peak: a change of this size within one update is sudden


def spike(curve: Curve) -> Iterator[ScheduleFinding]:
    """A sudden rise after the first updates; a warmup of fewer than five updates looks like one."""
    rises = np.diff(curve.rates) >= JUMP * curve.peak
    sudden = np.flatnonzero(rises & (curve.rates[1:] >= 1.5 * curve.rates[:-1])) + 1
    sudden = sudden[sudden > 4]
    if curve.updates < SHORTEST or not len(sudden):
        return
    at = int(sudden[0])
    restart = curve.by_design(at)
    yield ScheduleFinding(
        "spike",
        "note" if restart else "warning",
        f"the rate jumps from {number(float(curve.rates[at - 1]))} to {number(float(curve.rates[at]))} in one update"
        + _times(len(sudden)),
        why="The loss rises at each restart: keep the best model of each cycle"
        if restart
        else "A sudden rise of the rate makes the loss jump",
        update=at,
    )


def cliff(curve: Curve) -> Iterator[ScheduleFinding]:
    """A fall to half of the rate or less in one update."""
    falls = -np.diff(curve.rates) >= JUMP * curve.peak
    sudden = np.flatnonzero(falls & (curve.rates[1:] <= 0.5 * curve.rates[:-1])) + 1
    if curve.updates < SHORTEST or len(curve.stairs) > 1 or not len(sudden):
        return
    at = int(sudden[0])
    yield ScheduleFinding(
        "cliff",
        "note" if curve.by_design(at) else "warning",
        f"the rate falls from {number(float(curve.rates[at - 1]))} to {number(float(curve.rates[at]))} in one update"
        + _times(len(sudden)),
        why="Learning stops where a gradual decay would still improve the model",
        update=at,
    )


def staircase(curve: Curve) -> Iterator[ScheduleFinding]:
    """A decay in two steps or more."""
    if len(curve.stairs) < 2:
        return
    at = int(curve.stairs[0])
    sgd = curve.facts.optimizer == "sgd"
    yield ScheduleFinding(
        "staircase",
        "note" if sgd else "warning",
        f"the rate falls in {len(curve.stairs)} steps, the first from {number(float(curve.rates[at - 1]))} to "
        f"{number(float(curve.rates[at]))}",
        why="The classical recipe for SGD"
        if sgd
        else "A smooth decay ends at the same rate without the jolts; stairs are a recipe for SGD",
        update=at,
    )


def _times(count: int) -> str:
    return "" if count == 1 else f", and {count - 1} more such"
