"""Short rows in lines: each once, whole, apart, and only where that is predicted to be cheaper."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data.packing import Packing, packed_cost, padded_cost, plan_packing
from mlxsched.data.rows import COLUMNS, RowsWriter, from_buffers


def rows_of(lengths):
    """Row i has the tokens 100 i, 100 i + 1, ..., of which every second one is a target."""
    files = {name: io.BytesIO() for name in COLUMNS}
    writer = RowsWriter(files)
    for index, length in enumerate(lengths):
        tokens = 100 * index + np.arange(length, dtype=np.int32)
        writer.add(tokens, np.arange(length) % 2 == 1, 1, "")
    return from_buffers({name: file.getvalue() for name, file in files.items()})


@settings(max_examples=60)
@given(st.lists(st.integers(2, 17), min_size=1, max_size=40), st.integers(16, 40), st.integers(1, 5))
def test_every_row_is_laid_out_once_and_whole(lengths, width, most):
    rows, packing = rows_of(lengths), Packing(width, most, (1, 4))
    parts = packing.micro_batches(np.arange(len(lengths)), rows.lengths)
    batches = [packing.collate(rows, part) for part in parts]
    assert sorted(i for batch in batches for i in batch.indices) == list(range(len(lengths)))
    assert all(len(part) <= most for part in parts)
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


def test_lines_are_full_and_padded_to_a_number_that_was_seen():
    packing = Packing(16, 8, (2, 5))
    lengths = np.full(12, 9)  # 8 inputs: two to a line
    (part,) = packing.micro_batches(np.arange(6), lengths)
    assert [len(line) for line in part] == [2, 2, 2]
    assert packing.shape(3) == (5, 16)
    assert packing.shape(6) == (6, 16)  # a number that no sampled update had


def test_lines_are_split_evenly():
    parts = Packing(16, 4).micro_batches(np.arange(9), np.full(9, 17))
    assert [len(part) for part in parts] == [3, 3, 3]


def lengths_of(low, high):
    return np.random.default_rng(0).integers(low, high, 2000)


def test_chosen_for_many_very_short_rows():
    packing = plan_packing(lengths_of(5, 13), 32, max_tokens=1024)
    assert packing is not None and packing.width == 32
    samples = [np.arange(32 * i, 32 * i + 32) for i in range(10)]
    lengths = lengths_of(5, 13)
    assert packed_cost(packing, samples, lengths) < 0.9 * padded_cost(samples, lengths, 32, 1024)


@pytest.mark.parametrize(
    ("lengths", "per_update"),
    [
        (lengths_of(5, 13), 4),  # one micro-batch either way
        (np.full(2000, 12), 32),  # nothing to save
        (lengths_of(100, 250), 8),  # padding is cheaper than attention
        (np.append(lengths_of(5, 13), 400), 32),  # a row that no line holds
        (np.exp(np.random.default_rng(0).normal(4.7, 0.94, 2000)).astype(int) + 2, 32),  # the log-normal mix
    ],
)
def test_not_chosen_without_a_gain(lengths, per_update):
    assert plan_packing(lengths, per_update, max_tokens=1024) is None


def test_always_takes_the_best_width_there_is():
    assert plan_packing(np.full(100, 12), 32, max_tokens=1024, always=True) is not None
    assert plan_packing(np.full(100, 400), 32, max_tokens=1024, always=True) is None
    tight = plan_packing(np.full(100, 60), 8, max_tokens=40, always=True)
    assert tight is None  # a line is no wider than a micro-batch may be, but for a row's sake
