"""YAML files in which each key has a line and a column, so that a message can point to a mistake."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlxsched.errors import ConfigError
from mlxsched.text import printable

KeyPath = tuple[str | int, ...]

MOST_BYTES = 10_000_000
MOST_EXPANDED = 10_000  # values that aliases may repeat
_ENDLESS = 10**18


@dataclass(frozen=True)
class YamlFile:
    """The values of a YAML file, their positions, and the problems found so far."""

    path: Path
    values: dict[str, Any]
    marks: dict[KeyPath, tuple[int, int]]  # line and column of a key or an item, both from 1
    problems: list[str]

    def line(self, *keys: str | int) -> str:
        """``file:line`` of a key."""
        return f"{self.path}:{self._mark(keys)[0]}"

    def place(self, *keys: str | int) -> str:
        """``file:line:column`` of a key, or of the nearest key above it."""
        line, column = self._mark(keys)
        return f"{self.path}:{line}:{column}"

    def _mark(self, keys: KeyPath) -> tuple[int, int]:
        while keys and keys not in self.marks:
            keys = keys[:-1]
        return self.marks.get(keys, (1, 1))


class _Loader(yaml.SafeLoader):
    """The safe loader, with numbers such as 1e-5 read as numbers (PyYAML asks for ``1.0e-5``).

    A subclass, because resolvers added to ``SafeLoader`` itself would change YAML for the whole process.
    """


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9_]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


# What a config may hold is what JSON may hold: no dates, no sets, no numbers as keys.
_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + kind for kind in ("str", "int", "float", "bool", "null", "seq", "map")}
_KEYS = {_TAG + kind for kind in ("str", "merge")}


def read_yaml(path: Path) -> YamlFile:
    """Read a YAML mapping; an empty file is an empty mapping.

    Keys given twice are listed in ``problems`` for the caller to report with what else it finds.
    Raises ``ConfigError`` if the file cannot be read, is not YAML or is not a mapping.
    """
    node, values = _parse(path, _read_text(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}:1:1: must hold `key: value` lines; got {type(values).__name__}.")
    marks: dict[KeyPath, tuple[int, int]] = {}
    problems = [f"{path}:{problem}" for problem in _walk(node, (), marks)] if node else []
    return YamlFile(path, {str(key): value for key, value in values.items()}, marks, problems)


def _parse(path: Path, text: str) -> tuple[yaml.Node | None, Any]:
    """Return the tree, which knows positions, and what it stands for."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node and _expanded(node, {}) - len(text) > MOST_EXPANDED:
            raise ConfigError(
                f"{path}:1:1: aliases (`*name`) repeat over {MOST_EXPANDED:,} values. Write the values out."
            )
        return node, loader.construct_document(node) if node else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{place}: not valid YAML: {error.problem}. Fix this line.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None


def _expanded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """The number of nodes below ``node`` with each alias written out, without writing it out.

    Aliases of aliases grow exponentially: 594 bytes can stand for gigabytes. A text of n characters without
    aliases has fewer than n nodes.
    """
    if id(node) not in sizes:
        sizes[id(node)] = _ENDLESS  # an alias inside the value that it stands for
        children = (
            [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else []
        )
        children = node.value if isinstance(node, yaml.SequenceNode) else children
        total = 1 + sum(_expanded(child, sizes) for child in children)
        sizes[id(node)] = min(total, _ENDLESS)
    return sizes[id(node)]


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)  # bounded: the path may be a device
        if len(content) > MOST_BYTES:
            raise ConfigError(
                f"{path} is larger than {MOST_BYTES // 10**6} MB. Check the path given to --config."
            )
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"No such config file: {path}. Check the path given to --config.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None
    except (OSError, ValueError) as error:  # ValueError: a null character or a lone surrogate in the path
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise ConfigError(f"{printable(str(path), 200)} cannot be read: {reason}.") from None


def _walk(node: yaml.Node, keys: KeyPath, marks: dict[KeyPath, tuple[int, int]]) -> Iterator[str]:
    """Record the position of each key under ``node``; yield a problem for a repeated key and for a value of no plain type."""
    if len(keys) > 20:  # an alias that holds itself
        return
    for key, place, child in _children(node):
        line, column = place.start_mark.line + 1, place.start_mark.column + 1
        here = (*keys, key)
        if here in marks:
            yield f"{line}:{column}: `{key}` is given twice, first on line {marks[here][0]}. Remove one."
        elif isinstance(key, str) and place.tag not in _KEYS:
            yield f"{line}:{column}: the key `{key}` is not text. Put it in quotes."
        elif child.tag not in _PLAIN:
            kind = child.tag.rpartition(":")[2]
            yield f"{line}:{column}: the value of `{key}` is read as a {kind}. Put it in quotes."
        marks.setdefault(here, (line, column))
        yield from _walk(child, here, marks)


def _children(node: yaml.Node) -> Iterator[tuple[str | int, yaml.Node, yaml.Node]]:
    """Yield key, node that marks it and node of the value, for a mapping or a list."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), key, value
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield index, value, value
