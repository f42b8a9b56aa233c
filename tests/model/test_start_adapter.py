"""A start adapter brings its settings, whether mlx-lm or PEFT wrote it; contradictions are refused with both values."""

from __future__ import annotations

import json
import re

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.config import load_config
from mlxsched.errors import ModelError, UsageError
from mlxsched.model import adapters
from mlxsched.model.start_adapter import attach_adapter
from mlxsched.model.trees import flatten

KEYS = ["self_attn.q_proj", "self_attn.v_proj"]


@pytest.fixture
def attach(build):
    """Attach the adapter of a config to a fresh model."""

    def make(file, **flags):
        loaded = load_config(flags={"resume_adapter_file": str(file), **flags})
        model = build()
        config, attached = attach_adapter(loaded.config, loaded.origins, model)
        return model, config, attached

    return make


@pytest.fixture
def stored(build, tmp_path):
    """A folder with an adapter of mlx-lm: rank 4, scale 10, keys, two layers."""
    model = build()
    lora = {"rank": 4, "scale": 10.0, "dropout": 0.0, "keys": KEYS}
    adapters.attach(model, "lora", 2, lora, 3)
    mx.random.seed(5)
    weights = {path: mx.random.normal(v.shape) for path, v in flatten(model.trainable_parameters()).items()}
    adapters.save(tmp_path, adapters.adapter_config("tiny", "lora", 2, lora), weights)
    return tmp_path, weights


def test_settings_that_nobody_chose_are_taken_over(attach, stored):
    folder, weights = stored
    model, config, attached = attach(folder / adapters.WEIGHTS)
    lora = config.lora_parameters
    assert (lora.rank, lora.scale, lora.keys, config.num_layers, attached.layers) == (4, 10.0, KEYS, 2, 2)
    assert "rank 4" in attached.notes[0] and "scale 10.0" in attached.notes[0]
    got = flatten(model.trainable_parameters())
    assert got.keys() == weights.keys()
    assert all(mx.array_equal(got[path], value).item() for path, value in weights.items())
    assert model.layers[3].self_attn.q_proj.scale == 10.0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"lora_parameters.scale": 20.0}, "scale is 20.0 here and 10.0 there"),
        ({"lora_parameters.rank": 16}, "rank is 16 here and 4 there"),
        ({"num_layers": 3}, "num_layers is 3 here and 2 there"),
        ({"fine_tune_type": "dora"}, "fine_tune_type is dora here and lora there"),
        ({"lora_parameters.keys": ["mlp.up_proj"]}, r"keys is \['mlp.up_proj'\] here and"),
    ],
)
def test_settings_that_contradict_are_refused(attach, stored, flags, said):
    with pytest.raises(UsageError, match=said):
        attach(stored[0], **flags)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora_parameters": {"rank": "four"}}, "lora_parameters.rank is 'four'"),
        ({"lora_parameters": {"rank": 2**31}}, "lora_parameters.rank is 2147483648"),
        ({"lora_parameters": {"keys": [3]}}, "lora_parameters.keys.0 is 3"),
        ({"fine_tune_type": "qlora"}, "fine_tune_type is 'qlora'"),
        ({"num_layers": "all"}, "num_layers is 'all'"),
    ],
)
def test_settings_that_no_run_can_have_are_refused_by_name(attach, stored, changes, said):
    file = stored[0] / adapters.CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ModelError, match=re.escape(said)):
        attach(stored[0])


def test_settings_that_agree_need_no_note(attach, stored):
    same = {"lora_parameters.rank": 4, "lora_parameters.scale": 10.0, "lora_parameters.keys": KEYS[::-1]}
    assert attach(stored[0], num_layers=2, **same)[2].notes == ()


def test_without_settings_the_shapes_decide(attach, stored):
    (stored[0] / adapters.CONFIG).unlink()
    with pytest.raises(ModelError, match="does not fit the model"):
        attach(stored[0])


def test_half_precision_weights_are_trained_in_float32(attach, stored):
    folder, weights = stored
    half = {path: value.astype(mx.bfloat16) for path, value in weights.items()}
    mx.save_safetensors(str(folder / adapters.WEIGHTS), half)
    model, _, _ = attach(folder)
    got = flatten(model.trainable_parameters())
    assert {value.dtype for value in got.values()} == {mx.float32}
    assert all(mx.array_equal(got[p], v.astype(mx.float32)).item() for p, v in half.items())


