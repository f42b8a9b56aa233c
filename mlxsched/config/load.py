"""From preset, config file and flags to one ``RunConfig``, with the origin of each value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlxsched.config.messages import complaints
from mlxsched.config.presets import find_preset
from mlxsched.config.schema import NESTED, LoraParameters, RunConfig
from mlxsched.config.yaml_file import KeyPath, YamlFile, read_yaml
from mlxsched.errors import ConfigError

# A key given in one layer takes its rivals out of the layers below.
RIVALS = {
    "iters": ("epochs",),
    "epochs": ("iters",),
    "lr_schedule": ("schedule", "learning_rate", "warmup", "end_lr"),
    "schedule": ("lr_schedule",),
    "learning_rate": ("lr_schedule",),
}


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration, and for each key ``--flag``, ``file:line``, ``preset NAME`` or ``default``."""

    config: RunConfig
    origins: dict[str, str]


@dataclass(frozen=True)
class _Given:
    """A value of one layer, and where it came from."""

    value: Any
    origin: str
    file: YamlFile | None = None


Layer = dict[str, _Given]


def load_config(
    *, preset: str | None = None, file: Path | None = None, flags: Mapping[str, object] | None = None
) -> LoadedConfig:
    """Merge the layers, a flag over a config file over a preset over the defaults, and check the result.

    ``file`` may name its preset under the key ``preset``; an argument ``preset`` goes before it. Keys of
    ``flags`` are those of ``RunConfig``, with ``lora_parameters.rank`` and the like for nested ones.
    Raises ``UsageError`` for an unknown preset and ``ConfigError`` with all the problems at once.

    >>> loaded = load_config(flags={"iters": 500, "lora_parameters.rank": 16})
    >>> loaded.config.iters, loaded.config.epochs, loaded.config.lora_parameters.rank
    (500, None, 16)
    >>> loaded.origins["lora_parameters.rank"], loaded.origins["batch_size"]
    ('--rank', 'default')
    """
    own = read_yaml(file) if file else None
    named = own.values.pop("preset", None) if own else None
    preset = preset if preset is not None else named
    base = read_yaml(find_preset(str(preset))) if preset is not None else None
    layers = [
        _file_layer(base, f"preset {preset}") if base else {},
        _file_layer(own, None) if own else {},
        {key: _Given(value, _flag(key, value)) for key, value in (flags or {}).items()},
    ]
    merged = _merge(layers)
    problems = [problem for source in (base, own) if source for problem in source.problems]
    problems += _without_effect(merged)
    config = _validate(merged, problems)
    return LoadedConfig(
        config, {key: merged[key].origin if key in merged else "default" for key in _all_keys()}
    )


def _file_layer(source: YamlFile, origin: str | None) -> Layer:
    layer: Layer = {}
    for key, value in source.values.items():
        if key == NESTED and isinstance(value, dict):
            layer |= {
                f"{key}.{k}": _Given(v, origin or source.line(key, k), source) for k, v in value.items()
            }
        else:
            layer[key] = _Given(value, origin or source.line(key), source)
    return layer


def _flag(key: str, value: object) -> str:
    name = key.rpartition(".")[2].replace("_", "-")
    return f"--no-{name}" if value is False else f"--{name}"


def _merge(layers: list[Layer]) -> Layer:
    """Merge from the lowest layer to the highest."""
    merged: Layer = {}
    for layer in layers:
        for key, given in layer.items():
            beaten = RIVALS.get(key, ()) if given.value is not None else ()
            for rival in beaten:
                if rival not in layer:
                    merged.pop(rival, None)
        merged |= layer
    return merged


def _without_effect(merged: Layer) -> list[str]:
    """Refuse what mlx-lm's block decides by itself; in silence it would be ignored."""
    if "lr_schedule" not in merged or merged["lr_schedule"].value is None:
        return []
    block = _place(("lr_schedule",), merged)
    return [
        f"{_place((key,), merged)}: `{key}` does not change the lr_schedule of {block}. Change it there."
        for key in ("warmup", "end_lr")
        if key in merged
    ]


def _validate(merged: Layer, problems: list[str]) -> RunConfig:
    values: dict[str, Any] = {}
    for key, given in merged.items():
        outer, _, inner = key.partition(".")
        if outer != NESTED or not inner:
            values[key] = given.value
        elif isinstance(values.setdefault(NESTED, {}), dict):  # else it is wrong as a whole, and said to be
            values[NESTED][inner] = given.value
    try:
        config = RunConfig(**values)
    except ValidationError as error:
        problems = [*problems, *complaints(error, lambda keys: _place(keys, merged))]
    if problems:
        raise ConfigError(_one_message(sorted(problems, key=_by_line)))
    return config


def _place(keys: KeyPath, merged: Layer) -> str:
    """Return where a key was given: ``file:line:column`` or ``--flag``."""
    given = merged.get(".".join(map(str, keys[:2]))) or merged[str(keys[0])]
    return given.file.place(*keys) if given.file else given.origin


def _one_message(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n  ".join([f"{len(problems)} problems in the configuration:", *problems])


def _by_line(problem: str) -> list[str | int]:
    """Return a key that sorts numbers as numbers, so that line 10 comes after line 9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", problem)]


def _all_keys() -> list[str]:
    keys = [key for key in RunConfig.model_fields if key != NESTED]
    return keys + [f"{NESTED}.{key}" for key in LoraParameters.model_fields]
