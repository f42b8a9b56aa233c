"""Counts over the columns of many rows."""

from __future__ import annotations

import numpy as np

from mlxsched.data.rows import _BLOCK, rows_in_memory


def test_targets_are_counted_in_blocks_of_rows() -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 4, 2 * _BLOCK + 5)
    rows = rows_in_memory((np.zeros(length, np.int32), draw.random(length) < 0.5) for length in lengths)
    assert rows.target_counts.tolist() == [int(row.targets.sum()) for row in rows]
    assert rows_in_memory([]).target_counts.tolist() == []
