"""mlx-lm's ``lr_schedule`` block, with mlx-lm's exact values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlxsched.errors import ScheduleError
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.compat.mlx import (
    as_length,
    cosine_decay,
    exponential_decay,
    join_schedules,
    linear_schedule,
    step_decay,
)
from mlxsched.schedules.fields import as_rate, number_from_yaml, one_of, shown
from mlxsched.text import did_you_mean

NAMES: dict[str, Callable[..., Schedule]] = {
    made.__name__: made for made in (cosine_decay, linear_schedule, exponential_decay, step_decay)
}
KEYS = ("name", "arguments", "warmup", "warmup_init")


def from_mlx_lm(lr_schedule: Mapping[str, Any]) -> Schedule:
    """The schedule that mlx-lm builds from its ``lr_schedule`` block.

    Formula: a line from warmup_init to arguments[0] in `warmup` updates, then the named one, counted from
    update warmup + 1. So the peak is held for two updates, and since the warmup's target is arguments[0],
    ``linear_schedule`` from 0 stays at 0 during its warmup.

    Args:
        lr_schedule: ``name``, one of MLX's schedules; ``arguments``, a list, the first one being the initial
            rate; optionally ``warmup`` in updates and ``warmup_init``, the rate at update 0.

    Raises:
        ScheduleError: a key or the name is unknown (the nearest one is suggested), or a value does not fit.

    >>> schedule = from_mlx_lm({"name": "cosine_decay", "warmup": 100, "arguments": [1e-5, 1000, 1e-6]})
    >>> schedule(0), schedule(100), schedule(101), schedule(1101)
    (0.0, 1e-05, 1e-05, 1e-06)
    """
    made, arguments = _checked(lr_schedule)
    try:
        rest = made(*arguments)
    except TypeError:
        raise ScheduleError(
            f"`lr_schedule.arguments` must fit {made.__name__}; got {shown(arguments)}. Give them in MLX's order."
        ) from None
    warmup = lr_schedule.get("warmup") or 0
    if not warmup:
        return rest
    warmup = as_length("lr_schedule.warmup", number_from_yaml(warmup))
    first = as_rate("lr_schedule.warmup_init", number_from_yaml(lr_schedule.get("warmup_init") or 0.0))
    return join_schedules([linear_schedule(first, arguments[0], warmup), rest], [warmup + 1])


def _checked(block: Mapping[str, Any]) -> tuple[Callable[..., Schedule], list[Any]]:
    if not isinstance(block, Mapping):
        raise ScheduleError(
            f"`lr_schedule` must be a mapping with `name` and `arguments`; got {shown(block)}. "
            "Write {name: cosine_decay, arguments: [1e-5, 1000]}."
        )
    for key in block:
        if key not in KEYS:
            near = did_you_mean(key, KEYS)
            raise ScheduleError(
                f"`lr_schedule` has no key {str(key)[:100]!r}; it has {', '.join(KEYS)}.{near}"
            )
    name, arguments = block.get("name"), block.get("arguments")
    one_of("lr_schedule.name", name, list(NAMES))
    if not isinstance(arguments, list | tuple) or not arguments:
        raise ScheduleError(
            f"`lr_schedule.arguments` must be a list that starts with the rate; got {shown(arguments)}. "
            "Write [1e-5, 1000]."
        )
    return NAMES[str(name)], [number_from_yaml(value) for value in arguments]
