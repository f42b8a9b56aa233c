"""The update against plain MLX: same loss, gradients and parameters, however the rows are cut."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from mlxsched.model import adapters
from mlxsched.model.loss import weighted_loss
from mlxsched.training.optimizers import group_tensors
from mlxsched.training.step import UpdateStep, portions

VOCABULARY = 61


def tiny_model(seed: int = 0) -> nn.Module:
    from mlx_lm.models import llama

    mx.random.seed(seed)
    arguments = llama.ModelArgs(
        model_type="llama",
        hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        vocab_size=VOCABULARY,
        tie_word_embeddings=False,
    )
    model = llama.Model(arguments)
    mx.eval(model.parameters())
    return model


def lora_model(dropout: float = 0.0, rank: int = 4) -> nn.Module:
    model = tiny_model()
    adapters.attach(model, "lora", -1, {"rank": rank, "scale": 20.0, "dropout": dropout}, seed=1)
    # B starts at zero, which would hide every error in A's gradient.
    mx.random.seed(2)
    model.update(tree_map(lambda p: p + 0.1 * mx.random.normal(p.shape), model.trainable_parameters()))
    model.train()
    return model


def rows(count: int = 6, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Token rows of different lengths with random targets."""
    generator = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        length = int(generator.integers(4, 14))
        targets = generator.random(length) < 0.5
        targets[0], targets[-1] = False, True
        result.append((generator.integers(1, VOCABULARY, length).astype(np.int32), targets))
    return result


def collate(chosen: list[tuple[np.ndarray, np.ndarray]], n_targets: int) -> tuple[np.ndarray, ...]:
    length = max(len(tokens) for tokens, _ in chosen) - 1
    inputs = np.zeros((len(chosen), length), np.int32)
    labels = np.zeros_like(inputs)
    weights = np.zeros(inputs.shape, np.float32)
    for i, (tokens, targets) in enumerate(chosen):
        inputs[i, : len(tokens) - 1] = tokens[:-1]
        labels[i, : len(tokens) - 1] = tokens[1:]
        weights[i, : len(tokens) - 1] = targets[1:] / n_targets
    return inputs, labels, weights


def run_update(model, optimizer, data, size, *, packed=None, state=None, rate=1e-3, **options):
    """One update over ``data`` in micro-batches of ``size`` rows."""
    step = UpdateStep(model, optimizer, weighted_loss, **options)
    if packed is None:
        packed = optimizer.pack(dict(tree_flatten(model.trainable_parameters())))
        state = optimizer.init(packed)
    n_targets = sum(int(t.sum()) for _, t in data)
    sums = step.zeros(packed)
    for i in range(0, len(data), size):
        sums = step.add(packed, sums, *collate(data[i : i + size], n_targets))
    new_packed, new_state, outcome = step.apply(packed, state, sums, rate)
    mx.eval(new_packed, new_state, outcome, sums)
    step.load(new_packed)
    return new_packed, new_state, outcome, sums


def plain_loss_and_gradients(model, data):
    """Row by row, no padding, no compile: the definition."""
    n_targets = sum(int(t.sum()) for _, t in data)

    def loss_of(model):
        total = mx.array(0.0)
        for tokens, targets in data:
            logits = model(mx.array(tokens[None, :-1]))[0].astype(mx.float32)
            losses = nn.losses.cross_entropy(logits, mx.array(tokens[1:]), reduction="none")
            total = total + (losses * mx.array(targets[1:].astype(np.float32))).sum()
        return total / n_targets

    loss, gradients = nn.value_and_grad(model, loss_of)(model)
    return loss.item(), dict(tree_flatten(gradients))


def make_optimizer(model, name="adamw", settings=None, **options):
    return group_tensors(dict(tree_flatten(model.trainable_parameters())), name, settings or {}, **options)


