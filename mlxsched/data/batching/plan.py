"""How the rows of an update become micro-batches: padded, or packed where that is predicted to be cheaper.

Packing saves padding and launches. It costs attention over the whole pack, since the mask that keeps rows apart is
dense. Rows that no pack holds go into padded micro-batches of their own. Everything is planned from sampled updates,
so that few shapes are compiled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.batches import Batch, collate
from mlxsched.data.batching.grid import Grid, Shape, n_inputs, thinned
from mlxsched.data.batching.packing import Packing
from mlxsched.data.batching.partition import LAUNCH_TOKENS, SAMPLED_UPDATES, micro_batches, shape_grid
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import Indices, Rows

MAX_PACK_WIDTH = 256
_PACK_WIDTHS = (32, 48, 64, 96, 128, 192, MAX_PACK_WIDTH)
# A token that attends over a pack of this width costs twice as much as one without attention. Measured on the CPU:
# 280 for a hidden size of 128, 850 for 576. The low value is the careful choice: it packs less often.
_DOUBLING_WIDTH = 256
_TRIED_UPDATES = 24  # to compare widths; 0.3 s where SAMPLED_UPDATES take 0.7 s
_WORTHWHILE = 0.93  # of the padded cost; the estimate is within a few per cent of measured times
_MAX_PACK_COUNTS, _MAX_PADDED_SHAPES = 8, 12  # each is compiled
_EMPTY_GRID = Grid(())


@dataclass(frozen=True)
class BatchingPlan:
    """Divides updates into micro-batches of at most ``max_tokens`` positions.

    Args:
        max_tokens: padded positions of a micro-batch at most; a longer row goes alone.
        grid: the shapes of padded micro-batches.
        packing: how rows that fit into a pack are packed; None pads all rows.
    """

    max_tokens: int
    grid: Grid
    packing: Packing | None = None

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Every planned shape: rows or packs, and positions."""
        if self.packing is None:
            return self.grid.shapes
        return (*self.grid.shapes, *((count, self.packing.width) for count in self.packing.pack_counts))

    def batches(self, rows: Rows, indices: Indices) -> list[Batch]:
        """The micro-batches of an update that holds the rows ``indices``."""
        padded, packed = self._parts(indices, rows.lengths)
        found = [collate(rows, part, self.grid) for part in padded]
        if self.packing is not None:
            found += [self.packing.collate(rows, part) for part in packed]
        return found

    def shapes_of(self, indices: Indices, lengths: NDArray[Any]) -> list[Shape]:
        """The shapes of these micro-batches, without laying them out."""
        padded, packed = self._parts(indices, lengths)
        found = [self.grid.shape(len(part), int(n_inputs(lengths[part]).max())) for part in padded]
        if self.packing is not None:
            found += [self.packing.shape(len(part)) for part in packed]
        return found

    def _parts(self, indices: Indices, lengths: NDArray[Any]) -> tuple[list[Indices], list[list[Indices]]]:
        """Padded micro-batches (rows of each) and packed ones (rows of each pack of each)."""
        packed: list[list[Indices]] = []
        if self.packing is not None:
            short = self.packing.holds(lengths[indices])
            packed = self.packing.micro_batches(indices[short], lengths)
            indices = indices[~short]
        return micro_batches(indices, lengths, max_tokens=self.max_tokens, grid=self.grid), packed


def padded_plan(sampler: Sampler, max_tokens: int) -> BatchingPlan:
    """A plan that pads all rows."""
    return BatchingPlan(max_tokens, shape_grid(sampler, max_tokens=max_tokens))


def packed_plan(padded: BatchingPlan, sampler: Sampler, *, always: bool = False) -> BatchingPlan | None:
    """A plan with packs of the best width, if it is predicted to cost less than 93% of ``padded``.

    The cost of a micro-batch of n packs of w positions is ``n * w * (1 + w / 256)`` plus one launch. ``always``
    returns the best packed plan even if it costs more. None is returned if packing is not worthwhile, or if no row
    fits into a pack.
    """
    samples = sampler.samples(_TRIED_UPDATES)
    shortest, max_tokens = int(n_inputs(sampler.lengths).min()), padded.max_tokens
    costs: dict[int, float] = {}
    for width in _PACK_WIDTHS:
        if shortest <= width <= max_tokens:
            tried = replace(padded, packing=_packing(width, max_tokens, sampler, samples))
            costs[width] = estimated_cost(tried, sampler.lengths, samples)
    best = min(costs, key=costs.__getitem__, default=None)
    if best is None:
        return None
    if not always and costs[best] > _WORTHWHILE * estimated_cost(padded, sampler.lengths, samples):
        return None
    grid = _EMPTY_GRID
    if int(n_inputs(sampler.lengths).max()) > best:
        grid = shape_grid(sampler, max_tokens=max_tokens, above=best, cap=_MAX_PADDED_SHAPES)
    packing = _packing(best, max_tokens, sampler, sampler.samples(SAMPLED_UPDATES))
    return BatchingPlan(max_tokens, grid, packing)


def _packing(width: int, max_tokens: int, sampler: Sampler, samples: list[Indices]) -> Packing:
    """Packs of ``width``, and a few of the pack counts that occur in ``samples``.

    Few counts suffice because the rows of different updates add up to nearly the same number of packs. ``max_packs``
    is the largest count that occurred, so that every later shape is one of the planned ones.
    """
    packing = Packing(width, max(max_tokens // width, 1))
    fitting = [rows[packing.holds(sampler.lengths[rows])] for rows in samples]
    seen = [len(part) for rows in fitting for part in packing.micro_batches(rows, sampler.lengths)]
    values, counts = np.unique(seen or [1], return_counts=True)
    pack_counts = thinned(list(range(len(values))), values, counts, _MAX_PACK_COUNTS)
    return replace(packing, max_packs=pack_counts[-1], pack_counts=pack_counts)


def estimated_cost(plan: BatchingPlan, lengths: NDArray[Any], updates: list[Indices]) -> float:
    """The estimated cost of ``updates`` (the rows of each), in tokens."""
    shapes = (shape for rows in updates for shape in plan.shapes_of(rows, lengths))
    return sum(count * width * (1 + width / _DOUBLING_WIDTH) + LAUNCH_TOKENS for count, width in shapes)


@dataclass(frozen=True)
class BatchingStats:
    """Inputs and micro-batch shapes of a number of updates."""

    updates: int
    inputs: int
    shapes: list[Shape]

    @property
    def positions(self) -> int:
        """Positions of all micro-batches, including padding."""
        return sum(count * width for count, width in self.shapes)

    @property
    def padding(self) -> float:
        """The share of positions that hold no input, 0 to 1."""
        return 1 - self.inputs / self.positions

    @property
    def per_update(self) -> float:
        """Micro-batches of an update, on average."""
        return len(self.shapes) / self.updates


def batching_stats(plan: BatchingPlan, sampler: Sampler, updates: int = 100) -> BatchingStats:
    """Statistics of the first ``updates`` updates, or of one epoch if that has fewer.

    >>> sampler = Sampler(np.array([9, 9, 5, 5]), rows_per_update=4)
    >>> found = batching_stats(padded_plan(sampler, max_tokens=1024), sampler)
    >>> found.per_update, found.shapes, found.padding
    (1.0, [(4, 8)], 0.25)
    """
    samples = sampler.samples(updates)
    inputs = sum(int(n_inputs(sampler.lengths[rows]).sum()) for rows in samples)
    shapes = [shape for rows in samples for shape in plan.shapes_of(rows, sampler.lengths)]
    return BatchingStats(len(samples), inputs, shapes)
