"""Micro-batches are a partition of the update within the budget, as cheap as any, in few shapes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data.batching.grid import Grid, length_grid
from mlxsched.data.batching.partition import LAUNCH_TOKENS, micro_batches, shape_grid
from mlxsched.data.batching.sampler import Sampler

lengths_lists = st.lists(st.integers(1, 400), min_size=1, max_size=40)


def padded(part: np.ndarray, lengths: np.ndarray, grid: Grid) -> tuple[int, int]:
    return grid.shape(len(part), max(int(lengths[part].max()) - 1, 1))


@settings(max_examples=80, deadline=None)
@given(
    lengths_lists,
    st.one_of(st.none(), st.integers(1, 2000)),
    st.integers(1, 12),
    st.booleans(),
)
def test_a_partition_within_the_budget(
    lengths_list: list[int], max_tokens: int | None, cap: int, few: bool
) -> None:
    lengths = np.asarray(lengths_list, np.int32)
    grid = length_grid(lengths, cap)
    if few:
        grid = shape_grid(Sampler(lengths, 7), max_tokens=max_tokens, cap=cap)
    indices = np.arange(len(lengths))
    parts = micro_batches(indices, lengths, max_tokens=max_tokens, grid=grid)
    assert sorted(np.concatenate(parts).tolist()) == indices.tolist()
    for part in parts:
        rows, length = padded(part, lengths, grid)
        assert rows >= len(part)
        assert length >= lengths[part].max() - 1
        if len(part) > 1:
            assert max_tokens is None or rows * length <= max_tokens


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 60), min_size=1, max_size=7), st.integers(30, 300))
def test_no_other_division_of_the_sorted_rows_is_cheaper(lengths_list: list[int], budget: int) -> None:
    lengths = np.sort(np.asarray(lengths_list))[::-1]
    grid = Grid((15, 30, 59))

    def cost(parts: list[np.ndarray]) -> float:
        total = 0
        for part in parts:
            rows, length = padded(part, lengths, grid)
            if len(part) > 1 and rows * length > budget:
                return float("inf")
            total += rows * length + LAUNCH_TOKENS
        return total

    count = len(lengths)
    every = (
        [np.arange(a, b) for a, b in itertools.pairwise([0, *cuts, count])]
        for size in range(count)
        for cuts in itertools.combinations(range(1, count), size)
    )
    best = min(cost(parts) for parts in every)
    assert cost(micro_batches(np.arange(count), lengths, max_tokens=budget, grid=grid)) == best


def test_the_division_is_deterministic_and_the_longest_rows_come_first() -> None:
    lengths = np.random.default_rng(0).integers(2, 200, 64)
    grid = length_grid(lengths)
    one, two = (micro_batches(np.arange(64), lengths, max_tokens=512, grid=grid) for _ in range(2))
    assert [part.tolist() for part in one] == [part.tolist() for part in two]
    assert lengths[one[0]].max() == lengths.max()


def test_no_rows_no_micro_batches() -> None:
    assert micro_batches(np.zeros(0, np.int64), np.zeros(0), max_tokens=8, grid=Grid((8,))) == []


@pytest.mark.parametrize("cap", [8, 16, 24])
def test_log_normal_lengths_fill_few_shapes(cap: int) -> None:
    random = np.random.default_rng(3)
    lengths = np.clip(random.lognormal(np.log(112), 0.94, 3000), 4, 1000).astype(int)
    sampler = Sampler(lengths, 16, seed=11)
    grid = shape_grid(replace(sampler, seed=0), max_tokens=1024, cap=cap)
    shapes, real = [], 0
    for update in range(150):
        for part in micro_batches(sampler.rows(update), lengths, max_tokens=1024, grid=grid):
            shapes.append(padded(part, lengths, grid))
            real += int((lengths[part] - 1).sum())
    assert len(set(shapes)) <= cap
    assert real / sum(rows * length for rows, length in shapes) > {8: 0.55, 16: 0.7, 24: 0.75}[cap]