@pytest.mark.parametrize("size", [1, 2, 4, 6])
@pytest.mark.parametrize("compiled", [True, False])
def test_loss_and_gradients_equal_the_row_by_row_sum(size, compiled):
    model, data = lora_model(), rows()
    expected_loss, expected = plain_loss_and_gradients(model, data)
    optimizer = make_optimizer(model)
    _, _, outcome, (loss, gradients) = run_update(model, optimizer, data, size, compiled=compiled)
    assert loss.item() == pytest.approx(expected_loss, rel=1e-5)
    for path, gradient in optimizer.unpack(gradients).items():
        error = np.linalg.norm(np.array(gradient) - np.array(expected[path]))
        assert error < 1e-4 * np.linalg.norm(np.array(expected[path])), path
    norm = np.sqrt(sum(float((np.array(g, np.float64) ** 2).sum()) for g in expected.values()))
    assert outcome.grad_norm.item() == pytest.approx(norm, rel=1e-4)


def test_loss_equals_a_float64_computation_from_the_logits():
    model, data = lora_model(), rows()
    total, count = 0.0, 0
    for tokens, targets in data:
        logits = np.array(model(mx.array(tokens[None, :-1]))[0], np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        picked = log_probabilities[np.arange(len(tokens) - 1), tokens[1:]]
        total -= picked[targets[1:]].sum()
        count += int(targets[1:].sum())
    _, _, outcome, _ = run_update(model, make_optimizer(model), data, 3)
    assert outcome.loss.item() == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "lion", "muon", "adafactor"])
def test_two_updates_equal_mlx_optimizers_own(name):
    settings = {"momentum": 0.9} if name == "sgd" else {}
    data, again = rows(seed=1), rows(seed=2)
    model = lora_model()
    optimizer = make_optimizer(model, name, settings)
    packed, state, _, _ = run_update(model, optimizer, data, 2, rate=1e-2)
    packed, _, _, _ = run_update(model, optimizer, again, 3, packed=packed, state=state, rate=5e-3)

    reference = lora_model()
    classes = {"adam": optim.Adam, "adamw": optim.AdamW, "sgd": optim.SGD, "lion": optim.Lion}
    classes |= {"muon": optim.Muon, "adafactor": optim.Adafactor}
    extra = {"bias_correction": True} if name.startswith("adam") else settings
    extra = {"relative_step": False, "scale_parameter": False} if name == "adafactor" else extra
    plain = classes[name](learning_rate=1e-2, **extra)
    for rate, batch in [(1e-2, data), (5e-3, again)]:
        plain.learning_rate = rate
        _, gradients = plain_loss_and_gradients(reference, batch)
        plain.update(reference, tree_unflatten(list(gradients.items())))
    expected = dict(tree_flatten(reference.trainable_parameters()))
    # Sign-like first updates (Adam, Lion) magnify the last bit of tiny gradients: bound by a share of the rate.
    for path, value in optimizer.unpack(packed).items():
        difference = np.abs(np.array(value) - np.array(expected[path]))
        assert np.quantile(difference, 0.99) < 1e-5, path


def test_lora_plus_gives_b_its_own_rate():
    data = rows()
    moved = {}
    for ratio in (1.0, 4.0):
        model = lora_model()
        before = dict(tree_flatten(model.trainable_parameters()))
        optimizer = make_optimizer(model, "sgd", lora_plus_ratio=ratio)
        packed, _, _, _ = run_update(model, optimizer, data, 6, rate=1e-2)
        moved[ratio] = {p: np.array(v - before[p]) for p, v in optimizer.unpack(packed).items()}
    for path, change in moved[1.0].items():
        factor = 4.0 if path.endswith("lora_b") else 1.0
        np.testing.assert_allclose(moved[4.0][path], factor * change, rtol=2e-3, atol=1e-7)


