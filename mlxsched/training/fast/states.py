"""The outputs of the frozen layers for all rows of a split, computed once, in memory or on disk.

A row's states come from a fixed group of rows of like length, whatever update asks for them first. So they are
the same to the last bit in an uninterrupted run and in a resumed one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from ...data.batches import Grid, Places, collate, length_grid, places_of
from ...data.rows import Rows
from .prefix import Tap, prefix_states

Indices = NDArray[np.int64]
_RAW: dict[mx.Dtype, np.dtype[Any]] = {
    mx.float32: np.dtype(np.float32),
    mx.float16: np.dtype(np.uint16),
    mx.bfloat16: np.dtype(np.uint16),
}


@dataclass(frozen=True)
class Store:
    """Where states go: memory up to ``memory_bytes``, else a file in ``directory`` that vanishes with the process."""

    memory_bytes: int
    directory: Path | None

    def make(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any] | None:
        """An array of ``shape``, its pages taken as they are written; None where there is no room."""
        size = shape[0] * shape[1] * dtype.itemsize
        if size <= self.memory_bytes:
            return np.empty(shape, dtype)
        if self.directory is None or 2 * size > shutil.disk_usage(self.directory).free:
            return None
        with tempfile.TemporaryFile(dir=self.directory, prefix=".prefix-states-") as file:
            return np.memmap(file, dtype, "r+", shape=shape) if _reserved(file.fileno(), size) else None


def _reserved(file: int, size: int) -> bool:
    """Take the blocks now where that can be done: a mapped file on a disk that fills up kills the process."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        os.ftruncate(file, size)
        return True
    try:
        os.posix_fallocate(file, 0, size)
    except OSError:
        return False
    return True


class PrefixStates:
    """The states of ``rows`` in front of ``tap``; ``batch(indices, shape)`` lays them out like the rows themselves."""

    def __init__(
        self,
        model: Any,
        tap: Tap,
        rows: Rows,
        values: NDArray[Any],
        *,
        max_tokens: int,
        count: int,
        compiled: bool,
    ) -> None:
        self._rows, self._values, self._dtype = rows, values, tap.dtype
        lengths = rows.lengths[:count]
        self._starts = rows.offsets - np.arange(len(rows.offsets))  # a row of n tokens has n - 1 inputs
        self._grid: Grid = length_grid(lengths)
        self._groups = _groups(lengths, max_tokens, self._grid)
        self._group_of = np.empty(count, np.int64)
        for number, group in enumerate(self._groups):
            self._group_of[group] = number
        self._filled = np.zeros(len(self._groups), bool)

        def compute(inputs: mx.array) -> mx.array:
            return prefix_states(model, tap, inputs)

        self._compute: Callable[[mx.array], mx.array] = mx.compile(compute) if compiled else compute

    def batch(self, indices: Indices, shape: tuple[int, int], places: Places | None = None) -> mx.array:
        """States ``[*shape, width]`` of the rows ``indices``, each at its place, computed if need be."""
        for number in np.unique(self._group_of[indices]):
            if not self._filled[number]:
                self._fill(int(number))
        states = [self._values[self._starts[index] : self._starts[index + 1]] for index in indices]
        return _from_raw(put(states, shape, places_of(indices, places)), self._dtype)

    def _fill(self, number: int) -> None:
        group = self._groups[number]
        states = _to_raw(self._compute(mx.array(collate(self._rows, group, self._grid).inputs)))
        for line, index in enumerate(group):
            start, stop = self._starts[index], self._starts[index + 1]
            self._values[start:stop] = states[line, : stop - start]
        self._filled[number] = True


def put(states: list[NDArray[Any]], shape: tuple[int, int], places: list[tuple[int, int]]) -> NDArray[Any]:
    """Each row's states at its place; padding repeats states that there are, so that nothing odd comes of it."""
    laid_out = np.empty((*shape, states[0].shape[1]), states[0].dtype)
    for (line, start), values in zip(places, states, strict=True):
        laid_out[line, start : start + len(values)] = values
        laid_out[line, start + len(values) :] = values[-1]  # up to the next row of the line
    laid_out[places[-1][0] + 1 :] = laid_out[0]
    return laid_out


def make_states(
    model: Any,
    tap: Tap,
    rows: Rows,
    store: Store,
    *,
    max_tokens: int,
    limit: int | None = None,
    compiled: bool = True,
) -> PrefixStates | None:
    """The states of the first ``limit`` of ``rows``, or None where there is no room for them."""
    count = len(rows) if limit is None else min(limit, len(rows))
    positions = int(rows.lengths[:count].sum()) - count
    values = store.make((positions, tap.width), _RAW[tap.dtype]) if tap.dtype in _RAW else None
    if values is None:
        return None
    return PrefixStates(model, tap, rows, values, max_tokens=max_tokens, count=count, compiled=compiled)


def _groups(lengths: NDArray[Any], max_tokens: int, grid: Grid) -> list[Indices]:
    """All rows in groups of like length, longest first, that fill ``max_tokens`` padded tokens but for the last."""
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    groups, start = [], 0
    while start < len(order):
        width = grid.shape(1, max(int(lengths[order[start]]) - 1, 1))[1]
        size = max(max_tokens // width, 1)
        while grid.shape(size, width)[0] > size:
            size -= 1  # to a number of rows that needs no padding
        groups.append(order[start : start + size])
        start += size
    return groups


def _to_raw(states: mx.array) -> NDArray[Any]:
    return np.array(states if states.dtype == mx.float32 else states.view(mx.uint16))


def _from_raw(values: NDArray[Any], dtype: mx.Dtype) -> mx.array:
    array = mx.array(values)
    return array if dtype == mx.float32 else array.view(dtype)
