"""What a prepared session is, before its first update."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

from mlxsched.config import load_config
from mlxsched.data import Dataset
from mlxsched.data.rows import rows_in_memory
from mlxsched.errors import DataError
from mlxsched.model.fast.self_check import SelfCheck
from mlxsched.model.load import LoadedModel
from mlxsched.training.session import prepare, refuse_missing

NEXT = {
    "model_type": "qwen3_next", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 211,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "partial_rotary_factor": 0.5, "max_position_embeddings": 128, "tie_word_embeddings": True, "full_attention_interval": 2,
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4, "num_experts": 0, "num_experts_per_tok": 1, "decoder_sparse_step": 1,
    "shared_expert_intermediate_size": 32, "mlp_only_layers": [], "moe_intermediate_size": 32,
}  # fmt: skip


@pytest.fixture
def rows():
    draw = np.random.default_rng(0)
    return rows_in_memory(
        (draw.integers(1, 200, length).astype(np.int32), np.arange(length) > 3) for length in (7, 8, 6, 8)
    )


def test_data_that_is_not_there_is_refused_before_a_model_is_fetched():
    config = load_config(flags={"model": "no-one/no-model", "data": "./no-file.jsonl"}).config
    with pytest.raises(DataError, match=r"no-file\.jsonl"):
        prepare(config)


def test_bad_rows_at_the_beginning_are_refused_before_a_model_is_fetched(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"text": "a"}, {"question": "c"}, {"text": ""}, {"messages": [{"role": "user", "content": "hi"}]}]
    path.write_text('{"text": "b"\n' + "".join(json.dumps(row) + "\n" for row in rows))
    flags = {"model": "no-one/no-model", "data": str(path)}
    with pytest.raises(DataError, match="4 rows of the first 5 in") as caught:
        prepare(load_config(flags=flags).config)
    for line, what in ((1, "not JSON"), (3, "needs"), (4, '"text" is empty'), (5, "no assistant message")):
        assert f"rows.jsonl:{line}: {what}" in str(caught.value)
    refuse_missing(load_config(flags={**flags, "skip_bad_rows": True}).config)


def test_a_model_in_evaluation_mode_is_checked_and_probed_without_the_kernel_that_has_no_backward_pass(
    rows, monkeypatch
):
    module = importlib.import_module("mlx_lm.models.qwen3_next")
    model = module.Model(module.ModelArgs.from_dict(NEXT))
    model.eval()  # as mlx_lm.load returns it
    original, kernels = module.gated_delta_update, []

    def update(*args, use_kernel=True, **more):
        kernels.append(use_kernel)
        return original(*args, use_kernel=use_kernel, **more)

    monkeypatch.setattr(module, "gated_delta_update", update)
    config = load_config(flags={"batch_size": 1, "iters": 1, "test": False, "fast": False}).config
    loaded = LoadedModel("next", "next", model, None, NEXT)
    made = prepare(config, loaded=loaded, dataset=Dataset({"train": rows}, "synthetic"))
    SelfCheck(made.loaded.model, rows)
    assert kernels and not any(kernels)
