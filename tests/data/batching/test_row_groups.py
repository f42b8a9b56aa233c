"""The groups in which rows go through frozen layers: each row in one, whoever asks."""

from __future__ import annotations

import numpy as np
import pytest

from mlxsched.data.batching.partition import micro_batches, shape_grid
from mlxsched.data.batching.row_groups import RowGroups
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.batching.shares import SharedSampler

LENGTHS = np.random.default_rng(0).integers(2, 90, 61)


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("workers", [1, 2])
def test_each_update_of_the_first_epoch_is_whole_groups(window: int, workers: int) -> None:
    sampler = Sampler(LENGTHS, 7, seed=3, window=window)
    grid = shape_grid(sampler, max_tokens=128)
    groups = RowGroups.of_first_epoch(sampler, grid, 128, workers)
    for worker in range(workers):
        mine = SharedSampler.of(sampler, worker, workers)
        for update in range(sampler.updates_per_epoch):
            parts = micro_batches(mine.rows(update), LENGTHS, max_tokens=128, grid=grid)
            for part in parts:
                assert all(groups.of_row(row).tolist() == part.tolist() for row in part.tolist())


def test_groups_of_like_length_hold_every_row_once() -> None:
    groups = RowGroups.by_length(LENGTHS, 128)
    found = {tuple(groups.of_row(row).tolist()) for row in range(len(LENGTHS))}
    assert sorted(sum(found, ())) == list(range(len(LENGTHS)))
    for group in found:
        rows, width = groups.grid.shape(len(group), int(LENGTHS[list(group)].max()) - 1)
        assert rows == 1 or rows * width <= 128
