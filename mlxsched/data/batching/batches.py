"""Lay out the rows of a micro-batch as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.grid import Grid, Shape, n_inputs
from mlxsched.data.rows import Indices, Rows

Places = NDArray[np.int64]  # [rows, 2]: the line of each row and its first position in that line


@dataclass(frozen=True, eq=False)
class Batch:
    """A micro-batch, padded on the right.

    ``labels[i, t]`` is predicted from ``inputs[i, :t + 1]`` and counts with ``weights[i, t]``, which is 1 for targets
    and 0 for prompts and padding. A line usually holds one row. With sequence packing it holds several, one after
    the other: position t then sees only positions of the same segment.

    Args:
        inputs: tokens, ``[lines, width]``.
        labels: the next token at each position, ``[lines, width]``.
        weights: 1.0 where the label is a target, ``[lines, width]``.
        indices: which rows of the data set these are, ``[rows]``.
        n_tokens: inputs without padding.
        n_targets: sum of the weights.
        places: line and first position of each row, ``[rows, 2]``; None if row i is line i.
        segments: number of the row at each position of a packed line, padding last, ``[lines, width]``; None
            without packing.
    """

    inputs: NDArray[np.int32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32]
    indices: Indices
    n_tokens: int
    n_targets: int
    places: Places | None = None
    segments: NDArray[np.int32] | None = None

    @property
    def shape(self) -> Shape:
        """Lines and positions, including padding."""
        return self.inputs.shape[0], self.inputs.shape[1]


def collate(rows: Rows, indices: Indices, grid: Grid, skip: int = 0) -> Batch:
    """Lay out the rows ``indices``, one a line, in the smallest shape of ``grid`` that holds them.

    Padding has weight 0, as have whole lines that only pad the number of rows. The first ``skip`` tokens of each row
    are left out.
    """
    shape = grid.shape(len(indices), int(n_inputs(rows.lengths[indices] - skip).max()))
    return lay_out(rows, indices, None, shape, skip=skip)


def prefix_batch(rows: Rows, indices: Indices, length: int) -> Batch:
    """A batch of the first ``length`` inputs of the rows ``indices``, which are equal in all of them.

    The weight of a target in it is the number of rows in which it is a target.
    """
    tokens, _ = rows[int(indices[0])]
    weights = np.zeros(length, np.float32)
    for index in indices:
        weights += rows[int(index)].targets[1 : length + 1]
    inputs, labels = tokens[None, :length], tokens[None, 1 : length + 1]
    return Batch(inputs, labels, weights[None], indices[:1], length, int(weights.sum(dtype=np.int64)))


def counts(rows: Rows, indices: Indices) -> tuple[int, int]:
    """Inputs and targets of the rows ``indices`` together, as their batches would have them.

    >>> from mlxsched.data.rows import rows_in_memory
    >>> counts(rows_in_memory([(np.arange(3, dtype=np.int32), np.array([True, False, True]))]), np.array([0]))
    (2, 1)
    """
    # The first token of a row is never predicted, and the last one never read.
    first = rows.columns["targets"][rows.offsets[indices]]
    n_targets = int(rows.target_counts[indices].sum(dtype=np.int64)) - int(first.sum())
    return int(rows.lengths[indices].sum(dtype=np.int64)) - len(indices), n_targets


def lay_out(
    rows: Rows,
    indices: Indices,
    places: Places | None,
    shape: Shape,
    segments: NDArray[np.int32] | None = None,
    *,
    skip: int = 0,
) -> Batch:
    """A batch of ``shape`` with each of the rows ``indices`` at its place; row i in line i without places.

    The first ``skip`` tokens of each row are left out.
    """
    inputs, labels = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    weights = np.zeros(shape, np.float32)
    n_tokens = 0
    for (line, start), index in zip(places_of(indices, places), indices, strict=True):
        tokens, targets = (column[skip:] for column in rows[int(index)])
        here = line, slice(start, start + len(tokens) - 1)
        inputs[here], labels[here], weights[here] = tokens[:-1], tokens[1:], targets[1:]
        n_tokens += len(tokens) - 1
    # Counted in int64: a float32 sum of ones stops growing at 2**24.
    n_targets = int(weights.sum(dtype=np.int64))
    return Batch(
        inputs, labels, weights, np.asarray(indices, np.int64), n_tokens, n_targets, places, segments
    )


def places_of(indices: Indices, places: Places | None) -> list[tuple[int, int]]:
    """Line and first position of each row: ``places`` as integers, or (i, 0) for row i without places."""
    if places is None:
        return [(line, 0) for line in range(len(indices))]
    return [(int(line), int(start)) for line, start in places]
