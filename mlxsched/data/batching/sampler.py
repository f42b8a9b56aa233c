"""Which rows an update holds: a pure function of the seed, the epoch and the update index.

Every row is in exactly one update of an epoch; what is left at the end of an epoch is an update too, of fewer
rows. Because nothing here has state, a run can be resumed at any update without replaying those before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.errors import UsageError

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sampler:
    """The order of rows of ``lengths`` tokens in updates of ``rows_per_update``; an epoch's is drawn from ``seed``.

    With a ``window`` of more than 1, the rows of that many consecutive updates are shared out among them by length,
    so that tiny updates waste less on padding. Raises ``UsageError`` without rows or for sizes below 1.

    >>> order = Sampler(np.array([9, 3, 7, 5, 2]), rows_per_update=2)
    >>> epoch = [order.rows(update).tolist() for update in range(order.updates_per_epoch)]
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
        """Number of updates that go through all rows once, the shorter last one included."""
        return -(-len(self.lengths) // self.rows_per_update)

    def rows(self, update: int) -> Indices:
        """Rows of update number ``update`` (0 for the first), read-only."""
        if update < 0:
            raise UsageError(f"An update index is 0 or more; got {update}.")
        epoch, position = divmod(update, self.updates_per_epoch)
        first, inside = divmod(position, self.window)
        size = self.window * self.rows_per_update
        rows = _permutation(len(self.lengths), self.seed, epoch)[first * size : (first + 1) * size]
        whole = len(rows) // self.rows_per_update
        if inside < whole and self.window > 1:  # the tail of an epoch stays last, as it comes
            by_length = np.argsort(self.lengths[rows[: whole * self.rows_per_update]], kind="stable")
            share = int(_draw(whole, self.seed, epoch, 1 + first)[inside])
            # As drawn, not by length: the last update of a run may have only the first few of them.
            return _read_only(rows[np.sort(by_length[self._slice(share)])])
        return rows[self._slice(inside)]

    def _slice(self, update: int) -> slice:
        return slice(update * self.rows_per_update, (update + 1) * self.rows_per_update)

    def samples(self, count: int) -> list[Indices]:
        """The rows of the first ``count`` updates, or of an epoch if that has fewer."""
        return [self.rows(update) for update in range(min(count, self.updates_per_epoch))]


@lru_cache(maxsize=4)
def _permutation(n_rows: int, seed: int, epoch: int) -> Indices:
    return _read_only(_draw(n_rows, seed, epoch))


def _read_only(indices: Indices) -> Indices:
    indices.setflags(write=False)
    return indices


def _draw(count: int, *key: int) -> Indices:
    # Raw 64-bit draws are the part of NumPy's random stream that is promised never to change between
    # versions; Generator.permutation is not, and a resumed run must find the same order.
    entropy = [value % 2**64 for value in key]
    draws = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(count)
    return np.argsort(draws, kind="stable").astype(np.int64, copy=False)
