"""The micro-batches of each update: a pure function of the update index, so any update can be the next one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.batches import Batch, Grid, collate, micro_batches, shape_grid
from ..data.order import rows_of_update
from ..data.rows import Rows
from .fast.for_run import PLAIN_WAY
from .fast.route import Arrays, Layout


@dataclass(frozen=True)
class UpdateRows:
    """What one update trains on: the arrays of each micro-batch, as the loss function takes them.

    All their weights add up to 1: each target has one over the number of targets of the whole update.
    """

    indices: NDArray[np.int64]
    arrays: list[Arrays]
    n_tokens: int
    n_targets: int


class Feed:
    """Cuts ``rows`` into updates of ``rows_per_update`` rows and those into micro-batches.

    ``layout`` makes a batch into arrays, and says whether lines hold several rows. ``last`` is the index of the update that has only ``last_rows`` rows, if there is one.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        rows_per_update: int,
        seed: int,
        max_tokens: int | None,
        layout: Layout = PLAIN_WAY.layout,
        last: int | None = None,
        last_rows: int | None = None,
    ) -> None:
        self._rows = rows
        self._per_update = rows_per_update
        self._seed = seed
        self._max_tokens = max_tokens
        self._layout = layout
        self._last, self._last_rows = last, last_rows
        self._grid: Grid = shape_grid(rows.lengths, rows_per_update, max_tokens=max_tokens)

    def indices(self, update: int) -> NDArray[np.int64]:
        """The rows of update number ``update``."""
        indices = rows_of_update(update, len(self._rows), self._per_update, self._seed)
        return indices[: self._last_rows] if update == self._last else indices

    def __call__(self, update: int) -> UpdateRows:
        indices = self.indices(update)
        batches = self._batches(indices)
        n_targets = sum(batch.n_targets for batch in batches)
        arrays = [self._layout(batch, n_targets) for batch in batches]
        return UpdateRows(indices, arrays, sum(batch.n_tokens for batch in batches), n_targets)

    def _batches(self, indices: NDArray[np.int64]) -> list[Batch]:
        lengths, packing = self._rows.lengths, self._layout.packing
        if packing is not None:
            return [packing.collate(self._rows, part) for part in packing.micro_batches(indices, lengths)]
        parts = micro_batches(indices, lengths, max_tokens=self._max_tokens, grid=self._grid)
        return [collate(self._rows, part, self._grid) for part in parts]
