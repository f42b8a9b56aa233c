"""The written-out backward pass against float64 NumPy and against autodiff."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.model.fast.cross_entropy import chunked_loss, summed_loss
from mlxsched.model.loss import LossOptions, target_losses

OPTIONS = [
    LossOptions(),
    LossOptions(0.1),
    LossOptions(0.0, 1e-2),
    LossOptions(0.2, 1e-2),
    LossOptions(fused=True),
]


def problem(count=50, vocabulary=97, width=16):
    generator = np.random.default_rng(0)
    states = generator.normal(size=(count, width)).astype(np.float32)
    matrix = generator.normal(size=(vocabulary, width)).astype(np.float32)
    labels = generator.integers(0, vocabulary, count).astype(np.int32)
    weights = generator.random(count).astype(np.float32)
    weights[::7] = 0
    return states, matrix, labels, weights


def reference(states, matrix, labels, weights, options):
    """Loss, and its gradient to the states, from the definition in float64."""
    states, matrix, weights = (a.astype(np.float64) for a in (states, matrix, weights))
    logits = states @ matrix.T
    normalizer = np.log(np.exp(logits).sum(axis=1))
    wanted = np.full_like(logits, options.label_smoothing / logits.shape[1])
    wanted[np.arange(len(labels)), labels] += 1 - options.label_smoothing
    losses = normalizer - (wanted * logits).sum(axis=1) + options.z_loss * normalizer**2
    probabilities = np.exp(logits - normalizer[:, None])
    slope = (1 + 2 * options.z_loss * normalizer)[:, None] * probabilities - wanted
    return (weights * losses).sum(), (weights[:, None] * slope) @ matrix


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("rows", [None, 1, 16, 50, 64])
@pytest.mark.parametrize("compiled", [False, True])
def test_loss_and_gradient_equal_the_definition(options, rows, compiled):
    arrays = problem()
    matrix, labels, weights = (mx.array(a) for a in arrays[1:])

    def loss(states):
        def logits_of(h):
            return h @ matrix.T

        if rows is None:
            return summed_loss(logits_of(states), labels, weights, options)
        return chunked_loss(logits_of, states, labels, weights, options, rows=rows)

    function = mx.value_and_grad(lambda states: 3 * loss(2 * states))
    value, gradient = (mx.compile(function) if compiled else function)(mx.array(arrays[0] / 2))
    expected_value, expected = reference(*arrays, options)
    assert value.item() == pytest.approx(3 * expected_value, rel=1e-5)
    np.testing.assert_allclose(gradient, 6 * expected, rtol=1e-4, atol=1e-5)


def test_half_precision_gradient_equals_autodiff():
    states, matrix, labels, weights = (mx.array(a) for a in problem())
    logits = (states @ matrix.T).astype(mx.bfloat16)

    def plain(logits):
        return (target_losses(logits, labels) * weights).sum()

    got = mx.grad(lambda z: summed_loss(z, labels, weights, LossOptions()))(logits)
    assert got.dtype == mx.bfloat16
    expected = mx.grad(plain)(logits).astype(mx.float32)
    np.testing.assert_allclose(got.astype(mx.float32), expected, rtol=2e-2, atol=1e-6)


def test_padding_with_non_finite_logits_adds_nothing():
    states, matrix, labels, weights = (mx.array(a) for a in problem())
    logits = states @ matrix.T
    poisoned = mx.where(weights[:, None] > 0, logits, mx.nan)
    loss = mx.value_and_grad(lambda z: summed_loss(z, labels, weights, LossOptions()))
    (value, gradient), (clean_value, clean) = loss(poisoned), loss(logits)
    assert value.item() == clean_value.item()
    assert mx.array_equal(gradient, clean).item()


def test_chunks_need_a_fraction_of_the_memory():
    vocabulary, count = 20_000, 1024
    mx.random.seed(0)
    matrix, states = mx.random.normal((vocabulary, 32)), mx.random.normal((count, 32))
    labels, weights = mx.zeros(count, mx.int32), mx.ones(count)
    mx.eval(matrix, states, labels, weights)

    def peak(loss):
        mx.eval(mx.value_and_grad(loss)(states))
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(mx.value_and_grad(loss)(states))
        return mx.get_peak_memory() - before

    def whole(h):
        return (target_losses(h @ matrix.T, labels) * weights).sum()

    def chunked(h):
        return chunked_loss(lambda part: part @ matrix.T, h, labels, weights, LossOptions(), rows=64)

    assert peak(chunked) < 0.5 * peak(whole)


def test_without_a_gradient_the_loss_is_the_same():
    states, matrix, labels, weights = (mx.array(a) for a in problem())

    def loss(differentiable):
        return chunked_loss(
            lambda h: h @ matrix.T,
            states,
            labels,
            weights,
            LossOptions(),
            rows=16,
            differentiable=differentiable,
        )

    assert loss(True).item() == pytest.approx(loss(False).item(), rel=1e-6)
