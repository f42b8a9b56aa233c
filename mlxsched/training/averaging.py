"""Averages of a run's adapters, kept up to date while it trains.

An average needs points (the parameters after certain updates), or a running sum. Both are part of every checkpoint, so a
resumed run has the averages of one that was not interrupted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from mlxsched.analysis.findings import Finding
from mlxsched.config.average import Average, parse_average
from mlxsched.config.schema import RunConfig
from mlxsched.errors import UsageError
from mlxsched.model.averaging import mean_of_factors, mean_of_products
from mlxsched.model.trees import Tensors, n_bytes
from mlxsched.planning.cycles import cycle_ends
from mlxsched.planning.schedule import ScheduleLike
from mlxsched.schedules import wsd
from mlxsched.text import counted, rounded
from mlxsched.training.optimizers import Packed

WINDOW = 0.4
"""The share of a run that the points of an average cover by default (benchmarks/experiments_averaging.py)."""


class Averager:
    """Collects the points of an average, and computes it.

    Args:
        average: how to average.
        every: updates between points; not used by ``ema`` and ``cycles``.
        is_end: whether a cycle of the schedule ends after so many updates; used by ``cycles``.
        unpack: the tensors by path of packed parameters, as `GroupedOptimizer.unpack` returns them.

    `state` maps a number of updates to packed parameters: those after them, or, for ``ema``, the sum that began there.
    """

    def __init__(
        self,
        average: Average,
        every: int,
        is_end: Callable[[int], bool],
        unpack: Callable[[Packed], Tensors],
    ) -> None:
        self.average, self._every = average, every
        self._is_end, self._unpack = is_end, unpack
        self.state: dict[int, Packed] = {}

    def see(self, update: int, parameters: Packed) -> None:
        """Take in the parameters after ``update`` updates."""
        if self.average.kind == "ema":
            self._add_to_sum(update, parameters)
        elif self.ends_cycle(update) if self.average.kind == "cycles" else update % self._every == 0:
            self.state[update] = parameters
            for earlier in sorted(self.state)[: -self.average.points]:
                del self.state[earlier]

    def ends_cycle(self, update: int) -> bool:
        """Whether ``cycles`` has a new point after ``update`` updates."""
        return self.average.kind == "cycles" and self._is_end(update)

    def mean(self, update: int, parameters: Packed) -> Tensors | None:
        """The average after ``update`` updates, with the ``parameters`` of now as its last point; None if it is too early.

        ``last`` and ``merge`` wait until they have all their points, ``cycles`` for the end of the second cycle.
        """
        if self.average.kind == "ema":
            return self._corrected_sum(update)
        points = dict(self.state) if self.average.kind == "cycles" else {**self.state, update: parameters}
        chosen = sorted(points)[-self.average.points :]
        if len(chosen) < (2 if self.average.kind == "cycles" else self.average.points):
            return None
        tensors = [self._unpack(points[at]) for at in chosen]
        weights = self._weights(chosen)
        if self.average.products:
            return mean_of_products(tensors, weights)[0]
        return mean_of_factors(tensors, weights)

    def _weights(self, updates: Sequence[int]) -> list[float]:
        if self.average.kind == "merge":
            return merge_weights(updates, self.average.shape)
        return [1 / len(updates)] * len(updates)

    def _add_to_sum(self, update: int, parameters: Packed) -> None:
        """``sum = decay * sum + (1 - decay) * parameters`` in float32, from 0."""
        decay = self.average.decay
        if not self.state:
            self.state[update - 1] = tree_map(lambda value: mx.zeros(value.shape), parameters)
        ((first, total),) = self.state.items()
        self.state[first] = tree_map(
            lambda old, new: decay * old + (1 - decay) * new.astype(mx.float32), total, parameters
        )
        mx.async_eval(self.state[first])

    def _corrected_sum(self, update: int) -> Tensors | None:
        """The sum divided by that of its weights, ``1 - decay^n`` after n updates: the bias correction of Adam."""
        if not self.state:
            return None
        ((first, total),) = self.state.items()
        return mean_of_factors([self._unpack(total)], [1 / (1 - self.average.decay ** (update - first))])


def merge_weights(updates: Sequence[int], shape: str) -> list[float]:
    """Weights of checkpoints of a constant-rate run whose mean corresponds to a decay of ``shape`` over the same
    updates.

    With points theta_0 ... theta_k at ``updates`` and increments g_i = theta_i - theta_(i-1), a weighted mean applies a
    decaying factor to the increments::

        sum_j c_j theta_j  =  theta_0 + sum_i w_i g_i,    w_i = c_i + ... + c_k

    so c_0 = 1 - w_1, c_j = w_j - w_(j+1), c_k = w_k (Tian et al., 2025, arXiv 2507.17634). Here w_i is the mean of the
    decay's rates over the updates that made g_i, as a share of the peak: 1 at the first point, 0 after the last.

    Equal weights, the plain mean of k + 1 points at equal distances, stand for w_i = 1 - i / (k + 1): a linear decay.

    Args:
        updates: of the points, ascending; at least two.
        shape: a tail of `mlxsched.wsd` that ends at 0.

    >>> [round(weight, 3) for weight in merge_weights([100, 150, 200], "linear")]
    [0.245, 0.5, 0.255]
    """
    length = updates[-1] - updates[0]
    rates = wsd(1.0, steps=length, decay=length, shape=shape)(np.arange(length))
    cuts = np.array(updates) - updates[0]
    factors = [float(rates[start:end].mean()) for start, end in itertools.pairwise(cuts)]
    return [a - b for a, b in zip([1.0, *factors], [*factors, 0.0], strict=True)]


# What a run's settings ask for


def points_every(config: RunConfig, updates: int) -> int:
    """Updates between the points of an average in a run that is planned to make ``updates``."""
    average = parse_average(config.average or "last:2")
    planned = round(WINDOW * updates / max(average.points - 1, 1))
    return config.average_every or max(planned, 1)


def bytes_kept(config: RunConfig, trainable: Tensors) -> int:
    """Bytes that an average keeps in memory, and in every checkpoint."""
    if config.average is None:
        return 0
    average = parse_average(config.average)
    if average.kind == "ema":
        return sum(4 * value.size for value in trainable.values())
    return average.points * n_bytes(trainable)


def average_findings(
    config: RunConfig, schedule: ScheduleLike, updates: int, trainable: Tensors
) -> list[Finding]:
    """The plan's description of the average of a run.

    Raises:
        UsageError: ``cycles`` for a schedule without any.
    """
    if config.average is None:
        return []
    average = parse_average(config.average)
    if average.kind == "cycles" and not cycle_ends(schedule, updates):
        raise UsageError(
            "--average cycles needs a schedule with cycles, such as cosine_restarts or wsd_cycles. Choose one, or "
            "average by last:5 or ema."
        )
    size = bytes_kept(config, trainable)
    how = {
        "last": f"{average.points} points, {counted(points_every(config, updates), 'update')} apart",
        "merge": f"{average.points} points, {counted(points_every(config, updates), 'update')} apart, "
        f"weighted as a {average.shape} decay",
        "ema": "a moving average of every update",
        "cycles": "the ends of the schedule's cycles",
    }[average.kind]
    text = (
        f"average {average}: {how}. Evaluated with every evaluation; it keeps {rounded(size / 1e6, 3)} MB more in memory "
        "and in each checkpoint"
    )
    return [Finding("average", "note", text), *_decays_twice(average, schedule, updates)]


def _decays_twice(average: Average, schedule: ScheduleLike, updates: int) -> list[Finding]:
    """A note for a schedule that decays by itself, which an average follows with a delay."""
    last = float(schedule(updates - 1))
    highest = max(float(schedule(round(updates * share))) for share in (0.25, 0.5, 0.75))
    if average.kind == "cycles" or last > highest / 2:
        return []
    evidence = (
        f"the schedule decays, and an average stands for a decay: {average} will lag behind the last adapter"
    )
    fix = "Use --schedule constant, or leave --average out"
    return [Finding("decays_twice", "note", evidence, fix=fix)]
