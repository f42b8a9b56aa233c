"""What other tools call things: transformers, TRL, PEFT, Unsloth, axolotl, older versions of mlx-lm.

A key of theirs is not accepted, because its unit or default may differ; the message names ours with the value
converted. Spelling comes after this table: by spelling, ``lora_alpha`` is nearest to ``lora_plus_ratio``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlxsched.text import printable

Values = Mapping[str, Any]
Convert = Callable[[Any, Values], Any]


@dataclass(frozen=True)
class Renamed:
    """A setting that exists here under another name.

    Args:
        tool: who calls it that.
        key: our key, with a dot for nested ones.
        convert: from their value and all other values that were given to ours; None if they are the same.
        note: what else to know.
    """

    tool: str
    key: str
    convert: Convert | None = None
    note: str = ""


@dataclass(frozen=True)
class Explained:
    """A setting without a counterpart, and what to do instead."""

    tool: str
    text: str


# Conversions of values


def _number(value: Any, default: float | None = None) -> float | None:
    if isinstance(value, bool):
        return default
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return default
    return number if math.isfinite(number) else default


def _first(values: Values, *names: str) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)


def _updates(value: Any, _: Values) -> int | None:
    """The number of updates; in transformers, -1 means that the epochs decide."""
    steps = _number(value)
    return int(steps) if steps and steps > 0 else None


def _scale(value: Any, values: Values) -> float | None:
    rank = _number(_first(values, "lora_parameters.rank", "rank", "lora_r", "r", "lora_rank"), 8.0)
    alpha = _number(value)
    return round(alpha / rank, 6) if alpha is not None and rank else None


def _floor(value: Any, values: Values) -> float | None:
    """From a ratio of the peak to a rate."""
    ratio, peak = _number(value), _number(values.get("learning_rate"), 2e-4)
    return None if ratio is None or peak is None else float(f"{ratio * peak:g}")


def _schedule(value: Any, _: Values) -> str | None:
    same = {
        "linear": "linear",
        "cosine": "cosine",
        "constant": "constant",
        "constant_with_warmup": "constant",
    }
    ours = {"reduce_lr_on_plateau": "plateau", "warmup_stable_decay": "wsd", "one_cycle": "one_cycle"}
    theirs = ("cosine_with_restarts", "polynomial", "inverse_sqrt", "cosine_with_min_lr")
    return {**same, **ours, **{name: f"hf.{name}" for name in theirs}}.get(str(value).lower())


def _optimizer(value: Any, _: Values) -> str | None:
    name = str(value).lower().removeprefix("paged_")
    return next((one for one in ("adamw", "adafactor", "lion", "sgd", "muon") if name.startswith(one)), None)


def _modules(value: Any, _: Values) -> list[str] | None:
    """From module names to mlx-lm's paths within a layer."""
    if not isinstance(value, list):
        return None
    inside = dict.fromkeys(("q_proj", "k_proj", "v_proj", "o_proj"), "self_attn")
    inside |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), "mlp")
    return [f"{inside[name]}.{name}" if name in inside else name for name in map(str, value)]


def _not(value: Any, _: Values) -> bool | None:
    return not value if isinstance(value, bool) else None


def _if_true(ours: Any) -> Convert:
    return lambda value, _: ours if value is True else None


def _optimizer_argument(name: str) -> Convert:
    def convert(value: Any, values: Values) -> dict[str, Any]:
        return {str(values.get("optimizer") or "adamw").lower(): {name: value}}

    return convert


# The table

_LORA_SCALE = Renamed("PEFT", "lora_parameters.scale", _scale, "scale is alpha / rank")
_KEYS = Renamed("PEFT", "lora_parameters.keys", _modules, "leave it out for all linear layers")
_CLIP = "max_grad_norm"
_DTYPE = Explained("transformers", "The model's weights decide the precision. Remove it")
_QUANTIZE = Explained(
    "transformers", "Quantize the model beforehand with `mlx_lm.convert -q`, and give the result as `model`"
)
_WHEN_EVAL = Explained("transformers", "Validation is always on; `steps_per_eval` says how often. Remove it")
_WHEN_SAVE = Explained("transformers", "Checkpoints are always saved; `save_every` says how often. Remove it")
_BETAS = Renamed(
    "transformers", "optimizer_config", note="write `optimizer_config: {adamw: {betas: [0.9, 0.999]}}`"
)
_EVAL_BATCH = Explained("transformers", "Validation batches are planned from the available memory. Remove it")
_LOADER = Explained("transformers", "Rows are tokenized once and cached. Remove it")
_DIRECTORY = Renamed("transformers", "run_dir")
_LENGTH = Renamed("TRL", "max_seq_length")
_RESUME = Explained("transformers", "To resume a run, use `mlxsched resume RUN`. Remove it")

