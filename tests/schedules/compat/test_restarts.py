"""Warm restarts against exact arithmetic: where cycles start, near their ends, and far out."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest

import mlxsched as ms


def exact(first: float, multiplier: float, step: int) -> float:
    """cos^2 of the step's place in its cycle, found with 60 digits."""
    with localcontext() as context:
        context.prec = 60
        length, growth = Decimal(first), Decimal(multiplier)

        def start(index: int) -> Decimal:
            return length * (growth**index - 1) / (growth - 1)

        index = int((Decimal(step) * (growth - 1) / length + 1).ln() / growth.ln())
        while start(index) > step:
            index -= 1
        while start(index + 1) <= step:
            index += 1
        left = (start(index + 1) - step) / (start(index + 1) - start(index))
    return math.sin(math.pi / 2 * float(left)) ** 2


GROWING = [
    (100, 1.0000001),
    (100, 1.001),
    (10, 1.5),
    (12.3, 1.3),
    (7.3, 1.01),
    (33.37, 1.05),
    (1, 3.0),
    (1, 2.0),
]


@pytest.mark.parametrize(("first", "multiplier"), GROWING)
def test_growing_cycles_are_exact(first: float, multiplier: float) -> None:
    schedule = ms.restarts(1.0, first, multiplier)
    steps = [*range(150), 999, 1000, 12_345, 10**5, 10**6 + 1]
    expected = np.array([exact(first, multiplier, step) for step in steps])
    np.testing.assert_allclose([schedule(step) for step in steps], expected, rtol=1e-8, atol=1e-25)
    np.testing.assert_allclose(schedule(np.array(steps)), expected, rtol=1e-8, atol=1e-25)
    np.testing.assert_allclose(np.array(schedule(mx.array(steps))), expected, rtol=1e-6, atol=1e-25)


@pytest.mark.parametrize(
    ("first", "multiplier"), [(10, 1.5), (12.3, 1.3), (100.7, 1.07), (100 / 7, 1.0), (12.3456, 1.0)]
)
def test_float32_keeps_its_digits_one_update_before_a_fractional_end(first: float, multiplier: float) -> None:
    steps = np.arange(20_000)
    schedule = ms.restarts(1.0, first, multiplier)
    single = np.array(schedule(mx.array(steps)), float)
    np.testing.assert_allclose(single, schedule(steps), rtol=1e-6, atol=1e-25)


def test_beyond_the_table_cycles_are_found_by_logarithm() -> None:
    schedule = ms.restarts(1.0, 100, 1.0000001)
    late = np.array([10**7 + step for step in range(0, 300, 7)])
    np.testing.assert_allclose(np.array(schedule(mx.array(late)), float), schedule(late), atol=0.02)
    compiled = mx.compile(schedule)
    assert compiled(mx.array(250)).item() == pytest.approx(schedule(250), rel=1e-6)


def test_cosine_restarts_restarts_by_default_and_says_how_often() -> None:
    schedule = ms.cosine_restarts(2e-4, steps=40, warmup=4)
    assert schedule.cycles == 3 and "cycles=3" in repr(schedule) and schedule.to_dict()["cycles"] == 3
    rates = [schedule(step) for step in range(4, 40)]
    assert sum(later > sooner for sooner, later in pairwise(rates)) == 2
    assert [ms.cosine_restarts(2e-4, steps=steps).cycles for steps in (1, 2, 3, 4)] == [1, 2, 3, 3]
    assert ms.cosine_restarts(2e-4, steps=40, first=10).cycles is None
    assert ms.for_run("cosine_restarts", peak=2e-4, steps=40, warmup=4) == schedule


def test_phases_are_the_cycles() -> None:
    fixed = ms.restarts(1.0, 10, 2.0, until=70)
    assert [tuple(phase) for phase in fixed.phases] == [
        ("cycle", 0, 10), ("cycle", 10, 30), ("cycle", 30, 70), ("end", 70, None)
    ]  # fmt: skip
    assert [phase.start for phase in ms.restarts(1.0, 10, until=35).phases] == [0, 10, 20, 30, 35]
    assert [phase.start for phase in ms.restarts(1.0, 2.5, until=8).phases] == [0, 3, 5, 8]
    endless = ms.restarts(1.0, 10, 2.0).phases
    assert endless[0] == ("cycle", 0, 10) and endless[-1].name == "cycles" and endless[-1].end is None
    assert len(ms.restarts(1.0, 0.01, until=10**9).phases) <= 1001
