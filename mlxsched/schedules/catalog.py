"""Where each schedule lives: read by the registry and by the lazy names of the packages; imports nothing."""

from __future__ import annotations

MODULES: dict[str, tuple[str, ...]] = {
    "whole_run": ("constant", "warmup_constant", "warmup_linear", "warmup_cosine"),
    "plateaus": ("wsd",),
    "cycles": ("one_cycle",),
    "mlx_names": ("exponential_decay", "step_decay", "cosine_decay", "linear_schedule", "join_schedules"),
}

HELPERS: dict[str, tuple[str, ...]] = {
    "base": ("Schedule", "Phase", "Extrema"),
    "forms": ("parse", "from_dict", "to_dict"),
    "run": ("for_run",),
    "registry": ("entry", "names"),
}


def home_of(name: str) -> str | None:
    """The module of `mlxsched.schedules` that has this public name."""
    for table in (MODULES, HELPERS):
        for module, group in table.items():
            if name in group:
                return module
    return None


def public_names() -> list[str]:
    return [name for table in (MODULES, HELPERS) for group in table.values() for name in group]
