"""Which rows an update holds: a pure function of the seed, the epoch and the update index.

Every row is in exactly one update of an epoch; what is left over at the end of an epoch is a smaller update of its
own. The sampler has no state, so a run resumes at any update without replaying the ones before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.rows import Indices
from mlxsched.errors import UsageError


@dataclass(frozen=True, eq=False)
class Sampler:
    """Shuffles rows and deals them out to updates.

    Without a window, update ``u`` of epoch ``e`` holds ``permutation(seed, e)[u * n : (u + 1) * n]`` for
    ``n = rows_per_update``. With a ``window`` of w > 1, the rows of w consecutive updates are redistributed among
    these updates by length, which reduces the padding of small updates; the order of the updates within the window
    is random.

    Args:
        lengths: tokens of each row, ``[rows]``.
        rows_per_update: rows of each update but the last of an epoch.
        seed: decides the order of the rows.
        window: number of consecutive updates that are grouped by length; 1 disables it.

    Raises:
        UsageError: there are no rows, or a size is below 1.

    >>> sampler = Sampler(np.array([9, 3, 7, 5, 2]), rows_per_update=2)
    >>> epoch = [sampler.rows(update).tolist() for update in range(sampler.updates_per_epoch)]
    >>> [len(rows) for rows in epoch], sorted(sum(epoch, []))
    ([2, 2, 1], [0, 1, 2, 3, 4])
    """

    lengths: NDArray[Any]
    rows_per_update: int
    seed: int = 0
    window: int = 1

    def __post_init__(self) -> None:
        sizes = len(self.lengths), self.rows_per_update, self.window
        if min(sizes) < 1:
            raise UsageError(
                "An epoch needs at least one row, one row per update and a length window of one update; got "
                "{}, {} and {}.".format(*sizes)
            )

    @property
    def updates_per_epoch(self) -> int:
        """Updates that visit every row once, including the smaller last one."""
        return -(-len(self.lengths) // self.rows_per_update)

    def rows(self, update: int) -> Indices:
        """Row indices of ``update`` (0 for the first), ``[rows_per_update]`` or fewer, read-only."""
        if update < 0:
            raise UsageError(f"The update index must be 0 or more; got {update}.")
        epoch, position = divmod(update, self.updates_per_epoch)
        window, inside = divmod(position, self.window)
        size = self.window * self.rows_per_update
        rows = _permutation(len(self.lengths), self.seed, epoch)[window * size : (window + 1) * size]
        full_updates = len(rows) // self.rows_per_update
        # The smaller last update of an epoch is not regrouped: the others would no longer have rows_per_update rows.
        if inside < full_updates and self.window > 1:
            by_length = np.argsort(self.lengths[rows[: full_updates * self.rows_per_update]], kind="stable")
            # Without this draw a window would always go from its shortest rows to its longest.
            group = int(_random_order(full_updates, self.seed, epoch, 1 + window)[inside])
            # Back in shuffled order: the last update of a run may use only its first few rows, and these should
            # not be the shortest.
            return _read_only(rows[np.sort(by_length[self._slice(group)])])
        return rows[self._slice(inside)]

    def _slice(self, update: int) -> slice:
        return slice(update * self.rows_per_update, (update + 1) * self.rows_per_update)

    def samples(self, count: int) -> list[Indices]:
        """Rows of the first ``count`` updates, or of one epoch if that has fewer."""
        return [self.rows(update) for update in range(min(count, self.updates_per_epoch))]


@lru_cache(maxsize=4)  # training and planning ask for the same epoch in turn; a million rows take 8 MB
def _permutation(n_rows: int, seed: int, epoch: int) -> Indices:
    return _read_only(_random_order(n_rows, seed, epoch))


def _read_only(indices: Indices) -> Indices:
    indices.setflags(write=False)
    return indices


def _random_order(count: int, *key: int) -> Indices:
    # NumPy guarantees that raw 64-bit draws of a bit generator never change between versions. It gives no such
    # guarantee for Generator.permutation, and a run resumed under a newer NumPy must find the same order.
    entropy = [value % 2**64 for value in key]
    draws = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(count)
    return np.argsort(draws, kind="stable").astype(np.int64, copy=False)
