"""The rows of an update dealt out to workers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxsched.data.batching.batches import counts
from mlxsched.data.batching.grid import n_inputs
from mlxsched.data.batching.plan import padded_plan
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.batching.shares import SharedSampler, share_of
from mlxsched.data.rows import rows_in_memory


@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=60),
    workers=st.integers(1, 7),
    seed=st.integers(0, 5),
)
def test_shares_make_up_the_update_and_are_balanced(lengths, workers, seed):
    lengths = np.array(lengths)
    indices = np.random.default_rng(seed).permutation(len(lengths))[: len(lengths) // 2 + 1]
    shares = [share_of(indices, lengths, worker, workers) for worker in range(workers)]
    assert sorted(np.concatenate(shares).tolist()) == sorted(indices.tolist())
    places = {row: place for place, row in enumerate(indices.tolist())}
    for share in shares:
        assert [places[row] for row in share.tolist()] == sorted(places[row] for row in share.tolist())
    loads = [int(n_inputs(lengths[share]).sum()) if len(share) else 0 for share in shares]
    # The last row that the fullest worker got went to the emptiest one at that time.
    assert max(loads) - min(loads) <= n_inputs(lengths[indices]).max()


def test_more_workers_than_rows_leaves_shares_empty():
    shares = [share_of(np.array([4, 2]), np.arange(1, 9), worker, 3).tolist() for worker in range(3)]
    assert shares == [[4], [2], []]


def test_micro_batches_of_a_share_are_planned_from_shares():
    """Shapes planned for whole updates would pad half an update up to a whole one, and two workers would save nothing."""
    rows = rows_in_memory((np.full(n, 1, np.int32), np.arange(n) > 0) for n in [33] * 32)
    whole = Sampler(rows.lengths, 8)
    half = SharedSampler.of(whole, 0, 2)
    plan = padded_plan(half, 1024)
    batches = plan.batches(rows, share_of(whole.rows(0), rows.lengths, 0, 2))
    assert [batch.shape for batch in batches] == [(4, 32)]
    assert plan.batches(rows, np.zeros(0, np.int64)) == []


@pytest.mark.parametrize("first", [False, True])
def test_counts_are_those_of_the_batches(first):
    targets = np.arange(7) > 3
    targets[0] = first  # never predicted, so never counted
    rows = rows_in_memory([(np.arange(7, dtype=np.int32), targets)] * 3)
    batches = padded_plan(Sampler(rows.lengths, 3), 1024).batches(rows, np.arange(3))
    assert counts(rows, np.arange(3)) == (
        sum(batch.n_tokens for batch in batches),
        sum(batch.n_targets for batch in batches),
    )
