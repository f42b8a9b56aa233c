"""The grids hold every row, in few shapes, with little padding."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data.batching.grid import (
    MOST_PADDING,
    Grid,
    best_lengths,
    fewest_shapes,
    fine_lengths,
    length_grid,
    thinned,
)

lengths_lists = st.lists(st.integers(1, 400), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(lengths_lists, st.integers(1, 12))
def test_the_length_grid_holds_every_row_in_few_lengths(lengths_list: list[int], cap: int) -> None:
    grid = length_grid(np.asarray(lengths_list), cap)
    assert len(grid.lengths) <= cap
    assert list(grid.lengths) == sorted(set(grid.lengths))
    assert grid.lengths[-1] == max(*lengths_list, 2) - 1


def test_a_length_grid_without_a_cap_wastes_at_most_a_fifth() -> None:
    lengths = np.random.default_rng(1).integers(10, 3000, 5000)
    grid = length_grid(lengths, cap=100)
    for length in lengths:
        assert grid.shape(1, int(length) - 1)[1] <= 1.26 * (int(length) - 1)


def test_the_number_of_rows_is_padded_to_few_values() -> None:
    grid = Grid((10,))
    assert [grid.shape(rows, 1)[0] for rows in (1, 2, 3, 4, 5, 7, 9, 13, 17, 33)] == [
        1, 2, 3, 4, 6, 8, 12, 16, 24, 48,
    ]  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.sets(st.integers(1, 300), min_size=2, max_size=8), st.data())
def test_thinning_to_one_less_removes_the_cheapest_value(sizes: set[int], data: st.DataObject) -> None:
    values = np.array(sorted(sizes))
    counts = np.array([data.draw(st.integers(1, 20)) for _ in values])

    def padding(kept: list[int]) -> int:
        return sum(
            count * (min(k for k in kept if k >= size) - size)
            for size, count in zip(values.tolist(), counts.tolist(), strict=True)
        )

    kept = thinned(list(range(len(values))), values, counts, len(values) - 1)
    without = [[v for v in values.tolist() if v != gone] for gone in values[:-1].tolist()]
    assert padding(list(kept)) == min(padding(rest) for rest in without)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.tuples(st.integers(1, 9), st.integers(1, 99)), st.integers(1, 9), min_size=1),
    st.integers(1, 6),
)
def test_the_fewest_shapes_hold_all_shapes(wanted: dict[tuple[int, int], int], cap: int) -> None:
    shapes = fewest_shapes(Counter(wanted), cap)
    assert set(shapes) <= set(wanted)
    for rows, length in wanted:
        assert any(rows <= n and length <= width for n, width in shapes)
    if (max(n for n, _ in wanted), max(w for _, w in wanted)) in wanted:
        assert len(shapes) <= cap


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(1, 200), st.integers(1, 20), min_size=1, max_size=8), st.integers(1, 9))
def test_no_other_lengths_pad_less(uses: dict[int, int], most: int) -> None:
    values = sorted(uses)

    def padding(kept: tuple[int, ...]) -> int:
        return sum(uses[value] * (min(k for k in kept if k >= value) - value) for value in values)

    found = best_lengths(np.array(values), np.array([uses[value] for value in values]), most)
    assert len(found) == min(most, len(values))
    for k, (least, lengths) in enumerate(found, 1):
        every = [(*rest, values[-1]) for rest in itertools.combinations(values[:-1], k - 1)]
        assert least == padding(lengths) == min(map(padding, every))
        assert len(lengths) == k


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.integers(1, 99), st.integers(1, 9), min_size=1, max_size=9))
def test_the_fewest_lengths_that_add_a_twentieth(uses: dict[int, int]) -> None:
    values = sorted(uses)
    shapes = fewest_shapes(Counter({(4, value): count for value, count in uses.items()}), 48)

    def added(lengths: tuple[int, ...]) -> float:
        extra = sum(uses[value] * (min(k for k in lengths if k >= value) - value) for value in values)
        return extra / sum(value * count for value, count in uses.items())

    assert added(tuple(length for _, length in shapes)) <= MOST_PADDING
    fewer = itertools.combinations(values[:-1], len(shapes) - 2) if len(shapes) > 1 else ()
    assert all(added((*rest, values[-1])) > MOST_PADDING for rest in fewer)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=50))
def test_fine_lengths_hardly_pad(lengths_list: list[int]) -> None:
    fine = fine_lengths(np.array(lengths_list))
    assert list(fine) == sorted(set(fine))
    for length in lengths_list:
        inputs = max(length - 1, 1)
        assert inputs <= min(k for k in fine if k >= inputs) <= inputs * (1 + 1 / 64)
