"""Names of other tools: each leads to ours, with the value converted."""

from __future__ import annotations

import pytest

from mlxsched.config import RunConfig, load_config
from mlxsched.config.names import NAMES, Renamed, advice
from mlxsched.config.schema import LoraParameters
from mlxsched.errors import ConfigError


def test_every_name_leads_to_a_key_that_exists():
    keys = set(RunConfig.model_fields) | {f"lora_parameters.{key}" for key in LoraParameters.model_fields}
    assert {entry.key for entry in NAMES.values() if isinstance(entry, Renamed)} <= keys


def test_no_name_is_one_of_ours():
    assert not NAMES.keys() & RunConfig.model_fields.keys()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("lora_layers: 8", "num_layers: 8"),
        ("gradient_accumulation_steps: 4", "grad_accumulation_steps: 4"),
        ("lr_scheduler_type: cosine", "schedule: cosine"),
        ("lr_scheduler_type: cosine_with_restarts", "schedule: hf.cosine_with_restarts"),
        ("num_train_epochs: 2", "epochs: 2"),
        ("lora_r: 8", "lora_parameters: {rank: 8}"),
        ("lora_parameters: {r: 8}", "lora_parameters: {rank: 8}"),
        ("lora_alpha: 32\nlora_r: 16", "lora_parameters: {scale: 2.0}"),
        ("lora_alpha: 32\nlora_parameters: {rank: 64}", "lora_parameters: {scale: 0.5}"),
        (
            "target_modules: [q_proj, down_proj]",
            'lora_parameters: {keys: ["self_attn.q_proj", "mlp.down_proj"]}',
        ),
        ("logging_steps: 10", "steps_per_report: 10"),
        ("save_total_limit: 2", "keep_last: 2"),
        ("max_steps: 100\ngrad_accumulation_steps: 8", "steps: 100"),
        ("train_on_inputs: false", "mask_prompt: true"),
        ("optim: paged_adamw_8bit", "optimizer: adamw"),
        ("cosine_min_lr_ratio: 0.1\nlearning_rate: 1e-4", "end_lr: 1e-05"),
        ("use_dora: true", "fine_tune_type: dora"),
        ("adam_epsilon: 1e-6", "optimizer_config: {adamw: {eps: 1e-06}}"),
        ("output_dir: out", "run_dir: out"),
        ("Num-Train-Epochs: 2", "epochs: 2"),
    ],
)
def test_a_key_is_answered_with_ours_and_the_converted_value(tmp_path, text, written):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file=path)
    assert f"{written}`." in str(caught.value)
    path.write_text(written)
    load_config(file=path)  # the suggestion is accepted


def test_a_value_that_cannot_be_converted_is_left_out():
    told = advice("max_steps", -1, {})
    assert told is not None and "`steps`" in told and "Write" not in told


def repr_of(value):
    return repr(value)[:20]


@pytest.mark.parametrize(
    "value", [None, "x", [1], {"a": 1}, True, float("nan"), 10**400, "\x1b[31m"], ids=repr_of
)
def test_no_value_breaks_the_advice(value):
    for name in NAMES:
        for flag in (False, True):
            told = advice(name, value, {"learning_rate": value, "rank": value}, flag=flag)
            assert told and "\x1b" not in told


def test_spelling_comes_last_and_only_where_it_is_near():
    def told(key):
        with pytest.raises(ConfigError) as caught:
            load_config(flags={key: 1})
        return str(caught.value)

    assert "Did you mean 'learning_rate'?" in told("lerning_rate")
    assert "Did you mean" not in told("frobnicate")