NAMES: dict[str, Renamed | Explained] = {
    # length and batches
    "num_train_epochs": Renamed("transformers", "epochs"),
    "num_epochs": Renamed("axolotl", "epochs"),
    "n_epochs": Renamed("OpenAI", "epochs"),
    "max_steps": Renamed("transformers", "steps", _updates),
    "num_training_steps": Renamed("transformers", "steps", _updates),
    "iterations": Renamed("other tools", "iters"),
    "num_iters": Renamed("other tools", "iters"),
    "per_device_train_batch_size": Renamed("transformers", "batch_size"),
    "train_batch_size": Renamed("transformers", "batch_size"),
    "micro_batch_size": Renamed("axolotl", "batch_size"),
    "gradient_accumulation_steps": Renamed("transformers", "grad_accumulation_steps"),
    "accumulate_grad_batches": Renamed("Lightning", "grad_accumulation_steps"),
    "grad_accum_steps": Renamed("other tools", "grad_accumulation_steps"),
    "grad_steps": Renamed("other tools", "grad_accumulation_steps"),
    "group_by_length": Renamed("transformers", "length_window", _if_true(8)),
    "random_state": Renamed("Unsloth", "seed"),
    "data_seed": Renamed("transformers", "seed"),
    # learning rate
    "lr": Renamed("torch", "learning_rate"),
    "peak_lr": Renamed("other tools", "learning_rate"),
    "max_lr": Renamed("torch", "learning_rate"),
    "lr_scheduler_type": Renamed("transformers", "schedule", _schedule),
    "lr_scheduler": Renamed("axolotl", "schedule", _schedule),
    "scheduler": Renamed("other tools", "schedule", _schedule),
    "lr_scheduler_kwargs": Renamed("transformers", "schedule", note="write them into the spec"),
    "warmup_steps": Renamed("transformers", "warmup"),
    "warmup_ratio": Renamed("transformers", "warmup"),
    "num_warmup_steps": Renamed("transformers", "warmup"),
    "warmup_iters": Renamed("nanoGPT", "warmup"),
    "min_lr": Renamed("nanoGPT", "end_lr"),
    "lr_end": Renamed("transformers", "end_lr"),
    "min_lr_ratio": Renamed("other tools", "end_lr", _floor, "a rate, not a ratio"),
    "cosine_min_lr_ratio": Renamed("axolotl", "end_lr", _floor, "a rate, not a ratio"),
    # optimizer
    "optim": Renamed("transformers", "optimizer", _optimizer),
    "optimizer_name": Renamed("other tools", "optimizer", _optimizer),
    "wd": Renamed("other tools", "weight_decay"),
    "adam_beta1": _BETAS,
    "adam_beta2": _BETAS,
    "betas": Renamed("torch", "optimizer_config", _optimizer_argument("betas")),
    "adam_epsilon": Renamed("transformers", "optimizer_config", _optimizer_argument("eps")),
    "eps": Renamed("torch", "optimizer_config", _optimizer_argument("eps")),
    "momentum": Renamed("torch", "optimizer_config", _optimizer_argument("momentum")),
    "gradient_clipping": Renamed("DeepSpeed", _CLIP),
    "gradient_clip_val": Renamed("Lightning", _CLIP),
    "grad_clip": Renamed("nanoGPT", _CLIP),
    "clip_grad": Renamed("timm", _CLIP),
    "clip_grad_norm": Renamed("torchtune", _CLIP),
    "label_smoothing_factor": Renamed("transformers", "label_smoothing"),
    "loraplus_lr_ratio": Renamed("axolotl", "lora_plus_ratio"),
    "neftune_noise_alpha": Explained("transformers", "NEFTune is not supported. Remove it"),
    # LoRA
    "r": Renamed("PEFT", "lora_parameters.rank"),
    "lora_r": Renamed("axolotl", "lora_parameters.rank"),
    "lora_rank": Renamed("LLaMA-Factory", "lora_parameters.rank"),
    "rank": Renamed("mlx-lm's block", "lora_parameters.rank"),
    "scale": Renamed("mlx-lm's block", "lora_parameters.scale"),
    "dropout": Renamed("mlx-lm's block", "lora_parameters.dropout"),
    "keys": Renamed("mlx-lm's block", "lora_parameters.keys"),
    "alpha": _LORA_SCALE,
    "lora_alpha": _LORA_SCALE,
    "lora_scale": Renamed("other tools", "lora_parameters.scale"),
    "lora_dropout": Renamed("PEFT", "lora_parameters.dropout"),
    "target_modules": _KEYS,
    "lora_target_modules": _KEYS,
    "lora_target": _KEYS,
    "lora_target_linear": Explained("axolotl", "All linear layers are adapted by default. Remove it"),
    "lora_layers": Renamed("older mlx-lm", "num_layers"),
    "finetune_layers": Renamed("other tools", "num_layers"),
    "use_dora": Renamed("PEFT", "fine_tune_type", _if_true("dora")),
    "peft_use_dora": Renamed("axolotl", "fine_tune_type", _if_true("dora")),
    "use_rslora": Explained("PEFT", "Write `lora_parameters: {scale: ...}` with alpha / sqrt(rank)"),
    "adapter": Renamed("axolotl", "fine_tune_type", lambda value, _: value if value == "lora" else None),
    "train_type": Renamed("mlx-lm-lora", "fine_tune_type"),
    "finetuning_type": Renamed("LLaMA-Factory", "fine_tune_type"),
    "full_finetuning": Renamed("Unsloth", "fine_tune_type", _if_true("full")),
    "bias": Explained("PEFT", "Biases are not trained. Remove it"),
    "task_type": Explained("PEFT", "Only language models are trained. Remove it"),
    "modules_to_save": Explained("PEFT", "Only LoRA layers are trained; the rest stays frozen. Remove it"),
    # model and data
    "model_name_or_path": Renamed("transformers", "model"),
    "model_name": Renamed("Unsloth", "model"),
    "base_model": Renamed("axolotl", "model"),
    "model_path": Renamed("other tools", "model"),
    "model_id": Renamed("other tools", "model"),
    "dataset_name": Renamed("TRL", "data"),
    "dataset": Renamed("LLaMA-Factory", "data"),
    "datasets": Renamed("axolotl", "data", lambda value, _: _path_of_dataset(value)),
    "train_file": Renamed("transformers", "data"),
    "data_path": Renamed("other tools", "data"),
    "dataset_text_field": Renamed("TRL", "text_feature"),
    "max_length": _LENGTH,
    "sequence_len": Renamed("axolotl", "max_seq_length"),
    "cutoff_len": Renamed("LLaMA-Factory", "max_seq_length"),
    "max_seq_len": Renamed("torchtune", "max_seq_length"),
    "block_size": Renamed("nanoGPT", "max_seq_length"),
    "sample_packing": Renamed("axolotl", "packing"),
    "train_on_inputs": Renamed("axolotl", "mask_prompt", _not),
    "train_on_input": Renamed("torchtune", "mask_prompt", _not),
    "completion_only_loss": Renamed("TRL", "mask_prompt"),
    "assistant_only_loss": Renamed("TRL", "mask_prompt"),
    "val_set_size": Explained(
        "axolotl", "A single file is split automatically; otherwise put the rows into valid.jsonl. Remove it"
    ),
    # evaluation, reports, saving
    "logging_steps": Renamed("transformers", "steps_per_report"),
    "log_interval": Renamed("nanoGPT", "steps_per_report"),
    "log_every": Renamed("other tools", "steps_per_report"),
    "eval_steps": Renamed("transformers", "steps_per_eval"),
    "eval_interval": Renamed("nanoGPT", "steps_per_eval"),
    "eval_every": Renamed("other tools", "steps_per_eval"),
    "val_steps": Renamed("other tools", "steps_per_eval"),
    "save_steps": Renamed("transformers", "save_every"),
    "steps_per_save": Renamed("mlx-lm's TrainingArgs", "save_every"),
    "save_total_limit": Renamed("transformers", "keep_last"),
    "early_stopping_patience": Renamed("transformers", "patience"),
    "output_dir": _DIRECTORY,
    "out_dir": Renamed("nanoGPT", "run_dir"),
    "run_name": Renamed("transformers", "name"),
    "wandb_project": Renamed("axolotl", "project_name"),
    "wandb": Renamed("older mlx-lm", "project_name", note="together with `report_to: wandb`"),
    "adapter_file": Renamed("older mlx-lm", "adapter_path", note="a directory, not a file"),
    "gradient_checkpointing": Renamed("transformers", "grad_checkpoint"),
    "use_gradient_checkpointing": Renamed("Unsloth", "grad_checkpoint", _if_true(True)),
    "activation_checkpointing": Renamed("other tools", "grad_checkpoint"),
    "do_train": Explained("transformers", "`mlxsched train` trains. Remove it"),
    "do_eval": _WHEN_EVAL,
    "eval_strategy": _WHEN_EVAL,
    "evaluation_strategy": _WHEN_EVAL,
    "save_strategy": _WHEN_SAVE,
    "logging_strategy": Explained("transformers", "`steps_per_report` says how often. Remove it"),
    "load_best_model_at_end": Explained("transformers", "The best adapter is always kept. Remove it"),
    "metric_for_best_model": Explained("transformers", "The validation loss decides. Remove it"),
    "per_device_eval_batch_size": _EVAL_BATCH,
    "eval_batch_size": _EVAL_BATCH,
    "resume_from_checkpoint": _RESUME,
    "fp16": _DTYPE,
    "bf16": _DTYPE,
    "tf32": _DTYPE,
    "dtype": _DTYPE,
    "torch_dtype": _DTYPE,
    "load_in_4bit": _QUANTIZE,
    "load_in_8bit": _QUANTIZE,
    "dataloader_num_workers": _LOADER,
    "dataset_num_proc": _LOADER,
}


