"""Padded batches: labels are shifted by one, and only targets have weight."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data.batching.batches import collate
from mlxsched.data.batching.grid import length_grid
from mlxsched.data.rows import rows_in_memory


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=2, max_size=12),
        min_size=1,
        max_size=6,
    )
)
def test_collate_shifts_by_one_and_weighs_the_targets(data: list[list[tuple[int, bool]]]) -> None:
    sequences = [([t for t, _ in row], [False, *(w for _, w in row[1:])]) for row in data]
    rows = rows_in_memory((np.array(t, np.int32), np.array(w)) for t, w in sequences)
    batch = collate(rows, np.arange(len(rows)), length_grid(rows.lengths))
    scored = []
    for line, position in zip(*np.nonzero(batch.weights), strict=True):
        seen = tuple(batch.inputs[line, : position + 1].tolist())
        scored.append((int(line), seen, int(batch.labels[line, position])))
    expected = [
        (line, tuple(tokens[:i]), tokens[i])
        for line, (tokens, targets) in enumerate(sequences)
        for i, target in enumerate(targets)
        if target
    ]
    assert scored == expected
    assert batch.n_targets == len(expected) == rows.target_counts.sum()
    assert batch.n_tokens == sum(len(tokens) - 1 for tokens, _ in sequences)
    assert batch.weights.dtype == np.float32
    assert batch.inputs.dtype == batch.labels.dtype == np.int32
