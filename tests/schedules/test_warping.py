"""A shape that is walked through at another speed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import warps

import mlxsched as ms

COSINE = ms.warmup_cosine(1e-3, steps=1000, warmup=100)


@given(warps(), st.lists(st.integers(0, 2 * 10**6), min_size=5, max_size=30))
def test_values_lie_on_lines_between_those_of_the_steps_nearby(schedule, steps):
    at = np.interp(steps, schedule.updates, schedule.positions)
    for exact, step in zip(at, steps, strict=True):
        position = schedule.position(step)
        assert exact - 2**-16 <= position <= exact + 1e-9
        low = int(position)
        left, right = schedule.schedule(low), schedule.schedule(low + 1)
        expected = left + (right - left) * (position - low)
        assert schedule(step) == pytest.approx(expected, rel=1e-9, abs=1e-12 * max(left, right))


def test_at_the_shape_s_own_speed_nothing_changes():
    same = ms.warp(COSINE, updates=[0, 1000], positions=[0, 1000])
    assert same.table(1100) == COSINE.table(1100)
    assert same.steps == 1000 and same.phases == COSINE.phases and same.extrema() == COSINE.extrema()


def test_half_as_long_is_every_other_step():
    half = ms.warp(COSINE, [0, 500], [0, 1000])
    assert half.table(500) == COSINE.table(1000)[::2]
    assert half.steps == 500 and half.phases[0][:] == ("warmup", 0, 50)


def test_falling_positions_walk_back():
    back = ms.warp(COSINE, [0, 600, 620, 1120], [0, 600, 400, 1000])
    assert back.table(600) == COSINE.table(600)
    assert back.table(620)[600:] == COSINE.table(600)[600:399:-10]
    assert back.steps == 1120 and back.phases[0][:] == ("warmup", 0, 100)
    again = ms.warp(COSINE, [0, 600, 620, 1120], [0, 600, 50, 550])
    assert again.phases[0][:] == ("warmup", 0, 670)  # the peak is passed three times; the last time counts


def test_a_peak_between_two_updates_is_not_passed_off_as_reached():
    uneven = ms.warp(COSINE, [0, 307], [0, 1000])  # step 100 lies between updates 30 and 31
    assert uneven.extrema().high == max(uneven.table(307)) < 1e-3


@pytest.mark.parametrize(
    ("updates", "positions", "message"),
    [
        ([0], [0], "at least two"),
        ([0, 10], [0], "as many"),
        ([10, 0], [0, 10], "`updates` must ascend"),
        ([0, 2**40], [0, 2**10], "closer together"),
        ([0, 1], [0, 2**50], "closer together"),
        ([0, 1], [2**50, 0], "closer together"),
    ],
)
def test_points_that_are_no_walk_are_refused(updates, positions, message):
    with pytest.raises(ms.ScheduleError, match=message):
        ms.warp(COSINE, updates, positions)


@pytest.mark.parametrize(
    "schedule",
    [
        ms.chebyshev(1.0, 2.0, 2),
        ms.cyclic(1e-4, 1e-3, up=7),
        ms.scale(ms.repeat(ms.warmup_linear(1e-3, 10, 3), period=10, times=40), 2.0),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_the_extrema_of_warped_cycles_are_those_of_every_step(schedule):
    """A warp meets other steps of later cycles than of the first one."""
    warped = ms.warp(schedule, (0, 1, 2, 5, 60), (0.0, 0.0, 0.0, 113.0, 300.5))
    for last in (5, 60):
        values = warped.table(last)
        found = warped.extrema(last)
        assert (found.low, found.high) == pytest.approx((min(values), max(values)), rel=1e-14)
