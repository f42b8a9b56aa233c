"""Which rows an update holds: a pure function of the seed, the epoch and the update index.

Every row is in exactly one update of an epoch; what is left at the end of an epoch is an update too, of fewer
rows. Because nothing here has state, a run can be resumed at any update without replaying those before it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.errors import UsageError

Indices = NDArray[np.int64]


def updates_per_epoch(n_rows: int, rows_per_update: int) -> int:
    """Number of updates that go through all rows once, the shorter last one included.

    >>> updates_per_epoch(10, 4)
    3
    """
    if n_rows < 1 or rows_per_update < 1:
        raise UsageError(
            f"An epoch needs at least one row and one row per update; got {n_rows} and {rows_per_update}."
        )
    return -(-n_rows // rows_per_update)


def rows_of_update(
    update: int,
    n_rows: int,
    rows_per_update: int,
    seed: int,
    *,
    lengths: NDArray[Any] | None = None,
    window: int = 1,
) -> Indices:
    """Rows of update number ``update`` (0 for the first), in random order, read-only.

    ``update // updates_per_epoch`` is the epoch, whose order is a permutation drawn from ``(seed, epoch)``.
    With ``lengths`` and ``window`` > 1 the rows of each ``window`` consecutive updates are shared out by
    length, so that tiny updates waste less on padding; each row still comes once in an epoch.

    >>> epoch = [rows_of_update(u, 5, 2, seed=0).tolist() for u in range(3)]
    >>> [len(rows) for rows in epoch], sorted(sum(epoch, []))
    ([2, 2, 1], [0, 1, 2, 3, 4])
    """
    if update < 0:
        raise UsageError(f"An update index is 0 or more; got {update}.")
    per_epoch = updates_per_epoch(n_rows, rows_per_update)
    epoch, position = divmod(update, per_epoch)
    order = _permutation(n_rows, seed, epoch)
    if lengths is not None and window > 1:
        return _grouped(order, position, rows_per_update, window, lengths, seed, epoch)
    start = position * rows_per_update
    return order[start : start + rows_per_update]


def _grouped(
    order: Indices,
    position: int,
    rows_per_update: int,
    window: int,
    lengths: NDArray[Any],
    seed: int,
    epoch: int,
) -> Indices:
    """Rows at ``position`` when each window of updates is sorted by length and its updates shuffled."""
    first, inside = divmod(position, window)
    start = first * window * rows_per_update
    rows = order[start : start + window * rows_per_update]
    whole = len(rows) // rows_per_update
    if inside >= whole:  # the tail of the epoch stays last, as it comes
        return rows[inside * rows_per_update :]
    by_length = rows[: whole * rows_per_update]
    by_length = by_length[np.argsort(lengths[by_length], kind="stable")]
    turn = _draw(whole, seed, epoch, first)[inside]
    return by_length[turn * rows_per_update : (turn + 1) * rows_per_update]


@lru_cache(maxsize=4)
def _permutation(n_rows: int, seed: int, epoch: int) -> Indices:
    order = _draw(n_rows, seed, epoch)
    order.setflags(write=False)
    return order


def _draw(count: int, *key: int) -> Indices:
    # Raw 64-bit draws are the part of NumPy's random stream that is promised never to change between
    # versions; Generator.permutation is not, and a resumed run must find the same order.
    entropy = [value % 2**64 for value in key]
    draws = np.random.PCG64(np.random.SeedSequence(entropy)).random_raw(count)
    return np.argsort(draws, kind="stable").astype(np.int64, copy=False)
