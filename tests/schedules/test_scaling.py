"""Batch-size scaling, the bias correction and LoRA+, each against MLX or arithmetic of its own."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

import mlxsched as ms


@pytest.mark.parametrize(("rule", "factor"), [("sqrt", 2.0), ("linear", 4.0), ("none", 1.0)])
def test_scale_peak(rule: str, factor: float) -> None:
    assert ms.scale_peak(2e-4, 64, 16, rule) == pytest.approx(2e-4 * factor)
    assert ms.scale_peak(2e-4, 16, 64, rule) == pytest.approx(2e-4 / factor)
    assert ms.scale_peak(2e-4, 16, 16, rule) == 2e-4


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ((2e-4, 0, 16), "batch_size"),
        ((2e-4, 4, 2.5), "reference_batch_size"),
        ((2e-4, 4, 4, "cubic"), "rule"),
    ],
)
def test_scale_peak_refuses(arguments: tuple[object, ...], hint: str) -> None:
    with pytest.raises(ms.ScheduleError, match=hint):
        ms.scale_peak(*arguments)


def trained(learning_rate: object, betas: list[float], correct: bool, compiled: bool = False) -> np.ndarray:
    """300 updates of a small network; the same data and start for all."""
    mx.random.seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    x, y = mx.random.normal((64, 4)), mx.random.normal((64, 1))
    mx.eval(model.parameters(), x, y)
    optimizer = optim.AdamW(learning_rate, betas=betas, bias_correction=correct, weight_decay=0.0)
    state = [model.state, optimizer.state]

    def update() -> mx.array:
        loss, gradient = nn.value_and_grad(model, lambda m: ((m(x) - y) ** 2).mean())(model)
        optimizer.update(model, gradient)
        return loss

    step = mx.compile(update, inputs=state, outputs=state) if compiled else update
    losses = []
    for _ in range(300):
        losses.append(step())
        mx.eval(losses[-1], state)
    return np.array([loss.item() for loss in losses])


def test_bias_corrected_makes_plain_adam_the_corrected_one() -> None:
    base, betas = ms.warmup_cosine(1e-3, steps=300, warmup=20), [0.9, 0.999]
    right = trained(base, betas, correct=True)
    plain = trained(base, betas, correct=False)
    assert np.abs(plain / right - 1).max() > 1e-2
    for compiled in (False, True):
        ours = trained(ms.bias_corrected(base, betas), betas, correct=False, compiled=compiled)
        assert np.abs(ours / right - 1).max() < 2e-5


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.95), (0.9, 0.0), (0.5, 0.9999)])
def test_bias_corrected_is_the_inverse_of_the_excess(betas: tuple[float, float]) -> None:
    schedule = ms.bias_corrected(ms.constant(1e-3), betas)
    steps = [0, 1, 11, 99, 999, 10**5, 10**9, 10**12]
    exact = [1e-3 * math.sqrt(1 - betas[1] ** (t + 1)) / (1 - betas[0] ** (t + 1)) for t in steps]
    np.testing.assert_allclose([schedule(t) for t in steps], exact, rtol=1e-9)
    np.testing.assert_allclose(np.array(schedule(mx.array(steps, mx.uint64)), float), exact, rtol=1e-6)


def test_bias_corrected_takes_a_users_function_and_refuses_wrong_betas() -> None:
    assert ms.bias_corrected(lambda step: 1e-3)(0) == pytest.approx(1e-3 * math.sqrt(1e-3) / 0.1)
    for betas in ([0.9], [0.9, 1.0], [-0.1, 0.9]):
        with pytest.raises(ms.ScheduleError, match="betas"):
            ms.bias_corrected(ms.constant(1e-3), betas)


class Adapter(nn.Module):
    """A frozen map with mlx-lm's names for its two low-rank matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.lora_a, self.lora_b = mx.ones((4, 2)), mx.zeros((2, 4))

    def __call__(self, x: mx.array) -> mx.array:
        return x @ self.lora_a @ self.lora_b


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_lora_plus_moves_b_faster_than_a(compiled: bool) -> None:
    model = nn.Sequential(Adapter(), nn.Linear(4, 1))
    plus = ms.lora_plus(ms.warmup_linear(1e-3, steps=10, warmup=2), ratio=16)
    optimizer = optim.MultiOptimizer([optim.SGD(rate) for rate in plus.schedules], list(plus.filters))
    state = [model.state, optimizer.state]
    optimizer.init(model.trainable_parameters())
    ones = mx.ones((3, 4))
    traced = 0

    def update() -> None:
        nonlocal traced
        traced += 1
        gradient = nn.value_and_grad(model, lambda m: m(ones).sum())(model)[1]
        constant_gradient = {
            "layers": [{name: mx.ones_like(g) for name, g in layer.items()} for layer in gradient["layers"]]
        }
        optimizer.update(model, constant_gradient)

    step = mx.compile(update, inputs=state, outputs=state) if compiled else update
    for index in range(6):
        before = [np.array(p) for p in (model.layers[0].lora_a, model.layers[0].lora_b, model.layers[1].bias)]
        step()
        mx.eval(state)
        after = [np.array(p) for p in (model.layers[0].lora_a, model.layers[0].lora_b, model.layers[1].bias)]
        moved = [float((b - a).max()) for b, a in zip(before, after, strict=True)]
        rate = plus.schedules[1](index)
        np.testing.assert_allclose(moved, [rate, 16 * rate, rate], rtol=1e-3, atol=2e-7)
    assert traced == (1 if compiled else 6)


def test_lora_plus_refuses_a_ratio_of_0() -> None:
    with pytest.raises(ms.ScheduleError, match="ratio"):
        ms.lora_plus(ms.constant(1e-4), ratio=0)
