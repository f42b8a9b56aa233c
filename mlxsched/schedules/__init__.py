# ruff: noqa: I001  (one line a module; `x as x` marks a public name)
"""Learning-rate schedules for MLX: a superset of ``mlx.optimizers``' five. See README.md beside this file.

Public names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mlxsched.schedules.catalog import home_of, public_names

if TYPE_CHECKING:
    from mlxsched.schedules.base import Extrema as Extrema, Phase as Phase, Schedule as Schedule
    from mlxsched.schedules.cycles import one_cycle as one_cycle
    from mlxsched.schedules.forms import from_dict as from_dict, parse as parse, to_dict as to_dict
    from mlxsched.schedules.mlx_names import (
        cosine_decay as cosine_decay,
        exponential_decay as exponential_decay,
        join_schedules as join_schedules,
        linear_schedule as linear_schedule,
        step_decay as step_decay,
    )
    from mlxsched.schedules.plateaus import wsd as wsd
    from mlxsched.schedules.registry import entry as entry, names as names
    from mlxsched.schedules.run import for_run as for_run
    from mlxsched.schedules.whole_run import (
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
