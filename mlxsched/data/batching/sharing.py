"""Which rows of an update share a prefix: groups whose common tokens go through the model once.

A group of B rows with P inputs in common saves ``B - 1.5`` passes over the prefix, which needs two forward passes and
one backward pass. Rows are sorted by their tokens, so that rows with a common prefix are neighbors. There are at most
four prefix lengths per data set: each length needs its own micro-batch shapes, and every shape is a graph to compile.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.batches import Batch, collate
from mlxsched.data.batching.common_prefix import common_length, shareable
from mlxsched.data.batching.grid import Grid, Shape, n_inputs
from mlxsched.data.batching.partition import LAUNCH_TOKENS, micro_batches, planned_grid
from mlxsched.data.rows import Indices, Rows

_MOST_LENGTHS = 4
_SHAPES = 48  # of all lengths together
_LEAST = 8  # inputs: a shorter prefix never pays for its launches
_CANDIDATES = 24
PASSES = 1.5  # of the prefix in an update: the state is read, then a forward and a backward pass
# A token with this many keys costs twice as much as one without attention: see `_DOUBLING_WIDTH` of packing.
_DOUBLING_KEYS = 256


class Group(NamedTuple):
    """Rows that begin with the same ``length`` inputs."""

    length: int
    indices: Indices


class Neighbors(NamedTuple):
    """Rows sorted by their tokens, and the inputs that each shares with the next one."""

    indices: Indices
    shared: NDArray[np.int64]


def neighbors(rows: Rows, indices: Indices) -> Neighbors:
    """The rows ``indices`` sorted, ``[n]``, and what neighbors share, ``[n - 1]``."""
    tokens = [rows[int(index)].tokens for index in indices]
    order = sorted(range(len(tokens)), key=lambda place: tokens[place].astype(">i4").tobytes())
    pairs = pairwise(tokens[place] for place in order)
    shared = [shareable(common_length(a, b), min(len(a), len(b))) for a, b in pairs]
    return Neighbors(np.asarray(indices, np.int64)[order], np.array(shared, np.int64))


def cost(count: float, width: int, before: int = 0) -> float:
    """The cost of ``count`` rows of ``width`` inputs that continue ``before`` others, in tokens without attention."""
    return count * width * (1 + (before + width / 2) / _DOUBLING_KEYS)


def saving(count: int, length: int) -> float:
    """The saving of a group of ``count`` rows with a prefix of ``length``: fewer passes, but two more launches.

    >>> saving(16, 512) > 0, saving(2, 16) > 0
    (True, False)
    """
    return cost(count - PASSES, length) - 2 * LAUNCH_TOKENS


def best_groups(found: Neighbors, lengths: tuple[int, ...]) -> list[Group]:
    """The disjoint groups with prefixes of ``lengths`` (ascending) that save most."""
    return _best(found, 0, len(found.indices), lengths)[1]


def _best(found: Neighbors, first: int, stop: int, lengths: tuple[int, ...]) -> tuple[float, list[Group]]:
    """The most that the rows from ``first`` to before ``stop`` save, and their groups."""
    if not lengths or stop - first < 2:
        return 0.0, []
    total = 0.0
    groups: list[Group] = []
    apart = first + 1 + np.flatnonzero(found.shared[first : stop - 1] < lengths[0])
    for a, b in pairwise([first, *apart.tolist(), stop]):
        saved, inside = _best(found, a, b, lengths[1:])
        together = saving(b - a, lengths[0]) if b - a > 1 else 0.0
        if together > max(saved, 0.0):
            saved, inside = together, [Group(lengths[0], found.indices[a:b])]
        total, groups = total + saved, groups + inside
    return total, groups


@dataclass(frozen=True, eq=False)
class Sharing:
    """How rows share prefixes of ``lengths``, each with its ``grid`` of shapes for what follows.

    ``saved``: the predicted saving as a share of the cost of an update, 0 to 1. ``alone``: the maximum number of rows
    of an update that share with no other row.
    """

    lengths: tuple[int, ...]
    grids: tuple[Grid, ...]
    max_tokens: int
    saved: float = 0.0
    alone: int = 0

    def groups(self, rows: Rows, indices: Indices) -> tuple[list[Group], Indices]:
        """The groups among the rows ``indices`` of an update, and the rows without a group."""
        groups = best_groups(neighbors(rows, indices), self.lengths)
        taken = np.concatenate([group.indices for group in groups]) if groups else np.zeros(0, np.int64)
        return groups, indices[~np.isin(indices, taken)]

    def batches(self, rows: Rows, group: Group) -> list[Batch]:
        """The micro-batches of the rows of ``group`` without the shared prefix."""
        grid = self.grids[self.lengths.index(group.length)]
        parts = self._parts(rows.lengths, group, grid)
        return [collate(rows, part, grid, group.length) for part in parts]

    def shapes_of(self, lengths: NDArray[Any], group: Group) -> list[Shape]:
        """The shapes of these micro-batches, without laying them out."""
        grid = self.grids[self.lengths.index(group.length)]
        own = n_inputs(lengths - group.length)
        parts = self._parts(lengths, group, grid)
        return [grid.shape(len(part), int(own[part].max())) for part in parts]

    def _parts(self, lengths: NDArray[Any], group: Group, grid: Grid) -> list[Indices]:
        own, length = lengths - group.length, group.length
        return micro_batches(group.indices, own, max_tokens=self.max_tokens, grid=grid, before=length)

    @property
    def shapes(self) -> list[tuple[int, Shape]]:
        """Every planned shape, with the length of the prefix in front of it."""
        pairs = zip(self.lengths, self.grids, strict=True)
        return [(length, shape) for length, grid in pairs for shape in grid.shapes]


def plan_sharing(rows: Rows, samples: list[Indices], max_tokens: int) -> Sharing | None:
    """Sharing planned from ``samples``, the rows of some updates; None if no group saves anything."""
    found = [neighbors(rows, indices) for indices in samples]
    lengths = _best_lengths(found)
    groups = [group for n in found for group in best_groups(n, lengths)]
    used = tuple(length for length in lengths if any(group.length == length for group in groups))
    if not used:
        return None
    grids = tuple(_grid(rows, groups, length, max_tokens, _SHAPES // len(used)) for length in used)
    return Sharing(used, grids, max_tokens)


def _grid(rows: Rows, groups: list[Group], length: int, max_tokens: int, cap: int) -> Grid:
    members = [group.indices for group in groups if group.length == length]
    considered = np.zeros(len(rows), bool)
    considered[np.concatenate(members)] = True
    return planned_grid(
        rows.lengths - length, members, considered, max_tokens=max_tokens, cap=cap, before=length
    )


def _best_lengths(found: list[Neighbors]) -> tuple[int, ...]:
    """At most four lengths that together save most, chosen one by one."""
    values = np.concatenate([n.shared for n in found]) if found else np.zeros(0, np.int64)
    values = np.sort(values[values >= _LEAST])
    if not len(values):
        return ()
    candidates = set(values[np.linspace(0, len(values) - 1, _CANDIDATES).astype(int)].tolist())
    chosen: tuple[int, ...] = ()
    most = 0.0
    while len(chosen) < _MOST_LENGTHS and candidates:
        tried = {length: _saved(found, tuple(sorted((*chosen, length)))) for length in candidates}
        best = max(sorted(tried), key=tried.__getitem__)
        if tried[best] <= 1.02 * most:  # each length adds shapes
            break
        chosen, most = tuple(sorted((*chosen, best))), tried[best]
        candidates.discard(best)
    return chosen


def _saved(found: list[Neighbors], lengths: tuple[int, ...]) -> float:
    return sum(_best(n, 0, len(n.indices), lengths)[0] for n in found)
