"""The shapes that micro-batches are padded to.

Each distinct shape of a micro-batch is a compiled trace of its own, which takes 30 ms (small models) to 200 ms (30
layers) to make and keeps memory until the process ends. So both dimensions, rows and positions, come from a grid of
few values. A coarse grid wastes padding, a fine one compiles too often: the functions here choose the values that
cost the least padding for a given number of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int]  # rows, positions

GROWTH = 1.25
MOST_PADDING = 0.05  # of the positions, that few shapes may add


@dataclass(frozen=True)
class Grid:
    """The shapes that a micro-batch may have.

    Args:
        lengths: padded lengths, ascending. The number of rows is padded to 1, 2, 3, 4, 6, 8, 12, 16, ...
        shapes: if there are any, a micro-batch that fits into one of them is padded to the smallest such shape;
            ``lengths`` serve only what fits into none.

    >>> Grid((16, 32, 64)).shape(5, 17)
    (6, 32)
    >>> Grid((16, 32, 64), ((8, 16), (8, 64))).shape(5, 17)
    (8, 64)
    """

    lengths: tuple[int, ...]
    shapes: tuple[Shape, ...] = ()
    # `micro_batches` asks for the same few shapes thousands of times, and finding one scans all of `shapes`.
    _known: dict[Shape, Shape] = field(default_factory=dict, init=False, repr=False, compare=False)

    def shape(self, rows: int, length: int) -> Shape:
        """The smallest padded shape for ``rows`` rows of at most ``length`` inputs."""
        found = self._known.get((rows, length))
        if found is None:
            fitting = [shape for shape in self.shapes if shape[0] >= rows and shape[1] >= length]
            free = (_padded_rows(rows), self._padded_length(length))
            found = min(fitting, key=lambda shape: (shape[0] * shape[1], shape)) if fitting else free
            self._known[rows, length] = found
        return found

    def _padded_length(self, length: int) -> int:
        longest = self.lengths[-1]
        return next((padded for padded in self.lengths if padded >= length), -(-length // longest) * longest)


def _padded_rows(rows: int) -> int:
    """The smallest of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is not below ``rows``."""
    power = 1 << (rows - 1).bit_length()
    return power // 4 * 3 if power >= 4 and power // 4 * 3 >= rows else power


def n_inputs(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Positions that rows of ``lengths`` tokens occupy, ``[rows]``: the last token is only predicted, never read."""
    inputs: NDArray[np.int64] = np.maximum(np.asarray(lengths, np.int64) - 1, 1)
    return inputs


def length_grid(lengths: NDArray[Any], cap: int = 12) -> Grid:
    """A grid of at most ``cap`` padded lengths for rows of ``lengths`` tokens.

    The lengths are geometric with ratio 1.25, from the longest row down, so that at most a fifth of a row is padding;
    each is then lowered to the longest row that it has to hold. If more than ``cap`` remain, those are removed whose
    removal adds the least padding over all rows.
    """
    values, counts = np.unique(n_inputs(lengths), return_counts=True)
    edges = [float(values[-1])]
    # No finer than 8 positions: a launch costs as much as 64, so there is little left to save.
    while edges[-1] > values[0] and edges[-1] > 8:
        edges.append(edges[-1] / GROWTH)
    slots = np.unique(np.searchsorted(values, np.ceil(edges), side="right") - 1)
    return Grid(thinned([int(slot) for slot in slots if slot >= 0], values, counts, cap))


def thinned(
    slots: list[int], values: NDArray[np.int64], counts: NDArray[np.int64], cap: int
) -> tuple[int, ...]:
    """At most ``cap`` of ``values[slots]``, chosen so that padding every value up to one of them costs little.

    Greedy: repeatedly removes the slot whose removal adds the least padding. The last slot always stays, because
    nothing above it could hold its values.

    Args:
        slots: ascending indices into ``values``, the last value's among them.
        values: distinct sizes, ascending, ``[n]``.
        counts: how often each size occurs, ``[n]``.
    """
    cumulative = np.cumsum(counts)
    while len(slots) > max(cap, 1):
        places = np.asarray(slots)
        # Removing slot i moves what it holds (everything above slot i - 1) up to slot i + 1.
        held = np.diff(cumulative[places], prepend=0)[:-1]
        slots.pop(int(np.argmin(held * np.diff(values[places]))))
    return tuple(int(values[slot]) for slot in slots)


