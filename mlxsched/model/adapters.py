"""What is trained: LoRA, DoRA or whole layers, attached and stored the way mlx-lm does it.

The files are mlx-lm's own (``adapter_config.json`` and ``adapters.safetensors``), so that
``mlx_lm.generate --adapter-path`` and ``mlx_lm.fuse`` take them as they come.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from mlxsched.errors import ModelError, UsageError
from mlxsched.model.trees import flatten
from mlxsched.text import counted

WEIGHTS = "adapters.safetensors"
CONFIG = "adapter_config.json"


def attach(model: Module, kind: str, num_layers: int, lora: Mapping[str, Any], seed: int) -> int:
    """Freeze ``model`` and make its last ``num_layers`` layers (-1: all) trainable; returns how many.

    ``kind`` is ``"lora"``, ``"dora"`` or ``"full"``; ``lora`` holds rank, scale, dropout and
    optionally keys. The initial A matrices are drawn from ``seed``.
    """
    from mlx_lm.tuner.utils import linear_to_lora_layers

    count = _layer_count(model, num_layers)
    model.freeze()
    mx.random.seed(seed)
    if kind == "full":
        for layer in model.layers[-count:]:
            layer.unfreeze()
        _refuse_quantized(model)
    else:
        _attach_lora(linear_to_lora_layers, model, count, lora, kind)
    if not flatten(model.trainable_parameters()):
        raise UsageError(
            f"nothing to train: no module of the last {counted(count, 'layer')} matches lora_parameters.keys = "
            f"{lora.get('keys')}. Name modules of this model, for example self_attn.q_proj, or leave keys out."
        )
    return count


def _attach_lora(convert: Any, model: Module, count: int, lora: Mapping[str, Any], kind: str) -> None:
    settings = {"rank": lora["rank"], "scale": lora["scale"], "dropout": lora.get("dropout", 0.0)}
    if lora.get("keys"):
        settings["keys"] = list(lora["keys"])
    try:
        convert(model, count, settings, use_dora=kind == "dora")
    except ValueError as error:
        raise UsageError(f"{kind} does not fit this model: {error}. Try --fine-tune-type lora.") from error


def _layer_count(model: Module, num_layers: int) -> int:
    available = len(model.layers)
    return available if num_layers < 0 else min(num_layers, available)


def _refuse_quantized(model: Module) -> None:
    for name, value in flatten(model.trainable_parameters()).items():
        if not mx.issubdtype(value.dtype, mx.floating):
            raise UsageError(
                f"full fine-tuning needs floating-point weights, but {name} is quantized ({value.dtype}). "
                "Use --fine-tune-type lora, or a model that is not quantized."
            )


def adapter_config(model: str, kind: str, num_layers: int, lora: Mapping[str, Any]) -> dict[str, Any]:
    """The ``adapter_config.json`` that mlx-lm needs to rebuild the layers."""
    parameters = None if kind == "full" else {k: v for k, v in lora.items() if v is not None}
    return {"model": model, "fine_tune_type": kind, "num_layers": num_layers, "lora_parameters": parameters}


def save(directory: Path, config: Mapping[str, Any], weights: Mapping[str, mx.array]) -> None:
    """Write both files into ``directory``; call it inside one of the atomic writers of ``runs``."""
    (directory / CONFIG).write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
    mx.save_safetensors(str(directory / WEIGHTS), dict(weights), metadata={"format": "mlx"})


def load_weights(model: Module, file: Path) -> None:
    """Put the tensors of a safetensors file into the trainable parameters of ``model``, all or none.

    Names and shapes must be those of the model, else ``ModelError``.
    """
    weights = read_tensors(file)
    trainable = flatten(model.trainable_parameters())
    check_tensors(file, weights, trainable)
    model.load_weights(list(weights.items()), strict=False)


def read_tensors(file: Path) -> dict[str, mx.array]:
    """The tensors of a safetensors file; any other content is refused with ``ModelError``."""
    if file.is_dir():
        file = file / WEIGHTS
    if not file.is_file():
        raise ModelError(f"no adapter file at {file}. Give the path of an {WEIGHTS} file.")
    try:
        tensors = mx.load(str(file), format="safetensors")
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{file} is not a readable safetensors file ({error}).") from error
    return dict(tensors)  # type: ignore[arg-type]


def check_tensors(file: Path, weights: Mapping[str, mx.array], expected: Mapping[str, mx.array]) -> None:
    """Refuse a file whose tensors are not exactly those that ``expected`` names, in shape and kind of number."""
    problems = [f"{name}: not in this model" for name in sorted(weights.keys() - expected.keys())]
    problems += [f"{name}: missing in the file" for name in sorted(expected.keys() - weights.keys())]
    problems += [
        f"{name}: {_form(weights[name])}, the model needs {_form(expected[name])}"
        for name in sorted(weights.keys() & expected.keys())
        if _form(weights[name]) != _form(expected[name])
    ]
    if problems:
        shown = "\n  ".join(problems[:5] + (["..."] if len(problems) > 5 else []))
        raise ModelError(
            f"{file} does not fit the model:\n  {shown}\n"
            "Use the model, rank, keys and layer count that it was trained with."
        )


def _form(value: mx.array) -> str:
    kind = "floats" if mx.issubdtype(value.dtype, mx.floating) else str(value.dtype)
    return f"{kind} of shape {tuple(value.shape)}"
