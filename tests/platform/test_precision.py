"""Products of float32 matrices with rounded inputs, as in TF32, are distinguished from exact ones."""

from __future__ import annotations

import numpy as np
import pytest

from mlxsched.platform.precision import multiplies_in_tf32, rounds_inputs


def in_tf32(x, y):
    """A product whose inputs keep 10 bits behind the leading one, rounded to nearest."""

    def rounded(values):
        return ((values.view(np.uint32) + 0x1000) & 0xFFFFE000).view(np.float32)

    return rounded(x) @ rounded(y)


def test_rounded_inputs_are_detected():
    assert rounds_inputs(in_tf32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exact_inputs_are_not_taken_for_rounded_ones(dtype):
    assert not rounds_inputs(lambda x, y: x.astype(dtype) @ y.astype(dtype))


def test_these_tests_multiply_exactly():
    """`conftest` switches TF32 off, on CUDA and on an M5."""
    assert not multiplies_in_tf32()
