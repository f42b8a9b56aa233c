"""Has a loss stopped improving? A sequential test with a bounded error rate.

The null hypothesis of each test: the loss still falls by at least the share `WORTH` over the later half of the
evaluations. Under it, and with noise that is independent between evaluations, the losses minus that fall have no upward
trend, so all their orders are equally likely or the ascending ones less likely. The number of pairs in ascending order,
Kendall's statistic, then has a known exact
distribution (Mann 1945; Kendall 1938), and its upper tail is the p-value. No distribution of the noise is assumed.

Test number k has the level ``FALSE_STOP / (k * (k + 1))``. The levels add up to at most `FALSE_STOP` over any number of
tests (a union bound, as in the alpha spending of Lan & DeMets 1983), so a run that still improves is stopped with at
most that probability. A test is due whenever the number of evaluations has grown by a fifth: more tests would cost
power.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

FALSE_STOP = 0.05  # probability of stopping a run that still improves, over all tests
WORTH = 0.005  # share of the loss: a smaller improvement over the window counts as none
FEWEST = 6  # evaluations of the first test: fewer have too few orders for a small p-value
GROWTH = 1.2  # of the number of evaluations, from one test to the next
LARGEST = 40  # evaluations of a window


def has_stopped_improving(updates: Sequence[int], losses: Sequence[float]) -> bool:
    """Whether the test after the last of ``losses`` shows that the loss stopped improving.

    Args:
        updates: the update of each evaluation at the same rate, ascending.
        losses: the validation losses there, all finite.

    Returns:
        False if it does not, or if no test is due.

    >>> flat = [1.0, 1.01, 0.99, 1.0, 1.02, 1.01, 1.03, 1.04, 1.05, 1.06, 1.08, 1.1]
    >>> has_stopped_improving(range(12), flat), has_stopped_improving(range(12), [1 / (n + 1) for n in range(12)])
    (True, False)
    """
    look = look_after(len(losses))
    return look is not None and improvement_p_value(updates, losses) <= FALSE_STOP / (look * (look + 1))


def look_after(evaluations: int) -> int | None:
    """The number of the test that is due after so many evaluations, 1 for the first; None if none is due.

    >>> [(n, look_after(n)) for n in (5, 6, 7, 8, 9, 10)]
    [(5, None), (6, 1), (7, None), (8, 2), (9, None), (10, 3)]
    """
    count = FEWEST
    for look in itertools.count(1):
        if count >= evaluations:
            return look if count == evaluations else None
        count = math.ceil(GROWTH * count)
    return None


def improvement_p_value(updates: Sequence[int], losses: Sequence[float]) -> float:
    """The p-value of the window's trend, under the hypothesis that the loss still falls by `WORTH` over it."""
    size = min(max(len(losses) // 2, FEWEST), LARGEST, len(losses))
    at, window = list(updates)[-size:], list(losses)[-size:]
    slope = WORTH * sorted(window)[size // 2] / max(at[-1] - at[0], 1)
    # With the wanted fall taken out, a loss that falls just that much is flat.
    level = [loss + slope * update for update, loss in zip(at, window, strict=True)]
    ascending = sum(one < other for one, other in itertools.combinations(level, 2))
    return sum(_orders(size)[ascending:])


@lru_cache
def _orders(size: int) -> tuple[float, ...]:
    """The share of the orders of ``size`` numbers that have 0, 1, 2, ... pairs in ascending order."""
    shares = [1.0]
    for count in range(2, size + 1):
        # The new number makes 0 to count - 1 ascending pairs, all equally likely.
        added = [0.0] * (len(shares) + count - 1)
        for pairs, share in enumerate(shares):
            for more in range(count):
                added[pairs + more] += share / count
        shares = added
    return tuple(shares)
