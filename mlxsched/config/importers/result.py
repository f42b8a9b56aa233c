"""What an import results in, and the YAML file that is written of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import yaml

from mlxsched.config.importers.draft import Entry, Leftover, shown
from mlxsched.config.schema import RunConfig

_WIDTH = 100


@dataclass(frozen=True)
class ImportedConfig:
    """The converted entries, what has no counterpart, and the keys that say nothing about a run."""

    sources: list[str]
    entries: list[Entry]
    leftovers: list[Leftover] = field(default_factory=list)
    without_effect: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """What the files leave open."""
        if any(entry.key == "fine_tune_type" for entry in self.entries):
            return []
        return [
            "the files do not say what is trained; here a LoRA with its defaults. Add the run's adapter_config.json, "
            "or write fine_tune_type: full"
        ]

    @property
    def values(self) -> dict[str, Any]:
        """The configuration as ``RunConfig(**values)`` takes it."""
        values: dict[str, Any] = {}
        for entry in self.entries:
            outer, _, inner = entry.key.partition(".")
            if inner:
                values.setdefault(outer, {})[inner] = entry.value
            else:
                values[outer] = entry.value
        return values

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "sources": self.sources,
            "config": self.values,
            "entries": [asdict(entry) for entry in self.entries],
            "no_counterpart": [asdict(leftover) for leftover in self.leftovers],
            "without_effect": self.without_effect,
            "problems": self.problems,
            "notes": self.notes,
        }

    def to_yaml(self) -> str:
        """The configuration as a commented YAML file: each line names the line of its source."""
        return "\n".join([*_header(self), "", *_lines(self.entries), ""])


def in_our_order(entries: list[Entry]) -> list[Entry]:
    """``entries`` in the order of the keys of ``RunConfig``."""
    places = {key: place for place, key in enumerate(RunConfig.model_fields)}
    return sorted(entries, key=lambda entry: places[entry.key.partition(".")[0]])


def leftover_lines(result: ImportedConfig) -> list[str]:
    """One line for each key without a counterpart: where, what, and why."""
    return [f"{one.where} {one.key}: {shown(one.value)} - {one.reason}" for one in result.leftovers]


def _header(result: ImportedConfig) -> Iterator[str]:
    yield f"# Imported by mlxsched from {_one_line(' and '.join(result.sources))}."
    yield "# See what it will do: mlxsched plan -c THIS_FILE"
    yield from (f"# Note: {note}" for note in result.notes)
    if lines := [*leftover_lines(result), *result.problems]:
        yield "#"
        yield "# Without a counterpart, left out:"
        yield from (f"#   {_one_line(line)}" for line in lines)
    if result.without_effect:
        yield "#"
        yield "# Off, at a default, or without effect on the run:"
        yield from _wrapped(result.without_effect)


def _wrapped(names: list[str]) -> Iterator[str]:
    line = "#  "
    for name in map(_one_line, names):
        if len(line) + len(name) > _WIDTH:
            yield line
            line = "#  "
        line += f" {name}"
    yield line


def _lines(entries: list[Entry]) -> Iterator[str]:
    """YAML lines with comments; the keys of ``lora_parameters`` form a block."""
    block = ""
    for entry in entries:
        outer, _, inner = entry.key.partition(".")
        if inner and outer != block:
            yield f"{outer}:"
        block = outer if inner else ""
        note = f" ({entry.note})" if entry.note else ""
        value = f"{'  ' if inner else ''}{inner or outer}: {_scalar(entry.value)}"
        yield f"{value}  # {_one_line(entry.origin + note)}"


def _scalar(value: Any) -> str:
    """A value in YAML on one line. ``safe_dump`` quotes, so that no text can end the line or begin a comment."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=False, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _one_line(text: str) -> str:
    """``text`` without line breaks and control characters: a comment ends at the first one."""
    return "".join(char if char.isprintable() else " " for char in text)[:300]
