"""Random models of several architectures, saved in mlx-lm's format, train for a few updates; also quantized."""

from __future__ import annotations

import math

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.model import adapters
from mlxsched.model.load import load_model
from mlxsched.runs.events import UpdateMade

SETTINGS = {
    "iters": 4,
    "batch_size": 4,
    "val_batches": 1,
    "learning_rate": 1e-2,
    "schedule": "constant",
    "warmup": 0,
}


@pytest.mark.parametrize(
    ("kind", "quantized"),
    [
        *(("llama", quantized) for quantized in (False, True)),
        ("qwen3", True),
        ("gemma2", False),
        ("gemma3_text", True),
        ("granite", False),
    ],
)
def test_trains_for_a_few_updates(train, architecture, kind, quantized):
    model = architecture(kind, quantized=quantized)
    run, _, events = train(model=str(model), **SETTINGS)
    losses = [e.loss for e in events if isinstance(e, UpdateMade)]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]

    loaded = load_model(str(model))
    from mlx_lm.tuner.utils import load_adapters

    load_adapters(loaded.model, str(run.adapters))  # mlx-lm's own loader takes it
    assert any(
        mx.any(v != 0).item()
        for k, v in mx.load(str(run.adapters / "adapters.safetensors")).items()
        if "lora_b" in k
    )


def test_dora_and_keys(train, architecture):
    keys = ["self_attn.q_proj", "mlp.up_proj"]
    flags = {"lora_parameters.keys": keys, "fine_tune_type": "dora"}
    run, _, events = train(model=str(architecture("llama")), **SETTINGS, **flags)
    names = mx.load(str(run.adapters / "adapters.safetensors")).keys()
    assert {name.rsplit(".", 1)[0].split(".", 3)[-1] for name in names} == set(keys)
    assert any(name.endswith(".m") for name in names)
    assert math.isfinite([e for e in events if isinstance(e, UpdateMade)][-1].loss)


def test_half_precision_is_widened_on_the_cpu_and_computes_the_same(architecture, tmp_path):
    directory = architecture("llama")
    weights = mx.load(str(directory / "model.safetensors"))
    mx.save_safetensors(
        str(directory / "model.safetensors"), {k: v.astype(mx.bfloat16) for k, v in weights.items()}
    )
    loaded = load_model(str(directory))
    adapters.attach(loaded.model, "lora", 1, {"rank": 2, "scale": 1.0, "dropout": 0.0}, seed=0)
    logits = loaded.model(mx.array([[1, 2, 3]]))
    if mx.default_device().type == mx.DeviceType.cpu:
        assert loaded.notes and "float32" in loaded.notes[0]
        assert logits.dtype == mx.float32
    assert np.isfinite(np.array(logits.astype(mx.float32))).all()
