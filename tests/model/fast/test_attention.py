"""Attention in blocks against the definition in float64, and against MLX's own whole attention."""

from __future__ import annotations

import threading

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxsched.data.rows import rows_in_memory
from mlxsched.model.fast.attention import KEPT, LEAN, Blocks, calls_of, cuts_all, in_blocks
from mlxsched.model.fast.checkpointing import checkpointed
from mlxsched.model.fast.samples import sample_batch

SMALL = [Blocks(7), Blocks(7, kept=False), Blocks(17, most=3, kept=False), Blocks(1, most=100)]
SCALE = 0.4


def heads(length=69, queries=4, keys=2, width=8):
    generator = np.random.default_rng(length)
    return [generator.normal(size=(2, n, length, width)).astype(np.float32) for n in (queries, keys, keys)]


def attend(q, k, v, mask="causal", **options):
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=SCALE, mask=mask, **options)


def definition(q, k, v):
    """Causal attention, each group of query heads sharing a head of keys, in float64."""
    q, k, v = (a.astype(np.float64) for a in (q, k, v))
    k, v = (np.repeat(a, q.shape[1] // a.shape[1], axis=1) for a in (k, v))
    scores = SCALE * q @ k.swapaxes(-1, -2)
    powers = np.exp(scores) * np.tril(np.ones(scores.shape[-2:]))
    return powers / powers.sum(axis=-1, keepdims=True) @ v


@pytest.mark.parametrize("blocks", SMALL)
def test_the_values_are_those_of_the_definition(blocks):
    arrays = heads()
    with in_blocks(blocks):
        got = attend(*map(mx.array, arrays))
    np.testing.assert_allclose(got, definition(*arrays), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("blocks", SMALL)
@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradients_are_those_of_whole_attention(blocks, compiled):
    arrays = [mx.array(a) for a in heads()]
    above = mx.random.normal(arrays[0].shape, key=mx.random.key(1))

    def gradients(*arrays):
        return mx.grad(lambda *a: (attend(*a) * above).sum(), argnums=(0, 1, 2))(*arrays)

    expected = gradients(*arrays)
    with in_blocks(blocks):
        got = (mx.compile(gradients) if compiled else gradients)(*arrays)
    for mine, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"mask": None},
        {"mask": mx.tril(mx.ones((69, 69))) > 0},
        {"sinks": mx.array([0.1, -0.2, 0.3, 0.5])},
    ],
)
def test_other_attention_is_left_to_mlx(options):
    arrays = [mx.array(a) for a in heads()]
    expected = attend(*arrays, **options)
    with in_blocks(Blocks(7)):
        assert mx.array_equal(attend(*arrays, **options), expected).item()


@pytest.mark.parametrize("blocks", SMALL)
def test_queries_behind_a_prefix_see_all_of_it(blocks):
    arrays = [mx.array(a) for a in heads()]
    above = mx.random.normal((2, 4, 60, 8), key=mx.random.key(1))

    def gradients(q, k, v):
        return mx.value_and_grad(lambda *a: (attend(*a) * above).sum(), argnums=(0, 1, 2))(
            q[:, :, -60:], k, v
        )

    (value, expected) = gradients(*arrays)
    with in_blocks(blocks):
        (got_value, got) = gradients(*arrays)
    np.testing.assert_allclose(got_value, value, rtol=1e-4)
    for mine, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


def test_the_function_is_back_afterwards_whatever_happens():
    original = mx.fast.scaled_dot_product_attention
    with pytest.raises(ValueError, match="stop"), in_blocks(KEPT):
        assert mx.fast.scaled_dot_product_attention is not original
        raise ValueError("stop")
    assert mx.fast.scaled_dot_product_attention is original


@pytest.mark.parametrize("length", [1, 31, 32, 63, 64, 65, 128, 136, 1000, 5000])
@pytest.mark.parametrize("blocks", [KEPT, LEAN, Blocks(1, most=100)])
def test_blocks_cover_every_query_once_and_are_few(blocks, length):
    edges = blocks.edges(length)
    assert [query for first, stop in edges for query in range(first, stop)] == list(range(length))
    assert len(edges) <= blocks.most
    assert len(edges) == 1 or edges[0][1] >= blocks.least
    assert len(edges) == 1 or min(stop - first for first, stop in edges) >= 16


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.projection = nn.Linear(16, 3 * 16)

    def __call__(self, x):
        shape = (*x.shape[:2], 4, 4)
        q, k, v = (part.reshape(shape).swapaxes(1, 2) for part in mx.split(self.projection(x), 3, axis=-1))
        return attend(q, k, v).swapaxes(1, 2).reshape(x.shape)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [Attention()]

    def __call__(self, x):
        return self.layers[0](x)


