"""Round numbers on axes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxsched.render.scale import fit
from mlxsched.render.ticks import linear_ticks, log_ticks

SIZES = st.floats(1e-12, 1e12)


@given(low=st.floats(-1e6, 1e6), size=SIZES, about=st.integers(1, 12))
def test_linear_ticks_lie_on_the_axis_in_order_and_are_not_too_many(
    low: float, size: float, about: int
) -> None:
    high = low + size
    if high - low <= abs(low) * 1e-6:  # an axis too short for its numbers to differ in six digits
        return
    ticks = linear_ticks(low, high, about)
    slack = (high - low) * 1e-6 + abs(low) * 1e-9
    assert len(ticks) <= about + 1
    assert ticks == sorted(set(ticks))
    assert all(low - slack <= tick <= high + slack for tick in ticks)


@given(low=st.floats(1e-12, 1e3), factor=st.floats(1.5, 1e9), about=st.integers(1, 12))
def test_log_ticks_lie_on_the_axis_in_order_and_are_not_too_many(
    low: float, factor: float, about: int
) -> None:
    ticks = log_ticks(low, low * factor, about)
    assert 2 <= len(ticks) <= about + 1
    assert ticks == sorted(set(ticks))
    assert all(low * 0.999 <= tick <= low * factor * 1.001 for tick in ticks)


def test_places_on_a_scale_are_fractions_of_its_length() -> None:
    assert [fit([0.0, 4.0], False, 4).fraction(value) for value in (0, 1, 4)] == [0.0, 0.25, 1.0]
    assert fit([1e-6, 1e-2], True, 4).fraction(1e-4) == pytest.approx(0.5)


def test_what_is_counted_has_whole_ticks() -> None:
    assert fit([0, 1, 2], False, 8).labels == ["0", "1", "2"]
    assert fit([0.0, 2.5], False, 5).labels == ["0", "0.5", "1", "1.5", "2", "2.5"]
