"""Every row once an epoch, from nothing but (seed, epoch, update)."""

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


def order_of(n_rows: int, per_update: int, seed: int, window: int = 1) -> Sampler:
    return Sampler(np.random.default_rng(n_rows).integers(1, 100, n_rows), per_update, seed, window)


def epoch_of(order: Sampler, epoch: int = 0) -> list[np.ndarray]:
    count = order.updates_per_epoch
    return [order.rows(epoch * count + update) for update in range(count)]


@settings(max_examples=80, deadline=None)
@given(sizes, st.one_of(st.integers(1, 5), st.just(1000)))
def test_each_row_comes_once_in_an_epoch(case: tuple[int, int, int, int], window: int) -> None:
    n_rows, per_update, seed, epoch = case
    updates = epoch_of(order_of(n_rows, per_update, seed, window), epoch)
    assert sorted(np.concatenate(updates).tolist()) == list(range(n_rows))
    assert [len(rows) for rows in updates[:-1]] == [per_update] * (len(updates) - 1)
    assert len(updates[-1]) == (n_rows - 1) % per_update + 1


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 9), st.randoms(use_true_random=False))
def test_any_update_can_be_the_next_one(case: tuple[int, int, int, int], window: int, random: Random) -> None:
    """Nothing is carried from one call to the next: a resumed run finds the rows of one that never stopped."""
    n_rows, per_update, seed, epoch = case
    in_turn = epoch_of(order_of(n_rows, per_update, seed, window), epoch)
    places = list(range(len(in_turn)))
    random.shuffle(places)
    for place in places:
        again = order_of(n_rows, per_update, seed, window)
        np.testing.assert_array_equal(again.rows(epoch * len(in_turn) + place), in_turn[place])


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(2, 9))
def test_a_window_holds_the_rows_that_its_updates_had(case: tuple[int, int, int, int], window: int) -> None:
    n_rows, per_update, seed, epoch = case
    plain, grouped = (epoch_of(order_of(n_rows, per_update, seed, size), epoch) for size in (1, window))
    lengths = order_of(n_rows, per_update, seed).lengths
    for first in range(0, len(plain), window):
        before, after = (np.concatenate(way[first : first + window]) for way in (plain, grouped))
        assert sorted(before) == sorted(after)
        whole = [
            np.sort(lengths[rows]) for rows in grouped[first : first + window] if len(rows) == per_update
        ]
        whole.sort(key=lambda held: (held[0], held[-1]))
        assert (np.diff(np.concatenate(whole or [np.zeros(0)])) >= 0).all()  # no update reaches into another


def test_the_tail_is_an_update_of_fewer_rows() -> None:
    assert [len(rows) for rows in epoch_of(order_of(10, 4, 0))] == [4, 4, 2]


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first, second, other = (
        np.concatenate(epoch_of(order_of(50, 8, seed), epoch)) for seed, epoch in [(1, 0), (1, 1), (2, 0)]
    )
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(first, np.concatenate(epoch_of(order_of(50, 8, 1))))


@pytest.mark.parametrize(
    ("window", "begins", "digest"),
    [
        (1, [395, 185, 415, 250, 96, 401, 773, 919], "77cd4ecf92df4974"),
        (8, [415, 871, 991, 520, 450, 29, 346, 713], "6dcc1050e5ec643c"),
    ],
)
def test_the_order_is_the_one_recorded(window: int, begins: list[int], digest: str) -> None:
    # A run that is resumed with a later version must find the order it began with.
    lengths = np.arange(1000) * 7919 % 997
    order = np.concatenate(epoch_of(Sampler(lengths, 8, 42, window), 3))
    assert order[:8].tolist() == begins
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()[:16] == digest


def test_first_place_is_uniform() -> None:
    firsts = [order_of(5, 1, seed).rows(0)[0] for seed in range(2000)]
    counts = np.bincount(firsts, minlength=5)
    assert ((counts - 400) ** 2 / 400).sum() < 23.5  # chi-squared, 4 degrees of freedom, p = 1e-4


def test_the_turns_of_a_window_are_random() -> None:
    """Short updates must not come first: which one is, is drawn anew for each window."""
    lengths = np.arange(4000)
    order = Sampler(lengths, 4, seed=0, window=5)
    places = [
        int(np.argmin([order.rows(5 * window + turn)[0] for turn in range(5)])) for window in range(200)
    ]
    counts = np.bincount(places, minlength=5)
    assert ((counts - 40) ** 2 / 40).sum() < 23.5


def test_a_window_shares_out_rows_by_length() -> None:
    spread = {}
    for window in (1, 8):
        order = Sampler(np.random.default_rng(0).integers(1, 1000, 400), 4, 0, window)
        spread[window] = np.mean([np.ptp(order.lengths[rows]) for rows in epoch_of(order)])
    assert spread[8] < spread[1] / 3


@pytest.mark.parametrize("sizes", [(0, 1, 1), (5, 0, 1), (5, 1, 0)])
def test_nonsense_is_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="at least one row"):
        Sampler(np.ones(sizes[0]), sizes[1], 0, sizes[2])


def test_there_is_no_update_before_the_first() -> None:
    with pytest.raises(UsageError, match="0 or more"):
        order_of(5, 1, 0).rows(-1)


@pytest.mark.parametrize("window", [1, 3])
def test_the_order_cannot_be_changed_by_accident(window: int) -> None:
    with pytest.raises(ValueError, match="read-only"):
        order_of(9, 3, 0, window).rows(0)[0] = 3
