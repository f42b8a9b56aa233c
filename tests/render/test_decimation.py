"""Curves with fewer points keep their extremes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlxsched.render.decimation import decimated, smoothed


@given(st.lists(st.floats(-1e6, 1e6), max_size=300), st.integers(1, 20).map(lambda half: 2 * half))
def test_few_points_with_both_extremes_in_order(values, most):
    x, y = decimated(range(len(values)), values, most)
    assert len(x) == len(y) <= max(most, min(len(values), most))
    assert all(x[:-1] < x[1:]) or len(set(x)) < len(x)
    assert sorted(x) == list(x)
    if values:
        assert (y.min(), y.max()) == (min(values), max(values))
        assert all(values[int(at)] == value for at, value in zip(x, y, strict=True))


def test_the_running_mean_is_that_of_the_formula():
    values = np.random.default_rng(0).normal(2, 1, 50)
    weights = 0.1 * 0.9 ** np.arange(50)[::-1]
    expected = [(weights[-n:] * values[:n]).sum() / weights[-n:].sum() for n in range(1, 51)]
    assert np.allclose(smoothed(values.tolist()), expected, rtol=1e-9)
