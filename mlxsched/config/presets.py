"""Where the presets are: named, commented YAML files under ``configs/``."""

from __future__ import annotations

from pathlib import Path

from mlxsched.errors import UsageError
from mlxsched.text import did_you_mean

_PACKAGE = Path(__file__).resolve().parent.parent


def preset_directory() -> Path:
    """Return where the presets are: inside an installed package, or beside it in a checkout."""
    shipped = _PACKAGE / "configs"
    return shipped if shipped.is_dir() else _PACKAGE.parent / "configs"


def find_preset(name: str) -> Path:
    """Return the file of a preset. Raises ``UsageError`` with the nearest name if there is none."""
    known = preset_names()
    if name in known:
        return preset_directory() / f"{name}.yaml"
    hint = did_you_mean(name, known) or f" The presets are {', '.join(known)}."
    raise UsageError(f"No such preset: '{name}'.{hint}")


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.stem for path in preset_directory().glob("*.yaml"))
