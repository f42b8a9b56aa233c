"""Sequence packing: several short rows in one line of a micro-batch.

Padding wastes little where an update has many rows of similar length. Where it has few, or where all rows are very
short, packs of a fixed width waste less. They need an attention mask that keeps the rows of a pack apart.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.batches import Batch, lay_out
from mlxsched.data.batching.grid import Shape, n_inputs
from mlxsched.data.rows import Indices, Rows


@dataclass(frozen=True)
class Packing:
    """How rows are packed; a *pack* is one line that holds several rows.

    Args:
        width: positions of a pack.
        max_packs: packs of a micro-batch at most.
        pack_counts: the numbers of packs that a micro-batch is padded to, ascending; each is one compiled shape.
    """

    width: int
    max_packs: int
    pack_counts: tuple[int, ...] = ()

    def holds(self, lengths: NDArray[Any]) -> NDArray[np.bool_]:
        """Which rows of ``lengths`` tokens fit into a pack, ``[rows]``."""
        fitting: NDArray[np.bool_] = n_inputs(lengths) <= self.width
        return fitting

    def micro_batches(self, indices: Indices, lengths: NDArray[Any]) -> list[list[Indices]]:
        """Divide the rows ``indices`` into micro-batches of packs.

        Packs are filled by first-fit decreasing (Johnson, 1973), which needs at most 11/9 of the best possible
        number of them. They are spread evenly: 9 packs at ``max_packs`` 4 are 3 + 3 + 3 rather than 4 + 4 + 1, since
        a micro-batch of one pack hardly uses the machine.

        >>> parts = Packing(16, 2).micro_batches(np.arange(5), np.array([13, 5, 9, 9, 5]))
        >>> [[pack.tolist() for pack in part] for part in parts]
        [[[0, 1], [2, 3]], [[4]]]
        """
        indices = np.asarray(indices, np.int64)
        packs = _first_fit(indices, n_inputs(np.asarray(lengths)[indices]), self.width)
        count = -(-len(packs) // self.max_packs)
        edges = [round(part * len(packs) / count) for part in range(count + 1)] if count else []
        return [packs[start:stop] for start, stop in itertools.pairwise(edges)]

    def shape(self, packs: int) -> Shape:
        """The padded shape of a micro-batch of ``packs`` packs."""
        return next((count for count in self.pack_counts if count >= packs), packs), self.width

    def collate(self, rows: Rows, packs: list[Indices]) -> Batch:
        """Lay out one micro-batch of `micro_batches`."""
        places: list[tuple[int, int]] = []
        shape = self.shape(len(packs))
        segments = np.zeros(shape, np.int32)
        for number, pack in enumerate(packs):
            inputs = n_inputs(rows.lengths[pack])
            ends = np.cumsum(inputs)
            places += [(number, int(start)) for start in ends - inputs]
            # Position t belongs to the first row that ends after t; positions behind the last row get a number of
            # their own, so that no row attends to padding.
            segments[number] = np.searchsorted(ends, np.arange(self.width), side="right")
        return lay_out(rows, np.concatenate(packs), np.array(places), shape, segments)


def _first_fit(indices: Indices, inputs: NDArray[np.int64], width: int) -> list[Indices]:
    """Put each row, longest first, into the first pack that has room for it."""
    room = np.full(len(indices), width)  # of each pack; there are never more packs than rows
    packs: list[list[int]] = [[] for _ in indices]
    for place in np.argsort(-inputs, kind="stable"):
        pack = int(np.argmax(room >= inputs[place]))  # argmax of booleans is the first True
        room[pack] -= inputs[place]
        packs[pack].append(int(indices[place]))
    return [np.array(pack, np.int64) for pack in packs if pack]
