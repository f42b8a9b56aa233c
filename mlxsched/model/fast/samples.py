"""A few of the user's own rows, small enough that comparing forward paths on them costs next to nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlxsched.data.batching.batches import Batch, collate
from mlxsched.data.batching.grid import length_grid
from mlxsched.data.batching.packing import Packing
from mlxsched.data.rows import Rows, rows_in_memory
from mlxsched.model.fast.attention import FEWEST

_ROWS, _PACKED_ROWS = 3, 6
_MOST_POSITIONS, _LEAST_POSITIONS = 64, 16
# The plain path holds all logits of the sample, several times over: 2M of them are 8 MB each time. A vocabulary of
# 150,000 would leave 4 positions, too few for several chunks and blocks: 16 at least.
_LOGITS = 1 << 21


def sample_batch(rows: Rows, vocabulary: int) -> Batch:
    """A few rows of different lengths, cut behind their last target and padded like any micro-batch.

    The larger the ``vocabulary``, the fewer positions, so that the self-check never sets the peak memory of a run.
    """
    positions, count = max(_positions(vocabulary), 2 * FEWEST), _ROWS
    if _positions(vocabulary) < positions:
        count -= 1
    scored = np.flatnonzero(rows.target_counts)
    order = scored[np.argsort(rows.lengths[scored], kind="stable")]
    # From the shortest row to the median, so that padding is tested; if that is too short for two blocks of attention, to
    # the first row that is not.
    long = int(np.searchsorted(rows.lengths[order], 2 * FEWEST + 1))
    last = min(max(len(order) // 2, long), len(order) - 1)
    picked = np.unique(order[np.linspace(0, last, min(count, len(order))).astype(int)])
    pieces = [_piece(*rows[int(index)], positions) for index in picked]
    shape = (len(pieces), max(len(tokens) for tokens, _ in pieces) - 1)
    inputs, labels = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    weights = np.zeros(shape, np.float32)
    for line, (tokens, targets) in enumerate(pieces):
        end = len(tokens) - 1
        inputs[line, :end], labels[line, :end], weights[line, :end] = tokens[:-1], tokens[1:], targets[1:]
    used = sum(len(tokens) - 1 for tokens, _ in pieces)
    return Batch(inputs, labels, weights, picked, used, int(weights.sum()))


def packed_sample(rows: Rows, packing: Packing, vocabulary: int) -> tuple[list[Batch], Batch]:
    """A few rows of all lengths, cut likewise: one at a time, to spare the plain path's memory, and in two lines."""
    positions = _positions(vocabulary)
    fitting = np.flatnonzero((rows.target_counts > 0) & packing.holds(rows.lengths))
    order = fitting[np.argsort(rows.lengths[fitting], kind="stable")]
    picked = np.unique(order[np.linspace(0, len(order) - 1, min(_PACKED_ROWS, len(order))).astype(int)])
    few = rows_in_memory(_piece(*rows[int(index)], positions) for index in picked)
    places = np.arange(len(few))
    halves = [packing.micro_batches(half, few.lengths) for half in (places[::2], places[1::2])]
    lines = [line for parts in halves for part in parts for line in part][: packing.max_packs]
    alone = [np.array([index]) for line in lines for index in line]
    return [collate(few, one, length_grid(few.lengths[one])) for one in alone], packing.collate(few, lines)


def shared_sample(rows: Rows, vocabulary: int) -> tuple[Rows, int]:
    """A few rows that begin with the same tokens, and how many of those: of the user's rows, but put together here.

    Some of these tokens are targets, and not the same ones in all rows.
    """
    positions = _positions(vocabulary)
    scored = np.flatnonzero(rows.target_counts)
    order = scored[np.argsort(rows.lengths[scored], kind="stable")]
    picked = np.unique(order[np.linspace(0, len(order) // 2, min(_ROWS, len(order))).astype(int)])
    pieces = [_piece(*rows[int(index)], positions // 2) for index in picked]
    prefix = np.resize(rows[int(order[-1])].tokens, positions // 2 + 1)
    few = []
    for number, (tokens, targets) in enumerate([*pieces, pieces[0]]):  # one row would be no group
        scored_here = np.arange(len(prefix)) % (number + 2) == 1
        few.append((np.concatenate([prefix, tokens]), np.concatenate([scored_here, targets])))
    return rows_in_memory(few), len(prefix) - 1


def _positions(vocabulary: int) -> int:
    return min(max(_LOGITS // vocabulary // _ROWS, _LEAST_POSITIONS), _MOST_POSITIONS)


def _piece(tokens: Any, targets: Any, positions: int) -> tuple[Any, Any]:
    """The last ``positions`` inputs up to the last target."""
    stop = int(np.flatnonzero(targets)[-1]) + 1
    start = max(stop - positions - 1, 0)
    return tokens[start:stop], targets[start:stop]
