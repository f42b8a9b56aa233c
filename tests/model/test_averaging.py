"""Means of adapters: against NumPy, and against the best approximation of the averaged products."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.model.averaging import mean_of_factors, mean_of_products

SHAPES = {"l.lora_a": (12, 3), "l.lora_b": (3, 9), "l.m": (9,), "experts.lora_a": (2, 3, 8)}


@pytest.fixture
def points():
    random = np.random.default_rng(0)
    return [
        {name: mx.array(random.standard_normal(shape).astype(np.float32)) for name, shape in SHAPES.items()}
        for _ in range(4)
    ]


WEIGHTS = [0.1, 0.2, 0.3, 0.4]


def product_mean(points):
    pairs = [(np.array(p["l.lora_a"], np.float64), np.array(p["l.lora_b"], np.float64)) for p in points]
    return sum(weight * a @ b for weight, (a, b) in zip(WEIGHTS, pairs, strict=True))


def test_the_mean_of_factors_is_numpys(points):
    means = mean_of_factors(points, WEIGHTS)
    for name in SHAPES:
        expected = np.average(
            [np.array(point[name], np.float64) for point in points], axis=0, weights=WEIGHTS
        )
        np.testing.assert_allclose(np.array(means[name]), expected, atol=1e-6)


def test_half_precision_is_summed_in_float32():
    points = [{"w": mx.full((4,), value, mx.bfloat16)} for value in (1.0, *[2**-9] * 255)]
    mean = mean_of_factors(points, [1.0] * 256)["w"]
    assert mean.dtype == mx.bfloat16 and mean.tolist() == [1.5] * 4  # bf16 sums would stay at 1


def test_the_mean_of_products_is_the_best_approximation_of_their_rank(points):
    means, error = mean_of_products(points, WEIGHTS)
    exact = product_mean(points)
    left, values, right = np.linalg.svd(exact)
    best = left[:, :3] * values[:3] @ right[:3]
    found = np.array(means["l.lora_a"], np.float64) @ np.array(means["l.lora_b"], np.float64)
    np.testing.assert_allclose(found, best, atol=1e-5)
    assert error == pytest.approx(np.linalg.norm(exact - best) / np.linalg.norm(exact), rel=1e-6)
    factors = mean_of_factors(points, WEIGHTS)
    other = np.array(factors["l.lora_a"] @ factors["l.lora_b"])
    assert np.linalg.norm(other - exact) > np.linalg.norm(found - exact)


def test_what_is_no_pair_of_matrices_gets_the_mean_of_factors(points):
    products, factors = mean_of_products(points, WEIGHTS)[0], mean_of_factors(points, WEIGHTS)
    for name in ("l.m", "experts.lora_a"):
        assert mx.array_equal(products[name], factors[name])


def test_equal_adapters_have_their_own_mean(points):
    means, error = mean_of_products([points[0]] * 3, [1 / 3] * 3)
    product = np.array(points[0]["l.lora_a"] @ points[0]["l.lora_b"])
    np.testing.assert_allclose(np.array(means["l.lora_a"] @ means["l.lora_b"]), product, atol=1e-5)
    assert error < 1e-6
    zero = {name: mx.zeros(shape) for name, shape in SHAPES.items()}
    assert mean_of_products([zero], [1.0])[1] == 0.0
