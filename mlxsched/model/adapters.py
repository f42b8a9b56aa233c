"""What is trained: LoRA, DoRA or whole layers, attached and stored the way mlx-lm does it.

The files are mlx-lm's own (``adapter_config.json`` and ``adapters.safetensors``), so that
``mlx_lm.generate --adapter-path`` and ``mlx_lm.fuse`` can use them directly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.utils import tree_unflatten

from mlxsched.errors import ModelError, UsageError
from mlxsched.model.lora_keys import base_of, check_keys, is_adapted, layer_keys, trains
from mlxsched.model.trees import flatten

WEIGHTS = "adapters.safetensors"
CONFIG = "adapter_config.json"
_KINDS = {"lora": "LoRA", "dora": "DoRA"}


@dataclass(frozen=True)
class Attached:
    """What `attach` made trainable: how many layers, and the LoRA keys where mlx-lm's default would not do.

    ``notes`` are for the user.
    """

    layers: int
    keys: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def attach(model: Module, kind: str, num_layers: int, lora: Mapping[str, Any], seed: int) -> Attached:
    """Make the last ``num_layers`` layers of ``model`` (-1 or, as in mlx-lm, 0: all) trainable, and freeze everything else.

    Safe to call again: what was attached before is detached first, and the initial A matrices depend on ``seed``
    only. Whole layers that were trained keep their weights.

    Args:
        model: a model as mlx-lm loads it.
        kind: ``"lora"``, ``"dora"`` or ``"full"``.
        num_layers: counted from the last layer.
        lora: rank, scale, dropout and optionally keys, as mlx-lm's ``lora_parameters``.
        seed: of the initial A matrices.

    Raises:
        UsageError: keys that match nothing, quantized weights in full fine-tuning, or a model that can't be
            trained this way.
    """
    detach(model)
    try:
        model.freeze()
    except AttributeError:  # a model whose class leaves out Module.__init__ (mlx-lm's recurrent_gemma)
        raise _untrainable(model, kind) from None
    count = len(model.layers) if num_layers <= 0 else min(num_layers, len(model.layers))
    layers = list(model.layers)[len(model.layers) - count :]
    if not layers:
        raise UsageError(f"nothing to train: {_name(model)} has no layers. Choose another model.")
    if kind != "full":
        return _attach_lora(model, kind, layers, lora, seed)
    for layer in layers:
        layer.unfreeze()
    _refuse_quantized(model)
    if not trains(model):
        raise _untrainable(model, kind)
    return Attached(count)


def detach(model: Module) -> None:
    """Put every module that LoRA or DoRA was put around back in its place, whoever attached it."""
    bases = {name: base_of(module) for name, module in model.named_modules() if is_adapted(module)}
    if bases:
        model.update_modules(tree_unflatten(list(bases.items())))


def _attach_lora(
    model: Module, kind: str, layers: list[Module], lora: Mapping[str, Any], seed: int
) -> Attached:
    keys = lora.get("keys")
    if keys:
        check_keys(model, layers, keys)
    if _convert(model, kind, len(layers), lora, seed) and trains(model):
        return Attached(len(layers))
    if keys:
        raise UsageError(
            f"{_name(model)} can't be trained with --fine-tune-type {kind} in {', '.join(keys)}: mlx-lm does not "
            "support it there. Choose other lora_parameters.keys, or leave them out."
        )
    return _attach_working_keys(model, kind, layers, lora, seed)


def _attach_working_keys(
    model: Module, kind: str, layers: list[Module], lora: Mapping[str, Any], seed: int
) -> Attached:
    """Attach to the keys that work one by one, where all of them together don't.

    Some models read ``module.weight`` themselves, which mlx-lm's LoRA modules don't have (Gemma 3n's AltUp), and
    mlx-lm has no DoRA for the experts of a mixture.
    """
    detach(model)
    every = layer_keys(layers)
    keys = [key for key in every if _works(model, kind, layers, {**lora, "keys": [key]})]
    if not keys or not _convert(model, kind, len(layers), {**lora, "keys": keys}, seed) or not trains(model):
        raise _untrainable(model, kind)
    left_out = ", ".join(key for key in every if key not in set(keys))
    note = f"{_KINDS[kind]} left out of {left_out}: {_name(model)} does not support it there"
    return Attached(len(layers), tuple(keys), (note,))


def _works(model: Module, kind: str, layers: list[Module], lora: Mapping[str, Any]) -> bool:
    works = _convert(model, kind, len(layers), lora, seed=0) and trains(model)
    detach(model)
    return works


def _convert(model: Module, kind: str, count: int, lora: Mapping[str, Any], seed: int) -> bool:
    """Put mlx-lm's LoRA or DoRA modules into the last ``count`` layers; False where it has none for a module."""
    from mlx_lm.tuner.utils import linear_to_lora_layers

    settings = {"rank": lora["rank"], "scale": lora["scale"], "dropout": lora.get("dropout", 0.0)}
    if lora.get("keys"):
        settings["keys"] = list(lora["keys"])
    mx.random.seed(seed)
    try:
        linear_to_lora_layers(model, count, settings, use_dora=kind == "dora")
    except ValueError:
        return False
    return True


def _untrainable(model: Module, kind: str) -> UsageError:
    return UsageError(
        f"{_name(model)} can't be trained with --fine-tune-type {kind}: mlx-lm's implementation of the model does not "
        "support it. Choose another model."
    )


def _name(model: Any) -> str:
    return str(getattr(model, "model_type", None) or type(model).__module__.rsplit(".", 1)[-1])


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
    put_weights(model, file, read_tensors(file))


def put_weights(model: Module, file: Path, weights: Mapping[str, mx.array], *, partial: bool = False) -> None:
    """Put ``weights``, read from ``file``, into the trainable parameters of ``model``, all or none.

    Each takes the precision that the parameter has: a LoRA stored in half precision is trained in float32 all the
    same. With ``partial``, parameters that ``weights`` lacks stay as they are.
    """
    trainable = flatten(model.trainable_parameters())
    expected = {name: value for name, value in trainable.items() if not partial or name in weights}
    check_tensors(file, weights, expected)
    cast = [(name, value.astype(trainable[name].dtype)) for name, value in weights.items()]
    model.load_weights(cast, strict=False)


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
