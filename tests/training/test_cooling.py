"""Cooldowns and second warmups as revisions: the rates at both ends, and no jump."""

from __future__ import annotations

import math

import pytest

import mlxsched as ms
from mlxsched.errors import UsageError
from mlxsched.training.cooling import cooldown_steps, cooled, rewarmed
from mlxsched.training.pace import Horizon


@pytest.mark.parametrize(
    ("shape", "share"),
    [
        ("1-sqrt", lambda p: 1 - math.sqrt(p)),
        ("linear", lambda p: 1 - p),
        ("cosine", lambda p: (1 + math.cos(math.pi * p)) / 2),
    ],
)
def test_a_cooldown_falls_from_the_rate_that_holds_to_the_end(shape, share):
    rate, end = 3e-4, 1e-5
    horizon = Horizon(1000, ms.constant(rate)).revise(cooled(500, 100, rate, end, shape=shape))
    assert horizon.updates == 600 and horizon.trunk == 500
    assert [horizon.rate(u) for u in (499, 500, 600)] == [rate, rate, end]
    for update in range(500, 600, 7):
        expected = end + (rate - end) * share((update - 500) / 100)
        assert horizon.rate(update) == pytest.approx(expected, rel=1e-12)


def test_a_cooldown_after_a_rollback_is_stated_in_the_rates_of_the_updates():
    revision = cooled(10, 5, rate=1e-4, end=1e-6, factor=0.5)
    horizon = Horizon(100, ms.constant(2e-4)).revise(revision)
    assert 0.5 * horizon.rate(10) == 1e-4 and 0.5 * horizon.rate(15) == 1e-6


def test_a_rate_that_is_at_its_end_has_nothing_to_cool_down():
    with pytest.raises(UsageError, match="nothing to cool down"):
        cooled(10, 5, rate=0.0, end=0.0)


def test_the_length_of_a_cooldown_is_a_fifth_of_the_run_within_what_is_left():
    assert [cooldown_steps(made) for made in (1, 50, 51, 1000)] == [10, 10, 10, 200]
    assert [cooldown_steps(1000, left) for left in (500, 40, 0)] == [200, 40, 1]


@pytest.mark.parametrize("total", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("rate", [0.0, 2e-5, 1e-4])
def test_a_second_warmup_rises_from_the_rate_that_holds_and_ends_at_the_end(total, rate):
    schedule = rewarmed(50, 50 + total, rate, peak=1e-4, end=1e-6)
    rates = [schedule(update) for update in range(50, 51 + total)]
    assert rates[-1] == pytest.approx(1e-6) and rates[0] > 0 and max(rates) == pytest.approx(1e-4)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[0] >= rate
