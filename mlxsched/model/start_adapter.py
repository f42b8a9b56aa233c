"""The adapter that a training starts from, with the settings that are stored next to its weights.

Weights mean nothing without their scale, and a rank or a set of layers that differs from the run's does not fit. What
the user did not set is taken over from the adapter; what was set differently is refused with both values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx.nn.layers.base import Module
from pydantic import ValidationError

from mlxsched.config.schema import RunConfig
from mlxsched.errors import ModelError, UsageError
from mlxsched.model import adapters, peft
from mlxsched.model.trees import Tensors
from mlxsched.runs.json_file import read_object, shortened

_LORA = ("rank", "scale", "keys")


def attach_adapter(
    config: RunConfig, origins: Mapping[str, str], model: Module
) -> tuple[RunConfig, adapters.Attached]:
    """Attach a fresh adapter to ``model``, or the config's start adapter.

    Returns the config with the settings that the adapter has, and what was attached. ``origins`` tells what the user
    has set.
    """
    start = _read(config, model) if config.resume_adapter_file else None
    notes: tuple[str, ...] = ()
    if start is not None and start.settings:
        config, notes = _taken_over(config, origins, start, len(model.layers))
    lora = config.lora_parameters.model_dump()
    attached = adapters.attach(model, config.fine_tune_type, config.num_layers, lora, config.seed)
    if attached.keys:
        config = _with_lora(config, keys=list(attached.keys))
    if start is not None:
        adapters.put_weights(model, start.file, start.weights, partial=start.partial)
    return config, adapters.Attached(attached.layers, attached.keys, (*notes, *attached.notes))


@dataclass(frozen=True)
class _Start:
    """Weights by mlx-lm's names. ``partial``: they need not cover every trained module."""

    file: Path
    weights: Tensors
    settings: dict[str, Any]
    partial: bool = False


def _read(config: RunConfig, model: Module) -> _Start:
    file = _weights_file(Path(str(config.resume_adapter_file)).expanduser())
    weights = adapters.read_tensors(file)
    beside = file.with_name(adapters.CONFIG)
    found = read_object(beside) if beside.is_file() else {}
    if peft.is_peft(found, list(weights)):
        adapters.detach(model)
        settings = peft.settings_of(found, weights, model, file)
        return _Start(file, peft.convert(weights, model, file), settings, partial=True)
    return _Start(file, weights, _settings(found, beside))


def _weights_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in (adapters.WEIGHTS, peft.WEIGHTS):
        if (path / name).is_file():
            return path / name
    if (path / "adapter_model.bin").is_file():
        raise ModelError(
            f"{path} holds a PEFT adapter as a pickle, which can run code and is not read. "
            "Save it again with PEFT's save_pretrained(safe_serialization=True)."
        )
    return path / adapters.WEIGHTS


def _settings(found: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """The settings of an ``adapter_config.json`` of mlx-lm; only those that it has."""
    lora = found.get("lora_parameters") or {}
    layers = found.get("num_layers", found.get("lora_layers"))
    settings: dict[str, Any] = {"fine_tune_type": found.get("fine_tune_type"), "num_layers": layers}
    if not isinstance(lora, dict):
        raise ModelError(f"{file} is not an adapter_config.json of mlx-lm. Remove it, or restore it.")
    if settings["fine_tune_type"] != "full":
        settings |= {key: lora.get(key) for key in _LORA}
    settings = {key: value for key, value in settings.items() if value is not None}
    _check(settings, file)
    return settings


def _check(settings: Mapping[str, Any], file: Path) -> None:
    """Refuse what a config could not say: the file may have been edited, or come from a stranger."""
    outside = {key: value for key, value in settings.items() if key not in _LORA}
    inside = {key: value for key, value in settings.items() if key in _LORA}
    try:
        RunConfig.model_validate({**outside, "lora_parameters": inside})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"{file}: {key} is {shortened(first['input'])}: {first['msg']}. Remove the file, or restore it."
        ) from None


def _taken_over(
    config: RunConfig, origins: Mapping[str, str], start: _Start, available: int
) -> tuple[RunConfig, tuple[str, ...]]:
    """The config with the start adapter's settings, and a note of what changed."""
    changed: dict[str, tuple[Any, Any]] = {}
    for key, value in start.settings.items():
        own = getattr(config.lora_parameters if key in _LORA else config, key)
        if not _same(key, own, value, available):
            changed[key] = own, value
    refused = {key: pair for key, pair in changed.items() if _set_by_user(key, origins)}
    if refused:
        problems = "; ".join(
            f"{key} is {own} here and {value} there" for key, (own, value) in refused.items()
        )
        raise UsageError(
            f"{start.file} was trained with other settings: {problems}. "
            "Leave these settings out to take the adapter's, or start from another adapter."
        )
    for key, (_, value) in changed.items():
        config = (
            _with_lora(config, **{key: value}) if key in _LORA else config.model_copy(update={key: value})
        )
    taken = ", ".join(f"{key} {value}" for key, (_, value) in changed.items())
    return config, (f"taken over from {start.file}: {taken}",) if taken else ()


def _same(key: str, own: Any, value: Any, available: int) -> bool:
    if key == "num_layers":
        own, value = (available if count < 0 else min(count, available) for count in (own, value))
    if key == "keys":
        own, value = (None if keys is None else sorted(keys) for keys in (own, value))
    return bool(own == value)


def _set_by_user(key: str, origins: Mapping[str, str]) -> bool:
    names = (f"lora_parameters.{key}", "lora_parameters") if key in _LORA else (key,)
    origin = next((origins[name] for name in names if name in origins), "default")
    return not origin.startswith(("default", "preset", "adapter"))


def _with_lora(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"lora_parameters": config.lora_parameters.model_copy(update=changes)})
