"""The rows of an update dealt out to several workers, so that each has about the same number of tokens."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.grid import n_inputs
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import Indices


def share_of(indices: Indices, lengths: NDArray[Any], worker: int, workers: int) -> Indices:
    """The rows of ``indices`` that ``worker`` (0 for the first) of ``workers`` trains on, in their order.

    The shares of all workers make up ``indices``. The longest row goes first, always to the worker with the fewest
    tokens (LPT; Graham, 1969), which is at most a third above the best possible division. Where there are fewer rows than
    workers, some shares are empty.

    >>> lengths = np.array([9, 5, 5, 17, 3, 5])
    >>> [share_of(np.arange(6), lengths, worker, 2).tolist() for worker in (0, 1)]
    [[3, 5], [0, 1, 2, 4]]
    """
    if workers == 1:
        return indices
    inputs = n_inputs(lengths[indices])
    loads = [(0, number) for number in range(workers)]
    mine = []
    for place in np.argsort(-inputs, kind="stable"):
        load, number = loads[
            0
        ]  # of equal loads that of the lowest number, so that all workers find the same division
        heapq.heapreplace(loads, (load + int(inputs[place]), number))
        if number == worker:
            mine.append(int(place))
    return indices[np.sort(np.array(mine, np.int64))]


@dataclass(frozen=True, eq=False)
class SharedSampler(Sampler):
    """A sampler whose updates hold only the share of one worker: micro-batch shapes are planned from it.

    >>> whole = Sampler(np.array([9, 5, 5, 17]), rows_per_update=4)
    >>> mine = SharedSampler.of(whole, worker=0, workers=2)
    >>> sorted(whole.rows(0).tolist()), sorted(mine.rows(0).tolist())
    ([0, 1, 2, 3], [3])
    """

    worker: int = 0
    workers: int = 1

    @classmethod
    def of(cls, sampler: Sampler, worker: int, workers: int) -> SharedSampler:
        """The share of ``worker`` in the updates of ``sampler``."""
        return cls(
            sampler.lengths,
            sampler.rows_per_update,
            sampler.seed,
            sampler.window,
            worker=worker,
            workers=workers,
        )

    def rows(self, update: int) -> Indices:
        """Row indices of ``update`` (0 for the first) that this worker trains on, possibly none."""
        return share_of(super().rows(update), self.lengths, self.worker, self.workers)
