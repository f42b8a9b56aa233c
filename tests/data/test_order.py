"""Every row once an epoch, from nothing but (seed, epoch, update)."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data.order import rows_of_update, updates_per_epoch
from mlxsched.errors import UsageError

sizes = st.tuples(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**40), st.integers(0, 3))


def epoch_of(n_rows: int, per_update: int, seed: int, epoch: int, **window: object) -> list[np.ndarray]:
    per_epoch = updates_per_epoch(n_rows, per_update)
    return [
        rows_of_update(epoch * per_epoch + u, n_rows, per_update, seed, **window) for u in range(per_epoch)
    ]


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 5))
def test_each_row_comes_once_in_an_epoch(case: tuple[int, int, int, int], window: int) -> None:
    n_rows, per_update, seed, epoch = case
    lengths = np.random.default_rng(n_rows).integers(1, 100, n_rows)
    for updates in (
        epoch_of(n_rows, per_update, seed, epoch),
        epoch_of(n_rows, per_update, seed, epoch, lengths=lengths, window=window),
    ):
        assert sorted(np.concatenate(updates).tolist()) == list(range(n_rows))
        assert [len(rows) for rows in updates[:-1]] == [per_update] * (len(updates) - 1)
        assert len(updates[-1]) == (n_rows - 1) % per_update + 1


def test_the_tail_is_an_update_of_fewer_rows() -> None:
    assert [len(rows) for rows in epoch_of(10, 4, 0, 0)] == [4, 4, 2]


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first, second, other = (
        np.concatenate(epoch_of(50, 8, seed, epoch)) for seed, epoch in [(1, 0), (1, 1), (2, 0)]
    )
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(first, np.concatenate(epoch_of(50, 8, 1, 0)))


def test_the_order_is_the_one_recorded() -> None:
    # A run that is resumed with a later version must find the order it began with.
    order = np.concatenate(epoch_of(1000, 8, 42, 3))
    assert order[:8].tolist() == [395, 185, 415, 250, 96, 401, 773, 919]
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()[:16] == "77cd4ecf92df4974"


def test_first_place_is_uniform() -> None:
    firsts = [rows_of_update(0, 5, 1, seed)[0] for seed in range(2000)]
    counts = np.bincount(firsts, minlength=5)
    assert ((counts - 400) ** 2 / 400).sum() < 23.5  # chi-squared, 4 degrees of freedom, p = 1e-4


def test_a_window_shares_out_rows_by_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 1000, 400)
    spread = {
        window: np.mean(
            [np.ptp(lengths[rows]) for rows in epoch_of(400, 4, 0, 0, lengths=lengths, window=window)]
        )
        for window in (1, 8)
    }
    assert spread[8] < spread[1] / 3


@pytest.mark.parametrize(("update", "n_rows", "per_update"), [(-1, 5, 1), (0, 0, 1), (0, 5, 0)])
def test_nonsense_is_refused(update: int, n_rows: int, per_update: int) -> None:
    with pytest.raises(UsageError):
        rows_of_update(update, n_rows, per_update, 0)


def test_the_order_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValueError, match="read-only"):
        rows_of_update(0, 5, 5, 0)[0] = 3
