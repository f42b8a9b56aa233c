"""Every row comes once an epoch, and an update depends on (seed, epoch, update) only."""

from __future__ import annotations

import hashlib
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data.batching.sampler import Sampler
from mlxsched.errors import UsageError

sizes = st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**40), st.integers(0, 3))


def sampler_of(n_rows: int, per_update: int, seed: int, window: int = 1) -> Sampler:
    return Sampler(np.random.default_rng(n_rows).integers(1, 100, n_rows), per_update, seed, window)


def epoch_of(sampler: Sampler, epoch: int = 0) -> list[np.ndarray]:
    count = sampler.updates_per_epoch
    return [sampler.rows(epoch * count + update) for update in range(count)]


@settings(max_examples=80, deadline=None)
@given(sizes, st.one_of(st.integers(1, 5), st.just(1000)))
def test_each_row_comes_once_in_an_epoch(case: tuple[int, int, int, int], window: int) -> None:
    n_rows, per_update, seed, epoch = case
    updates = epoch_of(sampler_of(n_rows, per_update, seed, window), epoch)
    assert sorted(np.concatenate(updates).tolist()) == list(range(n_rows))
    assert [len(rows) for rows in updates[:-1]] == [per_update] * (len(updates) - 1)
    assert len(updates[-1]) == (n_rows - 1) % per_update + 1


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 9), st.randoms(use_true_random=False))
def test_updates_do_not_depend_on_those_before(
    case: tuple[int, int, int, int], window: int, random: Random
) -> None:
    """A resumed run finds the rows of a run that was never stopped."""
    n_rows, per_update, seed, epoch = case
    in_turn = epoch_of(sampler_of(n_rows, per_update, seed, window), epoch)
    places = list(range(len(in_turn)))
    random.shuffle(places)
    for place in places:
        again = sampler_of(n_rows, per_update, seed, window)
        np.testing.assert_array_equal(again.rows(epoch * len(in_turn) + place), in_turn[place])


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(2, 9))
def test_a_window_redistributes_the_rows_of_its_updates_only(
    case: tuple[int, int, int, int], window: int
) -> None:
    n_rows, per_update, seed, epoch = case
    plain, grouped = (epoch_of(sampler_of(n_rows, per_update, seed, size), epoch) for size in (1, window))
    lengths = sampler_of(n_rows, per_update, seed).lengths
    for first in range(0, len(plain), window):
        before, after = (np.concatenate(updates[first : first + window]) for updates in (plain, grouped))
        assert sorted(before) == sorted(after)
        whole = [
            np.sort(lengths[rows]) for rows in grouped[first : first + window] if len(rows) == per_update
        ]
        whole.sort(key=lambda held: (held[0], held[-1]))
        assert (
            np.diff(np.concatenate(whole or [np.zeros(0)])) >= 0
        ).all()  # the lengths of two updates never overlap


def test_the_tail_is_an_update_of_fewer_rows() -> None:
    assert [len(rows) for rows in epoch_of(sampler_of(10, 4, 0))] == [4, 4, 2]


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first, second, other = (
        np.concatenate(epoch_of(sampler_of(50, 8, seed), epoch)) for seed, epoch in [(1, 0), (1, 1), (2, 0)]
    )
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(first, np.concatenate(epoch_of(sampler_of(50, 8, 1))))


@pytest.mark.parametrize(
    ("window", "begins", "digest"),
    [
        (1, [395, 185, 415, 250, 96, 401, 773, 919], "77cd4ecf92df4974"),
        (8, [415, 871, 991, 520, 450, 29, 346, 713], "6dcc1050e5ec643c"),
    ],
)
def test_the_order_is_the_one_recorded(window: int, begins: list[int], digest: str) -> None:
    # A run resumed under a later version must find the order that it started with.
    lengths = np.arange(1000) * 7919 % 997
    order = np.concatenate(epoch_of(Sampler(lengths, 8, 42, window), 3))
    assert order[:8].tolist() == begins
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()[:16] == digest


def test_the_first_row_is_uniformly_random() -> None:
    firsts = [sampler_of(5, 1, seed).rows(0)[0] for seed in range(2000)]
    counts = np.bincount(firsts, minlength=5)
    assert ((counts - 400) ** 2 / 400).sum() < 23.5  # chi-squared, 4 degrees of freedom, p = 1e-4


def test_the_updates_of_a_window_come_in_random_order() -> None:
    """The short update must not always come first."""
    lengths = np.arange(4000)
    sampler = Sampler(lengths, 4, seed=0, window=5)
    places = [
        int(np.argmin([sampler.rows(5 * window + position)[0] for position in range(5)]))
        for window in range(200)
    ]
    counts = np.bincount(places, minlength=5)
    assert ((counts - 40) ** 2 / 40).sum() < 23.5


def test_a_window_groups_rows_by_length() -> None:
    spread = {}
    for window in (1, 8):
        sampler = Sampler(np.random.default_rng(0).integers(1, 1000, 400), 4, 0, window)
        spread[window] = np.mean([np.ptp(sampler.lengths[rows]) for rows in epoch_of(sampler)])
    assert spread[8] < spread[1] / 3


@pytest.mark.parametrize("sizes", [(0, 1, 1), (5, 0, 1), (5, 1, 0)])
def test_sizes_below_one_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="at least one row"):
        Sampler(np.ones(sizes[0]), sizes[1], 0, sizes[2])


def test_there_is_no_update_before_the_first() -> None:
    with pytest.raises(UsageError, match="0 or more"):
        sampler_of(5, 1, 0).rows(-1)


@pytest.mark.parametrize("window", [1, 3])
def test_the_rows_of_an_update_are_read_only(window: int) -> None:
    with pytest.raises(ValueError, match="read-only"):
        sampler_of(9, 3, 0, window).rows(0)[0] = 3
