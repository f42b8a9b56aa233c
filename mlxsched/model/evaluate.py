"""The loss on rows that are not trained on: every target counts once, whatever batch it is in."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module

from mlxsched.data.batching.batches import collate, prefix_batch
from mlxsched.data.batching.common_prefix import common_prefix
from mlxsched.data.batching.grid import Grid, Shape, length_grid, n_inputs
from mlxsched.data.batching.partition import LAUNCH_TOKENS, micro_batches
from mlxsched.data.batching.shares import share_of
from mlxsched.data.rows import Indices, Rows
from mlxsched.model.fast.forward_path import PLAIN, ForwardPath
from mlxsched.model.fast.growing_cache import State
from mlxsched.model.fast.shared_prefix import continued_loss, read_prefix

OnProgress = Callable[[int, int], None]
_WORTHWHILE = 0.07  # of the tokens


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


class PartialLoss(NamedTuple):
    """The summed loss of some micro-batches, and their numbers of targets and rows."""

    loss: float
    targets: int
    rows: int

    @staticmethod
    def sum_of(parts: Iterable[PartialLoss]) -> PartialLoss:
        """``parts`` together; the order does not matter."""
        losses, targets, rows = zip(*parts, strict=True)
        return PartialLoss(math.fsum(losses), int(sum(targets)), int(sum(rows)))


def perplexity(loss: float) -> float:
    """``exp(loss)``; infinite where that overflows."""
    return math.exp(loss) if loss < 700 else math.inf


class Evaluator:
    """The loss of ``model`` on fixed rows, in micro-batches of at most ``max_tokens`` padded tokens.

    ``path`` is the forward path; ``limit`` uses only the first ``limit`` rows. A common prefix of all rows is read once
    if ``path`` supports it and at least 7% of the tokens are saved.
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
        self.n_rows = len(rows) if limit is None else min(limit, len(rows))
        self._max_tokens = max_tokens
        indices = np.arange(self.n_rows)
        self._prefix = self._shared(indices)
        self._lengths = rows.lengths - self._prefix
        self._grid: Grid = length_grid(self._lengths[: self.n_rows])
        self._divide(indices)
        functions = (self._loss_sum, self._read, self._continued)
        compiled: list[Any] = [mx.compile(f) if path.compiled else f for f in functions]
        self._sum, self._begin, self._continue = compiled

    def _shared(self, indices: Indices) -> int:
        """The number of inputs that all rows share; 0 if sharing them is not worthwhile."""
        if self._path.form is None or self._path.activations is not None or len(indices) < 2:
            return 0
        length = common_prefix(self.rows, indices)
        saved = (len(indices) - 1) * length - LAUNCH_TOKENS
        return length if saved >= _WORTHWHILE * int(n_inputs(self.rows.lengths[indices]).sum()) else 0

    def _divide(self, indices: Indices) -> None:
        self._indices = indices
        self._batches = micro_batches(
            indices, self._lengths, max_tokens=self._max_tokens, grid=self._grid, before=self._prefix
        )

    @property
    def n_batches(self) -> int:
        """The number of micro-batches."""
        return len(self._batches)

    @property
    def shapes(self) -> list[Shape]:
        """The shape of each micro-batch: rows and positions."""
        longest = (int(n_inputs(self._lengths[batch]).max()) for batch in self._batches)
        return [
            self._grid.shape(len(batch), most) for batch, most in zip(self._batches, longest, strict=True)
        ]

    def part(self, worker: int, workers: int) -> Evaluator:
        """The evaluator of those rows that ``worker`` (0 for the first) of ``workers`` takes, possibly none."""
        part = copy.copy(self)
        indices = share_of(np.arange(self.n_rows), self.rows.lengths, worker, workers)
        part.n_rows = len(indices)
        part._divide(indices)
        return part

    def __call__(self, tree: Any, on_progress: OnProgress | None = None) -> LossResult:
        """Evaluate with ``tree`` as the trainable parameters; the module holds them afterwards."""
        total = self.partial(tree, 0, self.n_batches, on_progress)
        return LossResult(total.loss / total.targets, total.targets, total.rows)

    def partial(self, tree: Any, start: int, stop: int, on_progress: OnProgress | None = None) -> PartialLoss:
        """As `__call__`, on the micro-batches from number ``start`` to before ``stop``."""
        self._model.eval()
        sums: list[mx.array] = []
        targets = rows = 0
        try:
            add: Any = partial(self._sum, tree)
            if self._prefix and self._batches[start:stop]:
                shared = prefix_batch(self.rows, self._indices, self._prefix)
                prefix = self._path.arrays(shared, 1.0)
                within, state = self._begin(tree, *prefix)
                add = partial(self._continue, tree, state, prefix[0])
                if start == 0:  # the prefix's own targets, once
                    sums, targets = [within], shared.n_targets
            for indices in self._batches[start:stop]:
                batch = collate(self.rows, indices, self._grid, self._prefix)
                sums.append(add(*self._path.arrays(batch, 1.0)))
                mx.async_eval(sums[-1])
                mx.eval(sums[-2:-1])  # one batch is laid out while the device works on the one before
                targets += batch.n_targets
                rows += len(indices)
                if on_progress:
                    on_progress(rows, self.n_rows)
            total = math.fsum(np.array(value) for value in sums)
        finally:
            self._model.update(tree)  # tracing left placeholders
            self._model.train()
        return PartialLoss(total, targets, rows)

    def non_finite_rows(self, tree: Any) -> list[int]:
        """The rows whose own loss is not finite, with ``tree`` as the trainable parameters."""
        self._model.eval()
        try:
            whole = micro_batches(
                self._indices, self.rows.lengths, max_tokens=self._max_tokens, grid=self._grid
            )
            return [row for batch in whole for row in self._non_finite(tree, batch)]
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

    def _read(self, tree: Any, *prefix: mx.array) -> tuple[mx.array, State]:
        self._model.update(tree)
        return read_prefix(self._path, self._model, prefix)

    def _continued(self, tree: Any, state: State, prefix: mx.array, *arrays: mx.array) -> mx.array:
        self._model.update(tree)
        return continued_loss(self._path, self._model, state, prefix.shape[1], arrays)
