"""Which rows share a prefix: what is shared is the same, every row is there once, and nothing better was missed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data.batching.batches import prefix_batch
from mlxsched.data.batching.common_prefix import common_prefix
from mlxsched.data.batching.plan import batching_stats, padded_plan, shared_plan
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.batching.sharing import best_groups, neighbors, saving
from mlxsched.data.rows import rows_in_memory


def rows_of(*texts):
    return rows_in_memory(
        [(np.frombuffer(t.encode(), np.uint8).astype(np.int32), np.arange(len(t)) % 2 == 1) for t in texts]
    )


def alike(count, prefix, seed=0, *, lengths=(4, 40)):
    """Rows of random tokens behind the same ``prefix`` of them."""
    generator = np.random.default_rng(seed)
    begin = generator.integers(1, 200, prefix)
    rows = []
    for _ in range(count):
        tokens = np.concatenate([begin, generator.integers(200, 400, generator.integers(*lengths))])
        rows.append((tokens.astype(np.int32), generator.random(len(tokens)) < 0.5))
    return rows_in_memory(rows)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("abcdef", "abcxyz"), 2),  # the label behind the last shared input is shared as well
        (("abcd", "abcdefgh"), 2),  # and each row keeps an input of its own
        (("abcd", "abcd"), 2),
        (("xbcd", "abcd"), 0),
        (("abcdef", "abcdxx", "axcdef"), 0),
    ],
)
def test_what_rows_share(texts, expected):
    assert common_prefix(rows_of(*texts), np.arange(len(texts))) == expected


def test_the_targets_of_a_prefix_count_once_for_each_row():
    rows = rows_in_memory(
        [
            (np.array([5, 6, 7, 8], np.int32), np.array([True, True, False, True])),
            (np.array([5, 6, 7, 9], np.int32), np.array([True, True, True, True])),
        ]
    )
    batch = prefix_batch(rows, np.arange(2), 2)
    assert batch.inputs.tolist() == [[5, 6]] and batch.labels.tolist() == [[6, 7]]
    assert batch.weights.tolist() == [[2.0, 1.0]] and batch.n_targets == 3


# Long runs of few letters: common beginnings of many lengths.
letters = st.text("ab", min_size=3, max_size=6).map(lambda t: "".join(c * 40 for c in t))


@settings(max_examples=60, deadline=None)
@given(st.lists(letters, min_size=2, max_size=7))
def test_groups_are_disjoint_share_their_prefix_and_save_most(texts):
    rows, lengths = rows_of(*texts), (38, 79, 118)
    groups = best_groups(neighbors(rows, np.arange(len(texts))), lengths)
    members = [int(index) for group in groups for index in group.indices]
    assert len(set(members)) == len(members)
    for group in groups:
        assert common_prefix(rows, group.indices) >= group.length
    saved = sum(saving(len(group.indices), group.length) for group in groups)
    assert saved == pytest.approx(best_of_all(rows, range(len(texts)), lengths))


def best_of_all(rows, indices, lengths):
    """The most that any division into groups saves, by trying all."""
    indices = list(indices)
    if len(indices) < 2:
        return 0.0
    first, *rest = indices
    most = best_of_all(rows, rest, lengths)  # the first row stays alone
    for size in range(1, len(rest) + 1):
        for others in itertools.combinations(rest, size):
            common = common_prefix(rows, np.array([first, *others]))
            here = max((saving(size + 1, length) for length in lengths if length <= common), default=0.0)
            if here > 0:
                most = max(most, here + best_of_all(rows, [i for i in rest if i not in others], lengths))
    return most


def test_a_plan_covers_every_row_once_in_planned_shapes():
    rows = alike(64, 100)
    sampler = Sampler(rows.lengths, 16)
    plan = shared_plan(padded_plan(sampler, 1024), rows, sampler)
    assert plan.sharing.lengths == (99,) and 0.4 < plan.sharing.saved < 0.8
    planned = {shape for _, shape in plan.sharing.shapes}
    for update in range(4):
        indices = sampler.rows(update)
        groups, alone = plan.groups(rows, indices)
        assert len(alone) == 0
        batches = [batch for group in groups for batch in plan.sharing.batches(rows, group)]
        assert sorted(np.concatenate([batch.indices for batch in batches])) == sorted(indices)
        assert {batch.shape for batch in batches} <= planned
        for batch in batches:
            for line, index in enumerate(batch.indices):
                tokens, targets = rows[int(index)]
                own = len(tokens) - 100
                assert batch.inputs[line, :own].tolist() == tokens[99:-1].tolist()
                assert batch.weights[line, :own].tolist() == targets[100:].tolist()
                assert not batch.weights[line, own:].any()
    whole, once = batching_stats(plan, sampler), batching_stats(plan, sampler, rows=rows)
    assert whole.inputs - once.inputs == 4 * 15 * 99


def test_rows_with_nothing_in_common_are_planned_as_before():
    rows = alike(64, 0)
    sampler = Sampler(rows.lengths, 16)
    assert shared_plan(padded_plan(sampler, 1024), rows, sampler) is None
    few = alike(64, 12, lengths=(60, 90))  # shared, but not worthwhile
    sampler = Sampler(few.lengths, 16)
    assert shared_plan(padded_plan(sampler, 1024), few, sampler) is None


def test_several_prompts_make_several_groups_and_at_most_four_lengths():
    parts = [alike(12, length, seed) for seed, length in enumerate((60, 80, 100, 120, 140, 160))]
    rows = rows_in_memory([row for part in parts for row in part])
    sampler = Sampler(rows.lengths, 24)
    sharing = shared_plan(padded_plan(sampler, 1024), rows, sampler).sharing
    assert 1 < len(sharing.lengths) <= 4
    groups, alone = sharing.groups(rows, sampler.rows(0))
    assert len(groups) >= 3
    assert sum(len(group.indices) for group in groups) + len(alone) == 24


def test_copies_of_a_long_prefix_stay_few():
    rows = alike(64, 3000)
    sampler = Sampler(rows.lengths, 16)
    plan = shared_plan(padded_plan(sampler, 1024), rows, sampler)
    assert max(count for _, (count, _) in plan.sharing.shapes) <= 4


def test_shapes_of_whole_rows_count_only_where_rows_come_alone():
    everyone = alike(64, 60)
    others = [(row.tokens[::-1].copy(), row.targets) for row in alike(6, 40, seed=1)]
    for rows, most in ((everyone, 0), (rows_in_memory([*everyone, *others]), 7)):
        sampler = Sampler(rows.lengths, 8)
        plan = shared_plan(padded_plan(sampler, 256), rows, sampler)
        alone = max(len(plan.groups(rows, sampler.rows(n))[1]) for n in range(40))
        assert alone <= plan.sharing.alone <= most
        needed = {
            shape
            for n in range(40)
            for shape in plan.shapes_of(plan.groups(rows, sampler.rows(n))[1], rows.lengths)
        }
        assert needed <= set(plan.used_shapes) <= set(plan.shapes)
        assert bool(plan.used_shapes) == bool(most)
