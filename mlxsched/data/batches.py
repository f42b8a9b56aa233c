"""Cut the rows of an update into micro-batches of like length, and lay them out as arrays.

How an update is cut is a matter of memory and speed only: the training loop divides by the number of targets of
the whole update. Each distinct shape of a micro-batch is one compiled trace, which costs time and memory, so both
the padded length and the number of rows come from a grid of few values.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.rows import Rows

Indices = NDArray[np.int64]

GROWTH = 1.25
# A micro-batch costs a launch of the whole graph besides its tokens; this many padded tokens is about even.
LAUNCH_TOKENS = 32


@dataclass(frozen=True)
class Grid:
    """The lengths that micro-batches are padded to, ascending; the number of rows is padded to 1, 2, 3, 4, 6, 8, 12...

    >>> grid = Grid((16, 32, 64))
    >>> grid.length(17), grid.rows(5)
    (32, 6)
    """

    lengths: tuple[int, ...]

    @cached_property
    def _sorted(self) -> NDArray[np.int64]:
        return np.asarray(self.lengths, np.int64)

    def length(self, length: int) -> int:
        """Smallest length of the grid that holds ``length``; beyond the last, the next multiple of it."""
        position = int(np.searchsorted(self._sorted, length))
        if position < len(self.lengths):
            return self.lengths[position]
        last = self.lengths[-1]
        return -(-length // last) * last

    def rows(self, rows: int) -> int:
        """Smallest of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is not below ``rows``."""
        power = 1 << (rows - 1).bit_length()
        return power // 4 * 3 if power >= 4 and power // 4 * 3 >= rows else power


@dataclass(frozen=True, eq=False)
class Batch:
    """A micro-batch, padded at the right: position t of a row predicts ``labels[t]`` from ``inputs[:t+1]``."""

    inputs: NDArray[np.int32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32]
    indices: Indices
    n_tokens: int
    n_targets: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and positions, padding included."""
        return self.inputs.shape[0], self.inputs.shape[1]


def length_grid(lengths: NDArray[Any], cap: int = 12) -> Grid:
    """The padded lengths for rows of ``lengths`` tokens (a row of n tokens has n - 1 inputs); at most ``cap``.

    Geometric by 1.25 from the longest row down, which bounds the waste of a row at a fifth; each value is then
    lowered to the longest row that it holds. Where that gives more than ``cap`` values, those go whose removal
    adds the least padding over all rows.
    """
    inputs = np.maximum(np.asarray(lengths, np.int64) - 1, 1)
    values, counts = np.unique(inputs, return_counts=True)
    edges = [float(values[-1])]
    while edges[-1] > values[0] and edges[-1] > 8:
        edges.append(edges[-1] / GROWTH)
    slots = np.unique(np.searchsorted(values, np.ceil(edges), side="right") - 1)
    chosen = [int(slot) for slot in slots if slot >= 0]
    cumulative = np.cumsum(counts)
    while len(chosen) > max(cap, 1):
        chosen.pop(_cheapest(chosen, values, cumulative))
    return Grid(tuple(int(values[slot]) for slot in chosen))


def _cheapest(chosen: list[int], values: NDArray[np.int64], cumulative: NDArray[np.int64]) -> int:
    """Which of ``chosen`` (but the last) can go at the least padding."""
    slots = np.asarray(chosen)
    held = np.diff(cumulative[slots], prepend=0)[:-1]
    added = held * np.diff(values[slots])
    return int(np.argmin(added))


def micro_batches(
    indices: Indices,
    lengths: NDArray[Any],
    *,
    max_tokens: int | None,
    max_rows: int | None = None,
    grid: Grid,
) -> list[Indices]:
    """Partition ``indices`` into micro-batches of rows of like length, longest first.

    The cut minimises padded tokens (plus a little for each micro-batch), with at most ``max_tokens`` padded tokens
    and ``max_rows`` rows in each; None is no limit. A row that is longer than ``max_tokens`` goes alone.
    The longest come first, so that a run that is short of memory finds out at once.

    >>> parts = micro_batches(np.arange(4), np.array([9, 33, 9, 33]), max_tokens=64, grid=Grid((8, 32)))
    >>> [part.tolist() for part in parts]
    [[1, 3], [0, 2]]
    """
    indices = np.asarray(indices, np.int64)
    if not len(indices):
        return []
    order = indices[np.argsort(-np.asarray(lengths)[indices].astype(np.int64), kind="stable")]
    widths = [grid.length(max(int(lengths[index]) - 1, 1)) for index in order]
    cuts = _best_cuts(widths, max_tokens, max_rows, grid)
    return [order[start:stop] for start, stop in itertools.pairwise(cuts)]


def _best_cuts(widths: Sequence[int], max_tokens: int | None, max_rows: int | None, grid: Grid) -> list[int]:
    """Where to cut rows of descending ``widths``: a shortest path over the cut positions, from the end."""
    count = len(widths)
    cost = [0] * (count + 1)
    following = [count] * (count + 1)
    for start in range(count - 1, -1, -1):
        most = _rows_that_fit(widths[start], count - start, max_tokens, max_rows, grid)
        best = None
        for size in range(1, most + 1):
            here = grid.rows(size) * widths[start] + LAUNCH_TOKENS + cost[start + size]
            if best is None or here <= best:
                best, following[start] = here, start + size
        cost[start] = best or 0
    cuts = [0]
    while cuts[-1] < count:
        cuts.append(following[cuts[-1]])
    return cuts


def _rows_that_fit(width: int, rows: int, max_tokens: int | None, max_rows: int | None, grid: Grid) -> int:
    """Most rows of ``width`` that one micro-batch may hold, counting the padding rows; at least one."""
    limits = [grid.rows(rows)]
    if max_tokens is not None:
        limits.append(max_tokens // width)
    if max_rows is not None:
        limits.append(max_rows)
    most = max(min(rows, *limits), 1)
    while most > 1 and grid.rows(most) > min(limits):
        most -= 1
    return most


def collate(rows: Rows, indices: Indices, grid: Grid) -> Batch:
    """Lay out the rows ``indices`` as one padded batch; padding (also whole padding rows) has weight 0."""
    longest = max(int(rows.lengths[index]) for index in indices)
    shape = (grid.rows(len(indices)), grid.length(max(longest - 1, 1)))
    inputs, labels = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    weights = np.zeros(shape, np.float32)
    n_tokens = 0
    for line, index in enumerate(indices):
        tokens, targets = rows[int(index)]
        end = len(tokens) - 1
        inputs[line, :end], labels[line, :end], weights[line, :end] = tokens[:-1], tokens[1:], targets[1:]
        n_tokens += end
    return Batch(inputs, labels, weights, np.asarray(indices, np.int64), n_tokens, int(weights.sum()))
