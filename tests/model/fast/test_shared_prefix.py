"""Rows that share a prefix: the loss and gradients of each row alone, or not used."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.base import create_causal_mask

from mlxsched.data.batching.batches import collate, prefix_batch
from mlxsched.data.batching.grid import Grid
from mlxsched.data.rows import rows_in_memory
from mlxsched.model.evaluate import Evaluator
from mlxsched.model.fast.attention import Blocks
from mlxsched.model.fast.cached_checkpoint import checkpoint_cached
from mlxsched.model.fast.forward_path import PLAIN, ForwardPath
from mlxsched.model.fast.growing_cache import GrowingCache
from mlxsched.model.fast.head import find_head
from mlxsched.model.fast.selection import with_shared_prefix
from mlxsched.model.fast.shared_check import SharedCheck
from mlxsched.model.fast.shared_prefix import SharedPasses

VOCABULARY, PREFIX = 211, 21
WINDOWED = {"sliding_window": 8, "sliding_window_pattern": 2}
GRID = Grid((16, 32, 64))


@pytest.fixture
def alike():
    """Random rows that begin with the same tokens; everything is a target in some of them."""
    generator = np.random.default_rng(0)
    begin = generator.integers(1, VOCABULARY, PREFIX + 1)
    rows = []
    for number, own in enumerate((9, 3, 14, 6, 11)):
        tokens = np.concatenate([begin, [7 + number], generator.integers(1, VOCABULARY, own)])
        targets = generator.random(len(tokens)) < (0.4, 1.0)[number % 2]
        rows.append((tokens.astype(np.int32), targets))
    return rows_in_memory(rows)


def shared_path(model, rows, checkpoint=0):
    """With all optimizations; not compiled, because building kernels takes longer than all else here."""
    probe = mx.array(np.ones((2, 8), np.int32))
    path = ForwardPath(
        find_head(model, probe), 3, checkpoint=checkpoint, blocks=Blocks(5, kept=not checkpoint)
    )
    notes = []
    return with_shared_prefix(SharedCheck(model, rows), path, notes.append), notes


def row_by_row(model, rows, n_targets):
    def loss_of(model):
        total = mx.array(0.0)
        for tokens, targets in rows:
            losses = nn.losses.cross_entropy(model(mx.array(tokens[None, :-1]))[0], mx.array(tokens[1:]))
            total = total + (losses * mx.array(targets[1:].astype(np.float32))).sum()
        return total / n_targets

    loss, gradients = nn.value_and_grad(model, loss_of)(model)
    return loss.item(), dict(tree_flatten(gradients))


def summed(model, path, rows, parts, n_targets):
    """Loss and gradients with the prefix read once, the rows in micro-batches ``parts``."""
    passes, tree = SharedPasses(path, model), model.trainable_parameters()
    batch = prefix_batch(rows, np.concatenate(parts), PREFIX)
    prefix = path.arrays(batch, n_targets)[: None if batch.n_targets else 1]
    compiled = mx.compile if path.compiled else lambda function: function
    state, resumed = compiled(passes.read)(tree, *prefix)
    to_state, sums, total = [mx.zeros(a.shape) for a in passes.trained(state)], None, 0.0
    step = compiled(passes.continue_from)
    for part in parts:
        arrays = path.arrays(collate(rows, part, GRID, PREFIX), n_targets)
        loss, (gradients, more) = step(tree, state, prefix[0], *arrays)
        total, to_state = total + loss, tree_map(mx.add, to_state, more)
        sums = gradients if sums is None else tree_map(mx.add, sums, gradients)
    loss, gradients = compiled(passes.go_back)(tree, to_state, resumed, *prefix)
    sums = tree_map(mx.add, sums, gradients)
    mx.eval(sums)
    model.update(tree)
    return (total + loss).item(), dict(tree_flatten(sums))


@pytest.mark.parametrize(
    ("kind", "changes"), [("llama", {}), ("granite", {}), ("gemma3_text", WINDOWED), ("gemma2", {})]
)
@pytest.mark.parametrize(("checkpoint", "compiled"), [(0, False), (1, False), (1, True)])
def test_loss_and_gradients_are_those_of_the_rows_alone(build, alike, kind, changes, checkpoint, compiled):
    if compiled and kind != "llama":
        pytest.skip("one model is compiled")
    model = build(kind, layers=4, **changes)
    path, notes = shared_path(model, alike, checkpoint)
    assert path.form and not notes
    path = replace(path, compiled=compiled)
    loss, got = summed(model, path, alike, [np.array([2, 4]), np.array([0, 3, 1])], 37)
    expected_loss, expected = row_by_row(model, alike, 37)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert got.keys() == expected.keys()
    distance = np.sqrt(sum(float(mx.square(got[name] - g).sum()) for name, g in expected.items()))
    norm = np.sqrt(sum(float(mx.square(g).sum()) for g in expected.values()))
    assert norm > 0.01
    assert distance < 1e-4 * norm  # Gemma 2's soft caps: 2e-5; the others 1e-6


@pytest.mark.parametrize(("layers", "fixed"), [(4, 0), (2, 4)])
def test_a_prefix_without_targets_and_frozen_layers_take_less_work(build, alike, layers, fixed):
    """Neither the last layer's output for the prefix nor gradients of the keys and values of frozen layers are needed."""
    rows = rows_in_memory((tokens, targets & (np.arange(len(tokens)) > PREFIX)) for tokens, targets in alike)
    model = build("llama", layers=layers)
    path, _ = shared_path(model, alike)
    assert path.fixed == fixed and bool(path.resumed) == (layers < 4)
    loss, got = summed(model, path, rows, [np.array([2, 4]), np.array([0, 3, 1])], 37)
    expected_loss, expected = row_by_row(model, rows, 37)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, gradient in expected.items():
        assert float(mx.linalg.norm(got[name] - gradient)) < 1e-4 * float(mx.linalg.norm(gradient)), name


