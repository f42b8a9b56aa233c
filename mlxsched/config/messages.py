"""Validation errors of pydantic as messages to the user: where, what, and what would be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import ValidationError

from mlxsched.config.names import advice
from mlxsched.config.schema import NESTED, LoraParameters, LrSchedule, RunConfig
from mlxsched.config.yaml_file import KeyPath
from mlxsched.text import did_you_mean, printable

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# pydantic's type of error -> what the value must do.
REQUIREMENTS = {
    "missing": "be given",
    "string_type": "be text",
    "string_unicode": "be text",
    "string_pattern_mismatch": "consist of letters, digits, dots, dashes and underscores, and start with a letter or digit",
    "dict_type": "be a mapping",
    "model_type": "be a mapping",
    "list_type": "be a list",
    "bool_type": "be true or false",
    "bool_parsing": "be true or false",
    "int_type": "be a whole number",
    "int_parsing": "be a whole number",
    "int_parsing_size": "be a smaller number",
    "int_from_float": "be a whole number",
    "float_type": "be a number",
    "float_parsing": "be a number",
}
_KEYS_OF = {NESTED: LoraParameters.model_fields, "lr_schedule": get_type_hints(LrSchedule)}
SPELLING = 0.7  # how similar a name must be to be suggested: below, suggestions mislead more than they help


def problems_of(
    error: ValidationError, place: Callable[[KeyPath], str], values: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a line for each key that is wrong.

    Args:
        error: what pydantic found.
        place: tells where a key was given.
        values: all values given, for advice that converts one with the help of another.
    """
    requirements: dict[KeyPath, list[str]] = {}
    got: dict[KeyPath, object] = {}
    for detail in error.errors(include_url=False):
        keys = detail["loc"]
        if detail["type"] == "conflict":
            first, second = detail["ctx"]["first"], detail["ctx"]["second"]
            yield f"{place((first,))} and {place((second,))}: {detail['msg']}."
        elif detail["type"] == "extra_forbidden":
            yield f"{place(keys)}: {_unknown_key(keys, detail['input'], values)}"
        else:
            keys = (*keys[:1], *(key for key in keys[1:] if not _is_union_branch(key)))
            requirements.setdefault(keys, []).append(_requirement(detail))
            got[keys] = detail["input"]
    for keys, required in requirements.items():
        must = " or ".join(dict.fromkeys(required)).replace(" or be ", " or ")
        yield f"{place(keys)}: `{_written(keys)}` must {must}; got {printable(repr(got[keys]), 200)}."


def _is_union_branch(key: str | int) -> bool:
    """Whether pydantic put the name of a branch of ``A | B`` into the location of an error."""
    return isinstance(key, str) and (key in {"str", "int", "float"} or "[" in key)


def _requirement(detail: ErrorDetails) -> str:
    """What a value must do, from pydantic's type of error or, failing that, its message."""
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    message = message.replace("String should", "must")
    return REQUIREMENTS.get(detail["type"], message.removeprefix("must "))


def _written(keys: KeyPath) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")
    return printable(text, 100)


def _unknown_key(keys: KeyPath, value: object, values: Mapping[str, Any]) -> str:
    name, outer = str(keys[-1]), str(keys[0]) if len(keys) > 1 else ""
    unknown = f"unknown key `{printable(name)}`."
    known = list(_KEYS_OF.get(outer, {}) if outer else RunConfig.model_fields)
    hint = did_you_mean(name.replace("-", "_"), known, SPELLING).strip()
    if outer != "lr_schedule":
        hint = advice(name, value, values) or hint
    return f"{unknown} {hint or 'Remove it; `mlxsched train --help` lists the names.'}"
