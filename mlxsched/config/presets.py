"""Finds the presets: named, commented YAML files under ``configs/``."""

from __future__ import annotations

from pathlib import Path

from mlxsched.errors import UsageError
from mlxsched.text import did_you_mean

SCHEMA = "schema.json"  # beside the presets; a test compares it with `config.schema.json_schema`
_REFERENCE = "# yaml-language-server: $schema="  # what editors look for in the first line

_PACKAGE = Path(__file__).resolve().parent.parent


def preset_directory() -> Path:
    """The directory of the presets: inside an installed package, or beside the package in a checkout."""
    shipped = _PACKAGE / "configs"
    return shipped if shipped.is_dir() else _PACKAGE.parent / "configs"


def find_preset(name: str) -> Path:
    """The file of a preset.

    Raises:
        UsageError: there is no such preset; the message has the nearest name.
    """
    known = preset_names()
    if name in known:
        return preset_directory() / f"{name}.yaml"
    hint = did_you_mean(name, known) or f" The presets are {', '.join(known)}."
    raise UsageError(f"No such preset: '{name}'.{hint}")


def preset_names() -> list[str]:
    """The names of all presets, sorted."""
    return sorted(path.stem for path in preset_directory().glob("*.yaml"))


def preset_copy(name: str) -> str:
    """The text of a preset for a file elsewhere: its first line names the schema by its full address.

    Raises:
        UsageError: there is no such preset.
    """
    text = find_preset(name).read_text(encoding="utf-8")
    return text.replace(_REFERENCE + SCHEMA, _REFERENCE + (preset_directory() / SCHEMA).as_uri(), 1)
