"""Every row of an update is laid out once; rows are packed only where that is predicted to be cheaper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data.batching.plan import batching_stats, estimated_cost, packed_plan, padded_plan
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import rows_in_memory


def rows_of(lengths):
    """Row i consists of the token i; all but the first are targets."""
    return rows_in_memory((np.full(n, row, np.int32), np.arange(n) > 0) for row, n in enumerate(lengths))


def lengths_of(low, high, count=2000):
    return np.random.default_rng(0).integers(low, high, count)


def packed(sampler, max_tokens=1024, **settings):
    return packed_plan(padded_plan(sampler, max_tokens), sampler, **settings)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(2, 40), min_size=1, max_size=40),
    st.lists(st.integers(250, 400), max_size=3),
    st.integers(1, 12),
    st.sampled_from([64, 256, 1024]),
)
def test_every_row_of_an_update_is_laid_out_once_and_whole(short, long, per_update, max_tokens):
    rows = rows_of([*short, *long])
    sampler = Sampler(rows.lengths, per_update)
    plan = packed(sampler, max_tokens, always=True)
    assert plan is not None and plan.packing.width >= min(short) - 1
    for update in range(sampler.updates_per_epoch):
        indices = sampler.rows(update)
        batches = plan.batches(rows, indices)
        assert [batch.shape for batch in batches] == plan.shapes_of(indices, rows.lengths)
        assert sorted(i for batch in batches for i in batch.indices) == sorted(indices)
        for batch in batches:
            shorter = rows.lengths[batch.indices] - 1 <= plan.packing.width
            assert (batch.segments is not None) == shorter.all() == shorter.any()
        scored = np.concatenate([batch.labels[batch.weights > 0] for batch in batches])
        expected = {i: n - 1 for i, n in enumerate(rows.lengths) if i in indices}
        assert dict(zip(*np.unique(scored, return_counts=True), strict=True)) == expected


def test_many_very_short_rows_are_packed():
    sampler = Sampler(lengths_of(5, 13), 32)
    plan, padded = packed(sampler), padded_plan(sampler, 1024)
    assert plan.packing.width == 32
    assert plan.grid.shapes == ()
    updates = [sampler.rows(update) for update in range(30, 40)]
    lower = estimated_cost(plan, sampler.lengths, updates) / estimated_cost(padded, sampler.lengths, updates)
    assert lower < 0.9


@pytest.mark.parametrize("longest", [400, 700])
def test_a_few_long_rows_are_padded_next_to_the_packs(longest):
    lengths = lengths_of(5, 13)
    lengths[:5] = longest
    sampler = Sampler(lengths, 32)
    plan = packed(sampler)
    assert plan.packing.width == 32
    assert all(width > 250 for _, width in plan.grid.shapes)
    assert len(plan.shapes) <= 12


@pytest.mark.parametrize(
    ("lengths", "per_update"),
    [
        (lengths_of(5, 13), 4),  # one micro-batch either way
        (np.full(2000, 12), 32),  # nothing to save
        (lengths_of(100, 250), 8),  # padding is cheaper than attention
        (lengths_of(300, 900), 8),  # no pack holds them
        (np.exp(np.random.default_rng(0).normal(4.7, 0.94, 2000)).astype(int) + 2, 32),  # the log-normal mix
    ],
)
def test_rows_are_not_packed_without_a_gain(lengths, per_update):
    assert packed(Sampler(lengths, per_update)) is None


def test_rows_that_a_window_has_grouped_by_length_are_not_packed():
    sampler = Sampler(lengths_of(5, 13), 32)
    assert packed(sampler) is not None
    assert packed(replace(sampler, window=16)) is None


def test_always_returns_the_best_packed_plan():
    assert packed(Sampler(np.full(100, 12), 32), always=True) is not None
    assert packed(Sampler(np.full(100, 400), 32), always=True) is None
    assert (
        packed(Sampler(np.full(100, 60), 8), 40, always=True) is None
    )  # a pack is no wider than a micro-batch


@pytest.mark.parametrize("longest", [30, 330])
def test_every_update_uses_few_planned_shapes(longest):
    sampler = Sampler(np.append(lengths_of(2, 30, 20_000), lengths_of(2, longest, 400)), 60)
    plan = packed(sampler, 512, always=True)
    assert len(plan.shapes) <= 20
    used = {shape for rows in sampler.samples(10**6) for shape in plan.shapes_of(rows, sampler.lengths)}
    assert used <= set(plan.shapes)


def test_statistics_agree_with_the_collated_batches():
    rows = rows_of(lengths_of(5, 90, 200))
    sampler = Sampler(rows.lengths, 7)
    for plan in (padded_plan(sampler, 512), packed(sampler, 512, always=True)):
        batches = [
            batch for rows_of_update in sampler.samples(10) for batch in plan.batches(rows, rows_of_update)
        ]
        size = sum(batch.inputs.size for batch in batches)
        found = batching_stats(plan, sampler, 10)
        assert found.positions == size
        assert found.per_update == len(batches) / 10
        assert found.padding == pytest.approx(1 - sum(batch.n_tokens for batch in batches) / size)


def test_a_window_saves_padding_and_micro_batches_of_tiny_updates():
    lengths = np.exp(np.random.default_rng(0).normal(4.7, 0.94, 4000)).astype(int) + 2
    found = {}
    for window in (1, 32):
        sampler = Sampler(lengths, 4, 0, window)
        found[window] = batching_stats(padded_plan(sampler, 1024), sampler, 320)
    assert found[32].padding < 0.8 * found[1].padding
    assert found[32].per_update < 0.6 * found[1].per_update
