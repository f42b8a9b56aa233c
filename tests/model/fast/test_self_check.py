"""Optimizations that are wrong for a model are detected, reported and not used."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxsched.config.schema import OPTIMIZATIONS
from mlxsched.model import adapters
from mlxsched.model.fast import self_check
from mlxsched.model.fast.forward_path import PLAIN
from mlxsched.model.fast.selection import choose_path
from mlxsched.model.fast.self_check import EXACT, HALF, ROUNDED, SelfCheck
from mlxsched.model.loss import PLAIN_LOSS, LossOptions

EVERYTHING = {"prefix": True, "checkpoint": 1}


def choose(model, rows, options=PLAIN_LOSS):
    notes = []
    return choose_path(SelfCheck(model, rows, options), notes.append, **EVERYTHING), notes


class Changed(nn.Module):
    """A model around another one, as strange as a test needs it."""

    def __init__(self, model):
        super().__init__()
        self.inside = model

    @property
    def layers(self):
        return self.inside.layers


class MixesPositions(Changed):
    """Its logits depend on those of the position before, which a gathered head can't see."""

    def __call__(self, inputs):
        logits = self.inside(inputs)
        return logits + 0.5 * mx.pad(logits, ((0, 0), (1, 0), (0, 0)))[:, :-1]


class CountsOnLength(Changed):
    """Raises when the logits are not one for each position."""

    def __call__(self, inputs):
        logits = self.inside(inputs)
        if logits.shape[:2] != inputs.shape:
            raise ValueError("logits of another length")
        return logits


class LooksAtItsValues(Changed):
    """Asks for a number in the middle of its forward pass, which a compiled step can't give."""

    def __call__(self, inputs):
        states = self.inside.model.embed_tokens(inputs)
        return self.inside(inputs) * (1.0 if states.max().item() < 1e9 else 0.0)


class NoHeadModule(Changed):
    """Multiplies with the embedding itself, as some tied models do."""

    def __call__(self, inputs):
        return self.inside.model(inputs) @ self.inside.model.embed_tokens.weight.T


class RunsTwice(Changed):
    """Goes through its layers twice."""

    def __call__(self, inputs):
        states = self.inside.model.embed_tokens(inputs)
        for layer in [*self.layers, *self.layers]:
            states = layer(states, "causal")
        return self.inside.model.embed_tokens.as_linear(states)


class LooksBack(Changed):
    """Its upper layers also see what the first layer gave, besides their input."""

    def __call__(self, inputs):
        states = self.inside.model.embed_tokens(inputs)
        first = None
        for layer in self.layers:
            states = layer(states if first is None else states + self.kept, "causal")
            if first is None:
                first = self.kept = states
        del self.kept
        return self.inside.model.embed_tokens.as_linear(states)


@pytest.mark.parametrize("options", [LossOptions(), LossOptions(0.1, 1e-3)])
def test_a_well_behaved_model_takes_everything(build, make_rows, options):
    path, notes = choose(build(), make_rows(), options=options)
    assert path.head and path.chunk and path.boundary and path.checkpoint == 1
    assert path.boundary.below == 2
    assert path.compiled
    assert notes == []


def test_lora_on_the_embedding_that_is_the_head_is_trained_along_an_equal_path(build, make_rows):
    model = build()
    keys = ["self_attn.q_proj", "model.embed_tokens"]
    adapters.attach(model, "lora", 1, {"rank": 4, "scale": 10.0, "dropout": 0.0, "keys": keys}, seed=1)
    path, notes = choose(model, make_rows())
    assert path.head
    assert not [text for text in notes if "broadcast" in text or "Error" in text]
    assert SelfCheck(model, make_rows(seed=1)).disagreement(path) is None


@pytest.mark.parametrize("strange", [MixesPositions, CountsOnLength])
def test_an_odd_head_is_not_used_and_the_rest_stays(build, make_rows, strange):
    path, notes = choose(strange(build()), make_rows())
    assert path.head is None and path.chunk is None
    assert path.boundary is not None
    assert any(note.startswith("loss only at targets: not used") for note in notes)


def test_what_cannot_be_compiled_takes_the_other_optimizations(build, make_rows):
    path, notes = choose(LooksAtItsValues(build()), make_rows())
    assert not path.compiled
    assert path.head and path.chunk and path.boundary and path.checkpoint
    assert len(notes) == 1 and notes[0].startswith("compiled step: not used")


def test_logits_without_a_module_are_reported(build, make_rows):
    path, notes = choose(NoHeadModule(build()), make_rows())
    assert path.head is None
    assert path.boundary is not None
    assert notes == ["loss only at targets: not used, its logits do not come from a projection module"]


