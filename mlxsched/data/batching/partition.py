"""Divide the rows of an update into padded micro-batches of rows of similar length.

The division is a matter of memory and speed only: the gradient of an update is divided by the number of targets of
the whole update, so the result does not depend on it beyond rounding.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.grid import Grid, Shape, fewest_shapes, fine_lengths, length_grid, n_inputs
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import Indices

# Each micro-batch costs one launch of the whole graph on top of its tokens: about as much as this many tokens.
LAUNCH_TOKENS = 64
# Rows behind a shared prefix each hold a copy of its keys, and scores for all of them. Within these limits, a micro-batch of
# such rows takes no more memory than one of whole rows (`benchmarks/shared_prefix.py`).
_KEYS = 4  # times as many keys as tokens in a micro-batch, or those of so many rows
_SCORES = (
    256  # keys that a token sees on average where a micro-batch is full; or a quarter of those of a whole row
)
SAMPLED_UPDATES = 100  # to plan shapes from; 0.1 s for updates of 64 rows
SAMPLED_ROWS = 2048  # at least: lengths chosen from 400 rows take 2% more positions in the whole epoch
# Log-normal lengths take 65 shapes to stay within 5% of the least positions, and 48 to stay within 8% (24: 17%).
MOST_SHAPES = 48


def micro_batches(
    indices: Indices, lengths: NDArray[Any], *, max_tokens: int | None, grid: Grid, before: int = 0
) -> list[Indices]:
    """Divide ``indices`` into micro-batches, longest rows first.

    The division has the fewest padded tokens, plus `LAUNCH_TOKENS` for each micro-batch, of all divisions of the
    rows sorted by length. The longest rows come first so that a run that lacks memory fails at its first update
    rather than after an hour.

    Args:
        indices: rows of one update, ``[rows of the update]``.
        lengths: tokens of every row of the data set, ``[rows]``.
        max_tokens: padded tokens of a micro-batch at most, None for no limit. A longer row goes alone.
        grid: the shapes to pad to.
        before: tokens that each row continues from, which are not among its ``lengths``.

    >>> parts = micro_batches(np.arange(4), np.array([9, 33, 9, 33]), max_tokens=64, grid=Grid((8, 32)))
    >>> [part.tolist() for part in parts]
    [[1, 3], [0, 2]]
    """
    indices = np.asarray(indices, np.int64)
    by_length = indices[np.argsort(-np.asarray(lengths)[indices].astype(np.int64), kind="stable")]
    cuts = _cheapest_cuts(n_inputs(np.asarray(lengths)[by_length]).tolist(), max_tokens, grid, before)
    return [by_length[start:stop] for start, stop in itertools.pairwise(cuts)]


def _cheapest_cuts(widths: list[int], max_tokens: int | None, grid: Grid, before: int) -> list[int]:
    """Where to cut rows of descending ``widths``, by dynamic programming from the last row to the first.

    ``cost[i]`` is the least cost of rows i, i + 1, ...; ``following[i]`` is where the micro-batch that begins with
    row i ends. Filling micro-batches greedily costs 3% (64 rows an update) to 15% (16 rows)
    more on log-normal lengths: it leaves a few short rows over for a launch of their own.
    """
    count = len(widths)
    cost = [0] * (count + 1)
    following = [count] * (count + 1)
    for start in range(count - 1, -1, -1):
        best = None
        for size in range(1, count - start + 1):
            rows, length = grid.shape(size, widths[start])
            if size > 1 and not _allowed((rows, length), max_tokens, grid, before):
                break
            here = rows * length + LAUNCH_TOKENS + cost[start + size]
            if best is None or here <= best:  # of equal costs the larger micro-batch: fewer launches
                best, cost[start], following[start] = here, here, start + size
    cuts = [0]
    while cuts[-1] < count:
        cuts.append(following[cuts[-1]])
    return cuts


def _allowed(shape: Shape, max_tokens: int | None, grid: Grid, before: int) -> bool:
    rows, length = shape
    fits = max_tokens is None or rows * length <= max_tokens
    if fits and before and max_tokens is not None:
        keys = before + length
        fits = rows * keys <= _KEYS * max(max_tokens, keys)
        fits = fits and rows * length * keys <= max(_SCORES * max_tokens, keys**2 // 4)
    return fits and (not grid.shapes or shape in grid.shapes)


def shape_grid(sampler: Sampler, *, max_tokens: int | None, above: int = 0, cap: int = MOST_SHAPES) -> Grid:
    """A grid of at most ``cap`` shapes for the updates of ``sampler``.

    The first updates are divided almost without rounding their lengths, and their shapes reduced by `fewest_shapes`. Only rows
    of more than ``above`` inputs are considered; packing holds the shorter ones.
    """
    inputs = n_inputs(sampler.lengths)
    count = max(SAMPLED_UPDATES, SAMPLED_ROWS // sampler.rows_per_update)
    samples = [rows[inputs[rows] > above] for rows in sampler.samples(count)]
    return planned_grid(sampler.lengths, samples, inputs > above, max_tokens=max_tokens, cap=cap)


def planned_grid(
    lengths: NDArray[Any],
    samples: list[Indices],
    considered: NDArray[np.bool_] | slice = slice(None),
    *,
    max_tokens: int | None,
    cap: int,
    before: int = 0,
) -> Grid:
    """A grid of at most ``cap`` shapes for the rows ``considered``, planned from ``samples``: the rows of updates."""
    coarse, fine = length_grid(lengths[considered], cap), Grid(fine_lengths(lengths[considered]))
    inputs = n_inputs(lengths)
    wanted: Counter[Shape] = Counter()
    for rows in samples:
        for part in micro_batches(rows, lengths, max_tokens=max_tokens, grid=fine, before=before):
            wanted[fine.shape(len(part), int(inputs[part[0]]))] += 1
    # The longest row may be in no sampled update. It must find a planned shape when its turn comes.
    wanted[fine.shape(1, fine.lengths[-1])] += 1
    return replace(coarse, shapes=fewest_shapes(wanted, cap))
