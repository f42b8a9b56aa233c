"""The time of the parts of a run, and the number of updates that fit into a time."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

RECENT = 32  # updates that are timed
FEW = 5  # the latest of them, which detect a new speed
CHANGE = 1.3  # a change of the speed by this factor is a new speed
OUTLIER = 3.0  # times the median: slower updates are clipped to it


@dataclass
class Costs:
    """Seconds of an evaluation, of a checkpoint, and of the measurement at the end; and recent updates.

    ``updates`` holds seconds and tokens of each. An evaluation may be old: `evaluation_now` converts its time to the
    present speed.
    """

    evaluation: float = 0.0
    saving: float = 0.0
    measuring: float = 0.0
    updates: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RECENT))
    evaluated_at: float | None = None  # seconds per token when `evaluation` was measured; None if not known

    def see_evaluation(self, seconds: float) -> None:
        """Record the time of an evaluation."""
        self.evaluation, self.evaluated_at = seconds, self.per_token() if self.updates else None

    def evaluation_now(self, last: int = RECENT) -> float:
        """Seconds of an evaluation at the speed of the last updates."""
        if self.evaluated_at is None:
            return self.evaluation
        return self.evaluation * self.per_token(last) / self.evaluated_at

    def see_update(self, seconds: float, tokens: int) -> None:
        """Record the time of an update; those before a change of speed are dropped.

        The median of the newest few is compared with that of the others: single slow updates change neither.
        """
        self.updates.append((seconds, tokens))
        if self.evaluated_at is None and len(self.updates) == FEW:
            self.evaluated_at = self.per_token()  # the first evaluation came before the first update
        speeds = [seconds / tokens for seconds, tokens in self.updates]
        if len(speeds) < 2 * FEW:
            return
        before, now = statistics.median(speeds[:-FEW]), statistics.median(speeds[-FEW:])
        if before > 0 and not before / CHANGE < now < before * CHANGE:
            # The change shows when most of the newest few are after it; those before it would halve the difference.
            between = math.sqrt(before * now)
            recent = list(self.updates)[-FEW:]
            new = [one for one in recent if (one[0] / one[1] > between) == (now > before)]
            self.updates = deque(new, maxlen=RECENT)
            self.measuring *= now / before  # evaluations and checkpoints are timed again, this is not

    def per_token(self, last: int = RECENT) -> float:
        """Seconds per token over the last updates.

        A mean and not a median, since it is the sum of all updates that has to fit; an update that compiles a new shape
        or waits for the disk counts as at most three medians.

        >>> costs = Costs()
        >>> costs.updates.extend([(1.0, 10), (1.0, 10), (9.0, 10)])
        >>> round(costs.per_token(), 4)
        0.1667
        """
        recent = list(self.updates)[-max(last, 1) :]
        most = OUTLIER * statistics.median(seconds / tokens for seconds, tokens in recent)
        return sum(min(seconds, most * tokens) for seconds, tokens in recent) / sum(n for _, n in recent)


@dataclass(frozen=True)
class Work:
    """What a run does apart from its updates.

    Args:
        tokens: of an update, on average.
        evaluate_every: updates between evaluations in a run of that many; None without validation rows.
        save_every: updates between checkpoints.
    """

    tokens: float
    evaluate_every: Callable[[int], int] | None
    save_every: int

    def seconds(self, costs: Costs, made: int, total: int, last: int = RECENT) -> float:
        """The time from update ``made`` to the end of a run of ``total`` updates.

        At the end come an evaluation, two checkpoints, and a repeat of the measurement made before the first update.
        """
        every, save = self.evaluate_every, self.save_every
        evaluations = 0 if every is None else _multiples(every(total), made, total) + 1
        return (
            (total - made) * self.tokens * costs.per_token(last)
            + evaluations * costs.evaluation_now(last)
            + (_multiples(save, made, total) + 2) * costs.saving
            + costs.measuring
        )

    def fitting(self, costs: Costs, made: int, left: float, last: int = RECENT) -> int:
        """The most updates, ``made`` included, of a run that ends within ``left`` seconds; at least ``made``.

        >>> costs = Costs(evaluation=2.0, updates=deque([(0.5, 10)]))
        >>> Work(10.0, lambda total: 10, 100).fitting(costs, made=0, left=10.0)
        12
        """
        most = made + 1 + int(max(left, 0.0) / (self.tokens * costs.per_token(last)))
        totals = range(made + 1, most + 1)
        return made + bisect_right(totals, left, key=lambda total: self.seconds(costs, made, total, last))


def _multiples(every: int, made: int, total: int) -> int:
    """How many multiples of ``every`` lie strictly between ``made`` and ``total``."""
    return max((total - 1) // every - made // every, 0)
