"""The running median of a long series against NumPy's, with missing values at both ends."""

from __future__ import annotations

import numpy as np
import pytest

from mlxsched.analysis.diagnosis.robust import running_median


@pytest.mark.parametrize("width", [1, 3, 21])
@pytest.mark.parametrize("length", [5, 42, 43, 1000])
def test_the_running_median_is_that_of_the_values_that_there_are(width, length):
    values = np.random.default_rng(0).normal(size=length)
    half = width // 2
    padded = np.pad(values, half, constant_values=np.nan)
    expected = np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1)
    assert running_median(values, width).tolist() == expected.tolist()
