"""The list of presets, as ``mlxsched presets`` shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlxsched.config.load import load_config
from mlxsched.config.presets import preset_names


@dataclass(frozen=True)
class Preset:
    """The name of a preset, what it is for, and its schedule."""

    name: str
    description: str
    peak: float
    schedule: str | dict[str, Any] | None
    warmup: int | float


def list_presets() -> list[Preset]:
    """All presets, sorted by name."""
    configs = [(name, load_config(preset=name).config) for name in preset_names()]
    return [
        Preset(name, config.description, config.learning_rate, config.schedule, config.warmup)
        for name, config in configs
    ]