def test_layers_that_run_twice_have_no_frozen_prefix(build, make_rows):
    path, notes = choose(RunsTwice(build()), make_rows())
    assert path.boundary is None and path.head is not None
    assert any("called 2 times" in note for note in notes)


def test_a_wrong_prefix_is_not_used(build, make_rows):
    model = LooksBack(build(layers=2))
    path, _ = choose(model, make_rows())
    check = SelfCheck(model, make_rows(), LossOptions())
    assert check.disagreement(path) is None  # whatever was taken is right


def test_what_is_trained_outside_of_the_layers_forbids_the_prefix(build, make_rows):
    model = build()
    model.model.embed_tokens.unfreeze()
    path, notes = choose(model, make_rows())
    assert path.boundary is None
    assert any("outside of its layers" in note for note in notes)
    assert path.head is not None and path.chunk is None  # the tied head is trained: plain autodiff behind it


def test_the_first_layer_trained_means_no_prefix_and_no_note(build, make_rows):
    path, notes = choose(build(layers=-1), make_rows())
    assert path.boundary is None and path.head is not None
    assert notes == []


def test_the_model_is_as_before(build, make_rows):
    model = build(dropout=0.3)
    before = {path: np.array(value) for path, value in tree_flatten(model.trainable_parameters())}
    mx.random.seed(11)
    choose(model, make_rows())
    drawn = mx.random.uniform().item()
    mx.random.seed(11)
    assert drawn == mx.random.uniform().item()
    for path, value in tree_flatten(model.trainable_parameters()):
        np.testing.assert_array_equal(value, before[path])
    assert all(module.training for module in model.modules() if isinstance(module, nn.Dropout))


def test_half_precision_has_a_tolerance_of_its_own(build, make_rows):
    model = build()
    assert SelfCheck(model, make_rows(), LossOptions()).tolerance == EXACT
    model.set_dtype(mx.bfloat16)
    check = SelfCheck(model, make_rows(), LossOptions())
    assert check.tolerance == HALF
    assert choose_path(check, lambda note: None, **EVERYTHING) != PLAIN


def test_rounded_products_have_a_tolerance_of_their_own(build, make_rows, monkeypatch):
    monkeypatch.setattr(self_check, "multiplies_in_tf32", lambda: True)
    model = build()
    assert SelfCheck(model, make_rows(), LossOptions()).tolerance == ROUNDED
    model.set_dtype(mx.bfloat16)
    assert SelfCheck(model, make_rows(), LossOptions()).tolerance == HALF


@pytest.mark.parametrize("fault", [1 + 3e-5, float("nan")])
def test_a_loss_that_is_a_little_off_is_noticed(build, make_rows, fault):
    model = build()
    check = SelfCheck(model, make_rows(), LossOptions())
    loss, gradients = check.expected
    assert check._difference(loss, gradients) is None
    assert "loss" in check._difference(loss * fault, gradients)


def test_gradients_that_are_a_little_off_are_noticed(build, make_rows):
    model = build()
    check = SelfCheck(model, make_rows(), LossOptions())
    loss, gradients = check.expected
    assert "gradients" in check._difference(loss, {p: 1.0003 * g for p, g in gradients.items()})


TIED = {"tie_word_embeddings": True}
UNTIED = {"tie_word_embeddings": False}


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize(("key", "changes"), [("model.embed_tokens", TIED), ("lm_head", UNTIED)])
def test_lora_in_the_head_is_part_of_the_head(build, make_rows, stir, kind, key, changes):
    model = build(**changes)
    lora = {"rank": 4, "scale": 20.0, "dropout": 0.0, "keys": ["self_attn.q_proj", key]}
    adapters.attach(model, kind, 2, lora, seed=1)
    stir(model)
    path, notes = choose(model, make_rows())
    assert path.head is not None and path.head.module is dict(model.named_modules())[key]
    assert path.chunk is None  # the head is trained: its gradient comes from autodiff
    assert not [note for note in notes if note.startswith("loss only")]


def test_each_optimization_is_left_out_by_its_name(build, make_rows):
    check = SelfCheck(build(), make_rows())
    whole = choose_path(check, lambda note: None)
    without = {name: choose_path(check, lambda note: None, without={name}) for name in OPTIMIZATIONS}
    assert without == {
        "loss-at-targets": replace(whole, head=None, chunk=None),
        "chunks": replace(whole, chunk=None),
        "blocks": replace(whole, blocks=None),
        "compile": replace(whole, compiled=False),
        "allocation-limit": whole,  # not a part of a path: tests/training/test_allocation_limit.py
    }
    assert whole.head and whole.chunk and whole.blocks and whole.compiled
