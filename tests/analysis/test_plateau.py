"""The plateau test's error: simulated runs that improve are stopped no more often than stated, flat ones are stopped."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from mlxsched.analysis.plateau import (
    FALSE_STOP,
    WORTH,
    has_stopped_improving,
    improvement_p_value,
    look_after,
)

RUNS, EVALUATIONS = 100, 42


def stops(curve, noise, seed):
    """After how many evaluations a run with this curve of the loss is stopped; None for never."""
    random = np.random.default_rng(seed)
    losses = [curve(n) * (1 + noise * random.standard_normal()) for n in range(EVALUATIONS)]
    looks = [n for n in range(1, EVALUATIONS + 1) if look_after(n)]
    return next((n for n in looks if has_stopped_improving(range(0, 10 * n, 10), losses[:n])), None)


def share_stopped(curve, noise):
    return sum(stops(curve, noise, seed) is not None for seed in range(RUNS)) / RUNS


@pytest.mark.parametrize("noise", [0.001, 0.01])
@pytest.mark.parametrize(
    "curve",
    [
        lambda n: 2 - 0.02 * n,
        lambda n: 1 + (n + 1) ** -0.5,
        # About the smallest improvement that counts: a little more than WORTH over the later half, at each look.
        lambda n: math.exp(-1.2 * WORTH * math.log2(n + 1)),
    ],
)
def test_a_run_that_improves_is_stopped_no_more_often_than_stated(curve, noise):
    # Three standard deviations of a share of FALSE_STOP.
    assert share_stopped(curve, noise) <= FALSE_STOP + 3 * math.sqrt(FALSE_STOP * (1 - FALSE_STOP) / RUNS)


@pytest.mark.parametrize(
    ("curve", "noise"),
    [
        (lambda n: 1 + math.exp(-n / 3), 0.001),
        (lambda n: max(2 - 0.1 * n, 1 + 0.01 * n), 0.01),  # overfitting: the loss rises again
    ],
)
def test_a_run_that_has_stopped_improving_is_stopped(curve, noise):
    assert share_stopped(curve, noise) > 0.75


def test_the_p_value_counts_orders():
    """Against an enumeration of all orders of six numbers."""
    flat = [1.0, 3.0, 2.0, 5.0, 4.0, 6.0]

    def ascending(values):
        return sum(one < other for one, other in itertools.combinations(values, 2))

    orders = [ascending(order) for order in itertools.permutations(range(6))]
    expected = sum(count >= ascending(flat) for count in orders) / len(orders)
    assert improvement_p_value(range(6), flat) == pytest.approx(expected)


def test_the_error_of_all_looks_adds_up_to_the_stated_one():
    assert sum(FALSE_STOP / (k * (k + 1)) for k in range(1, 10**5)) < FALSE_STOP
