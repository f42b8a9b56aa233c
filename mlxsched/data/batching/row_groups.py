"""The groups in which rows go through the frozen layers of a model, whose outputs are then stored.

The padded shape of a matrix product decides its last bits. The group of a row must therefore not depend on which row is
requested first: a resumed run must get the same bits as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.grid import Grid, length_grid
from mlxsched.data.batching.partition import micro_batches
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.batching.shares import share_of
from mlxsched.data.rows import Indices


@dataclass(frozen=True, eq=False)
class RowGroups:
    """Rows in sets; each set is divided into groups when one of its rows is first requested.

    Args:
        sets: the set of each row, ``[rows]``.
        divide: the groups of a set.
        grid: the shapes that groups are padded to.
        facts: what decides the groups, for `activation_key`.
    """

    sets: NDArray[np.int64]
    divide: Callable[[int], list[Indices]]
    grid: Grid
    facts: Mapping[str, NDArray[Any]]

    def of_row(self, row: int) -> Indices:
        """The group of ``row``, with the row itself."""
        return next(group for group in self.divide(int(self.sets[row])) if row in group)

    @classmethod
    def by_length(cls, lengths: NDArray[Any], max_tokens: int) -> RowGroups:
        """All rows in groups of similar length, longest first, each as large as ``max_tokens`` padded tokens allow.

        >>> RowGroups.by_length(np.array([9, 5, 9, 3]), 16).of_row(0).tolist()
        [0, 2]
        """
        grid = length_grid(lengths)
        order = np.argsort(-lengths.astype(np.int64), kind="stable")
        groups, start = [], 0
        while start < len(order):
            width = grid.shape(1, max(int(lengths[order[start]]) - 1, 1))[1]
            size = max(max_tokens // width, 1)
            while grid.shape(size, width)[0] > size:
                size -= 1  # down to a number of rows that the grid doesn't pad
            groups.append(order[start : start + size])
            start += size
        sets = np.empty(len(lengths), np.int64)
        for number, group in enumerate(groups):
            sets[group] = number
        sizes = np.array([len(group) for group in groups])
        facts = {"order": order, "sizes": sizes, "grid": np.array(grid.lengths)}
        return cls(sets, lambda number: [groups[number]], grid, facts)

    @classmethod
    def of_first_epoch(cls, sampler: Sampler, grid: Grid, max_tokens: int, workers: int = 1) -> RowGroups:
        """The micro-batches of the first epoch, so that each update of it computes its own rows and no others.

        With groups of similar length, each row of an early update would require a whole group: an update of 8 rows
        computed 8 groups of 30 rows, and a run that ended in its first epoch made 161 updates in the time of 236.
        """
        sets = np.empty(len(sampler.lengths), np.int64)
        for update in range(sampler.updates_per_epoch):
            sets[sampler.rows(update)] = update

        def divide(update: int) -> list[Indices]:
            rows, lengths = sampler.rows(update), sampler.lengths
            shares = [share_of(rows, lengths, worker, workers) for worker in range(workers)]
            return [
                group
                for share in shares
                for group in micro_batches(share, lengths, max_tokens=max_tokens, grid=grid)
            ]

        facts = {
            "updates": sets,
            "grid": np.array(grid.lengths),
            "shapes": np.array(grid.shapes),
            "limits": np.array([max_tokens, workers]),
        }
        return cls(sets, divide, grid, facts)
