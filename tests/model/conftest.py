"""Tiny models of four families, and random rows of different lengths."""

from __future__ import annotations

import importlib

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mlxsched.data.rows import rows_in_memory
from mlxsched.model import adapters

VOCABULARY = 211
SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    # Granite's factors and Gemma 2's caps, which act behind the head
    "logits_scaling": 4.0,
    "attention_multiplier": 0.2,
    "embedding_multiplier": 2.0,
    "residual_multiplier": 0.5,
    "attention_bias": False,
    "mlp_bias": False,
    "final_logit_softcapping": 2.0,
    "attn_logit_softcapping": 20.0,
    "query_pre_attn_scalar": 16.0,
}


@pytest.fixture
def build():
    """A LoRA model in training mode, with B away from zero."""

    def make(kind="llama", *, bits=None, layers=2, dropout=0.0, **changes):
        module = importlib.import_module(f"mlx_lm.models.{kind}")
        mx.random.seed(0)
        model = module.Model(module.ModelArgs.from_dict({"model_type": kind, **SHAPE, **changes}))
        if bits:
            nn.quantize(model, 32, bits)
        adapters.attach(model, "lora", layers, {"rank": 4, "scale": 20.0, "dropout": dropout}, seed=1)
        add_noise(model)
        model.train()
        mx.eval(model.parameters())
        return model

    return make


def add_noise(model):
    """Random values added to what is trained: LoRA's B starts at zero, which would hide errors."""
    mx.random.seed(2)
    model.update(tree_map(lambda p: p + 0.05 * mx.random.normal(p.shape), model.trainable_parameters()))


@pytest.fixture
def stir():
    """Add random values to what is trained."""
    return add_noise


@pytest.fixture
def make_rows():
    """Random rows of 4 to 40 tokens, about four in ten of them targets."""

    def make(count=24, seed=0):
        generator, rows = np.random.default_rng(seed), []
        for _ in range(count):
            length = int(generator.integers(4, 41))
            targets = generator.random(length) < 0.4
            targets[0], targets[-1] = False, True
            rows.append((generator.integers(1, VOCABULARY, length).astype(np.int32), targets))
        return rows_in_memory(rows)

    return make


@pytest.fixture
def compiled_gradients():
    """The loss of a forward path on its arrays and the gradients by name, in one compiled step."""

    def compute(model, path, arrays):
        tree = model.trainable_parameters()

        def loss_of(tree, *arrays):
            model.update(tree)
            return path.loss(model, *arrays)

        loss, gradients = mx.compile(mx.value_and_grad(loss_of))(tree, *arrays)
        mx.eval(loss, gradients)
        model.update(tree)
        return loss.item(), dict(tree_flatten(gradients))

    return compute