class CountsCalls(nn.Module):
    """A model whose logits depend on how many tokens it is given, as behind a prefix they must not."""

    def __init__(self, model):
        super().__init__()
        self.inside = model

    @property
    def layers(self):
        return self.inside.layers

    def __call__(self, inputs, cache=None):
        return self.inside(inputs, cache=cache) * (1 + inputs.shape[1] / 100)


class HasNoCache(CountsCalls):
    def __call__(self, inputs):
        return self.inside(inputs)


@pytest.mark.parametrize(
    ("strange", "reason"), [(CountsCalls, "differs by"), (HasNoCache, "does not support it")]
)
def test_a_model_that_is_another_one_behind_a_prefix_reads_whole_rows(build, alike, strange, reason):
    path, notes = shared_path(strange(build()), alike)
    assert path.form is None
    assert [note for note in notes if note.startswith("shared prompts: not used") and reason in note]


def test_an_evaluation_reads_the_prefix_once(build, alike):
    model = build()
    path = shared_path(model, alike)[0].without_gradients()
    tree = model.trainable_parameters()
    expected = Evaluator(model, alike, PLAIN, max_tokens=200)(tree)
    evaluator = Evaluator(model, alike, path, max_tokens=40)
    assert evaluator._prefix == PREFIX
    got = evaluator(tree)
    assert (got.targets, got.rows) == (expected.targets, expected.rows)
    assert got.loss == pytest.approx(expected.loss, rel=1e-6)
    assert evaluator.n_batches > 1
    rounds = [evaluator.partial(tree, n, n + 1) for n in range(evaluator.n_batches)]
    workers = [evaluator.part(worker, 2).partial(tree, 0, 99) for worker in (0, 1)]
    for parts in (rounds, workers):
        assert sum(p.targets for p in parts) == expected.targets
        assert sum(p.loss for p in parts) / expected.targets == pytest.approx(expected.loss, rel=1e-6)
    assert evaluator.non_finite_rows(tree) == []


def test_an_evaluation_of_rows_with_little_in_common_reads_them_whole(build, make_rows, alike):
    model = build()
    path = shared_path(model, alike)[0].without_gradients()
    assert Evaluator(model, make_rows(), path, max_tokens=100)._prefix == 0


@pytest.mark.parametrize("window", [None, 5, 100])
def test_the_mask_behind_a_prefix_is_mlx_lms(window):
    cache = GrowingCache()
    cache.update_and_fetch(mx.zeros((1, 1, 9, 2)), mx.zeros((1, 1, 9, 2)))
    expected = create_causal_mask(4, offset=9, window_size=window)
    assert mx.array_equal(cache.make_mask(4, return_array=True, window_size=window), expected)
    assert isinstance(cache.make_mask(4, window_size=window), str) == (window != 5)
    assert cache.make_mask(1) is None


def test_a_checkpointed_layer_that_hands_on_what_its_cache_holds_keeps_both_gradients():
    """`mx.checkpoint` drops the cotangent of an array that is among its results twice."""

    def loss(x, checkpoint):
        cache = GrowingCache()

        def layer(scale, x, cache):
            keys, values = cache.update_and_fetch(x * scale, x * x * scale)
            return keys, values

        run = checkpoint_cached if checkpoint else lambda layer, *args: layer(*args)
        keys, values = run(layer, mx.array(3.0), x, cache)
        return (keys * 2 + values).sum() + (cache.keys * 5 + cache.values * 7).sum()

    x = mx.arange(6.0).reshape(1, 1, 3, 2)
    expected, got = (mx.grad(lambda x, c=c: loss(x, c))(x) for c in (False, True))
    assert mx.allclose(got, expected)


def test_in_bf16_it_is_as_close_to_float32_as_whole_rows(build, alike):
    model = build("llama", layers=4)
    model.set_dtype(mx.bfloat16)
    model.update(tree_map(lambda a: a.astype(mx.float32), model.trainable_parameters()))  # as adapters are
    path, notes = shared_path(model, alike)
    assert path.form and not notes
    parts = [np.array([2, 4]), np.array([0, 3, 1])]
    found = summed(model, path, alike, parts, 37)
    whole = replace(path, form=None)
    batch = collate(alike, np.arange(5), GRID)
    by_rows = nn.value_and_grad(model, lambda model: whole.loss(model, *whole.arrays(batch, 37)))(model)
    model.set_dtype(mx.float32)  # the same rounded weights
    expected_loss, expected = row_by_row(model, alike, 37)

    def off(loss, gradients):
        apart = [mx.square(gradients[name].astype(mx.float32) - g).sum() for name, g in expected.items()]
        norm = sum(float(mx.square(g).sum()) for g in expected.values())
        return abs(float(loss) / expected_loss - 1), (float(sum(apart)) / norm) ** 0.5

    shared, rows = off(*found), off(by_rows[0], dict(tree_flatten(by_rows[1])))
    assert shared[0] < max(2 * rows[0], 1e-3)
    assert shared[1] < 1.2 * rows[1]
