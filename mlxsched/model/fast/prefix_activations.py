"""Frozen-prefix activations: the outputs of the frozen layers for all rows of a split, computed once.

They take 2 to 4 bytes times the hidden size for each token (2.3 KB for a 135M model in float32), in memory or on disk.
Rows are computed in fixed groups of like length, whatever update asks for one of them first: the padded shape of a
matrix product decides its last bits, and a resumed run must find the same ones as an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.batches import Places, collate, places_of
from mlxsched.data.batching.grid import Grid, length_grid
from mlxsched.data.rows import Indices, Rows
from mlxsched.model.fast.activation_files import (
    FORMAT,
    SharedFolder,
    StoredActivations,
    StoreLayout,
    private_file,
)
from mlxsched.model.fast.activation_key import activation_key
from mlxsched.model.fast.frozen_prefix import PrefixBoundary, boundary_input

_RAW: dict[mx.Dtype, np.dtype[Any]] = {
    mx.float32: np.dtype(np.float32),
    mx.float16: np.dtype(np.uint16),
    mx.bfloat16: np.dtype(np.uint16),
}


@dataclass(frozen=True)
class ActivationStore:
    """Where activations go: memory up to ``memory_bytes``, else a file in ``shared``, else one in ``directory``.

    The latter is for this process only; None for no file.
    """

    memory_bytes: int
    directory: Path | None
    shared: SharedFolder | None = None

    def make(self, layout: StoreLayout, key: Callable[[SharedFolder], str]) -> StoredActivations | None:
        """Room for activations; None where there is none."""
        if layout.size <= self.memory_bytes:
            return StoredActivations(np.empty((layout.positions, layout.width), layout.dtype))
        stored = self.shared.open(key(self.shared), layout) if self.shared else None
        if stored is None and self.directory is not None:
            stored = private_file(self.directory, layout)
        return stored


@dataclass(frozen=True)
class RowGroups:
    """The groups of rows that go through the frozen layers together, and the grid that they are padded to."""

    members: list[Indices]
    grid: Grid

    @classmethod
    def of(cls, lengths: NDArray[Any], max_tokens: int) -> RowGroups:
        """All rows in groups of like length, longest first, each as large as ``max_tokens`` padded tokens allow."""
        grid = length_grid(lengths)
        order = np.argsort(-lengths.astype(np.int64), kind="stable")
        groups, start = [], 0
        while start < len(order):
            width = grid.shape(1, max(int(lengths[order[start]]) - 1, 1))[1]
            size = max(max_tokens // width, 1)
            while grid.shape(size, width)[0] > size:
                size -= 1  # down to a number of rows that the grid doesn't pad
            groups.append(order[start : start + size])
            start += size
        return cls(groups, grid)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The grouping as arrays, for `activation_key`."""
        sizes = np.array([len(group) for group in self.members])
        return {"order": np.concatenate(self.members), "sizes": sizes, "grid": np.array(self.grid.lengths)}


class PrefixActivations:
    """The activations of ``rows`` at ``boundary``, computed when they are first asked for."""

    def __init__(
        self,
        model: Any,
        boundary: PrefixBoundary,
        rows: Rows,
        groups: RowGroups,
        stored: StoredActivations,
        *,
        compiled: bool,
    ) -> None:
        self._rows, self._groups, self._stored, self._dtype = rows, groups, stored, boundary.dtype
        self._starts = rows.offsets - np.arange(len(rows.offsets))  # a row of n tokens has n - 1 inputs
        self._group_of = np.empty(sum(map(len, groups.members)), np.int64)
        for number, group in enumerate(groups.members):
            self._group_of[group] = number
        self._ready = np.zeros(len(groups.members), bool)

        def compute(inputs: mx.array) -> mx.array:
            return boundary_input(model, boundary, inputs)

        self._compute: Callable[[mx.array], mx.array] = mx.compile(compute) if compiled else compute

    def batch(self, indices: Indices, shape: tuple[int, int], places: Places | None = None) -> mx.array:
        """Activations ``[*shape, width]`` of the rows ``indices``, each at its place in the batch."""
        for number in np.unique(self._group_of[indices]):
            if not self._ready[number]:
                self._make_ready(int(number))
        activations = [self._of(index) for index in indices]
        return _from_raw(lay_out_activations(activations, shape, places_of(indices, places)), self._dtype)

    def _of(self, index: int) -> NDArray[Any]:
        return self._stored.values[self._starts[index] : self._starts[index + 1]]

    def _make_ready(self, number: int) -> None:
        """Compute a group, unless an earlier run left it intact."""
        group = self._groups.members[number]
        parts = [self._of(index) for index in group]
        if not self._stored.has(number, parts):
            activations = _to_raw(
                self._compute(mx.array(collate(self._rows, group, self._groups.grid).inputs))
            )
            for part, computed in zip(
                parts, activations, strict=False
            ):  # behind the rows come lines of padding
                part[:] = computed[: len(part)]
            self._stored.mark(number, parts)
        self._ready[number] = True


def lay_out_activations(
    activations: list[NDArray[Any]], shape: tuple[int, int], places: list[tuple[int, int]]
) -> NDArray[Any]:
    """Each row's activations at its place in ``[*shape, width]``.

    Padding repeats real activations: zeros or garbage could become NaN in a layer, and a NaN survives a weight of 0.
    """
    laid_out = np.empty((*shape, activations[0].shape[1]), activations[0].dtype)
    for (line, start), values in zip(places, activations, strict=True):
        laid_out[line, start : start + len(values)] = values
        laid_out[line, start + len(values) :] = values[-1]  # up to the next row of the line
    laid_out[places[-1][0] + 1 :] = laid_out[0]
    return laid_out


def make_activations(
    model: Any,
    boundary: PrefixBoundary,
    rows: Rows,
    store: ActivationStore,
    *,
    max_tokens: int,
    limit: int | None = None,
    compiled: bool = True,
) -> PrefixActivations | None:
    """The activations of the first ``limit`` of ``rows``; None where there is no room for them."""
    if boundary.dtype not in _RAW:
        return None
    count = len(rows) if limit is None else min(limit, len(rows))
    positions = int(rows.lengths[:count].sum()) - count
    groups = RowGroups.of(rows.lengths[:count], max_tokens)
    layout = StoreLayout(positions, boundary.width, _RAW[boundary.dtype], len(groups.members))

    def key(shared: SharedFolder) -> str:
        ends = rows.offsets[: count + 1]
        arrays = {"tokens": rows.columns["tokens"][: ends[-1]], "ends": ends, **groups.arrays()}
        return activation_key(model, shared.config, boundary, arrays, compiled=compiled, format=FORMAT)

    stored = store.make(layout, key)
    return (
        None
        if stored is None
        else PrefixActivations(model, boundary, rows, groups, stored, compiled=compiled)
    )


def _to_raw(activations: mx.array) -> NDArray[Any]:
    return np.array(activations if activations.dtype == mx.float32 else activations.view(mx.uint16))


def _from_raw(values: NDArray[Any], dtype: mx.Dtype) -> mx.array:
    array = mx.array(values)
    return array if dtype == mx.float32 else array.view(dtype)
