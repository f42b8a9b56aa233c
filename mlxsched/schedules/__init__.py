# ruff: noqa: I001  (one line a module; `x as x` marks a public name)
"""Learning-rate schedules for MLX: a superset of ``mlx.optimizers``' five. See README.md beside this file.

Public names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mlxsched.schedules.catalog import home_of, public_names

if TYPE_CHECKING:
    from mlxsched.schedules.controllers import greedy as greedy, plateau as plateau
    from mlxsched.schedules.compat.hf import from_hf as from_hf
    from mlxsched.schedules.compat.mlx_lm import from_mlx_lm as from_mlx_lm
    from mlxsched.schedules.compat.primitives import (
        cosine_wave as cosine_wave,
        falling_plateau as falling_plateau,
        restarts as restarts,
        stretched_polynomial as stretched_polynomial,
        through as through,
    )
    from mlxsched.schedules.base import Extrema as Extrema, Phase as Phase, Schedule as Schedule
    from mlxsched.schedules.combinators import (
        clamp as clamp,
        cooldown as cooldown,
        product as product,
        repeat as repeat,
        scale as scale,
        shift as shift,
        with_warmup as with_warmup,
    )
    from mlxsched.schedules.families.cycles import (
        chebyshev as chebyshev,
        cosine_restarts as cosine_restarts,
        cyclic as cyclic,
        jagged as jagged,
        one_cycle as one_cycle,
    )
    from mlxsched.schedules.families.decays import (
        cosine as cosine,
        exponential as exponential,
        inverse_time as inverse_time,
        linear as linear,
        log_sweep as log_sweep,
        one_minus_sqrt as one_minus_sqrt,
        polynomial as polynomial,
        rex as rex,
        tanh as tanh,
    )
    from mlxsched.schedules.serialization import from_dict as from_dict, parse as parse, to_dict as to_dict
    from mlxsched.schedules.compat.mlx import (
        cosine_decay as cosine_decay,
        exponential_decay as exponential_decay,
        join_schedules as join_schedules,
        linear_schedule as linear_schedule,
        step_decay as step_decay,
    )
    from mlxsched.schedules.families.plateaus import (
        flat_cosine as flat_cosine,
        infinite as infinite,
        knee as knee,
        trapezoid as trapezoid,
        tri_stage as tri_stage,
        wsd as wsd,
        wsd_cycles as wsd_cycles,
    )
    from mlxsched.schedules.families.powers import (
        inverse_sqrt as inverse_sqrt,
        noam as noam,
        power as power,
        power_law as power_law,
    )
    from mlxsched.schedules.registry import entry as entry, names as names
    from mlxsched.schedules.defaults import for_run as for_run
    from mlxsched.schedules.scaling import (
        LoraPlus as LoraPlus,
        lora_plus as lora_plus,
        scale_peak as scale_peak,
    )
    from mlxsched.schedules.scaling import bias_corrected as bias_corrected
    from mlxsched.schedules.families.tables import (
        multistep as multistep,
        piecewise as piecewise,
        table as table,
    )
    from mlxsched.schedules.families.whole_run import (
        budgeted as budgeted,
        constant as constant,
        warmup_constant as warmup_constant,
        warmup_cosine as warmup_cosine,
        warmup_linear as warmup_linear,
    )


def __getattr__(name: str) -> Any:
    module = home_of(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *public_names()})
