"""Several short rows in one line of a micro-batch, one behind the other.

Rows of like length fill a padded micro-batch well where an update has many of them. Where it has few, or all are
very short, lines of a fixed width that hold several rows waste less. They need a mask which keeps rows apart.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.batches import Batch, Indices, Shape, lay_out, n_inputs
from mlxsched.data.rows import Rows


@dataclass(frozen=True)
class Packing:
    """Lines of ``width`` positions, at most ``most`` of them in a micro-batch, padded to one of the numbers ``lines``."""

    width: int
    most: int
    lines: tuple[int, ...] = ()

    def holds(self, lengths: NDArray[Any]) -> NDArray[np.bool_]:
        """Which rows of ``lengths`` tokens fit into a line."""
        fitting: NDArray[np.bool_] = n_inputs(lengths) <= self.width
        return fitting

    def micro_batches(self, indices: Indices, lengths: NDArray[Any]) -> list[list[Indices]]:
        """The rows ``indices`` as micro-batches of lines of rows, by first fit, longest first (Johnson, 1973).

        >>> parts = Packing(16, 2).micro_batches(np.arange(5), np.array([13, 5, 9, 9, 5]))
        >>> [[line.tolist() for line in part] for part in parts]
        [[[0, 1], [2, 3]], [[4]]]
        """
        indices = np.asarray(indices, np.int64)
        lines = _first_fit(indices, n_inputs(np.asarray(lengths)[indices]), self.width)
        count = -(-len(lines) // self.most)
        edges = [round(part * len(lines) / count) for part in range(count + 1)] if count else []
        return [lines[start:stop] for start, stop in itertools.pairwise(edges)]

    def shape(self, lines: int) -> Shape:
        """The padded shape of ``lines`` lines."""
        return next((held for held in self.lines if held >= lines), lines), self.width

    def collate(self, rows: Rows, lines: list[Indices]) -> Batch:
        """Lay out a micro-batch of `micro_batches`; its ``segments`` tell the rows of a line apart."""
        places: list[tuple[int, int]] = []
        shape = self.shape(len(lines))
        segments = np.zeros(shape, np.int32)
        for number, line in enumerate(lines):
            inputs = n_inputs(rows.lengths[line])
            ends = np.cumsum(inputs)
            places += [(number, int(start)) for start in ends - inputs]
            segments[number] = np.searchsorted(ends, np.arange(self.width), side="right")
        return lay_out(rows, np.concatenate(lines), np.array(places), shape, segments)


def _first_fit(indices: Indices, inputs: NDArray[np.int64], width: int) -> list[Indices]:
    room = np.full(len(indices), width)
    lines: list[list[int]] = [[] for _ in indices]
    for place in np.argsort(-inputs, kind="stable"):
        line = int(np.argmax(room >= inputs[place]))
        room[line] -= inputs[place]
        lines[line].append(int(indices[place]))
    return [np.array(line, np.int64) for line in lines if line]
