"""The micro-batches of each update: a pure function of the update index, so any update can be the next one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.plan import BatchingPlan
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import Rows
from mlxsched.model.fast.forward_path import PLAIN, Arrays, ForwardPath


@dataclass(frozen=True)
class UpdateRows:
    """What one update trains on: the arrays of each micro-batch, as the loss function takes them.

    All their weights add up to 1: each target has one over the number of targets of the whole update.
    """

    indices: NDArray[np.int64]
    arrays: list[Arrays]
    n_tokens: int
    n_targets: int


class BatchLoader:
    """Puts ``rows`` in ``order``, and cuts each update into micro-batches by ``cut``.

    ``path`` lays a batch out as arrays. ``last`` is the index of the update that has only ``last_rows`` rows, if there
    is one.
    """

    def __init__(
        self,
        rows: Rows,
        order: Sampler,
        cut: BatchingPlan,
        path: ForwardPath = PLAIN,
        *,
        last: int | None = None,
        last_rows: int | None = None,
    ) -> None:
        self._rows, self._order, self._cut, self._path = rows, order, cut, path
        self._last, self._last_rows = last, last_rows

    def indices(self, update: int) -> NDArray[np.int64]:
        """The rows of update number ``update``."""
        indices = self._order.rows(update)
        return indices[: self._last_rows] if update == self._last else indices

    def __call__(self, update: int) -> UpdateRows:
        indices = self.indices(update)
        batches = self._cut.batches(self._rows, indices)
        n_targets = sum(batch.n_targets for batch in batches)
        arrays = [self._path.arrays(batch, n_targets) for batch in batches]
        return UpdateRows(indices, arrays, sum(batch.n_tokens for batch in batches), n_targets)
