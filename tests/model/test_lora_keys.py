"""LoRA keys that match nothing are refused, and default keys train every architecture."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxsched.errors import UsageError
from mlxsched.model import adapters
from mlxsched.model.lora_keys import is_adapted, trains
from mlxsched.model.trees import flatten

LORA = {"rank": 4, "scale": 20.0, "dropout": 0.0}


def attach(model, kind="lora", layers=2, seed=1, **lora):
    return adapters.attach(model, kind, layers, {**LORA, **lora}, seed)


def adapted(model):
    return sorted(name for name, module in model.named_modules() if is_adapted(module))


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_attaching_again_is_as_attaching_once(build, kind):
    once, twice = build(), build()
    attach(once, kind)
    expected = flatten(once.trainable_parameters())
    attach(twice, kind, layers=4, seed=9, rank=2)
    attach(twice, kind)
    got = flatten(twice.trainable_parameters())
    assert adapted(twice) == adapted(once) and len(adapted(once)) == 14
    assert got.keys() == expected.keys()
    assert all(mx.array_equal(got[path], value).item() for path, value in expected.items())


def test_full_fine_tuning_after_lora_trains_the_original_modules(build):
    model = build()
    before = flatten(model.parameters())
    attach(model, "full", layers=1)
    trained = flatten(model.trainable_parameters())
    assert not adapted(model)
    assert all(path.startswith("model.layers.3.") for path in trained) and trained
    assert "model.layers.3.self_attn.q_proj.weight" in trained
    assert mx.array_equal(
        trained["model.layers.3.mlp.up_proj.weight"], before["model.layers.3.mlp.up_proj.linear.weight"]
    ).item()


def test_detaching_restores_the_modules_themselves(build):
    model = build()
    linear = model.layers[3].self_attn.q_proj.linear
    adapters.detach(model)
    assert model.layers[3].self_attn.q_proj is linear
    assert not adapted(model) and not flatten(model.trainable_parameters())


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("q_proj", "self_attn.q_proj"),
        ("self_attn.q_porj", "self_attn.q_proj"),
        ("base_model.mlp.up_proj", "mlp.up_proj"),
        ("embed_tokens", "model.embed_tokens"),
    ],
)
def test_a_key_that_matches_nothing_is_refused_with_the_nearest(build, key, near):
    with pytest.raises(UsageError, match=rf"'{key}' \(did you mean '{near}'\?\)"):
        attach(build(), keys=["self_attn.v_proj", key])


def test_a_key_of_what_is_no_linear_layer_is_refused(build):
    with pytest.raises(UsageError, match="input_layernorm"):
        attach(build(), keys=["input_layernorm"])


def test_the_whole_model_has_keys_too(build):
    model = build()
    attach(model, keys=["self_attn.q_proj", "model.embed_tokens"], layers=1)
    assert adapted(model) == ["model.embed_tokens", "model.layers.3.self_attn.q_proj"]


class ReadsWeights(nn.Module):
    """Reads the weight of one of its modules itself, as Gemma 3n's AltUp does."""

    def __init__(self):
        super().__init__()
        self.linear, self.coefficients = nn.Linear(8, 8), nn.Linear(8, 8)

    def __call__(self, x):
        return self.linear(x) + x @ self.coefficients.weight.T


class Strange(nn.Module):
    model_type = "strange"

    def __init__(self, *kinds):
        super().__init__()
        self.embedding = nn.Embedding(16, 8)
        self.layers = [kind() for kind in kinds]

    def __call__(self, inputs):
        x = self.embedding(inputs)
        for layer in self.layers:
            x = layer(x)
        return self.embedding.as_linear(x)


class OnlyReadsWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.coefficients = nn.Linear(8, 8)

    def __call__(self, x):
        return x @ self.coefficients.weight.T


def test_default_keys_leave_out_what_breaks_the_model():
    model = Strange(ReadsWeights, ReadsWeights)
    attached = attach(model, layers=1)
    assert attached.layers == 1 and attached.keys == ("linear",)
    assert attached.notes == ("LoRA left out of coefficients: strange does not support it there",)
    assert adapted(model) == ["layers.1.linear"]
    assert trains(model)


def test_a_key_that_breaks_the_model_is_refused():
    with pytest.raises(
        UsageError, match="strange can't be trained with --fine-tune-type lora in coefficients"
    ):
        attach(Strange(ReadsWeights), keys=["coefficients"])


def test_a_model_that_cannot_be_trained_at_all_is_refused_by_name():
    with pytest.raises(UsageError, match="strange can't be trained with --fine-tune-type lora"):
        attach(Strange(OnlyReadsWeights))


def test_an_ordinary_model_keeps_mlx_lms_default(build):
    model = build()
    assert attach(model) == adapters.Attached(2)


def test_a_model_that_cannot_be_frozen_is_refused_by_name():
    class NeverInitialized(nn.Module):
        model_type = "careless"

        def __init__(self):
            self.layers = []

    with pytest.raises(UsageError, match="careless can't be trained with --fine-tune-type full"):
        attach(NeverInitialized(), "full")


def test_experts_are_left_out_of_dora(build):
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 1, "mlp_only_layers": []}
    model = build("qwen3_moe", moe_intermediate_size=32, norm_topk_prob=True, **experts)
    attached = attach(model, "dora")
    assert attached.keys and not any("switch_mlp" in key for key in attached.keys)
    assert attached.notes[0].startswith("DoRA left out of mlp.switch_mlp.down_proj, ")
    assert {name.split(".", 3)[3] for name in adapted(model)} == set(attached.keys)


def test_0_means_all_layers_as_in_mlx_lm(build):
    once, twice = build(), build()
    assert attach(once, layers=0).layers == attach(twice, layers=-1).layers == 4
    assert adapted(once) == adapted(twice)
