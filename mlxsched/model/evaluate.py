"""The loss on rows that are not trained on: every target counts once, whatever batch it is in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module

from mlxsched.data.batching.batches import collate
from mlxsched.data.batching.grid import Grid, length_grid
from mlxsched.data.batching.partition import micro_batches
from mlxsched.data.rows import Indices, Rows
from mlxsched.model.fast.forward_path import PLAIN, ForwardPath

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class LossResult:
    """Mean negative log-likelihood over ``targets`` targets of ``rows`` rows (natural logarithm)."""

    loss: float
    targets: int
    rows: int

    @property
    def perplexity(self) -> float:
        """``exp(loss)``; infinite where that overflows."""
        return perplexity(self.loss)


def perplexity(loss: float) -> float:
    """``exp(loss)``; infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf


class Evaluator:
    """The loss of ``model`` on fixed rows, in micro-batches of at most ``max_tokens`` padded tokens.

    ``path`` is how they go through the model; ``limit`` takes only that many rows, from the first.
    """

    def __init__(
        self,
        model: Module,
        rows: Rows,
        path: ForwardPath = PLAIN,
        *,
        max_tokens: int,
        limit: int | None = None,
    ) -> None:
        self._model, self.rows, self._path = model, rows, path
        count = len(rows) if limit is None else min(limit, len(rows))
        self._grid: Grid = length_grid(rows.lengths[:count])
        self._batches = micro_batches(np.arange(count), rows.lengths, max_tokens=max_tokens, grid=self._grid)
        self.n_rows = count
        self._sum: Any = mx.compile(self._loss_sum) if path.compiled else self._loss_sum

    def __call__(self, tree: Any, on_progress: OnProgress | None = None) -> LossResult:
        """Evaluate with ``tree`` as the trainable parameters; the module holds them afterwards."""
        self._model.eval()
        sums: list[mx.array] = []
        targets, done = 0, 0
        try:
            for indices in self._batches:
                batch = collate(self.rows, indices, self._grid)
                sums.append(self._sum(tree, *self._path.arrays(batch, 1.0)))
                mx.async_eval(sums[-1])
                mx.eval(sums[-2:-1])  # one batch is laid out while the device works on the one before
                targets += batch.n_targets
                done += len(indices)
                if on_progress:
                    on_progress(done, self.n_rows)
            total = math.fsum(np.array(value) for value in sums)
        finally:
            self._model.update(tree)  # tracing left placeholders
            self._model.train()
        return LossResult(total / targets, targets, self.n_rows)

    def non_finite_rows(self, tree: Any) -> list[int]:
        """The rows whose own loss is not finite, with ``tree`` as the trainable parameters."""
        self._model.eval()
        try:
            return [row for batch in self._batches for row in self._non_finite(tree, batch)]
        finally:
            self._model.update(tree)
            self._model.train()

    def _non_finite(self, tree: Any, indices: Indices) -> list[int]:
        """Those of ``indices``; halves are tried until a row is alone, so that few shapes are computed."""
        batch = collate(self.rows, indices, self._grid)
        if math.isfinite(float(self._sum(tree, *self._path.arrays(batch, 1.0)))):
            return []
        if len(indices) == 1:
            return [int(indices[0])]
        half = len(indices) // 2
        return self._non_finite(tree, indices[:half]) + self._non_finite(tree, indices[half:])

    def _loss_sum(self, tree: Any, *arrays: mx.array) -> mx.array:
        self._model.update(tree)
        return self._path.loss(self._model, *arrays)