def _path_of_dataset(value: Any) -> Any:
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        return value[0].get("path")
    return None


def advice(name: str, value: object, values: Values, *, flag: bool = False) -> str | None:
    """What to write in place of another tool's key, or of its flag; None if the name is in no table.

    Args:
        name: the key or, without its dashes, the flag.
        value: the value given for it; None if it is not known.
        values: all other values that were given, for conversions that need a second one.
        flag: whether to answer with a flag.

    >>> advice("lora_alpha", 16, {"lora_r": 8})
    'That is the name in PEFT for `lora_parameters.scale` (scale is alpha / rank). Write `lora_parameters: {scale: 2.0}`.'
    >>> advice("max-steps", "100", {}, flag=True)
    'That is the name in transformers for `--steps`. Write `--steps 100`.'
    """
    found = NAMES.get(name.replace("-", "_").lower())
    if found is None:
        return None
    if isinstance(found, Explained):
        return f"That is a setting of {found.tool}. {found.text}."
    ours = found.convert(value, values) if found.convert else value
    shown = f"--{_flag_name(found.key)}" if flag and found.key != "optimizer_config" else found.key
    note = f" ({found.note})" if found.note else ""
    written = "" if ours is None else f" Write `{_written(found.key, ours, flag)}`."
    return f"That is the name in {found.tool} for `{shown}`{note}.{written}"


def _flag_name(key: str) -> str:
    return key.rpartition(".")[2].replace("_", "-")


def _written(key: str, value: Any, flag: bool) -> str:
    """Our setting as YAML or as a flag."""
    outer, _, inner = key.partition(".")
    if flag and key not in ("optimizer_config", "lora_parameters.keys"):
        if isinstance(value, bool):
            return f"--{_flag_name(key)}" if value else f"--no-{_flag_name(key)}"
        return f"--{_flag_name(key)} {printable(str(value), 80)}"
    text = _yaml(value)
    return f"{outer}: {{{inner}: {text}}}" if inner else f"{key}: {text}"


def _yaml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, str):
        return printable(value, 80)
    return printable(json.dumps(value, default=str), 200)
