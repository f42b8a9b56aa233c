"""Frozen-prefix activations: the outputs of the frozen layers for all rows of a split, computed once.

They take 2 to 4 bytes times the hidden size for each token (2.3 KB for a 135M model in float32), in memory or on disk.
Rows are computed in fixed groups (`RowGroups`), whatever update asks for one of them first.
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
from mlxsched.data.batching.row_groups import RowGroups
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
        self._ready = np.zeros(len(groups.sets), bool)

        def compute(inputs: mx.array) -> mx.array:
            return boundary_input(model, boundary, inputs)

        self._compute: Callable[[mx.array], mx.array] = mx.compile(compute) if compiled else compute

    def batch(self, indices: Indices, shape: tuple[int, int], places: Places | None = None) -> mx.array:
        """Activations ``[*shape, width]`` of the rows ``indices``, each at its place in the batch."""
        for index in indices:
            if not self._ready[index]:
                self._make_ready(self._groups.of_row(int(index)))
        activations = [self._of(index) for index in indices]
        return _from_raw(lay_out_activations(activations, shape, places_of(indices, places)), self._dtype)

    def _of(self, index: int) -> NDArray[Any]:
        return self._stored.values[self._starts[index] : self._starts[index + 1]]

    def _make_ready(self, group: Indices) -> None:
        """Compute a group, unless an earlier run left it intact."""
        parts = [self._of(index) for index in group]
        if not self._stored.has(group, parts):
            activations = _to_raw(
                self._compute(mx.array(collate(self._rows, group, self._groups.grid).inputs))
            )
            for part, computed in zip(
                parts, activations, strict=False
            ):  # behind the rows come lines of padding
                part[:] = computed[: len(part)]
            self._stored.mark(group, parts)
        self._ready[group] = True


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
    groups: RowGroups,
    compiled: bool = True,
) -> PrefixActivations | None:
    """The activations of those of ``rows`` that are in ``groups``, the first ones; None where there is no room for them."""
    if boundary.dtype not in _RAW:
        return None
    count = len(groups.sets)
    positions = int(rows.lengths[:count].sum()) - count
    layout = StoreLayout(positions, boundary.width, _RAW[boundary.dtype], count)

    def key(shared: SharedFolder) -> str:
        ends = rows.offsets[: count + 1]
        arrays = {"tokens": rows.columns["tokens"][: ends[-1]], "ends": ends, **groups.facts}
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
