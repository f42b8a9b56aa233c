"""Reading schedules: from the dictionary form (and so YAML and JSON) and from the string form that `repr` prints.

The string form is ``name(argument=value, ...)``. Values are numbers, quoted strings, True, False, None, lists and
other schedules. The small parser below reads it; nothing is evaluated. `Schedule.to_dict` and ``repr`` write both
forms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mlxsched.errors import ScheduleError
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.fields import number_from_yaml, shown
from mlxsched.schedules.registry import entry
from mlxsched.text import did_you_mean

MAX_LENGTH = 1_000_000
"""Characters of a string form: a table of 40,000 rates fits."""
MAX_DEPTH = 32
"""Levels of schedules and lists inside each other."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>[+-]?(?:\d[\d_]{0,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][+-]?\d{1,4})?)(?![\w.])"
    r"|(?P<word>[A-Za-z_]\w{0,99}(?:\.[A-Za-z_]\w{0,99})?(?![\w.]))"
    r"|(?P<text>'[^'\\\n]{0,200}'|\"[^\"\\\n]{0,200}\")"
    r"|(?P<mark>[()\[\],=]))"
)
_WORDS = {"True": True, "False": False, "None": None}


def from_dict(mapping: Mapping[str, Any]) -> Schedule:
    """The schedule of a dictionary form.

    Numbers such as ``"1e-7"``, which YAML 1.1 reads as text, are read as numbers.

    Raises:
        ScheduleError: the name is not registered, or an argument is unknown, missing or does not fit.

    >>> from_dict({"name": "warmup_constant", "peak": 2e-4, "warmup": 100})
    warmup_constant(peak=0.0002, warmup=100)
    """
    if not isinstance(mapping, Mapping):
        raise ScheduleError(
            f"a schedule's dictionary form is a mapping with `name`; got {shown(mapping)}. "
            'Write {"name": "constant", "peak": 2e-4}, or use `parse` for text.'
        )
    return _build(mapping, 0)


def _build(mapping: Mapping[str, Any], depth: int) -> Schedule:
    if depth > MAX_DEPTH:
        raise ScheduleError(f"schedules are nested more than {MAX_DEPTH} deep. Compose fewer.")
    if "name" not in mapping:
        keys = ", ".join(shown(key) for key in list(mapping)[:20]) or "none"
        raise ScheduleError(f"a schedule's dictionary needs `name`; got the keys {keys}. Add the name.")
    known = entry(mapping["name"])
    arguments = {str(key): _argument(value, depth) for key, value in mapping.items() if key != "name"}
    parameters = {parameter.name: parameter for parameter in known.parameters}
    for key in arguments:
        if key not in parameters:
            raise ScheduleError(
                f"`{key[:100]}` is not an argument of {known.name}; it has {', '.join(parameters)}."
                + did_you_mean(key, list(parameters))
            )
    missing = [name for name, one in parameters.items() if one.default is one.empty and name not in arguments]
    if missing:
        raise ScheduleError(
            f"{known.name} needs `{missing[0]}`; got {', '.join(arguments) or 'nothing'}. Add it."
        )
    return known.factory(**arguments)


def _argument(value: Any, depth: int) -> Any:
    """An argument's value, with schedules and lists inside it read too."""
    if isinstance(value, Mapping) and "name" in value:
        return _build(value, depth + 1)
    if isinstance(value, list | tuple):
        if depth > MAX_DEPTH:
            raise ScheduleError(f"lists are nested more than {MAX_DEPTH} deep. Flatten them.")
        return tuple(_argument(item, depth + 1) for item in value)
    return number_from_yaml(value)


def parse(text: str) -> Schedule:
    """The schedule of a string form.

    Raises:
        ScheduleError: the text does not have that form, or an argument does not fit.

    >>> parse("warmup_cosine(peak=2e-4, steps=1000, warmup=0.1)")(100)
    0.0002
    """
    return from_dict(read(text))


def read(text: str) -> dict[str, Any]:
    """A string form as a dictionary form; arguments may still be missing."""
    if not isinstance(text, str):
        raise ScheduleError(
            f"a schedule's string form is text; got {shown(text)}. Use `from_dict` for mappings."
        )
    if len(text) > MAX_LENGTH:
        raise ScheduleError(
            f"a schedule's text must be at most {MAX_LENGTH} characters; got {len(text)}. Shorten it."
        )
    return _Reader(text).whole()


class _Reader:
    """A recursive-descent parser of one text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def whole(self) -> dict[str, Any]:
        value = self.value(0)
        if isinstance(value, str):
            value = {"name": value}
        if self.text[self.at :].strip() or not isinstance(value, dict):
            raise self.wrong("a schedule is written name(argument=value, ...)")
        return value

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.wrong(f"nested more than {MAX_DEPTH} deep")
        kind, token = self.next()
        if kind == "number":
            return self.number(token)
        if kind == "text":
            return token[1:-1]
        if kind == "word":
            return self.word(token, depth)
        if token in ("[", "("):
            return self.items("]" if token == "[" else ")", depth)
        raise self.wrong("a value was expected")

    def number(self, token: str) -> int | float:
        try:
            return int(token) if re.fullmatch(r"[+-]?[\d_]+", token) else float(token)
        except ValueError:
            raise self.wrong("not a number") from None

    def word(self, token: str, depth: int) -> Any:
        if token in _WORDS:
            return _WORDS[token]
        if self.peek() == "(":
            self.next()
            return self.call(token, depth)
        if depth == 0:
            return token
        raise self.wrong(f"put quotes around {token!r}, or parentheses after it")

    def items(self, closing: str, depth: int) -> list[Any]:
        values: list[Any] = []
        while self.peek() != closing:
            values.append(self.value(depth + 1))
            self.separator(closing)
        self.next()
        return values

    def call(self, name: str, depth: int) -> dict[str, Any]:
        parameters = [parameter.name for parameter in entry(name).parameters]
        result: dict[str, Any] = {"name": name}
        while self.peek() != ")":
            key = self.key(len(result) - 1, parameters)
            if key in result:
                raise self.wrong(f"`{key}` is given twice")
            result[key] = self.value(depth + 1)
            self.separator(")")
        self.next()
        return result

    def key(self, position: int, parameters: list[str]) -> str:
        """The name of the next argument: as written, or by its position."""
        start = self.at
        kind, token = self.next()
        if kind == "word" and self.peek() == "=":
            self.next()
            return token
        self.at = start
        if position >= len(parameters):
            raise self.wrong(f"too many arguments; there are {', '.join(parameters)}")
        return parameters[position]

    def separator(self, closing: str) -> None:
        if self.peek() == ",":
            self.next()
        elif self.peek() != closing:
            raise self.wrong(f"',' or {closing!r} was expected")

    def peek(self) -> str:
        match = _TOKEN.match(self.text, self.at)
        return match[0].strip() if match else ""

    def next(self) -> tuple[str, str]:
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            raise self.wrong("a name, a number or a quoted word was expected")
        self.at = match.end()
        kind = match.lastgroup or ""
        return kind, match[kind]

    def wrong(self, why: str) -> ScheduleError:
        shown = self.text if len(self.text) <= 80 else f"{self.text[:77]}..."
        return ScheduleError(f"cannot read the schedule {shown!r} at character {self.at + 1}: {why}.")
