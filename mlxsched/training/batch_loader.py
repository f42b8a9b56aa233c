"""The micro-batches of each update: a pure function of the update index, so any update can be the next one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.batches import Batch
from mlxsched.data.batching.plan import BatchingPlan
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import Rows
from mlxsched.model.fast.forward_path import Arrays


@dataclass(frozen=True)
class UpdateBatches:
    """What update number ``update`` trains on: its rows, and the arrays of each micro-batch as the loss takes them.

    Each target has a weight of one over the number of targets of the whole update, so all weights add up to 1.
    """

    update: int
    rows: NDArray[np.int64]
    arrays: list[Arrays]
    n_tokens: int
    n_targets: int


class BatchLoader:
    """Draws the rows of an update by ``sampler``, cuts them into micro-batches by ``plan``, and makes arrays by ``arrays_of``
    (`ForwardPath.arrays`).

    ``rows_of`` returns the most rows that an update may have, None for as many as any other: the horizon of a run
    knows, and may change.
    """

    def __init__(
        self,
        rows: Rows,
        sampler: Sampler,
        plan: BatchingPlan,
        arrays_of: Callable[[Batch, float], Arrays],
        *,
        rows_of: Callable[[int], int | None] = lambda update: None,
    ) -> None:
        self._rows, self._sampler, self._plan, self._arrays_of = rows, sampler, plan, arrays_of
        self._rows_of = rows_of
        self._ahead: tuple[int, int | None, UpdateBatches] | None = None

    def indices(self, update: int) -> NDArray[np.int64]:
        """The rows of update number ``update``."""
        return self._sampler.rows(update)[: self._rows_of(update)]

    def prepare(self, update: int) -> None:
        """Lay out ``update`` ahead of time, while the device is busy with the one before."""
        self._ahead = (update, self._rows_of(update), self._load(update))

    def __call__(self, update: int) -> UpdateBatches:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[:2] == (update, self._rows_of(update)):
            return ahead[2]
        return self._load(update)

    def _load(self, update: int) -> UpdateBatches:
        indices = self.indices(update)
        batches = self._plan.batches(self._rows, indices)
        n_targets = sum(batch.n_targets for batch in batches)
        arrays = [self._arrays_of(batch, n_targets) for batch in batches]
        return UpdateBatches(update, indices, arrays, sum(batch.n_tokens for batch in batches), n_targets)
