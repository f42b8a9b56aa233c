"""Cut the rows of an update into micro-batches of like length, and lay them out as arrays.

How an update is cut is a matter of memory and speed only: the training loop divides by the number of targets
of the whole update. Each distinct shape of a micro-batch is one compiled trace, which costs time and memory,
so both the padded length and the number of rows come from a grid of few values.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import Rows

Indices = NDArray[np.int64]
Places = NDArray[np.int64]  # line and first position of each row
Shape = tuple[int, int]

GROWTH = 1.25
# A micro-batch costs a launch of the whole graph besides its tokens; about as much as this many tokens.
LAUNCH_TOKENS = 64
_SAMPLED_UPDATES = 100


@dataclass(frozen=True)
class Grid:
    """The shapes that micro-batches are padded to: rows and input positions.

    ``lengths`` are the padded lengths, ascending; rows are padded to 1, 2, 3, 4, 6, 8, 12, 16, ...
    ``shapes``, if any, are the only ones used for what fits into one of them.

    >>> Grid((16, 32, 64)).shape(5, 17)
    (6, 32)
    >>> Grid((16, 32, 64), ((8, 16), (8, 64))).shape(5, 17)
    (8, 64)
    """

    lengths: tuple[int, ...]
    shapes: tuple[Shape, ...] = ()
    _known: dict[Shape, Shape] = field(default_factory=dict, init=False, repr=False, compare=False)

    def shape(self, rows: int, length: int) -> Shape:
        """The smallest padded shape for ``rows`` rows with at most ``length`` inputs."""
        found = self._known.get((rows, length))
        if found is None:
            fitting = [shape for shape in self.shapes if shape[0] >= rows and shape[1] >= length]
            free = (_padded_rows(rows), self._padded_length(length))
            found = min(fitting, key=lambda shape: (shape[0] * shape[1], shape)) if fitting else free
            self._known[rows, length] = found
        return found

    def _padded_length(self, length: int) -> int:
        last = self.lengths[-1]
        return next((held for held in self.lengths if held >= length), -(-length // last) * last)


def _padded_rows(rows: int) -> int:
    """Smallest of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is not below ``rows``."""
    power = 1 << (rows - 1).bit_length()
    return power // 4 * 3 if power >= 4 and power // 4 * 3 >= rows else power


@dataclass(frozen=True, eq=False)
class Batch:
    """A micro-batch, padded at the right: ``inputs[:, :t+1]`` is what ``labels[:, t]`` is predicted from.

    Where a line holds several rows, ``segments`` numbers them, padding last, and only inputs of the same segment
    count; ``places`` has line and first position of each row. Without them each row has a line of its own.
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
    def shape(self) -> tuple[int, int]:
        """Rows and positions, padding included."""
        return self.inputs.shape[0], self.inputs.shape[1]


def length_grid(lengths: NDArray[Any], cap: int = 12) -> Grid:
    """The padded lengths for rows of ``lengths`` tokens (n tokens are n - 1 inputs); at most ``cap``.

    Geometric by 1.25 from the longest row down, which bounds the waste of a row at a fifth; each value is
    then lowered to the longest row that it holds. Where that gives more than ``cap`` values, those go whose
    removal adds the least padding over all rows.
    """
    values, counts = np.unique(n_inputs(lengths), return_counts=True)
    edges = [float(values[-1])]
    while edges[-1] > values[0] and edges[-1] > 8:
        edges.append(edges[-1] / GROWTH)
    slots = np.unique(np.searchsorted(values, np.ceil(edges), side="right") - 1)
    return Grid(thinned([int(slot) for slot in slots if slot >= 0], values, counts, cap))


def thinned(
    chosen: list[int], values: NDArray[np.int64], counts: NDArray[np.int64], cap: int
) -> tuple[int, ...]:
    """At most ``cap`` of the ascending ``values`` at the places ``chosen``, to which all are padded, the last among them.

    ``counts`` tells how often each value comes: those go whose removal adds the least padding.
    """
    cumulative = np.cumsum(counts)
    while len(chosen) > max(cap, 1):
        slots = np.asarray(chosen)
        held = np.diff(cumulative[slots], prepend=0)[:-1]
        chosen.pop(int(np.argmin(held * np.diff(values[slots]))))
    return tuple(int(values[slot]) for slot in chosen)


def shape_grid(order: Sampler, *, max_tokens: int | None, above: int = 0, cap: int = 24) -> Grid:
    """A grid of at most ``cap`` shapes, for the updates of ``order`` cut by `micro_batches`.

    The shapes of a hundred sampled updates on a fine grid are counted; then, one by one, the shape goes whose
    micro-batches take the least extra padding in another one. Only rows of more than ``above`` inputs count.
    """
    lengths, inputs = order.lengths, n_inputs(order.lengths)
    fine = length_grid(lengths[inputs > above], 2 * cap)
    wanted: Counter[Shape] = Counter()
    for rows in order.samples(_SAMPLED_UPDATES):
        for part in micro_batches(rows[inputs[rows] > above], lengths, max_tokens=max_tokens, grid=fine):
            wanted[fine.shape(len(part), int(inputs[part[0]]))] += 1
    wanted[fine.shape(1, fine.lengths[-1])] += 1  # the longest row, wherever it comes, finds a shape
    return replace(fine, shapes=_fewest(wanted, cap))


