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
from mlxsched.data.batching.common_prefix import common_prefix
from mlxsched.data.batching.grid import Grid, Shape, n_inputs, thinned
from mlxsched.data.batching.packing import Packing
from mlxsched.data.batching.partition import LAUNCH_TOKENS, SAMPLED_UPDATES, micro_batches, shape_grid
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.batching.sharing import PASSES, Group, Sharing, cost, plan_sharing
from mlxsched.data.rows import Indices, Rows

MAX_PACK_WIDTH = 256
_PACK_WIDTHS = (32, 48, 64, 96, 128, 192, MAX_PACK_WIDTH)
# A token that attends over a pack of this width costs twice as much as one without attention. Measured on the CPU:
# 280 for a hidden size of 128, 850 for 576. The low value is the careful choice: it packs less often.
_DOUBLING_WIDTH = 256
_TRIED_UPDATES = 24  # to compare widths; 0.3 s where SAMPLED_UPDATES take 0.7 s
WORTHWHILE = 0.93  # of the padded cost; the estimate is within a few percent of measured times
_MAX_PACK_COUNTS, _MAX_PADDED_SHAPES = 8, 24  # each is compiled
_EMPTY_GRID = Grid(())


@dataclass(frozen=True)
class BatchingPlan:
    """Divides updates into micro-batches of at most ``max_tokens`` positions.

    Args:
        max_tokens: padded positions of a micro-batch at most; a longer row goes alone.
        grid: the shapes of padded micro-batches.
        packing: how rows that fit into a pack are packed; None pads all rows.
        sharing: how rows share common prefixes; None for whole rows.
    """

    max_tokens: int
    grid: Grid
    packing: Packing | None = None
    sharing: Sharing | None = None

    @property
    def used_shapes(self) -> tuple[Shape, ...]:
        """Those of `shapes` that an update may need if most rows share a prefix and so are never whole."""
        if self.sharing is None:
            return self.shapes
        counts, widths = range(1, self.sharing.alone + 1), {width for _, width in self.shapes}
        needed = {self.grid.shape(count, width) for count in counts for width in widths}
        return tuple(shape for shape in self.shapes if shape in needed)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Every planned shape: rows or packs, and positions."""
        if self.packing is None:
            return self.grid.shapes
        return (*self.grid.shapes, *((count, self.packing.width) for count in self.packing.pack_counts))

    def groups(self, rows: Rows, indices: Indices) -> tuple[list[Group], Indices]:
        """The groups of rows that share a prefix, and the other rows."""
        return ([], indices) if self.sharing is None else self.sharing.groups(rows, indices)

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
    if not always and costs[best] > WORTHWHILE * estimated_cost(padded, sampler.lengths, samples):
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


def shared_plan(
    plan: BatchingPlan, rows: Rows, sampler: Sampler, *, least: float = 1 - WORTHWHILE
) -> BatchingPlan | None:
    """A plan whose rows share prefixes, if it is predicted to save at least the share ``least`` of the cost of ``plan``.

    Rows without a partner are padded.
    """
    samples = [indices for indices in sampler.samples(_TRIED_UPDATES) if len(indices)]
    sharing = plan_sharing(rows, samples, plan.max_tokens)
    if sharing is None:
        return None
    padded = plan if plan.packing is None else padded_plan(sampler, plan.max_tokens)
    shared = replace(padded, sharing=sharing)
    whole = sum(_padded_cost(plan, sampler.lengths, indices) for indices in samples)
    saved = 1 - sum(_shared_cost(shared, rows, indices) for indices in samples) / max(whole, 1.0)
    if saved < max(least, 0.01):
        return None
    last = sampler.rows(sampler.updates_per_epoch - 1)
    alone = _most_alone(shared, rows, [*samples, last])
    return replace(shared, sharing=replace(sharing, saved=saved, alone=alone))


def _most_alone(plan: BatchingPlan, rows: Rows, samples: list[Indices]) -> int:
    """The number of rows of an update that may share with no other row: the largest in ``samples``, doubled as a
    margin."""
    found = max(len(plan.groups(rows, indices)[1]) for indices in samples)
    if found or plan.sharing is None:
        return 2 * found + 1
    alike = common_prefix(rows, np.arange(len(rows))) >= plan.sharing.lengths[-1]
    return 0 if alike else 1


def _padded_cost(plan: BatchingPlan, lengths: NDArray[Any], indices: Indices) -> float:
    """The cost of an update as `sharing` counts it: a token of a padded row sees half of the row on average."""
    shapes = plan.shapes_of(indices, lengths) if len(indices) else []
    return sum(cost(count, width) + LAUNCH_TOKENS for count, width in shapes)


def _shared_cost(plan: BatchingPlan, rows: Rows, indices: Indices) -> float:
    groups, alone = plan.groups(rows, indices)
    total = _padded_cost(plan, rows.lengths, alone)
    for length, members in groups:
        total += cost(PASSES, length) + 2 * LAUNCH_TOKENS
        behind = _behind(plan, rows.lengths, Group(length, members))
        total += sum(cost(count, width, length) + LAUNCH_TOKENS for count, width in behind)
    return total


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


def batching_stats(
    plan: BatchingPlan, sampler: Sampler, updates: int = 100, rows: Rows | None = None
) -> BatchingStats:
    """Statistics of the first ``updates`` updates, or of one epoch if that has fewer.

    Given ``rows``, prefixes that they share count once, each as a micro-batch; otherwise every row counts whole.

    >>> sampler = Sampler(np.array([9, 9, 5, 5]), rows_per_update=4)
    >>> found = batching_stats(padded_plan(sampler, max_tokens=1024), sampler)
    >>> found.per_update, found.shapes, found.padding
    (1.0, [(4, 8)], 0.25)
    """
    samples, lengths = sampler.samples(updates), sampler.lengths
    inputs = sum(int(n_inputs(lengths[indices]).sum()) for indices in samples)
    shapes: list[Shape] = []
    for indices in samples:
        groups, alone = plan.groups(rows, indices) if rows is not None else ([], indices)
        shapes += plan.shapes_of(alone, lengths) if len(alone) else []
        for group in groups:
            inputs -= (len(group.indices) - 1) * group.length
            shapes += [(1, group.length), *_behind(plan, lengths, group)]
    return BatchingStats(len(samples), inputs, shapes)


def _behind(plan: BatchingPlan, lengths: NDArray[Any], group: Group) -> list[Shape]:
    return plan.sharing.shapes_of(lengths, group) if plan.sharing else []
