"""Imports of whole files: values, marks, and that no key is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import mlxsched as ms
from mlxsched.config import load_config
from mlxsched.config.importers import import_config
from mlxsched.errors import ConfigError, UsageError
from mlxsched.planning.schedule import resolve_schedule

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

AXOLOTL = """\
base_model: org/model-1b
load_in_4bit: false
datasets:
  - path: org/rows
    type: alpaca
adapter: lora
sequence_len: 1024
sample_packing: true
lora_r: 16
lora_alpha: 64
lora_target_modules: [q_proj, down_proj]
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 3
optimizer: paged_adamw_8bit
lr_scheduler: cosine
learning_rate: 2e-4
train_on_inputs: true
warmup_steps: 10
bf16: auto
evals_per_epoch: 4
"""
LLAMA_FACTORY = """\
model_name_or_path: org/model-4b
trust_remote_code: true
stage: sft
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: mine
template: qwen
cutoff_len: 512
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 2.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
report_to: none
"""
PEFT = {
    "peft_type": "LORA",
    "base_model_name_or_path": "org/model",
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "target_modules": ["v_proj", "q_proj"],
    "use_rslora": False,
    "use_dora": False,
    "bias": "none",
    "modules_to_save": None,
    "inference_mode": True,
    "task_type": "CAUSAL_LM",
}


@pytest.fixture
def write(tmp_path):
    def make(name: str, content: object) -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2))
        return path

    return make


def arguments(**values):
    """What transformers itself writes into a file."""
    from transformers import TrainingArguments

    return TrainingArguments(output_dir="out", **values).to_json_string()


def test_training_arguments_of_the_real_library(write):
    text = arguments(
        learning_rate=2e-4,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=8,
        num_train_epochs=2,
        warmup_steps=0.03,
        weight_decay=0.1,
        lr_scheduler_type="cosine",
        logging_steps=5,
        save_total_limit=2,
    )
    result = import_config([write("args.json", text)])
    values = result.values
    assert values["learning_rate"] == 2e-4 and values["schedule"] == "cosine" and values["warmup"] == 0.03
    assert (values["batch_size"], values["grad_accumulation_steps"], values["epochs"]) == (4, 8, 2.0)
    assert values["optimizer_config"] == {"adamw": {"weight_decay": 0.1, "betas": [0.9, 0.999], "eps": 1e-8}}
    assert (values["steps_per_report"], values["keep_last"]) == (5, 2)
    line = next(n for n, row in enumerate(text.splitlines(), 1) if '"learning_rate"' in row)
    assert f"learning_rate: 0.0002  # from args.json:{line} learning_rate" in result.to_yaml()


def test_a_default_dump_has_nothing_to_report_but_its_directory(write):
    result = import_config([write("args.json", arguments())])
    assert [one.key for one in result.leftovers] == ["output_dir"]
    # MLX's AdamW decays weights by 0.01 by default; the Trainer does not.
    assert result.values["optimizer_config"]["adamw"]["weight_decay"] == 0.0


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.yml", AXOLOTL), ("l.yaml", LLAMA_FACTORY), ("adapter_config.json", PEFT), ("args.json", None)],
    ids=["axolotl", "llama-factory", "peft", "transformers"],
)
def test_every_key_is_converted_listed_or_named(name, content, write):
    import yaml

    content = content or arguments(bf16=False, max_steps=7, report_to=["wandb"], neftune_noise_alpha=5.0)
    path = write(name, content)
    result = import_config([path])
    yaml_text = result.to_yaml()
    for key in yaml.safe_load(path.read_text()):
        left = [one.key for one in result.leftovers].count(key) + result.without_effect.count(key)
        converted = any(entry.origin.endswith(f" {key}") for entry in result.entries)
        with_others = key in (
            "lora_alpha",
            "adam_beta1",
            "adam_beta2",
            "adam_epsilon",
            "stage",
            "finetuning_type",
        )
        with_others |= key in ("adapter", "lora_target", "lr_scheduler_kwargs")
        assert left <= 1 and (left or converted or with_others), key
        if left:
            assert key in yaml_text


@pytest.mark.parametrize(
    "kind_and_arguments",
    [
        ("linear", {}),
        ("cosine", {}),
        ("cosine", {"num_cycles": 1.5}),
        ("cosine_with_restarts", {"num_cycles": 3}),
        ("cosine_with_min_lr", {"min_lr": 1e-5}),
        ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1}),
        ("polynomial", {"power": 2.0, "lr_end": 1e-6}),
        ("constant", {}),
        ("constant_with_warmup", {}),
        ("inverse_sqrt", {}),
        ("warmup_stable_decay", {"num_decay_steps": 20}),
    ],
    ids=str,
)
@pytest.mark.parametrize("warmup", [{"warmup_steps": 0}, {"warmup_steps": 12}, {"warmup_ratio": 0.1}])
def test_the_written_file_gives_transformers_rates(kind_and_arguments, warmup, write, tmp_path):
    kind, extra = kind_and_arguments
    given = {"lr_scheduler_type": kind, "lr_scheduler_kwargs": extra, "learning_rate": 3e-4, "max_steps": 97}
    result = import_config([write("args.json", given | warmup | {"output_dir": "o"})])
    (tmp_path / "ours.yaml").write_text(result.to_yaml())
    loaded = load_config(file=tmp_path / "ours.yaml")
    assert loaded.config.iters == 97
    ours = resolve_schedule(loaded.config, loaded.origins, 97).schedule
    theirs = ms.from_hf(kind, 3e-4, 97, lr_scheduler_kwargs=extra, **warmup)
    assert [ours(step) for step in range(98)] == pytest.approx(
        [theirs(step) for step in range(98)], rel=1e-12
    )


def test_updates_of_transformers_become_iterations(write):
    given = {"max_steps": 100, "gradient_accumulation_steps": 4, "num_train_epochs": 3.0, "output_dir": "o"}
    result = import_config([write("args.json", given)])
    assert result.values["iters"] == 400 and "epochs" not in result.values
    assert [one.key for one in result.leftovers if one.key == "num_train_epochs"]


def test_axolotl(write):
    values = import_config([write("a.yml", AXOLOTL)]).values
    assert values["model"] == "org/model-1b" and values["data"] == "org/rows"
    assert values["lora_parameters"] == {
        "rank": 16,
        "scale": 4.0,
        "dropout": 0.0,
        "keys": ["mlp.down_proj", "self_attn.q_proj"],
    }
    assert values["optimizer"] == "adamw" and values["mask_prompt"] is False and values["packing"] is True
    assert (values["warmup"], values["epochs"], values["max_seq_length"]) == (10, 3.0, 1024)


def test_axolotls_floor_of_the_cosine_and_its_default_warmup(write):
    text = AXOLOTL.replace("warmup_steps: 10\n", "cosine_min_lr_ratio: 0.2\n")
    values = import_config([write("a.yml", text)]).values
    assert values["schedule"] == {"name": "hf.cosine_with_min_lr", "min_lr_rate": 0.2}
    assert values["warmup"] == 0.03


def test_llama_factorys_alpha_is_twice_the_rank(write):
    result = import_config([write("l.yaml", LLAMA_FACTORY)])
    assert result.values["lora_parameters"] == {"rank": 8, "scale": 2.0, "dropout": 0.0}
    reasons = {one.key: one.reason for one in result.leftovers}
    assert "--trust-remote-code" in reasons["trust_remote_code"] and "dataset_info.json" in reasons["dataset"]
    assert "trust_remote_code" not in result.values


@pytest.mark.parametrize(
    ("changes", "scale"),
    [({}, 2.0), ({"use_rslora": True}, 8.0), ({"lora_alpha": 8}, 0.5), ({"lora_alpha": None}, 0.5)],
    ids=str,
)
def test_scale_is_alpha_over_r(changes, scale, write):
    result = import_config([write("adapter_config.json", PEFT | changes)])
    assert result.values["lora_parameters"]["scale"] == pytest.approx(scale)


def test_unknown_modules_are_listed_and_dora_is_kept(write):
    given = PEFT | {"target_modules": ["c_attn", "q_proj"], "use_dora": True, "modules_to_save": ["lm_head"]}
    result = import_config([write("adapter_config.json", given)])
    assert result.values["fine_tune_type"] == "dora" and "keys" not in result.values["lora_parameters"]
    assert {one.key for one in result.leftovers} == {"target_modules", "modules_to_save"}


def test_two_files_make_one_config_and_both_are_named(write):
    args, adapter = write("args.json", arguments(learning_rate=1e-3)), write("adapter_config.json", PEFT)
    result = import_config([args, adapter])
    assert result.values["learning_rate"] == 1e-3 and result.values["lora_parameters"]["rank"] == 16
    assert (
        result.notes == [] and "args.json" in result.to_yaml() and "adapter_config.json:" in result.to_yaml()
    )
    assert import_config([args]).notes


def test_masks_and_lengths_of_sft_config(write):
    given = {"output_dir": "o", "max_length": 700, "packing": True, "assistant_only_loss": True}
    values = import_config([write("sft.json", given)]).values
    assert (values["max_seq_length"], values["packing"], values["mask_prompt"]) == (700, True, True)
    given = {"output_dir": "o", "completion_only_loss": False, "optim": "lion_32bit", "weight_decay": 0.3}
    values = import_config([write("sft.json", given)]).values
    assert values["mask_prompt"] is False
    assert values["optimizer_config"] == {"lion": {"weight_decay": 0.3, "betas": [0.9, 0.999]}}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "args.json",
            '{\n"output_dir": "o",\n"learning_rate": "fast"\n}',
            "args.json:3: `learning_rate` must be a number",
        ),
        (
            "args.json",
            '{\n"output_dir": "o",\n"learning_rate": -1\n}',
            "args.json:3: `learning_rate` must be above 0",
        ),
        ("args.json", '{\n"output_dir": "o",\n"max_grad_norm": -1\n}', "args.json:3 max_grad_norm"),
        ("args.json", '{"lr_scheduler_type": "cosin"}', "'cosine'"),
        ("args.json", '{"output_dir": "o", "optim": "sgd", "max_steps": 2.5}', "whole number"),
        ("p.json", '{"peft_type": "IA3", "r": 8}', "must be LORA"),
        ("l.yaml", "stage: dpo\nfinetuning_type: lora\n", "l.yaml:1: `stage` must be sft or pt"),
        ("a.yml", "base_model: m\nadapter: lokr\n", "a.yml:2: `adapter` must be lora or qlora"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_its_place(name, content, said, write):
    with pytest.raises(ConfigError) as caught:
        import_config([write(name, content)])
    assert said in str(caught.value)


def test_unknown_formats_and_mlx_lms_own_are_refused(write):
    with pytest.raises(UsageError, match="runs unchanged"):
        import_config([write("m.yaml", "iters: 100\nlora_parameters: {rank: 8}\nadapter_path: a\n")])
    with pytest.raises(UsageError, match="none of the known formats"):
        import_config([write("x.yaml", "colour: red\n")])
    with pytest.raises(UsageError, match="'peft'"):
        import_config([write("x.yaml", "r: 8\n")], "pefd")


@pytest.mark.parametrize("length", [{"max_steps": 100}, {"num_train_epochs": 2}])
def test_intervals_in_updates_stay_the_same_when_the_file_is_read(write, tmp_path, length):
    text = arguments(
        gradient_accumulation_steps=4, logging_steps=5, eval_steps=20, eval_strategy="steps", **length
    )
    path = tmp_path / "ours.yaml"
    path.write_text(import_config([write("args.json", text)]).to_yaml())
    config = load_config(file=path).config
    assert (config.steps_per_report, config.steps_per_eval) == (5, 20)