def _fewest(wanted: Counter[Shape], cap: int) -> tuple[Shape, ...]:
    """The ``cap`` shapes that hold what all of ``wanted`` hold, at little extra padding."""
    shapes = sorted(wanted)
    size = np.asarray(shapes, np.int64)
    uses = np.asarray([wanted[shape] for shape in shapes], float)
    area = size.prod(axis=1).astype(float)
    # extra[i, j]: padding added to one micro-batch of shape i when it is laid out as shape j
    holds = (size[:, None, 0] <= size[None, :, 0]) & (size[:, None, 1] <= size[None, :, 1])
    extra = np.where(holds, area[None, :] - area[:, None], np.inf)
    np.fill_diagonal(extra, np.inf)
    left = list(range(len(shapes)))
    while len(left) > max(cap, 1):
        moves = extra[np.ix_(left, left)]
        cost = moves.min(axis=1) * uses[left]
        gone = int(np.argmin(cost))
        if not np.isfinite(cost[gone]):
            break
        uses[left[int(np.argmin(moves[gone]))]] += uses[left[gone]]
        left.pop(gone)
    return tuple(shapes[i] for i in left)


def micro_batches(
    indices: Indices,
    lengths: NDArray[Any],
    *,
    max_tokens: int | None,
    grid: Grid,
) -> list[Indices]:
    """Partition ``indices`` into micro-batches of rows of like length, longest first.

    The cut minimises padded tokens (plus a little for each micro-batch), with at most ``max_tokens`` padded
    tokens in each; None is no limit. A row that is longer than that goes alone. The longest come first, so
    that a run that is short of memory finds out at once.

    >>> parts = micro_batches(np.arange(4), np.array([9, 33, 9, 33]), max_tokens=64, grid=Grid((8, 32)))
    >>> [part.tolist() for part in parts]
    [[1, 3], [0, 2]]
    """
    indices = np.asarray(indices, np.int64)
    order = indices[np.argsort(-np.asarray(lengths)[indices].astype(np.int64), kind="stable")]
    cuts = _best_cuts(n_inputs(np.asarray(lengths)[order]).tolist(), max_tokens, grid)
    return [order[start:stop] for start, stop in itertools.pairwise(cuts)]


def n_inputs(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Positions that rows of ``lengths`` tokens take: their last token is predicted, never read."""
    inputs: NDArray[np.int64] = np.maximum(np.asarray(lengths, np.int64) - 1, 1)
    return inputs


def _best_cuts(widths: list[int], max_tokens: int | None, grid: Grid) -> list[int]:
    """Where to cut rows of descending ``widths``: the cheapest path from the first row to beyond the last."""
    count = len(widths)
    cost = [0] * (count + 1)
    following = [count] * (count + 1)
    for start in range(count - 1, -1, -1):
        best = None
        for size in range(1, count - start + 1):
            rows, length = grid.shape(size, widths[start])
            if size > 1 and not _allowed((rows, length), max_tokens, grid):
                break
            here = rows * length + LAUNCH_TOKENS + cost[start + size]
            if best is None or here <= best:
                best, cost[start], following[start] = here, here, start + size
    cuts = [0]
    while cuts[-1] < count:
        cuts.append(following[cuts[-1]])
    return cuts


def _allowed(shape: Shape, max_tokens: int | None, grid: Grid) -> bool:
    return (max_tokens is None or shape[0] * shape[1] <= max_tokens) and (
        not grid.shapes or shape in grid.shapes
    )


def collate(rows: Rows, indices: Indices, grid: Grid) -> Batch:
    """Lay out the rows ``indices`` as one padded batch; padding (also whole padding rows) has weight 0."""
    shape = grid.shape(len(indices), int(n_inputs(rows.lengths[indices]).max()))
    return lay_out(rows, indices, None, shape)


def lay_out(
    rows: Rows,
    indices: Indices,
    places: Places | None,
    shape: Shape,
    segments: NDArray[np.int32] | None = None,
) -> Batch:
    """A batch of ``shape`` with each of the rows ``indices`` at its place, or in a line of its own."""
    inputs, labels = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    weights = np.zeros(shape, np.float32)
    n_tokens = 0
    for (line, start), index in zip(places_of(indices, places), indices, strict=True):
        tokens, targets = rows[int(index)]
        here = line, slice(start, start + len(tokens) - 1)
        inputs[here], labels[here], weights[here] = tokens[:-1], tokens[1:], targets[1:]
        n_tokens += len(tokens) - 1
    n_targets = int(weights.sum(dtype=np.int64))
    kept = np.asarray(indices, np.int64)
    return Batch(inputs, labels, weights, kept, n_tokens, n_targets, places, segments)


def places_of(indices: Indices, places: Places | None) -> list[tuple[int, int]]:
    """Line and first position of each row; a line of its own for each where ``places`` is None."""
    if places is None:
        return [(line, 0) for line in range(len(indices))]
    return [(int(line), int(start)) for line, start in places]
