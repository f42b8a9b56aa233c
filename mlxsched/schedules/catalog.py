"""Where each public name of `mlxsched.schedules` lives: the only list of them.

The registry and the lazy imports of ``mlxsched`` and ``mlxsched.schedules`` read it; ``schedules/__init__.pyi``, which
tells type checkers the same, is generated from it by ``scripts/make_schedule_stub.py``. Imports nothing.
"""

from __future__ import annotations

MODULES: dict[str, tuple[str, ...]] = {
    "families.whole_run": ("constant", "warmup_constant", "warmup_linear", "warmup_cosine", "budgeted"),
    "families.plateaus": ("wsd", "trapezoid", "knee", "flat_cosine", "tri_stage", "infinite", "wsd_cycles"),
    "families.cycles": ("one_cycle", "cosine_restarts", "cyclic", "jagged", "chebyshev"),
    "families.decays": (
        "linear",
        "cosine",
        "polynomial",
        "log_sweep",
        "one_minus_sqrt",
        "rex",
        "tanh",
        "exponential",
        "inverse_time",
    ),
    "families.powers": ("inverse_sqrt", "noam", "power_law", "power"),
    "families.tables": ("multistep", "piecewise", "table"),
    "combinators": ("with_warmup", "cooldown", "scale", "clamp", "shift", "repeat", "product"),
    "warping": ("warp",),
    "controllers": ("plateau", "greedy"),
    "scaling": ("bias_corrected",),
    "compat.mlx": ("exponential_decay", "step_decay", "cosine_decay", "linear_schedule", "join_schedules"),
    "compat.primitives": (
        "through",
        "cosine_wave",
        "stretched_polynomial",
        "falling_plateau",
    ),
    "compat.restarts": ("restarts",),
}

ALIASES: dict[str, tuple[str, ...]] = {
    "hf": (
        "linear",
        "cosine",
        "cosine_with_restarts",
        "cosine_with_min_lr",
        "cosine_warmup_with_min_lr",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
        "warmup_stable_decay",
        "reduce_lr_on_plateau",
        "greedy",
    ),
    "torch": (
        "StepLR",
        "MultiStepLR",
        "ConstantLR",
        "LinearLR",
        "ExponentialLR",
        "PolynomialLR",
        "CosineAnnealingLR",
        "CosineAnnealingWarmRestarts",
        "CyclicLR",
        "OneCycleLR",
        "ReduceLROnPlateau",
    ),
    "optax": (
        "constant_schedule",
        "linear_schedule",
        "polynomial_schedule",
        "cosine_decay_schedule",
        "exponential_decay",
        "piecewise_constant_schedule",
        "piecewise_interpolate_schedule",
        "linear_onecycle_schedule",
        "cosine_onecycle_schedule",
        "warmup_constant_schedule",
        "warmup_cosine_decay_schedule",
        "warmup_exponential_decay_schedule",
        "sgdr_schedule",
    ),
    "timm": ("cosine", "tanh", "poly", "step", "multistep", "wsd", "plateau"),
    "keras": (
        "ExponentialDecay",
        "PiecewiseConstantDecay",
        "PolynomialDecay",
        "InverseTimeDecay",
        "CosineDecay",
        "CosineDecayRestarts",
    ),
    "fastai": ("fit_one_cycle", "fit_flat_cos", "fit_sgdr"),
}
"""Other libraries' names, written ``library.name`` in a spec; their modules are in `compat`."""

HELPERS: dict[str, tuple[str, ...]] = {
    "scaling": ("scale_peak", "lora_plus", "LoraPlus"),
    "compat.hf": ("from_hf",),
    "compat.mlx_lm": ("from_mlx_lm",),
    "controllers": ("LiveController",),
    "base": ("Schedule", "Phase", "Extrema", "to_dict"),
    "serialization": ("parse", "from_dict"),
    "defaults": ("for_run",),
    "registry": ("entry", "names"),
}
"""Public names that are not schedules."""


def home_of(name: str) -> str | None:
    """The module of `mlxsched.schedules` that defines a public name."""
    for table in (MODULES, HELPERS):
        for module, group in table.items():
            if name in group:
                return module
    return None


def public_names() -> list[str]:
    """All public names, in the order of the tables."""
    return [name for table in (MODULES, HELPERS) for group in table.values() for name in group]
