"""From preset, config file and flags to one ``RunConfig``, with the origin of each value."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ValidationError

from mlxsched.config.presets import find_preset
from mlxsched.config.schema import LoraParameters, LrSchedule, RunConfig
from mlxsched.config.yaml_file import YamlFile, read_yaml
from mlxsched.errors import ConfigError

# A key given in one layer takes its rivals out of the layers below.
RIVALS = {
    "iters": ("epochs",),
    "epochs": ("iters",),
    "lr_schedule": ("schedule", "learning_rate", "warmup", "end_lr"),
    "schedule": ("lr_schedule",),
    "learning_rate": ("lr_schedule",),
}
NESTED = "lora_parameters"  # merged key by key; its keys are written lora_parameters.rank here
WISHES = {
    "missing": "be given",
    "string_type": "be text",
    "dict_type": "be a mapping",
    "model_type": "be a mapping",
    "list_type": "be a list",
    "bool_type": "be true or false",
    "bool_parsing": "be true or false",
    "int_type": "be a whole number",
    "int_parsing": "be a whole number",
    "int_from_float": "be a whole number",
    "float_type": "be a number",
    "float_parsing": "be a number",
}
_KEYS_OF = {NESTED: LoraParameters.model_fields, "lr_schedule": get_type_hints(LrSchedule)}


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


def _validate(merged: Layer, problems: list[str]) -> RunConfig:
    values: dict[str, Any] = {}
    for key, given in merged.items():
        outer, _, inner = key.partition(".")
        if inner:
            values.setdefault(outer, {})[inner] = given.value
        else:
            values[key] = given.value
    try:
        config = RunConfig(**values)
    except ValidationError as error:
        problems = [*problems, *_describe(error, merged)]
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _describe(error: ValidationError, merged: Layer) -> Iterator[str]:
    """Yield one line for each key that is wrong: where, what, and what would be right."""
    complaints: dict[tuple[str | int, ...], tuple[str, list[str], str]] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "rivals":
            yield f"{' and '.join(_place((key,), merged) for key in detail['ctx'].values())}: {detail['msg']}."
            continue
        keys = tuple(key for key in detail["loc"] if not _is_union_branch(key))
        if detail["type"] == "extra_forbidden":
            yield f"{_place(keys, merged)}: {_unknown_key(keys)}"
        else:
            _, wishes, _ = complaints.setdefault(keys, (_place(keys, merged), [], repr(detail["input"])))
            wishes.append(_wish(detail))
    for keys, (place, wishes, got) in complaints.items():
        yield f"{place}: `{_written(keys)}` must {' or '.join(dict.fromkeys(wishes)).replace(' or be ', ' or ')}; got {got}."


def _is_union_branch(key: str | int) -> bool:
    """Say whether pydantic put the name of a branch of ``A | B`` into the location of an error."""
    return isinstance(key, str) and (key in {"str", "int", "float"} or "[" in key)


def _place(keys: tuple[str | int, ...], merged: Layer) -> str:
    given = merged.get(".".join(map(str, keys[:2]))) or merged.get(str(keys[0]) if keys else "")
    if given is None:
        return "config"
    return given.file.place(*keys) if given.file else given.origin


def _wish(detail: Any) -> str:
    """Return what a value must do, from pydantic's type of error or, failing that, its message."""
    message = str(detail["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    return WISHES.get(detail["type"], message.removeprefix("must "))


def _written(keys: tuple[str | int, ...]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def _unknown_key(keys: tuple[str | int, ...]) -> str:
    known = _KEYS_OF.get(str(keys[0]), {}) if len(keys) > 1 else RunConfig.model_fields
    close = difflib.get_close_matches(str(keys[-1]).replace("-", "_"), known, n=1)
    hint = (
        f"did you mean `{close[0]}`?" if close else "remove it, or see `mlxsched train --help` for the names."
    )
    return f"unknown key `{keys[-1]}`; {hint}"


def _all_keys() -> list[str]:
    keys = [key for key in RunConfig.model_fields if key != NESTED]
    return keys + [f"{NESTED}.{key}" for key in LoraParameters.model_fields]
