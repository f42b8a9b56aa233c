"""What pydantic finds wrong with a configuration, in the words of its user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, get_type_hints

from pydantic import ValidationError

from mlxsched.config.schema import NESTED, LoraParameters, LrSchedule, RunConfig
from mlxsched.config.yaml_file import KeyPath
from mlxsched.text import did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

WISHES = {
    "missing": "be given",
    "string_type": "be text",
    "string_pattern_mismatch": "be letters, digits, dots, dashes and underscores, a letter or digit first",
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


def complaints(error: ValidationError, place: Callable[[KeyPath], str]) -> Iterator[str]:
    """Yield a line for each key that is wrong: where (``place`` knows), what, and what would be right."""
    wishes: dict[KeyPath, list[str]] = {}
    got: dict[KeyPath, object] = {}
    for detail in error.errors(include_url=False):
        keys = detail["loc"]
        if detail["type"] == "conflict":
            first, second = detail["ctx"]["first"], detail["ctx"]["second"]
            yield f"{place((first,))} and {place((second,))}: {detail['msg']}."
        elif detail["type"] == "extra_forbidden":
            yield f"{place(keys)}: {_unknown_key(keys)}"
        else:
            keys = (*keys[:1], *(key for key in keys[1:] if not _is_union_branch(key)))
            wishes.setdefault(keys, []).append(_wish(detail))
            got[keys] = detail["input"]
    for keys, wished in wishes.items():
        wish = " or ".join(dict.fromkeys(wished)).replace(" or be ", " or ")
        yield f"{place(keys)}: `{_written(keys)}` must {wish}; got {got[keys]!r}."


def _is_union_branch(key: str | int) -> bool:
    """Say whether pydantic put the name of a branch of ``A | B`` into the location of an error."""
    return isinstance(key, str) and (key in {"str", "int", "float"} or "[" in key)


def _wish(detail: ErrorDetails) -> str:
    """Return what a value must do, from pydantic's type of error or, failing that, its message."""
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return WISHES.get(detail["type"], message.removeprefix("must "))


def _written(keys: KeyPath) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def _unknown_key(keys: KeyPath) -> str:
    known = _KEYS_OF.get(str(keys[0]), {}) if len(keys) > 1 else RunConfig.model_fields
    hint = did_you_mean(str(keys[-1]).replace("-", "_"), list(known))
    return f"unknown key `{keys[-1]}`.{hint or ' Remove it; `mlxsched train --help` has the names.'}"
