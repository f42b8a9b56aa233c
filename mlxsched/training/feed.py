"""The micro-batches of each update: a pure function of the update index, so any update can be the next one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.batches import Batch, Grid, collate, micro_batches, shape_grid
from ..data.order import rows_of_update
from ..data.rows import Rows


@dataclass(frozen=True)
class UpdateRows:
    """What one update trains on. The weights of all its batches add up to 1 over the targets."""

    indices: NDArray[np.int64]
    batches: list[Batch]
    n_tokens: int
    n_targets: int

    def weights(self, batch: Batch) -> NDArray[np.float32]:
        """The weight of each position of ``batch``: one over the targets of the whole update, or 0."""
        return batch.weights / np.float32(self.n_targets)


class Feed:
    """Cuts ``rows`` into updates of ``rows_per_update`` rows and those into micro-batches.

    ``last`` is the index of the update that has only ``last_rows`` rows, if there is one.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        rows_per_update: int,
        seed: int,
        max_tokens: int | None,
        last: int | None = None,
        last_rows: int | None = None,
    ) -> None:
        self._rows = rows
        self._per_update = rows_per_update
        self._seed = seed
        self._max_tokens = max_tokens
        self._last, self._last_rows = last, last_rows
        self._grid: Grid = shape_grid(rows.lengths, rows_per_update, max_tokens=max_tokens)

    def indices(self, update: int) -> NDArray[np.int64]:
        """The rows of update number ``update``."""
        indices = rows_of_update(update, len(self._rows), self._per_update, self._seed)
        return indices[: self._last_rows] if update == self._last else indices

    def __call__(self, update: int) -> UpdateRows:
        indices = self.indices(update)
        parts = micro_batches(indices, self._rows.lengths, max_tokens=self._max_tokens, grid=self._grid)
        batches = [collate(self._rows, part, self._grid) for part in parts]
        return UpdateRows(
            indices, batches, sum(b.n_tokens for b in batches), sum(b.n_targets for b in batches)
        )
