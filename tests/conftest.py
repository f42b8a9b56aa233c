"""Small real trainings on the bundled model, in this process."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

os.environ["MLX_ENABLE_TF32"] = "0"  # tests compare numbers exactly; MLX's own tests set it too

from mlxsched.bundled import data_path, model_path
from mlxsched.config import load_config
from mlxsched.runs.directory import RunDirectory
from mlxsched.training.acceleration import accelerate
from mlxsched.training.assembly import make_loader, make_pace
from mlxsched.training.run import create_run, execute, sinks_of, start
from mlxsched.training.session import prepare

sys.path.insert(0, str(Path(__file__).parent))  # for `strategies` and `gguf_files`

SMALL = {"iters": 12, "batch_size": 4, "val_batches": 2, "steps_per_eval": 5, "save_every": 5, "test": False}


@pytest.fixture
def session():
    """Make a session of a short run; keyword arguments are config values."""

    def make(**flags):
        loaded = load_config(flags={**SMALL, **flags})
        return prepare(loaded.config, loaded.origins)

    return make


@pytest.fixture
def train(session, tmp_path):
    """Train a short run to its end; gives run, progress and the events."""

    def make(name="run", **flags):
        made = session(**flags)
        run = create_run(made, tmp_path / name)
        events = []
        progress = execute(made, run, events.append)
        return run, progress, events

    return make


@pytest.fixture
def interrupted(session, tmp_path):
    """Make some updates of a run, then let go of it as a kill would; gives its session and its path."""

    def make(name, updates, **flags):
        made = session(**flags)
        run = create_run(made, tmp_path / name)
        with run.lock():
            loop, measurement = start(made, run, sinks_of(run))
            measurement.before()
            for _ in range(updates):
                loop.step()
        return made, run.path

    return make


@pytest.fixture
def resume():
    """Resume the run in a directory with a session built again; gives the run and its progress."""

    def make(made, path, emit=lambda event: None):
        run = RunDirectory.open(path)
        progress = execute(prepare(made.config, made.origins), run, emit, resume=True)
        return run, progress

    return make


@pytest.fixture
def parts_of(tmp_path):
    """The forward paths, the pace and the batch loader of a session, without a run directory."""

    def make(made):
        paths = accelerate(made, tmp_path, lambda text: None)
        pace = make_pace(made)
        return paths, pace, make_loader(made, paths.training, pace)

    return make


@pytest.fixture
def architecture(tmp_path):
    """Save a random model of an architecture of mlx-lm, with the bundled tokenizer; gives its directory."""

    def make(kind: str, *, quantized: bool = False) -> Path:
        return save_random_model(tmp_path / f"{kind}-{quantized}", kind, quantized)

    return make


COMMON = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
EXTRA = {
    "llama": {},
    "qwen2": {"rope_theta": 10000.0},
    "qwen3": {"head_dim": 16, "rope_theta": 10000.0, "max_position_embeddings": 512},
    "gemma2": {
        "head_dim": 16,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": 16,
    },
    "qwen3_moe": {
        "head_dim": 16,
        "rope_theta": 10000.0,
        "max_position_embeddings": 512,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 64,
        "norm_topk_prob": True,
    },
    "gemma3_text": {"head_dim": 16, "sliding_window": 32, "sliding_window_pattern": 2},
    "granite": {
        "logits_scaling": 4.0,
        "attention_multiplier": 0.25,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
        "max_position_embeddings": 512,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": 10000.0,
    },
}


def save_random_model(target: Path, kind: str, quantized: bool) -> Path:
    import json

    import mlx.core as mx
    from mlx_lm.utils import _get_classes, quantize_model, save_model

    tokenizer = model_path("tiny")
    bundled = json.loads((tokenizer / "config.json").read_text())
    vocabulary = -(-bundled["vocab_size"] // 64) * 64
    config = {"model_type": kind, "vocab_size": vocabulary, **COMMON, **EXTRA[kind]}
    config["eos_token_id"] = bundled.get("eos_token_id")
    mx.random.seed(0)
    model_class, argument_class = _get_classes(config)
    model = model_class(argument_class.from_dict(config))
    if quantized:
        model, config = quantize_model(model, config, group_size=32, bits=4)
    target.mkdir()
    save_model(target, model, donate_model=False)
    (target / "config.json").write_text(json.dumps(config))
    for file in tokenizer.glob("*token*"):
        shutil.copy(file, target)
    return target


@pytest.fixture
def excel_rows():
    """The lines of the bundled training set."""
    return (data_path("excel") / "train.jsonl").read_text(encoding="utf-8").splitlines()
