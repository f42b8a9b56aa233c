"""How the rows of an update become micro-batches: padded ones of rows of like length, and lines of several short rows.

Lines are taken where they are predicted to be cheaper. What they cost beside padding is attention over the whole
line; rows that no line holds go in padded micro-batches beside them. All of it is planned from sampled updates, so
that few shapes are compiled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.batches import (
    LAUNCH_TOKENS,
    Batch,
    Grid,
    Indices,
    Shape,
    collate,
    micro_batches,
    n_inputs,
    shape_grid,
    thinned,
)
from mlxsched.data.batching.packing import Packing
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import Rows

WIDEST = 256
# A token attending over a line this wide costs twice a lone one. Measured on the CPU: 280 for a hidden size of
# 128, 850 for 576; the lower one is the careful choice.
_DOUBLING_WIDTH = 256
_WIDTHS = (32, 48, 64, 96, 128, 192, WIDEST)
_SAMPLED_UPDATES, _TRIED_UPDATES = 100, 24  # to plan shapes, and to compare widths
_WORTH_IT = 0.93  # of the padded cost: the estimate is good to a few per cent
_MOST_COUNTS, _MOST_BESIDE = 8, 12  # numbers of lines, and shapes beside them: each is compiled
_NO_ROWS = Grid(())


@dataclass(frozen=True)
class BatchingPlan:
    """Micro-batches of at most ``max_tokens`` positions: lines of ``packing`` for the rows that they hold, and
    the shapes of ``grid`` for the others (all of them without a packing).
    """

    max_tokens: int
    grid: Grid
    packing: Packing | None = None

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Every shape that was planned: rows or lines, and positions."""
        if self.packing is None:
            return self.grid.shapes
        return (*self.grid.shapes, *((count, self.packing.width) for count in self.packing.lines))

    def batches(self, rows: Rows, indices: Indices) -> list[Batch]:
        """The rows ``indices`` of an update, laid out."""
        padded, packed = self._parts(indices, rows.lengths)
        found = [collate(rows, part, self.grid) for part in padded]
        if self.packing is not None:
            found += [self.packing.collate(rows, part) for part in packed]
        return found

    def shapes_of(self, indices: Indices, lengths: NDArray[Any]) -> list[Shape]:
        """The shapes of the micro-batches of an update."""
        padded, packed = self._parts(indices, lengths)
        found = [self.grid.shape(len(part), int(n_inputs(lengths[part]).max())) for part in padded]
        if self.packing is not None:
            found += [self.packing.shape(len(part)) for part in packed]
        return found

    def _parts(self, indices: Indices, lengths: NDArray[Any]) -> tuple[list[Indices], list[list[Indices]]]:
        packed: list[list[Indices]] = []
        if self.packing is not None:
            short = self.packing.holds(lengths[indices])
            packed = self.packing.micro_batches(indices[short], lengths)
            indices = indices[~short]
        return micro_batches(indices, lengths, max_tokens=self.max_tokens, grid=self.grid), packed


def padded_plan(order: Sampler, max_tokens: int) -> BatchingPlan:
    """Padded micro-batches only."""
    return BatchingPlan(max_tokens, shape_grid(order, max_tokens=max_tokens))


def packed_plan(padded: BatchingPlan, order: Sampler, *, always: bool = False) -> BatchingPlan | None:
    """Micro-batches with lines of the best width, where they are predicted to be cheaper than those of ``padded``.

    ``always`` takes them although they are not; None also where no line holds any row. The cost of a micro-batch of
    n lines of w positions is ``n * w * (1 + w / 256)`` and a launch.
    """
    samples = order.samples(_TRIED_UPDATES)

    def cost(cut: BatchingPlan) -> float:
        return estimated_cost(cut, order.lengths, samples)

    shortest, most = int(n_inputs(order.lengths).min()), padded.max_tokens
    costs = {
        width: cost(replace(padded, packing=_lines(width, most, order, samples)))
        for width in _WIDTHS
        if shortest <= width <= most
    }
    best = min(costs, key=costs.__getitem__, default=None)
    if best is None or not (always or costs[best] <= _WORTH_IT * cost(padded)):
        return None
    return _planned(best, most, order)


def _lines(width: int, max_tokens: int, order: Sampler, samples: list[Indices]) -> Packing:
    """Lines of ``width``, and few of the numbers of them that come up: rows of an update add up to much the same.

    No micro-batch gets more lines than came up, so that every shape is one of the planned ones.
    """
    packing = Packing(width, max(max_tokens // width, 1))
    fitting = [rows[packing.holds(order.lengths[rows])] for rows in samples]
    seen = [len(part) for rows in fitting for part in packing.micro_batches(rows, order.lengths)]
    values, counts = np.unique(seen or [1], return_counts=True)
    lines = thinned(list(range(len(values))), values, counts, _MOST_COUNTS)
    return replace(packing, most=lines[-1], lines=lines)


def _planned(width: int, max_tokens: int, order: Sampler) -> BatchingPlan:
    """Lines of ``width``, and shapes for the rows that they don't hold."""
    grid = _NO_ROWS
    if int(n_inputs(order.lengths).max()) > width:
        grid = shape_grid(order, max_tokens=max_tokens, above=width, cap=_MOST_BESIDE)
    return BatchingPlan(max_tokens, grid, _lines(width, max_tokens, order, order.samples(_SAMPLED_UPDATES)))


def estimated_cost(cut: BatchingPlan, lengths: NDArray[Any], updates: list[Indices]) -> float:
    """The estimated cost of ``updates`` (the rows of each), in tokens."""
    shapes = (shape for rows in updates for shape in cut.shapes_of(rows, lengths))
    return sum(count * width * (1 + width / _DOUBLING_WIDTH) + LAUNCH_TOKENS for count, width in shapes)


@dataclass(frozen=True)
class Sampled:
    """What a number of updates come to: inputs of their rows, and the shapes of their micro-batches."""

    updates: int
    inputs: int
    shapes: list[Shape]

    @property
    def positions(self) -> int:
        """Places for inputs, padding included."""
        return sum(count * width for count, width in self.shapes)

    @property
    def padding(self) -> float:
        """The share of positions that hold no input."""
        return 1 - self.inputs / self.positions

    @property
    def per_update(self) -> float:
        """Micro-batches of an update."""
        return len(self.shapes) / self.updates


def sampled(cut: BatchingPlan, order: Sampler, updates: int = 100) -> Sampled:
    """What the first ``updates`` updates come to, or an epoch if that has fewer.

    >>> order = Sampler(np.array([9, 9, 5, 5]), rows_per_update=4)
    >>> found = sampled(padded_plan(order, max_tokens=1024), order)
    >>> found.per_update, found.shapes, found.padding
    (1.0, [(4, 8)], 0.25)
    """
    samples = order.samples(updates)
    inputs = sum(int(n_inputs(order.lengths[rows]).sum()) for rows in samples)
    shapes = [shape for rows in samples for shape in cut.shapes_of(rows, order.lengths)]
    return Sampled(len(samples), inputs, shapes)