def test_clipping_bounds_the_norm_and_reports_the_raw_one():
    data = rows()
    model = lora_model()
    before = dict(tree_flatten(model.trainable_parameters()))
    optimizer = make_optimizer(model, "sgd")
    packed, _, outcome, _ = run_update(model, optimizer, data, 6, rate=1.0, max_grad_norm=0.01)
    change = [np.array(v - before[p], np.float64) for p, v in optimizer.unpack(packed).items()]
    assert outcome.grad_norm.item() > 0.02
    assert np.sqrt(sum((c**2).sum() for c in change)) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_update_changes_nothing(bad):
    model, data = lora_model(), rows()
    optimizer = make_optimizer(model, lora_plus_ratio=2.0)
    step = UpdateStep(model, optimizer, weighted_loss, max_grad_norm=1.0)
    packed = optimizer.pack(dict(tree_flatten(model.trainable_parameters())))
    state = optimizer.init(packed)
    inputs, labels, weights = collate(data, 10)
    weights[weights > 0] = bad
    sums = step.add(packed, step.zeros(packed), inputs, labels, weights)
    new_packed, new_state, outcome = step.apply(packed, state, sums, 1e-2)
    assert not outcome.applied.item()
    for (name, old), (_, new) in zip(
        tree_flatten([packed, state]), tree_flatten([new_packed, new_state]), strict=True
    ):
        if "learning_rate" not in name:
            assert mx.array_equal(old, new).item(), name


def test_dropout_draws_anew_and_again_the_same_from_a_seed():
    model, data = lora_model(dropout=0.5), rows()
    optimizer = make_optimizer(model, "sgd")
    step = UpdateStep(model, optimizer, weighted_loss, random=True)
    packed = optimizer.pack(dict(tree_flatten(model.trainable_parameters())))
    batch = collate(data, 10)

    def losses(seed):
        mx.random.seed(seed)
        return [step.add(packed, step.zeros(packed), *batch)[0].item() for _ in range(2)]

    first = losses(7)
    assert first == losses(7)
    assert len({*first, *losses(8)}) == 4


def test_one_trace_for_each_shape():
    model, data = lora_model(), rows()
    calls = []

    def counted(*arguments):
        calls.append(1)
        return weighted_loss(*arguments)

    optimizer = make_optimizer(model)
    step = UpdateStep(model, optimizer, counted)
    packed = optimizer.pack(dict(tree_flatten(model.trainable_parameters())))
    for _ in range(3):
        mx.eval(step.add(packed, step.zeros(packed), *collate(data, 10)))
    assert len(calls) == 1


@pytest.mark.parametrize("name", ["adamw", "lion"])
@pytest.mark.parametrize("scale", [1.0, float("inf")])
def test_the_checked_update_is_that_of_one_function(name, scale):
    optimizer = group_tensors(values := tensors(4), name, {})
    step = UpdateStep(nn.Module(), optimizer, weighted_loss, max_grad_norm=1.0, compiled=False)
    packed = optimizer.pack(values)
    state = optimizer.init(packed)
    gradients = tree_map(lambda value: value * scale, packed)
    *new, result = step.apply(packed, state, (mx.array(1.0), gradients), 1e-2)
    *expected, norm, applied = step._apply(packed, state, gradients, mx.array(1.0), mx.array(1e-2))
    assert result.applied.item() == applied.item() == (scale == 1.0)
    assert mx.array_equal(result.grad_norm, norm)
    for one, other in zip(tree_flatten(new), tree_flatten(expected), strict=True):
        assert mx.array_equal(one[1], other[1])


def tensors(count):
    mx.random.seed(0)
    return {f"layers.{i}.weight": mx.random.normal((256, 256)) for i in range(count)}


def test_an_update_in_portions_needs_no_second_copy():
    optimizer = group_tensors(tensors(64), "adamw", {})
    step = UpdateStep(nn.Module(), optimizer, weighted_loss, max_grad_norm=1.0, compiled=False)
    packed = optimizer.pack(tensors(64))
    state, gradients = optimizer.init(packed), optimizer.pack(tensors(64))
    mx.eval(packed, state, gradients)
    size, start = 64 * 256 * 256 * 4, mx.get_active_memory()
    mx.reset_peak_memory()
    packed, state, result = step.apply(packed, state, (mx.array(1.0), gradients), 1e-2)
    del gradients
    mx.eval(result)
    for part in portions(packed, state):
        mx.eval(part)
    assert mx.get_peak_memory() - start < 2 * size  # parameters and two moments would be 3
