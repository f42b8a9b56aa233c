"""A JSON or YAML file of a stranger, read as plain data: no code runs, and sizes are bounded."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mlxsched.config.yaml_file import read_yaml
from mlxsched.errors import ConfigError

LARGEST = 1_000_000  # bytes; a full dump of TrainingArguments has 5 kB, the longest axolotl example 4 kB
MOST_NODES = 20_000  # values after aliases are expanded: ten nested aliases of ten make 10^10
_ROWS = {".jsonl", ".csv"}
_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle"}


@dataclass(frozen=True)
class SourceFile:
    """The top-level keys of a file, and the line of each."""

    path: Path
    values: Mapping[str, Any]
    lines: Mapping[str, int]
    problems: tuple[str, ...] = ()

    def place(self, key: str) -> str:
        """Return ``file:line`` of a key."""
        return f"{self.path.name}:{self.lines.get(key, 1)}"


def read_source(path: Path) -> SourceFile:
    """Read the file ``path``, JSON if it is named so, else YAML.

    Raises ``ConfigError`` with the place and the fix for a file that cannot be read, is not a regular file, is
    too large, or does not hold ``key: value`` pairs.
    """
    _refuse_by_name(path)
    text = _bounded_text(path)
    if path.suffix.lower() == ".json":
        values, lines = _parse_json(path, text)
        return SourceFile(path, values, lines)
    _refuse_expansion(path, text)
    found = read_yaml(path)
    lines = {str(keys[0]): line for keys, (line, _) in found.marks.items() if len(keys) == 1}
    return SourceFile(path, found.values, lines, tuple(found.problems))


def _refuse_by_name(path: Path) -> None:
    if path.suffix.lower() in _ROWS:
        raise ConfigError(
            f"{path} holds rows, not a configuration. To train on them: mlxsched train --data {path}; to look at them: "
            f"mlxsched data show {path}."
        )
    if path.suffix.lower() in _PICKLES:
        raise ConfigError(
            f"{path} is a pickle, which runs code when it is opened, so mlxsched does not read it. "
            "Write JSON instead, in the program that created it: open('training_args.json', 'w').write(args.to_json_string())"
        )


def _bounded_text(path: Path) -> str:
    try:
        # Without O_NONBLOCK, opening a named pipe would block until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{path} is not a regular file. Name a JSON or YAML file.")
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise ConfigError(f"No such file: {path}. Check the path.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from None
    if len(content) > LARGEST:
        raise ConfigError(
            f"{path} has more than {LARGEST:,} bytes, which is too large for a configuration. Check the path."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}). Save it as UTF-8.") from None


def _parse_json(path: Path, text: str) -> tuple[dict[str, Any], dict[str, int]]:
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ConfigError(f"{path}:1: must hold a JSON object; got {type(values).__name__}.")
        return values, dict(_key_lines(text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}.") from None
    except (ValueError, RecursionError) as error:  # an endless integer, nesting without end
        raise ConfigError(f"{path}: not valid JSON: {error}.") from None


def _key_lines(text: str) -> Iterator[tuple[str, int]]:
    """Yield each key of a valid JSON object with its line, which ``json.loads`` does not keep."""
    decoder, at = json.JSONDecoder(), text.index("{") + 1
    while (at := _skip_blank(text, at)) < len(text) and text[at] != "}":
        key, after = decoder.raw_decode(text, at)
        yield key, text.count("\n", 0, at) + 1
        colon = _skip_blank(text, after)
        _, at = decoder.raw_decode(text, _skip_blank(text, colon + 1))
        at = _skip_blank(text, at)
        at += text[at] == ","


def _skip_blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _refuse_expansion(path: Path, text: str) -> None:
    """Refuse a file whose aliases expand to more than `MOST_NODES` values, before anything walks through them."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError):
        return  # read_yaml reports it with its place
    except RecursionError:
        raise ConfigError(f"{path}: nested too deep for a configuration.") from None
    if node is not None and _expanded(node, {}) > MOST_NODES:
        raise ConfigError(
            f"{path}: its aliases expand to more than {MOST_NODES:,} values. Write them out, or shorten the file."
        )


def _expanded(node: yaml.Node, known: dict[int, float]) -> float:
    """Return how many values ``node`` stands for; infinite for an alias that holds itself."""
    if id(node) not in known:
        known[id(node)] = float("inf")  # what a node that holds itself finds
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_expanded(child, known) for child in children)
    return known[id(node)]
