"""LoRA settings: PEFT's names, and the modules they apply to."""

from __future__ import annotations

import math
from typing import Any

from mlxsched.config.importers.draft import Draft, is_off

# mlx-lm names a module by its path inside a layer, PEFT by the end of its path.
MODULES = {
    **{name: f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj")},
    **{name: f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj", "gate_up_proj")},
    **{f"self_attn.{name}": f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")},
    **{f"mlp.{name}": f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")},
}
ALL = {"all", "all-linear", "all_linear"}


def convert_lora(draft: Draft) -> None:
    """Convert rank, alpha, dropout and target modules. mlx-lm's ``scale`` is alpha / r, with rsLoRA alpha / sqrt(r)."""
    dora, rslora = draft.flag("use_dora"), draft.flag("use_rslora")
    kind = "dora" if dora else "lora"
    draft.put("fine_tune_type", kind, "use_dora" if dora else "r")
    rank, alpha = draft.whole("r") or 8, draft.number("lora_alpha")
    draft.put("lora_parameters.rank", rank, "r")
    alpha = 8.0 if alpha is None else alpha  # PEFT's default
    scale = alpha / (math.sqrt(rank) if rslora else rank)
    if rslora:
        draft.use("use_rslora")
    note = f"alpha / {'sqrt(r)' if rslora else 'r'} = {alpha:g} / {'sqrt(' if rslora else ''}{rank}{')' if rslora else ''}"
    draft.put("lora_parameters.scale", scale, "lora_alpha", note)
    draft.put("lora_parameters.dropout", draft.number("lora_dropout") or 0.0, "lora_dropout")
    _modules(draft)
    if (ratio := draft.number("loraplus_lr_ratio")) is not None:
        draft.put("lora_plus_ratio", ratio, "loraplus_lr_ratio")


def _modules(draft: Draft) -> None:
    given = draft.take("target_modules")
    names = _listed(given)
    if not names or set(names) & ALL:
        if names:
            draft.use("target_modules")
        return  # all linear layers, as by default here
    unknown = sorted(set(names) - MODULES.keys())
    if unknown:
        paths = (
            "all linear layers are trained; to choose, write paths within a layer under lora_parameters.keys"
        )
        draft.leave("target_modules", f"{', '.join(unknown)[:80]} has no known path: {paths}")
        return
    draft.put("lora_parameters.keys", [MODULES[name] for name in sorted(set(names))], "target_modules")


def _listed(given: Any) -> list[str]:
    if isinstance(given, str):
        return [name.strip() for name in given.split(",") if name.strip()]
    return [str(name) for name in given] if isinstance(given, list) else []


PEFT_DEFAULTS = {"lora_alpha": 8, "r": 8}

# Keys of an adapter_config.json that decide nothing here unless they are set.
_SETTINGS = {
    "modules_to_save": "whole modules next to a LoRA are not trained",
    "rank_pattern": "all modules have one rank",
    "alpha_pattern": "all modules have one scale",
    "layers_to_transform": "the last num_layers layers are trained; by default all",
    "layers_pattern": "the last num_layers layers are trained; by default all",
    "exclude_modules": "list the modules to train under lora_parameters.keys",
    "target_parameters": "list the modules to train under lora_parameters.keys",
    "trainable_token_indices": "single embeddings are not trained",
    "layer_replication": "layers are not replicated",
    "lora_bias": "LoRA layers have no bias",
    "init_lora_weights": "A is drawn uniformly and B starts at 0",
    "loftq_config": "A is drawn uniformly and B starts at 0",
}
_ABOUT_THE_FILE = (
    "peft_type", "peft_version", "task_type", "inference_mode", "auto_mapping", "revision", "megatron_core",
    "megatron_config", "runtime_config", "fan_in_fan_out", "qalora_group_size", "ensure_weight_tying",
)  # fmt: skip


def convert_peft(draft: Draft) -> None:
    """Convert a PEFT ``adapter_config.json`` of a LoRA."""
    kind = str(draft.take("peft_type") or "LORA").rpartition(".")[2].upper()
    if kind != "LORA":
        raise draft.error("peft_type", f"must be LORA; got {kind[:40]!r}. Other adapters are not supported.")
    if model := draft.text("base_model_name_or_path"):
        draft.put("model", model, "base_model_name_or_path")
    convert_lora(draft)
    for name in _ABOUT_THE_FILE:
        draft.take(name)
    bias = draft.take("bias")
    if bias not in (None, "none"):
        draft.leave("bias", "biases are not trained next to a LoRA")
    for name, reason in _SETTINGS.items():
        value = draft.take(name)
        if not is_off(value) and value is not True:
            draft.leave(name, reason)
