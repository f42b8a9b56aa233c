"""The formats: what a file of each looks like, its names and its defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlxsched.config.importers import trainer
from mlxsched.config.importers.adapter import PEFT_DEFAULTS, convert_lora, convert_peft
from mlxsched.config.importers.draft import Draft
from mlxsched.config.importers.trainer import convert_trainer


@dataclass(frozen=True)
class Tool:
    """A format that can be imported.

    ``signs`` are keys by which a file of it is recognised; ``names`` and ``defaults`` are those of `Draft`.
    """

    title: str
    convert: Callable[[Draft], None]
    signs: frozenset[str]
    names: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


_PACKED = "there a row of a batch is a packed sequence, so an update holds more examples; here batch_size counts them"

# transformers and TRL


def _training_arguments(draft: Draft) -> None:
    convert_trainer(draft)
    _sft(draft)


def _sft(draft: Draft) -> None:
    """What ``SFTConfig`` adds: lengths, packing and masks."""
    name = "max_length" if draft.given("max_length") else "max_seq_length"  # its name before TRL 0.20
    if length := draft.whole(name):
        draft.put("max_seq_length", length, name)
    if draft.flag("packing"):
        draft.put("packing", True, "packing", _PACKED)
    column = draft.text("dataset_text_field")
    if column and column != "text":
        draft.put("text_feature", column, "dataset_text_field")
    _masks(draft)


def _masks(draft: Draft) -> None:
    answers, turns = draft.flag("completion_only_loss"), draft.flag("assistant_only_loss")
    if answers or turns:
        draft.use("completion_only_loss", "assistant_only_loss")
        draft.put("mask_prompt", True, "completion_only_loss" if answers else "assistant_only_loss")
    elif answers is False:
        draft.put("mask_prompt", False, "completion_only_loss", "prompts are scored too")


# axolotl


def _axolotl(draft: Draft) -> None:
    if model := draft.text("base_model"):
        draft.put("model", model, "base_model")
    _axolotl_data(draft)
    _axolotl_adapter(draft)
    _axolotl_schedule(draft)
    _axolotl_trackers(draft)
    convert_trainer(draft)
    if length := draft.whole("max_seq_length"):
        draft.put("max_seq_length", length, "max_seq_length")
    if draft.flag("sample_packing"):
        draft.put("packing", True, "sample_packing", _PACKED)
    draft.put("mask_prompt", not draft.flag("train_on_inputs"), "train_on_inputs")
    if patience := draft.whole("early_stopping_patience"):
        draft.put("patience", patience, "early_stopping_patience")


def _axolotl_data(draft: Draft) -> None:
    """One data set that can be named by a path; several, or one with its own keys, are listed."""
    given = draft.take("datasets")
    sets = given if isinstance(given, list) else [given]
    if len(sets) == 1 and isinstance(sets[0], dict) and isinstance(sets[0].get("path"), str):
        files = sets[0].get("data_files")
        path = files[0] if isinstance(files, list) and len(files) == 1 else files or sets[0]["path"]
        if isinstance(path, str):
            kind = str(sets[0].get("type", ""))[:40]
            draft.put("data", path, "datasets", f"rows of type {kind!r} are recognised by their keys")
            return
    if given:
        draft.leave("datasets", "give one directory, file or Hugging Face data set as data")


def _axolotl_adapter(draft: Draft) -> None:
    kind = draft.text("adapter")
    if kind is None:
        draft.put("fine_tune_type", "full", "adapter", "no adapter: all weights are trained")
        return
    if kind not in ("lora", "qlora"):
        raise draft.error(
            "adapter", f"must be lora or qlora; got {kind[:40]!r}. Other adapters are not supported."
        )
    if kind == "qlora":
        draft.leave("adapter", "use a quantized model for QLoRA: mlx_lm.convert -q")
    else:
        draft.use("adapter")
    if draft.flag("lora_target_linear"):
        draft.use("lora_target_linear")
        draft.leave("target_modules", "lora_target_linear takes all linear layers")
    convert_lora(draft)


def _axolotl_schedule(draft: Draft) -> None:
    """axolotl's own names for transformers' schedules, its floor of the cosine and its default warmup."""
    kind = str(draft.take("lr_scheduler_type")).lower()
    floor = draft.number("cosine_min_lr_ratio")
    if floor and kind == "cosine":
        draft.use("cosine_min_lr_ratio")
        draft.replace("lr_scheduler_type", "cosine_with_min_lr")
        draft.replace("lr_scheduler_kwargs", {"min_lr_rate": floor})
    if draft.number("cosine_constant_lr_ratio"):
        draft.leave("cosine_constant_lr_ratio", "join a cosine and a constant: mlxsched schedules show join")
    if not draft.given("warmup_steps") and not draft.given("warmup_ratio"):
        draft.replace("warmup_ratio", 0.03)  # axolotl: 3% of the run, at most 100 updates


def _axolotl_trackers(draft: Draft) -> None:
    if project := draft.text("wandb_project"):
        draft.put("report_to", "wandb", "wandb_project")
        draft.put("project_name", project, "wandb_project")


AXOLOTL_NAMES = {
    "per_device_train_batch_size": "micro_batch_size",
    "num_train_epochs": "num_epochs",
    "lr_scheduler_type": "lr_scheduler",
    "optim": "optimizer",
    "max_seq_length": "sequence_len",
    "r": "lora_r",
    "target_modules": "lora_target_modules",
    "use_dora": "peft_use_dora",
    "use_rslora": "peft_use_rslora",
    "run_name": "wandb_name",
}

# LLaMA-Factory


def _llama_factory(draft: Draft) -> None:
    stage = str(draft.take("stage") or "sft")
    if stage not in ("sft", "pt"):
        raise draft.error(
            "stage", f"must be sft or pt; got {stage[:40]!r}. Only supervised fine-tuning is supported."
        )
    draft.use("stage")
    if model := draft.text("model_name_or_path"):
        draft.put("model", model, "model_name_or_path")
    draft.leave("dataset", "a name in LLaMA-Factory's dataset_info.json; give the file it stands for as data")
    kind = str(draft.take("finetuning_type") or "lora")
    if kind == "lora":
        draft.use("finetuning_type")
        if not draft.given("lora_alpha"):
            draft.replace("lora_alpha", 2 * (draft.whole("r") or 8))
        convert_lora(draft)
    elif kind == "full":
        draft.put("fine_tune_type", "full", "finetuning_type")
    else:
        raise draft.error("finetuning_type", f"must be lora or full; got {kind[:40]!r}.")
    convert_trainer(draft)
    if length := draft.whole("max_seq_length"):
        draft.put("max_seq_length", length, "max_seq_length")
    if draft.flag("packing"):
        draft.put("packing", True, "packing", _PACKED)
    draft.put("mask_prompt", stage == "sft" and not draft.flag("train_on_prompt"), "train_on_prompt")


LLAMA_FACTORY_NAMES = {"max_seq_length": "cutoff_len", "r": "lora_rank", "target_modules": "lora_target"}

TOOLS: dict[str, Tool] = {
    "transformers": Tool(
        "transformers' TrainingArguments or TRL's SFTConfig",
        _training_arguments,
        frozenset(
            {"per_device_train_batch_size", "num_train_epochs", "lr_scheduler_type", "optim", "output_dir"}
        ),
        defaults=trainer.DEFAULTS,
    ),
    "peft": Tool(
        "PEFT's adapter_config.json",
        convert_peft,
        frozenset({"peft_type", "r", "lora_alpha", "target_modules", "base_model_name_or_path"}),
        defaults=PEFT_DEFAULTS,
    ),
    "axolotl": Tool(
        "axolotl's YAML",
        _axolotl,
        frozenset(
            {"base_model", "micro_batch_size", "sequence_len", "datasets", "num_epochs", "adapter", "lora_r"}
        ),
        AXOLOTL_NAMES,
        {
            **trainer.DEFAULTS,
            "per_device_train_batch_size": 1,
            "num_train_epochs": 1.0,
            "lr_scheduler_type": "cosine",
        },
    ),
    "llama-factory": Tool(
        "LLaMA-Factory's YAML",
        _llama_factory,
        frozenset(
            {
                "stage",
                "finetuning_type",
                "template",
                "cutoff_len",
                "model_name_or_path",
                "lora_rank",
                "lora_target",
            }
        ),
        LLAMA_FACTORY_NAMES,
        {**trainer.DEFAULTS, "max_seq_length": 2048, "r": 8},
    ),
}
