"""An adapter in PEFT's format: ``adapter_config.json`` and ``adapter_model.safetensors``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxsched.errors import UsageError
from mlxsched.export.adapter import Pair, TrainedAdapter, is_embedding, refuse_experts
from mlxsched.export.folder import write_folder
from mlxsched.model.trees import Tensors

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_PREFIX = "base_model.model"


def export_peft(
    adapter: TrainedAdapter, target: Path, *, base_model: str | None = None, force: bool = False
) -> list[str]:
    """Write ``adapter`` for PEFT into ``target`` and return the names of the files."""
    pairs = adapter.pairs()
    refuse_experts(pairs, "PEFT")
    names = _names_on_disk(adapter.model_path)
    unknown = [name for name in pairs if names and f"{name}.weight" not in names]
    if unknown:
        raise UsageError(
            f"{unknown[0]} has another name in the model's files than in mlx-lm, so PEFT would not find it. "
            f"Fuse the adapter into its model instead: mlxsched fuse {adapter.run.path}"
        )
    tied = bool(adapter.model_config().get("tie_word_embeddings"))
    config = peft_config(adapter, pairs, base_model, tied)
    tensors = peft_tensors(pairs, tied)

    def fill(directory: Path) -> None:
        (directory / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        mx.save_safetensors(str(directory / WEIGHTS), tensors, metadata={"format": "pt"})

    return write_folder(target, fill, force=force)


def peft_tensors(pairs: Mapping[str, Pair], tied: bool) -> Tensors:
    """PEFT's tensors: it multiplies from the other side, so each matrix is transposed.

    With tied embeddings mlx-lm's adapter of the embedding changes the head too; PEFT's does not, so the head gets the
    same matrices as an adapter of its own.
    """
    found = {}
    for module, pair in pairs.items():
        name = f"{_PREFIX}.{module}"
        if is_embedding(module):
            found[f"{name}.lora_embedding_A"] = pair.a.T
            found[f"{name}.lora_embedding_B"] = pair.b.T
            if tied:
                found[f"{_PREFIX}.lm_head.lora_A.weight"] = pair.b
                found[f"{_PREFIX}.lm_head.lora_B.weight"] = pair.a
            continue
        found[f"{name}.lora_A.weight"] = pair.a.T
        found[f"{name}.lora_B.weight"] = pair.b.T
        if pair.magnitude is not None:
            found[f"{name}.lora_magnitude_vector"] = pair.magnitude
    return {name: mx.contiguous(value) for name, value in found.items()}


def peft_config(
    adapter: TrainedAdapter, pairs: Mapping[str, Pair], base_model: str | None, tied: bool
) -> dict[str, Any]:
    """PEFT's ``LoraConfig`` as it is stored; ``lora_alpha / r`` is mlx-lm's scale."""
    rank = next(iter(pairs.values())).rank
    modules = [*pairs, *(["lm_head"] if tied and any(map(is_embedding, pairs)) else [])]
    alpha = adapter.scale * rank
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model or adapter.base_model or str(adapter.model_path),
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": adapter.config.lora_parameters.dropout,
        "use_dora": adapter.config.fine_tune_type == "dora",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        **_targets(modules, int(adapter.model_config().get("num_hidden_layers") or 0)),
    }


def _targets(modules: list[str], layers: int) -> dict[str, Any]:
    """``target_modules``: short names, which serving engines want, where they mean the same; full names elsewhere.

    >>> _targets(["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"], 2)
    {'target_modules': ['up_proj']}
    >>> _targets(["model.layers.1.mlp.up_proj"], 2)
    {'target_modules': ['up_proj'], 'layers_to_transform': [1], 'layers_pattern': 'layers'}
    """
    found = [re.fullmatch(r"(?:.*\.)?layers\.(\d+)\.(?:.+\.)?(\w+)", module) for module in modules]
    inside = [(int(match[1]), match[2]) for match in found if match]
    numbers, names = sorted({n for n, _ in inside}), sorted({name for _, name in inside})
    if len(inside) != len(modules) or set(inside) != {(n, name) for n in numbers for name in names}:
        return {"target_modules": sorted(modules)}
    every = numbers == list(range(layers))
    return {"target_modules": names} | (
        {} if every else {"layers_to_transform": numbers, "layers_pattern": "layers"}
    )


def _names_on_disk(model: Path) -> set[str]:
    """The tensors in the files of a model, under the names that transformers knows them by."""
    from safetensors import safe_open

    names: set[str] = set()
    for file in model.glob("model*.safetensors"):
        with safe_open(str(file), framework="numpy") as opened:
            names.update(opened.keys())
    return names