def peak_of_gradient(blocks, every):
    mx.random.seed(0)
    model, x = Model(), mx.random.normal((1, 1024, 16))
    mx.eval(model.parameters(), x)

    def loss(parameters):
        model.update(parameters)
        with in_blocks(blocks), checkpointed(model, every, blocks):
            return model(x).square().sum()

    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    gradient = mx.grad(loss)(model.trainable_parameters())
    mx.eval(gradient)
    return mx.get_peak_memory() - before, gradient["layers"][0]["projection"]["weight"]


@pytest.mark.parametrize("every", [0, 1])
def test_blocks_save_memory_in_checkpointed_layers_too(every):
    whole, expected = peak_of_gradient(None, every)
    kept, _ = peak_of_gradient(KEPT, every)
    lean, got = peak_of_gradient(LEAN, every)
    assert kept < 0.8 * whole
    assert lean < 0.45 * whole
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3 * float(mx.abs(expected).max()))


def test_blocks_inside_blocks_cut_once():
    arrays = [mx.array(a) for a in heads(64)]
    with in_blocks(Blocks(8, most=4)):
        single = attend(*arrays)
        with in_blocks(Blocks(8, most=4)):
            nested = attend(*arrays)
    assert mx.array_equal(single, nested).item()


def test_threads_do_not_see_each_others_blocks():
    original, results = mx.fast.scaled_dot_product_attention, []
    arrays = [mx.array(a) for a in heads(64)]
    mx.eval(arrays)
    inside, go = threading.Event(), threading.Event()

    def other():
        with in_blocks(Blocks(8)):
            inside.set()
            go.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    with in_blocks(None):
        results.append(attend(*arrays))
    go.set()
    thread.join()
    assert mx.array_equal(results[0], original(*arrays, scale=SCALE, mask="causal")).item()
    assert mx.fast.scaled_dot_product_attention is original


def test_half_precision_gradients_are_summed_in_float32():
    arrays = [mx.array(a) for a in heads(512)]

    def gradients(*arrays):
        return mx.grad(lambda *a: attend(*a).square().sum().astype(mx.float32), argnums=(1, 2))(*arrays)

    expected = gradients(*arrays)
    half = [a.astype(mx.bfloat16) for a in arrays]
    whole = gradients(*half)
    with in_blocks(Blocks(32, most=16, kept=False)):
        lean = gradients(*half)
    for exact, plain, mine in zip(expected, whole, lean, strict=True):
        assert mine.dtype == mx.bfloat16
        errors = [float(mx.linalg.norm(g.astype(mx.float32) - exact)) for g in (plain, mine)]
        assert errors[1] < 1.5 * errors[0]


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [("llama", {}, True), ("gemma3_text", {"sliding_window": 16, "sliding_window_pattern": 2}, False)],
)
def test_layers_with_a_window_are_not_cut(build, kind, changes, expected):
    assert cuts_all(build(kind, **changes), 200) is expected


def test_a_sample_of_the_self_check_is_long_enough_for_two_blocks():
    """Whatever the vocabulary, and where the shorter half of the rows are too short."""
    targets = [(np.arange(n, dtype=np.int32) % 7, np.arange(n) > 2) for n in [*[9] * 6, 40, 50]]
    batch = sample_batch(rows_in_memory(targets), 10**9)
    assert batch.shape == (2, 32)
    assert len(KEPT.edges(batch.shape[1])) == 1
    assert Blocks(16).edges(batch.shape[1]) == [(0, 16), (16, 32)]


def test_the_calls_of_a_model_are_those_that_can_be_cut(build):
    heads_of = {call.shapes for call in calls_of(build("llama"), (2, 50))}
    assert len(heads_of) == 1 and heads_of.pop()[0][::2] == (2, 50)
    windowed = build("gemma3_text", sliding_window=16, sliding_window_pattern=2)
    assert len(calls_of(windowed, (1, 50))) < len(windowed.layers)
