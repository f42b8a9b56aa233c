"""Adapters in the format of Hugging Face's PEFT: ``adapter_model.safetensors`` and its ``adapter_config.json``.

PEFT stores ``lora_A`` as ``[rank, in]`` and ``lora_B`` as ``[out, rank]``, and its factor on their product is
``lora_alpha / r`` (``lora_alpha / sqrt(r)`` with rsLoRA). mlx-lm stores the transposes, and the factor as ``scale``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from mlxsched.errors import ModelError
from mlxsched.model.trees import Tensors
from mlxsched.runs.json_file import shortened

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PARTS = {
    "lora_A.weight": "lora_a",
    "lora_B.weight": "lora_b",
    "lora_embedding_A": "lora_a",
    "lora_embedding_B": "lora_b",
    "lora_magnitude_vector.weight": "m",
    "lora_magnitude_vector": "m",
}
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)$")


def is_peft(config: Mapping[str, Any], names: list[str]) -> bool:
    """Whether an adapter with this ``adapter_config.json`` and these tensors is in PEFT's format."""
    return "peft_type" in config or any(name.startswith(_PREFIX) for name in names)


def settings_of(
    config: Mapping[str, Any], weights: Mapping[str, mx.array], model: Module, file: Path
) -> dict[str, Any]:
    """The adapter's settings as mlx-lm has them: ``fine_tune_type``, ``num_layers``, ``rank``, ``scale``, ``keys``.

    Raises ``ModelError`` for what mlx-lm's LoRA can't express.
    """
    if not config:
        raise ModelError(
            f"{file} is a PEFT adapter without its adapter_config.json. Put that file next to it."
        )
    _refuse_other_kinds(config, file)
    rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1 or not 0 < alpha < 2**31:
        raise ModelError(
            f"{file} is a PEFT adapter with r = {shortened(rank)} and lora_alpha = {shortened(alpha)}; both must be "
            "numbers above 0. Restore its adapter_config.json."
        )
    names = sorted({name for name, _ in map(_split, _converted_names(weights, model, file))})
    layers = [int(match[1]) for name in names if (match := _LAYER.search(name))]
    if not layers:
        raise ModelError(f"{file} is a PEFT adapter that adapts no layer of this model.")
    keys = sorted({match[2] if (match := _LAYER.search(name)) else name for name in names})
    return {
        "fine_tune_type": "dora" if config.get("use_dora") else "lora",
        "num_layers": len(model.layers) - min(layers),
        "rank": rank,
        "scale": alpha / (math.sqrt(rank) if config.get("use_rslora") else rank),
        "keys": keys,
    }


def _refuse_other_kinds(config: Mapping[str, Any], file: Path) -> None:
    """Refuse what a LoRA of mlx-lm can't express."""
    kind = str(config.get("peft_type", "LORA")).upper()
    if kind != "LORA":
        raise ModelError(f"{file} is a PEFT adapter of type {kind}; only LORA can be converted.")
    other = [
        key for key in ("rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias") if config.get(key)
    ]
    other += ["bias"] if config.get("bias", "none") != "none" else []
    if other:
        values = ", ".join(f"{key} = {config[key]}" for key in other)
        raise ModelError(
            f"{file} is a PEFT adapter with {values}, which mlx-lm's LoRA does not have. "
            "Merge it into its model with PEFT, and train from the merged model."
        )


def convert(weights: Mapping[str, mx.array], model: Module, file: Path) -> Tensors:
    """The tensors under mlx-lm's names and in its shapes, float32."""
    names = _converted_names(weights, model, file)
    return {
        name: (value.T if value.ndim == 2 else value).astype(mx.float32)
        for name, value in zip(names, weights.values(), strict=True)
    }


def _converted_names(weights: Mapping[str, mx.array], model: Module, file: Path) -> list[str]:
    """mlx-lm's name of each tensor; modules are found by the end of their name, as models may nest differently."""
    modules = [name for name, _ in model.named_modules() if name]
    unknown, found = [], []
    for name in weights:
        path, part = _split(name.removeprefix(_PREFIX))
        matching = [module for module in modules if module == path] or [
            module for module in modules if _end(module) == _end(path)
        ]
        if part not in _PARTS or not matching:
            unknown.append(name)
        else:
            found.append(f"{matching[0]}.{_PARTS[part]}")
    if unknown:
        shown = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise ModelError(
            f"{file} is a PEFT adapter of another model: this one has no module for {shown}. "
            "Use the model that it was trained with."
        )
    return found


def _split(name: str) -> tuple[str, str]:
    """A tensor's module and its part: ``("model.layers.0.self_attn.q_proj", "lora_A.weight")``."""
    match = re.fullmatch(r"(.+?)\.(lora_.+|m)", name)
    return (match[1], match[2]) if match else (name, "")


def _end(path: str) -> str:
    """From the number of the layer on; the last part of what is in no layer."""
    match = _LAYER.search(path)
    return f"{match[1]}.{match[2]}" if match else path.rsplit(".", 1)[-1]
