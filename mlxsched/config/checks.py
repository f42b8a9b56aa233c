"""Problems of a merged configuration that a type cannot see, each with its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlxsched.config.layers import Layer, place
from mlxsched.errors import ScheduleError
from mlxsched.text import printable

# Long enough that no span of a sensible spec exceeds it; whether it fits the run is the plan's concern.
_TRIAL_STEPS = 1_000_000


def problems(merged: Layer) -> Iterator[str]:
    """What is wrong with the values, beyond their types."""
    yield from _no_training(merged)
    yield from _ignored_by_block(merged)
    yield from _schedule(merged)
    yield from _block(merged)


def _no_training(merged: Layer) -> Iterator[str]:
    if "train" in merged and merged["train"].value is False:
        yield (
            f"{place(('train',), merged)}: `train: false` asks for no training, and this command trains. Remove it, "
            "or evaluate a run with `mlxsched eval`."
        )


def _ignored_by_block(merged: Layer) -> Iterator[str]:
    """mlx-lm's block decides warmup and end: a value next to it would be silently ignored."""
    if "lr_schedule" not in merged or merged["lr_schedule"].value is None:
        return
    block = place(("lr_schedule",), merged)
    for key in ("warmup", "warmup_init", "end_lr"):
        if key in merged:
            yield (
                f"{place((key,), merged)}: `{key}` does not change the lr_schedule of {block}. Change it there."
            )


def _schedule(merged: Layer) -> Iterator[str]:
    """A spec that names no schedule, or has arguments that do not fit."""
    from mlxsched.schedules import for_run

    given = merged.get("schedule")
    if given is None or not isinstance(given.value, str | dict):
        return  # unset, or of the wrong type, which the schema reports
    if isinstance(given.value, dict) and not isinstance(given.value.get("name"), str):
        got = printable(repr(given.value.get("name")))
        yield f"{place(('schedule',), merged)}: `schedule.name` must be text; got {got}. Name a schedule."
        return
    try:
        peak, end = _rate(merged, "learning_rate", 2e-4), _rate(merged, "end_lr", 0.0)
        for_run(given.value, peak=peak, steps=_TRIAL_STEPS, end=end)
    except ScheduleError as error:
        yield f"{place(('schedule',), merged)}: {error}"


def _block(merged: Layer) -> Iterator[str]:
    """An ``lr_schedule`` block that mlx-lm would fail on."""
    from mlxsched.schedules import from_mlx_lm

    given = merged.get("lr_schedule")
    if given is None or not isinstance(given.value, Mapping) or not _is_block(given.value):
        return  # the schema reports missing keys and wrong types
    try:
        from_mlx_lm(dict(given.value))
    except ScheduleError as error:
        wrong = "name" if "lr_schedule.name" in str(error) else "arguments"
        yield f"{place(('lr_schedule', wrong), merged)}: {error}"


def _is_block(block: Mapping[str, Any]) -> bool:
    known = {"name": str, "arguments": list, "warmup": int, "warmup_init": int | float}
    return {"name", "arguments"} <= block.keys() <= known.keys() and all(
        isinstance(value, known[key]) for key, value in block.items()
    )


def _rate(merged: Layer, key: str, default: float) -> float:
    try:
        value = float(merged[key].value) if key in merged else default
    except (TypeError, ValueError, OverflowError):
        return default  # the schema reports it
    return value if 0 <= value < float("inf") else default
