"""Layers of settings, and how a higher one overrides a lower one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mlxsched.config.origins import PRESET
from mlxsched.config.yaml_file import KeyPath, YamlFile

LENGTHS = ("epochs", "iters", "steps")
LIFTS = "lifts max_time of "
"""In the origin of a length that replaces the time limit of a preset. The limit only keeps the preset short."""

# A key given in one layer removes its rivals from the layers below.
RIVALS = {
    **{key: tuple(other for other in LENGTHS if other != key) for key in LENGTHS},
    "lr_schedule": ("schedule", "learning_rate", "warmup", "warmup_init", "end_lr"),
    "schedule": ("lr_schedule",),
    "learning_rate": ("lr_schedule",),
    "lora_parameters.alpha": ("lora_parameters.scale",),
    "lora_parameters.scale": ("lora_parameters.alpha",),
}


@dataclass(frozen=True)
class Given:
    """A value of one layer, and where it was given."""

    value: Any
    origin: str
    file: YamlFile | None = None

    @property
    def is_from_own_file(self) -> bool:
        """Whether the value stands in the user's file: neither in a preset nor in a flag."""
        return self.file is not None and not self.origin.startswith(PRESET)

    def converted(self, value: Any, original: str) -> Given:
        """The value in our terms; ``original`` goes into the origin."""
        return replace(self, value=value, origin=f"{self.origin} ({original})")


Layer = dict[str, Given]
"""Values by key; the keys of a nested block as ``lora_parameters.rank``."""


def merge(layers: list[Layer]) -> Layer:
    """All layers in one, from the lowest to the highest."""
    merged: Layer = {}
    lifted = ""  # the preset whose time limit was replaced by a length
    for layer in layers:
        if "max_time" in layer:
            lifted = ""
        for key, given in list(layer.items()):
            for rival in RIVALS.get(key, ()) if given.value is not None else ():
                if rival not in layer and rival in merged:
                    lost = merged.pop(rival)
                    if (
                        rival == "lr_schedule"
                    ):  # more than one number is lost: say so where the rate comes from
                        layer = {**layer, key: given.converted(given.value, f"replaces {lost.origin}")}
            if key in LENGTHS and given.value is not None:
                lifted = _lift_time_limit(layer, merged) or lifted
        merged |= layer
    # At the end, since a higher layer may have replaced the length that lifted the limit.
    for key in LENGTHS if lifted else ():
        if key in merged and merged[key].value is not None:
            merged[key] = merged[key].converted(merged[key].value, f"{LIFTS}{lifted}")
    return merged


def _lift_time_limit(layer: Layer, below: Layer) -> str:
    """Remove a preset's time limit from the layers ``below`` a ``layer`` with a length; return the preset's name, or ""."""
    limit = below.get("max_time")
    if "max_time" in layer or limit is None or not limit.origin.startswith(PRESET):
        return ""
    del below["max_time"]
    return limit.origin


def place(keys: KeyPath, merged: Layer) -> str:
    """Where a key was given: ``file:line:column`` or ``--flag``."""
    outer = str(keys[0])
    # A complaint about a nested block as a whole is placed where its first key was given.
    inner = next((key for key in merged if key.startswith(f"{outer}.")), outer)
    given = merged.get(".".join(map(str, keys[:2]))) or merged.get(outer) or merged[inner]
    return given.file.place(*keys) if given.file else given.origin
