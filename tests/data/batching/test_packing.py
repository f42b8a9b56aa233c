"""Packs hold every row once, whole, and apart from the others."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data.batching.packing import Packing
from mlxsched.data.rows import rows_in_memory


def rows_of(lengths):
    """Row i has the tokens 100 i, 100 i + 1, ..., of which every second one is a target."""
    return rows_in_memory(
        (100 * row + np.arange(n, dtype=np.int32), np.arange(n) % 2 == 1) for row, n in enumerate(lengths)
    )


@settings(max_examples=60)
@given(st.lists(st.integers(2, 17), min_size=1, max_size=40), st.integers(16, 40), st.integers(1, 5))
def test_every_row_is_laid_out_once_and_whole(lengths, width, max_packs):
    rows, packing = rows_of(lengths), Packing(width, max_packs, (1, 4))
    parts = packing.micro_batches(np.arange(len(lengths)), rows.lengths)
    batches = [packing.collate(rows, part) for part in parts]
    assert sorted(i for batch in batches for i in batch.indices) == list(range(len(lengths)))
    assert all(len(part) <= max_packs for part in parts)
    for batch in batches:
        covered = np.zeros(batch.shape, bool)
        for index, (line, start) in zip(batch.indices, batch.places, strict=True):
            tokens, targets = rows[index]
            here = line, slice(start, start + len(tokens) - 1)
            np.testing.assert_array_equal(batch.inputs[here], tokens[:-1])
            np.testing.assert_array_equal(batch.labels[here], tokens[1:])
            np.testing.assert_array_equal(batch.weights[here], targets[1:])
            segment = batch.segments[line] == batch.segments[line, start]
            np.testing.assert_array_equal(np.flatnonzero(segment), start + np.arange(len(tokens) - 1))
            assert not covered[here].any()
            covered[here] = True
        assert (batch.weights[~covered] == 0).all()
        assert batch.n_tokens == covered.sum()
        assert batch.n_targets == batch.weights.sum()


def test_packs_are_full_and_padded_to_a_planned_count():
    packing = Packing(16, 8, (2, 5))
    lengths = np.full(12, 9)  # 8 inputs: two to a pack
    (part,) = packing.micro_batches(np.arange(6), lengths)
    assert [len(pack) for pack in part] == [2, 2, 2]
    assert packing.shape(3) == (5, 16)
    assert packing.shape(6) == (6, 16)  # a count that no sampled update had


def test_packs_are_spread_evenly_over_micro_batches():
    parts = Packing(16, 4).micro_batches(np.arange(9), np.full(9, 17))
    assert [len(part) for part in parts] == [3, 3, 3]