def fine_lengths(lengths: NDArray[Any]) -> tuple[int, ...]:
    """Padded lengths so fine that they hardly pad: the inputs of rows of ``lengths`` tokens, rounded up to 7 binary digits.

    Every length up to 128 stays as it is, and 64 remain in each octave above: a few hundred in all, because the time
    of `best_lengths` grows with the square of their number.

    >>> fine_lengths(np.array([4, 4, 130, 131, 300]))
    (3, 130, 299)
    """
    inputs = np.unique(n_inputs(lengths))
    step = 1 << np.maximum(np.frexp(inputs - 1.0)[1] - 7, 0)
    rounded = np.unique(-(-inputs // step) * step)
    # Each is lowered to the longest row that it has to hold.
    return tuple(inputs[np.searchsorted(inputs, rounded, side="right") - 1].tolist())


def best_lengths(
    values: NDArray[np.int64], counts: NDArray[np.int64], most: int
) -> list[tuple[int, tuple[int, ...]]]:
    """The least padding of all values with 1, 2, ..., ``most`` padded lengths, and the lengths that reach it.

    Dynamic programming: of the best k lengths the last one is the last value, and holds the values from some i on; the
    others are the best k - 1 lengths for the i values before.

    Args:
        values: distinct lengths, ascending, ``[n]``.
        counts: how often each occurs, ``[n]``.
        most: entries of the result, at most n.

    >>> best_lengths(np.array([3, 4, 9]), np.array([7, 1, 1]), 2)
    [(47, (9,)), (5, (3, 9))]
    """
    n = len(values)
    number, total = (np.concatenate([[0], np.cumsum(column)]) for column in (counts, counts * values))
    # padding[i, j]: of values i to j, all as long as value j, [n, n]
    padding = (number[1:] - number[:n, None]) * values - (total[1:] - total[:n, None])
    padding[np.tri(n, k=-1, dtype=bool)] = np.iinfo(np.int64).max // 2
    least, firsts, found = padding[0], [np.zeros(n, np.int64)], []
    for k in range(min(most, n)):
        if k:
            ending = least[:-1, None] + padding[1:]  # [i - 1, j]: the last length holds values i to j
            firsts.append(1 + ending.argmin(axis=0))
            least = ending.min(axis=0)
        ends = [n - 1]
        for first in firsts[:0:-1]:
            ends.append(int(first[ends[-1]]) - 1)
        found.append((int(least[-1]), tuple(int(values[end]) for end in reversed(ends))))
    return found


def fewest_shapes(wanted: Counter[Shape], cap: int) -> tuple[Shape, ...]:
    """The fewest shapes that hold every shape of ``wanted`` with at most 5% more positions, or else at most ``cap``.

    Each number of rows has its own lengths (`best_lengths`), initially one. Further lengths are assigned one by one
    where they save the most padding. This is optimal, because each additional length for the same number of rows saves
    less than the previous one.
    """
    most = 2 * cap  # before `_merged` merges lengths of different numbers of rows
    choices = {rows: _choices(wanted, rows, most) for rows in sorted({rows for rows, _ in wanted})}
    taken = dict.fromkeys(choices, 0)
    too_much = sum(rows * found[0][0] for rows, found in choices.items())
    too_much -= int(MOST_PADDING * sum(rows * length * uses for (rows, length), uses in wanted.items()))
    while too_much > 0 and sum(taken.values()) + len(taken) < most:
        saved = {
            rows: rows * (found[taken[rows]][0] - found[taken[rows] + 1][0])
            for rows, found in choices.items()
            if taken[rows] + 1 < len(found)
        }
        if not saved:
            break
        rows = max(saved, key=saved.__getitem__)
        taken[rows] += 1
        too_much -= saved[rows]
    chosen = [(rows, length) for rows, found in choices.items() for length in found[taken[rows]][1]]
    return _merged(chosen, wanted, cap)


def _choices(wanted: Counter[Shape], rows: int, most: int) -> list[tuple[int, tuple[int, ...]]]:
    lengths = sorted(length for count, length in wanted if count == rows)
    uses = [wanted[rows, length] for length in lengths]
    return best_lengths(np.array(lengths, np.int64), np.array(uses, np.int64), most)


def _merged(shapes: list[Shape], wanted: Counter[Shape], cap: int) -> tuple[Shape, ...]:
    """At most ``cap`` of ``shapes``, with little extra padding.

    Greedy: a shape can be merged into any shape that is at least as large in both dimensions. The shape whose merge
    adds the least padding is merged first. More than ``cap`` shapes are returned if the largest ones do
    not fit into each other, such as (8, 16) and (1, 64).
    """
    size = np.asarray(shapes, np.int64)  # [n, 2]
    uses = np.zeros(len(shapes))
    for (rows, length), count in wanted.items():
        uses[next(i for i, shape in enumerate(shapes) if shape[0] == rows and shape[1] >= length)] += count
    area = size.prod(axis=1).astype(float)
    # extra[i, j]: padding added to one micro-batch of shape i when it is laid out as shape j, [n, n]
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
