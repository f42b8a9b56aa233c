"""Many very short rows in one line of a micro-batch, one behind the other, where that is cheaper than padding.

Rows of like length fill a micro-batch well where an update has many of them. Where it has few, or all are very
short, lines of a fixed width that hold several rows waste less. They need a mask which keeps rows apart, and so
attention over the whole line; that is counted against them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batches import (
    LAUNCH_TOKENS,
    Batch,
    Grid,
    Indices,
    lay_out,
    micro_batches,
    shape_grid,
)
from mlxsched.data.order import rows_of_update, updates_per_epoch
from mlxsched.data.rows import Rows

WIDEST = 256
# A token attending over a line this wide costs twice a lone one. Measured on the CPU: 280 for a hidden size of
# 128, 850 for 576; the lower one is the careful choice.
_DOUBLING_WIDTH = 256
_WIDTHS = (32, 48, 64, 96, 128, 192, WIDEST)
_SAMPLED_UPDATES = 24
_WORTH_IT = 0.93  # of the padded cost: the estimate is good to a few per cent


@dataclass(frozen=True)
class Packing:
    """Lines of ``width`` positions, at most ``most`` of them in a micro-batch, padded to one of the numbers ``lines``."""

    width: int
    most: int
    lines: tuple[int, ...] = ()

    def micro_batches(self, indices: Indices, lengths: NDArray[Any]) -> list[list[Indices]]:
        """The rows ``indices`` as micro-batches of lines of rows, by first fit, longest first (Johnson, 1973).

        >>> parts = Packing(16, 2).micro_batches(np.arange(5), np.array([13, 5, 9, 9, 5]))
        >>> [[line.tolist() for line in part] for part in parts]
        [[[0, 1], [2, 3]], [[4]]]
        """
        lines = _first_fit(np.asarray(indices, np.int64), np.maximum(np.asarray(lengths) - 1, 1), self.width)
        count = -(-len(lines) // self.most)
        return [list(part) for part in _evenly(lines, count)]

    def shape(self, lines: int) -> tuple[int, int]:
        """The padded shape of ``lines`` lines."""
        return next((held for held in self.lines if held >= lines), lines), self.width

    def collate(self, rows: Rows, lines: list[Indices]) -> Batch:
        """Lay out a micro-batch of `micro_batches`; its ``segments`` tell the rows of a line apart."""
        inputs = np.maximum(rows.lengths - 1, 1)
        places: list[tuple[int, int]] = []
        shape = self.shape(len(lines))
        segments = np.zeros(shape, np.int32)
        for number, line in enumerate(lines):
            ends = np.cumsum(inputs[line])
            places += [(number, int(end - inputs[index])) for index, end in zip(line, ends, strict=True)]
            segments[number] = np.searchsorted(ends, np.arange(self.width), side="right")
        return lay_out(rows, np.concatenate(lines), np.array(places), shape, segments)


def _first_fit(indices: Indices, widths: NDArray[Any], width: int) -> list[Indices]:
    order = indices[np.argsort(-widths[indices], kind="stable")]
    room = np.full(len(order), width)
    lines: list[list[int]] = [[] for _ in order]
    for index in order:
        line = int(np.argmax(room >= widths[index]))
        room[line] -= widths[index]
        lines[line].append(int(index))
    return [np.array(line, np.int64) for line in lines if line]


def _evenly(lines: list[Indices], count: int) -> list[list[Indices]]:
    edges = [round(part * len(lines) / count) for part in range(count + 1)]
    return [lines[start:stop] for start, stop in itertools.pairwise(edges)]


def plan_packing(
    lengths: NDArray[Any], rows_per_update: int, *, max_tokens: int, always: bool = False
) -> Packing | None:
    """The lines that updates of ``rows_per_update`` rows of ``lengths`` tokens are cheapest in.

    None where padded micro-batches are as cheap, by the estimate, unless it is to be ``always``; and where a row
    is too long for the widest line, of 256 positions. The cost of a micro-batch of n lines of w positions is
    ``n * w * (1 + w / 256)`` and a launch.
    """
    longest = int(np.max(lengths)) - 1
    samples = _sampled(len(lengths), rows_per_update)
    most = [width for width in _WIDTHS if longest <= width <= max(max_tokens, longest)]
    plans = [_fitted(Packing(width, max(max_tokens // width, 1)), samples, lengths) for width in most]
    if not plans:
        return None
    best = min(plans, key=lambda plan: packed_cost(plan, samples, lengths))
    if always:
        return best
    padded = padded_cost(samples, lengths, rows_per_update, max_tokens)
    return best if packed_cost(best, samples, lengths) <= _WORTH_IT * padded else None


def _sampled(n_rows: int, rows_per_update: int) -> list[Indices]:
    count = min(_SAMPLED_UPDATES, updates_per_epoch(n_rows, rows_per_update))
    return [rows_of_update(update, n_rows, rows_per_update, seed=0) for update in range(count)]


def _fitted(packing: Packing, samples: list[Indices], lengths: NDArray[Any]) -> Packing:
    """``packing`` with the numbers of lines that come up: few, as rows of an update add up to much the same."""
    seen = {len(part) for rows in samples for part in packing.micro_batches(rows, lengths)}
    return Packing(packing.width, packing.most, tuple(sorted(seen)))


def packed_cost(packing: Packing, samples: list[Indices], lengths: NDArray[Any]) -> float:
    """The estimated cost, in tokens, of the updates ``samples`` in lines."""
    parts = (part for rows in samples for part in packing.micro_batches(rows, lengths))
    return sum(_cost(*packing.shape(len(part))) for part in parts)


def padded_cost(
    samples: list[Indices], lengths: NDArray[Any], rows_per_update: int, max_tokens: int
) -> float:
    """The estimated cost, in tokens, of the updates ``samples`` in padded micro-batches."""
    grid: Grid = shape_grid(lengths, rows_per_update, max_tokens=max_tokens)
    parts = (p for rows in samples for p in micro_batches(rows, lengths, max_tokens=max_tokens, grid=grid))
    return sum(_cost(*grid.shape(len(part), max(int(lengths[part[0]]) - 1, 1))) for part in parts)


def _cost(lines: int, width: int) -> float:
    return lines * width * (1 + width / _DOUBLING_WIDTH) + LAUNCH_TOKENS
