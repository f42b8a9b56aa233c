"""Where the cycles of a schedule end: the moments whose adapters are worth keeping."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.planning.schedule import ScheduleLike
from mlxsched.schedules.base import Phase, Schedule

UNNAMED = "cycles"
"""The phase in which a schedule repeats its first cycles without naming each of them."""


@lru_cache(maxsize=16)
def cycle_ends(schedule: ScheduleLike, updates: int) -> tuple[int, ...]:
    """The numbers of updates after which a cycle of ``schedule`` has ended, in a run of ``updates`` updates.

    A cycle ends where a phase in which the rate fell is followed by one in which it rises above that level again, as at
    each warm restart and after each decay of `wsd_cycles`. The end of the run ends the last cycle. Empty for a schedule
    without a restart, and for a user's own function, which has no phases.

    >>> from mlxsched.schedules import cosine_restarts, warmup_cosine
    >>> cycle_ends(cosine_restarts(2e-4, steps=100, cycles=2, warmup=10), 100)
    (55, 100)
    >>> cycle_ends(warmup_cosine(2e-4, steps=100, warmup=10), 100)
    ()
    """
    if not isinstance(schedule, Schedule):
        return ()
    rates = schedule(np.arange(updates))
    phases = [phase._replace(end=min(phase.end or updates, updates)) for phase in schedule.phases]
    phases = [phase for phase in phases if phase.start < updates]
    turns = _turns(rates, phases)
    if "cycle" in turns.values():  # chebyshev's rates jump up and down all the time
        return ()
    ends = {turn for turn, name in turns.items() if name == UNNAMED}
    ends |= {
        later.start
        for earlier, later in itertools.pairwise(phases)
        if rates[earlier.start] > rates[later.start - 1] < rates[later.start : later.end].max()
    }
    return (*sorted(ends), updates) if ends else ()


def _turns(rates: NDArray[Any], phases: list[Phase]) -> dict[int, str]:
    """The updates at which the rate rises after it fell, inside of a phase, with the phase's name."""
    changes = np.diff(rates)
    moves = np.flatnonzero(changes)
    turns = [int(b) + 1 for a, b in itertools.pairwise(moves) if changes[a] < 0 < changes[b]]
    return {
        turn: phase.name for turn in turns for phase in phases if phase.start + 1 < turn < (phase.end or 0)
    }
