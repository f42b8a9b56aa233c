"""From preset, config file and flags to one ``RunConfig``, with the origin of each value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from pydantic import ValidationError

from mlxsched.config import checks, mlx_lm
from mlxsched.config.layers import Given, Layer, merge, place
from mlxsched.config.messages import problems_of
from mlxsched.config.origins import DEFAULT, PRESET
from mlxsched.config.presets import find_preset
from mlxsched.config.schema import NESTED, LoraParameters, RunConfig
from mlxsched.config.trust import untrusted
from mlxsched.config.yaml_file import YamlFile, read_yaml
from mlxsched.errors import ConfigError

ALPHA = f"{NESTED}.alpha"
SCALE = f"{NESTED}.scale"


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration, and the origin of each value, as `mlxsched.config.origins` describes it."""

    config: RunConfig
    origins: dict[str, str]


def load_config(
    *,
    preset: str | None = None,
    file: Path | None = None,
    flags: Mapping[str, object] | None = None,
    as_mlx_lm: bool = False,
) -> LoadedConfig:
    """Merge the layers (flags over the config file over the preset over the defaults) and check the result.

    Args:
        preset: the name of a preset; takes precedence over the key ``preset`` of the file.
        file: a YAML file, ours or mlx-lm's.
        flags: values by key of ``RunConfig``, and ``lora_parameters.rank`` and the like for nested ones.
        as_mlx_lm: take mlx-lm's defaults and its unit of intervals, iterations.

    Raises:
        UsageError: there is no such preset.
        ConfigError: with all problems at once, each with its place.

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
    merged = merge(
        [
            mlx_lm.default_layer() if as_mlx_lm else {},
            _file_layer(base, f"{PRESET}{preset}") if base else {},
            _file_layer(own, None) if own else {},
            {key: Given(value, _flag(key, value)) for key, value in (flags or {}).items()},
        ]
    )
    problems = [problem for source in (base, own) if source for problem in source.problems]
    problems += [*untrusted(merged), *checks.problems(merged), *_scale_from_alpha(merged)]
    merged = mlx_lm.intervals_in_updates(merged, all_layers=as_mlx_lm)
    config = _validate(merged, problems)
    return LoadedConfig(
        config, {key: merged[key].origin if key in merged else DEFAULT for key in _all_keys()}
    )


def _file_layer(source: YamlFile, origin: str | None) -> Layer:
    layer: Layer = {}
    for key, value in source.values.items():
        if key in mlx_lm.IGNORED or (value is None and not _takes_null(RunConfig, key)):
            continue
        if key == NESTED and isinstance(value, dict):
            layer |= {
                f"{key}.{inner}": Given(item, origin or source.line(key, inner), source)
                for inner, item in value.items()
                if item is not None or _takes_null(LoraParameters, inner)
            }
        else:
            layer[key] = Given(value, origin or source.line(key), source)
    return layer


def _takes_null(model: type[RunConfig | LoraParameters], key: str) -> bool:
    """Whether null is a value of this key. For the others it means the default, as in mlx-lm."""
    field = model.model_fields.get(key)
    return field is None or NoneType in get_args(field.annotation)


def _flag(key: str, value: object) -> str:
    name = key.rpartition(".")[2].replace("_", "-")
    return f"--no-{name}" if value is False else f"--{name}"


def _scale_from_alpha(merged: Layer) -> Iterator[str]:
    """Replace PEFT's alpha in mlx-lm's block by scale = alpha / rank; yield what is wrong with it."""
    given = merged.pop(ALPHA, None)
    if given is None:
        return
    spot = given.file.place(NESTED, "alpha") if given.file else given.origin
    if SCALE in merged:
        other = place((NESTED, "scale"), merged)
        yield f"{spot} and {other}: give alpha or scale, not both: scale is alpha / rank."
        return
    rank = merged[f"{NESTED}.rank"].value if f"{NESTED}.rank" in merged else LoraParameters().rank
    try:
        scale = float(given.value) / int(rank)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        scale = 0.0
    if isinstance(given.value, bool) or not 0 < scale < float("inf"):
        yield f"{spot}: `{ALPHA}` must be a number above 0, and `{NESTED}.rank` one, too; scale is alpha / rank."
        return
    merged[SCALE] = given.converted(scale, f"alpha {given.value} / rank {rank}")


def _validate(merged: Layer, problems: list[str]) -> RunConfig:
    values: dict[str, Any] = {}
    for key, given in merged.items():
        outer, _, inner = key.partition(".")
        if outer != NESTED or not inner:
            values[key] = given.value
        elif isinstance(values.setdefault(NESTED, {}), dict):  # else the schema reports it as a whole
            values[NESTED][inner] = given.value
    try:
        config = RunConfig(**values)
    except ValidationError as error:
        problems = [*problems, *problems_of(error, lambda keys: place(keys, merged), _flat(merged))]
    if problems:
        raise ConfigError(_one_message(sorted(set(problems), key=_by_line)))
    return config


def _flat(merged: Layer) -> dict[str, Any]:
    return {key: given.value for key, given in merged.items()}


def _one_message(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n  ".join([f"{len(problems)} problems in the configuration:", *problems])


def _by_line(problem: str) -> list[str | int]:
    """A key that sorts numbers as numbers, so that line 10 comes after line 9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d{1,18})", problem)]


def _all_keys() -> list[str]:
    keys = [key for key in RunConfig.model_fields if key != NESTED]
    return keys + [f"{NESTED}.{key}" for key in LoraParameters.model_fields]
