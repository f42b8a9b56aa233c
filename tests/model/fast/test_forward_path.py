"""Every optimization gives the loss and the gradients of the plain path, row by row and without padding."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxsched.data.batching.batches import collate
from mlxsched.data.batching.grid import Grid
from mlxsched.data.batching.row_groups import RowGroups
from mlxsched.model.fast.forward_path import ForwardPath, padded_targets
from mlxsched.model.fast.frozen_prefix import find_boundary
from mlxsched.model.fast.head import find_head
from mlxsched.model.fast.patching import dropout_off
from mlxsched.model.fast.prefix_activations import ActivationStore, make_activations
from mlxsched.model.loss import weighted_loss

FAMILIES = ["llama", "qwen3", "gemma", "gemma2", "granite"]
GRID = Grid((16, 24, 48))


def row_by_row(model, rows, indices):
    """The definition: plain MLX, one row after the other."""
    n_targets = sum(int(rows[i].targets.sum()) for i in indices)

    def loss_of(model):
        total = mx.array(0.0)
        for i in indices:
            tokens, targets = rows[i]
            logits = model(mx.array(tokens[None, :-1]))[0]
            losses = nn.losses.cross_entropy(logits, mx.array(tokens[1:]), reduction="none")
            total = total + (losses * mx.array(targets[1:].astype(np.float32))).sum()
        return total / n_targets

    loss, gradients = nn.value_and_grad(model, loss_of)(model)
    return loss.item(), dict(tree_flatten(gradients)), n_targets


@pytest.fixture
def on_path(compiled_gradients):
    """The loss and gradients of rows on a forward path."""

    def compute(model, path, rows, indices, n_targets):
        if path.boundary:
            store = ActivationStore(10**9, None)
            activations = make_activations(
                model, path.boundary, rows, store, groups=RowGroups.by_length(rows.lengths, 200)
            )
            path = replace(path, activations=activations)
        arrays = path.arrays(collate(rows, np.asarray(indices), GRID), n_targets)
        return compiled_gradients(model, path, arrays)

    return compute


def make_path(model, name):
    probe = mx.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    head, boundary = find_head(model, probe), find_boundary(model, probe)
    return {
        "gathered": ForwardPath(head=head),
        "chunked": ForwardPath(head=head, chunk=8),
        "tapped": ForwardPath(boundary=boundary),
        "checkpointed": ForwardPath(checkpoint=1),
        "everything": ForwardPath(head=head, chunk=8, boundary=boundary, checkpoint=2),
    }[name]


def assert_close(got, expected):
    (loss, gradients), (expected_loss, expected_gradients, _) = got, expected
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    distance = np.sqrt(sum(float(mx.square(gradients[p] - g).sum()) for p, g in expected_gradients.items()))
    norm = np.sqrt(sum(float(mx.square(g).sum()) for g in expected_gradients.values()))
    assert norm > 0.01
    assert distance < 1e-4 * norm


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("name", ["gathered", "chunked", "tapped", "checkpointed", "everything"])
def test_each_route_equals_the_row_by_row_definition(on_path, build, make_rows, kind, name):
    model, rows, indices = build(kind), make_rows(), [3, 1, 8, 5, 2]
    expected = row_by_row(model, rows, indices)
    assert_close(on_path(model, make_path(model, name), rows, indices, expected[2]), expected)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "granite"])
@pytest.mark.parametrize("tied", [True, False])
def test_everything_at_four_bits(on_path, build, make_rows, kind, tied):
    model, rows, indices = build(kind, bits=4, tie_word_embeddings=tied), make_rows(), [3, 1, 8, 5]
    expected = row_by_row(model, rows, indices)
    assert_close(on_path(model, make_path(model, "everything"), rows, indices, expected[2]), expected)


def test_what_acts_behind_the_head_is_noticed(build):
    probe = mx.array([[1, 2, 3, 4]])
    assert find_head(build("llama"), probe).bare
    assert not find_head(build("gemma2"), probe).bare  # soft-capping
    assert not find_head(build("granite"), probe).bare  # logit scaling


def test_classes_are_as_before(on_path, build, make_rows):
    model, rows = build(), make_rows()
    before = [type(module) for _, module in sorted(model.named_modules())]
    path = make_path(model, "everything")
    on_path(model, path, rows, [0, 1], 10)
    assert [type(module) for _, module in sorted(model.named_modules())] == before
    assert "substitute" not in str(type(model.layers[0]).__call__)


def test_checkpointed_dropout_draws_the_same_in_the_backward_pass(build, make_rows, monkeypatch):
    model, rows = build(dropout=0.5), make_rows()
    path = ForwardPath(checkpoint=1)
    arrays = path.arrays(collate(rows, np.asarray([3, 1, 8]), GRID), 10)
    tree = model.trainable_parameters()

    def loss(tree):
        mx.random.seed(5)
        model.update(tree)
        return path.loss(model, *arrays)

    value, recomputed = mx.value_and_grad(loss)(tree)
    monkeypatch.setattr(mx, "checkpoint", lambda function: function)  # what is kept can't be drawn again
    kept_value, kept = mx.value_and_grad(loss)(tree)
    model.update(tree)
    assert value.item() == pytest.approx(kept_value.item(), rel=1e-6)
    for (name, got), (_, expected) in zip(tree_flatten(recomputed), tree_flatten(kept), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4, err_msg=name)
    assert loss(tree).item() != pytest.approx(weighted_loss_without_dropout(model, arrays), rel=1e-3)


def weighted_loss_without_dropout(model, arrays):
    with dropout_off(model):
        return weighted_loss(model, *arrays).item()


def test_sizes_of_gathered_targets_are_few_and_hold_all():
    sizes = {padded_targets(count, 4096) for count in range(4097)}
    assert len(sizes) == 17
    assert all(count <= padded_targets(count, 4096) for count in range(4097))
    assert all(padded_targets(count, 4096) <= 1.5 * count for count in range(16, 4097))
