"""The configuration under construction: every key of the source is used, listed, or named as off."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlxsched.config.importers.source import SourceFile
from mlxsched.errors import ConfigError

OFF: tuple[object, ...] = (None, False, "", "none", "no", 0, -1, [], {})


@dataclass(frozen=True)
class Entry:
    """A value of our configuration: ``key`` may be nested (``lora_parameters.rank``), ``origin`` is its source."""

    key: str
    value: Any
    origin: str
    note: str = ""


@dataclass(frozen=True)
class Leftover:
    """A key that has no counterpart, where it stands, and what to know about that."""

    key: str
    value: Any
    where: str
    reason: str


class Draft:
    """Takes values out of a source under the names that the conversion rules use.

    Args:
        source: the file.
        tool: what the file belongs to, for the origins of defaults.
        names: the name in the file for each name that the rules use, where the two differ.
        defaults: what the tool does by default where that decides the run.
    """

    def __init__(
        self,
        source: SourceFile,
        tool: str,
        names: Mapping[str, str] | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        self.source, self.tool = source, tool
        self._names, self._defaults = names or {}, defaults or {}
        self._handled: set[str] = set()
        self._used: set[str] = set()
        self._replaced: dict[str, Any] = {}
        self.entries: list[Entry] = []
        self.leftovers: list[Leftover] = []
        self.at_default: list[str] = []

    def take(self, name: str) -> Any:
        """Return the value of ``name`` and count it as handled; the tool's default if the file has none."""
        key = self._key(name)
        self._handled.add(key)
        if name in self._replaced:
            return self._replaced[name]
        value = self.source.values.get(key)
        return self._defaults.get(name) if value is None else value

    def replace(self, name: str, value: Any) -> None:
        """Let later calls of `take` return ``value``, which stands for what the file says in another way."""
        self._replaced[name] = value

    def given(self, name: str) -> bool:
        """Whether the file has a value for ``name``, other than null."""
        return self.source.values.get(self._key(name)) is not None

    def number(self, name: str) -> float | None:
        """`take` a finite number, or None; YAML 1.1 reads ``1e-4`` as text, which counts as a number here."""
        value = self.take(name)
        if value is None or value == "":
            return None
        try:
            found = math.nan if isinstance(value, (bool, list, dict)) else float(value)
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            raise self.error(name, f"must be a number; got {shown(value)}.")
        return found

    def whole(self, name: str) -> int | None:
        """`take` a whole number, or None."""
        value = self.number(name)
        if value is not None and not value.is_integer():
            raise self.error(name, f"must be a whole number; got {shown(value)}.")
        return None if value is None else int(value)

    def text(self, name: str) -> str | None:
        """`take` a text, or None."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise self.error(name, f"must be text; got {shown(value)}.")
        return value or None

    def flag(self, name: str) -> bool | None:
        """`take` true or false, or None."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise self.error(name, f"must be true or false; got {shown(value)}.")
        return value

    def put(self, key: str, value: Any, name: str, note: str = "") -> None:
        """Add ``key: value`` to our configuration, converted from ``name``."""
        given = self._key(name)
        self._used.add(given)
        here = given in self.source.values and self.source.values[given] is not None
        origin = f"from {self.source.place(given)} {given}" if here else f"the default of {self.tool}"
        self.entries.append(Entry(key, value, origin, note))

    def leave(self, name: str, reason: str) -> None:
        """List ``name`` as without a counterpart, if the file has it."""
        self.leave_key(self._key(name), reason)

    def leave_key(self, key: str, reason: str) -> None:
        """`leave`, by the name that the file uses."""
        self._handled.add(key)
        if self.source.values.get(key) is not None and key not in self._used:
            self._used.add(key)
            self.leftovers.append(Leftover(key, self.source.values[key], self.source.place(key), reason))

    def use(self, *names: str) -> None:
        """Count ``names`` as converted: they went into an entry of another name."""
        self._used.update(map(self._key, names))

    def remaining(self) -> Iterator[tuple[str, Any]]:
        """Yield the keys that no rule has taken."""
        for key, value in self.source.values.items():
            if key not in self._handled:
                yield key, value

    def without_effect(self) -> list[str]:
        """Return the keys that were looked at and came to nothing: off, or at their default."""
        looked_at = [key for key in self.source.values if key in self._handled and key not in self._used]
        return [*self.at_default, *looked_at]

    def error(self, name: str, problem: str) -> ConfigError:
        """Return an error at the place of ``name``."""
        key = self._key(name)
        return ConfigError(f"{self.source.place(key)}: `{key}` {problem}")

    def _key(self, name: str) -> str:
        return self._names.get(name, name)


def is_off(value: object) -> bool:
    """Whether a value switches something off or leaves it unset.

    >>> is_off(False), is_off("none"), is_off([]), is_off(-1), is_off(True), is_off(0.5)
    (True, True, True, True, False, False)
    """
    return any(type(value) in (type(off), float) and value == off for off in OFF)


def shown(value: object) -> str:
    """A value on one line and at most 60 characters long: it comes from a stranger's file.

    >>> shown("a\\nb"), shown({"a": 1})
    ("'a\\\\nb'", "{'a': 1}")
    """
    import reprlib

    limits = reprlib.Repr()
    limits.maxstring = limits.maxother = limits.maxlong = 50
    limits.maxlevel, limits.maxlist, limits.maxdict = 3, 8, 8
    text = ascii(limits.repr(value))[1:-1].replace("\\'", "'").replace("\\\\", "\\")
    return text if len(text) <= 60 else text[:57] + "..."