# PEFT


def peft(folder, *, layers=range(4), rank=8, keys=("q_proj", "v_proj"), magnitude=False, **config):
    """An adapter as PEFT writes it, and the product of its matrices by module."""
    mx.random.seed(7)
    folder.mkdir(exist_ok=True)
    weights, products = {}, {}
    for layer in layers:
        for key in keys:
            width = 64 if key == "q_proj" else 32
            name = f"model.layers.{layer}.self_attn.{key}"
            a, b = mx.random.normal((rank, 64)), mx.random.normal((width, rank))
            weights[f"base_model.model.{name}.lora_A.weight"] = a
            weights[f"base_model.model.{name}.lora_B.weight"] = b
            if magnitude:
                weights[f"base_model.model.{name}.lora_magnitude_vector.weight"] = mx.arange(width) + 1.0
            products[name] = np.array(b) @ np.array(a)
    mx.save_safetensors(str(folder / "adapter_model.safetensors"), weights)
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 16, "target_modules": list(keys), **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return products


@pytest.mark.parametrize(("extra", "scale"), [({}, 2.0), ({"use_rslora": True}, 16 / 8**0.5)])
@pytest.mark.parametrize("name", ["", "adapter_model.safetensors"])
def test_a_peft_adapter_computes_the_same(attach, build, tmp_path, extra, scale, name):
    products = peft(tmp_path / "peft", **extra)
    model, config, attached = attach(tmp_path / "peft" / name)
    assert config.lora_parameters.scale == pytest.approx(scale)
    assert (config.lora_parameters.rank, config.lora_parameters.keys, attached.layers) == (8, KEYS, 4)
    # The definition: x (W + scale B A)^T in every adapted module
    x = mx.random.normal((3, 64))
    modules = dict(model.named_modules())
    for path, product in products.items():
        base = np.array(x) @ np.array(modules[path].linear.weight).T
        np.testing.assert_allclose(
            modules[path](x), base + scale * np.array(x) @ product.T, rtol=1e-4, atol=1e-4
        )


def test_a_peft_dora_has_its_magnitudes(attach, tmp_path):
    peft(tmp_path / "peft", magnitude=True, use_dora=True)
    model, config, _ = attach(tmp_path / "peft")
    assert config.fine_tune_type == "dora"
    assert mx.array_equal(model.layers[0].self_attn.v_proj.m, mx.arange(32) + 1.0).item()


def test_modules_that_a_peft_adapter_lacks_start_fresh(attach, tmp_path):
    peft(tmp_path / "peft", layers=[1, 3])
    model, _, attached = attach(tmp_path / "peft")
    assert attached.layers == 3
    assert not mx.any(model.layers[2].self_attn.q_proj.lora_b).item()
    assert mx.any(model.layers[1].self_attn.q_proj.lora_b).item()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "LOHA"}, "type LOHA; only LORA"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias = all"),
        ({"r": "8"}, "r = '8'"),
        ({"r": 0}, "r = 0"),
        ({"lora_alpha": None}, "lora_alpha = None"),
    ],
)
def test_what_mlx_lm_cannot_express_is_refused(attach, tmp_path, config, said):
    peft(tmp_path / "peft", **config)
    with pytest.raises(ModelError, match=said):
        attach(tmp_path / "peft")


def test_a_peft_adapter_of_another_model_is_refused(attach, tmp_path):
    peft(tmp_path / "peft", layers=[7])
    with pytest.raises(ModelError, match="PEFT adapter of another model.*layers.7"):
        attach(tmp_path / "peft")


def test_a_pickled_peft_adapter_is_refused(attach, tmp_path):
    (tmp_path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="pickle"):
        attach(tmp_path)


def test_a_peft_adapter_without_its_settings_is_refused(attach, tmp_path):
    peft(tmp_path / "peft")
    (tmp_path / "peft" / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match="PEFT adapter without its adapter_config.json"):
        attach(tmp_path / "peft")
