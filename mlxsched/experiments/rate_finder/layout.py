"""Divides a budget into sweeps and branches."""

from __future__ import annotations

from dataclasses import dataclass

from mlxsched.experiments.rate_finder.trials import FORWARD, TIMED
from mlxsched.text import counted

SWEEPS = 2
SWEEP_SHARE = 0.12
"""Share of the budget: the range test only bounds the branches from above."""
SHORTEST_SWEEP = 6
"""Updates."""
FIRST, FIRST_STEP = 3, 2.5
"""Branches of the first round, and the factor between their peaks."""
EXTRA = 2
"""Additional branches of the first round, if its highest or lowest peak was the best."""
SECOND, SECOND_STEP = 3, 1.8
"""The same of the second round, around the best of the first one. Its branches are twice as long."""
JUDGING = 0.2
"""The cost of evaluating a branch of the first round, relative to training it."""

FEWEST = 8
"""Rows for an evaluation: the best rate on a few rows may differ from that on all of them."""


@dataclass(frozen=True)
class Layout:
    """What a search will do.

    Args:
        sweep: updates of each of the `SWEEPS` sweeps of the range test.
        first: updates of a branch of the first round.
        second: updates of a branch of the second round.
        held_out: rows on which a branch is evaluated.
        judging: the cost of one evaluation, in updates.
        cost: the total cost, in updates.
    """

    sweep: int
    first: int
    second: int
    held_out: int
    judging: float
    cost: float

    def describe(self) -> str:
        """The branches in words."""
        return (
            f"{FIRST} of {counted(self.first, 'update')} each (up to {FIRST + EXTRA} if the best peak is at an end), then "
            f"{SECOND} of {self.second} at most, judged on at most {counted(self.held_out, 'row')}"
        )


def layout_of(budget: float, run: int, batch_size: int) -> Layout:
    """Spend ``budget`` updates on a search for a ``run`` in updates of ``batch_size`` rows.

    >>> layout_of(100, run=500, batch_size=8)
    Layout(sweep=6, first=8, second=16, held_out=26, judging=1.625, cost=99.375)
    """
    sweep = max(round(budget * SWEEP_SHARE / SWEEPS), SHORTEST_SWEEP)
    # For branches of 1 and 2 updates; the untrained model is evaluated as well.
    price = FIRST * (1 + JUDGING) + SECOND * (2 + JUDGING) + JUDGING
    first = max(min(int((budget - TIMED - SWEEPS * sweep) / price), run // 2), 2)
    second = min(2 * first, run)
    held_out = max(round(JUDGING * first * batch_size / FORWARD), FEWEST)
    judging = held_out * FORWARD / batch_size
    cost = TIMED + SWEEPS * sweep + FIRST * first + SECOND * second + (1 + FIRST + SECOND) * judging
    return Layout(sweep, first, second, held_out, judging, cost)
