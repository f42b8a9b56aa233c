"""transformers' schedules, by the names of its ``lr_scheduler_type``.

`from_hf` takes the settings of a ``TrainingArguments``. The functions, ``hf.cosine`` and so on in a spec, take
the rate, the updates and the keyword arguments that transformers' ``get_..._schedule`` have. Values are
transformers' own, even where they surprise: `cosine` rises again after its end; `cosine_warmup_with_min_lr`
starts above 0 and decays one step ahead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from mlxsched.errors import ScheduleError
from mlxsched.schedules import controllers as adaptive
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.combinators import shift
from mlxsched.schedules.compat import torch
from mlxsched.schedules.compat.pieces import after_warmup, called, chain
from mlxsched.schedules.compat.primitives import cosine_wave
from mlxsched.schedules.compat.restarts import restarts
from mlxsched.schedules.families import decays
from mlxsched.schedules.families.powers import inverse_sqrt as core_inverse_sqrt
from mlxsched.schedules.families.whole_run import constant as core_constant
from mlxsched.schedules.families.whole_run import warmup_constant
from mlxsched.schedules.fields import (
    Count,
    Positive,
    Rate,
    Steps,
    as_positive,
    as_rate,
    as_steps,
    checked,
    number_from_yaml,
    one_of,
    shown,
)


def from_hf(
    lr_scheduler_type: str = "linear",
    learning_rate: float = 5e-5,
    num_training_steps: int = 1,
    warmup_steps: float = 0,
    warmup_ratio: float = 0.0,
    lr_scheduler_kwargs: Mapping[str, Any] | None = None,
) -> Schedule:
    """The schedule that transformers' Trainer would make of these settings.

    Args:
        lr_scheduler_type: ``linear``, ``cosine``, ``cosine_with_restarts``, ...: a function of this module.
        learning_rate: the peak.
        num_training_steps: updates of the run.
        warmup_steps: updates, or below 1 a ratio of the updates; 0 means that `warmup_ratio` decides.
        warmup_ratio: a ratio of the updates, rounded up. As in transformers 5, a ratio of 1.0 is one update.
        lr_scheduler_kwargs: further arguments of that type, such as ``{"num_cycles": 2}``.

    Raises:
        ScheduleError: the type is unknown (the nearest one is suggested), or an argument does not fit it.

    >>> from_hf("linear", learning_rate=2e-4, num_training_steps=1000, warmup_ratio=0.1)(550)
    0.0001
    """
    kind = getattr(lr_scheduler_type, "value", lr_scheduler_type)  # transformers has an enumeration
    one_of("lr_scheduler_type", kind, list(TYPES))
    if not isinstance(lr_scheduler_kwargs or {}, Mapping):
        raise ScheduleError(
            f"`lr_scheduler_kwargs` must be a mapping; got {shown(lr_scheduler_kwargs)}. "
            'Write {"num_cycles": 2}, say.'
        )
    warmup = as_rate("warmup_steps", number_from_yaml(warmup_steps)) or as_rate(
        "warmup_ratio", number_from_yaml(warmup_ratio)
    )
    total = as_steps("num_training_steps", num_training_steps)
    given = {"learning_rate": learning_rate, **(lr_scheduler_kwargs or {})}
    arguments = {key: number_from_yaml(value) for key, value in given.items()}
    if kind not in ("constant", "reduce_lr_on_plateau", "greedy"):
        arguments["num_warmup_steps"] = int(warmup) if warmup >= 1 else math.ceil(total * warmup)
    if kind not in ("constant", "constant_with_warmup", "inverse_sqrt", "reduce_lr_on_plateau", "greedy"):
        arguments["num_training_steps"] = total
    return called(TYPES[kind], kind, arguments)


@checked
def linear(learning_rate: Rate, num_training_steps: Count, num_warmup_steps: Count = 0) -> Schedule:
    """A linear warmup, then lr * (T - t) / (T - W), 0 from T on."""
    rest = num_training_steps - num_warmup_steps
    fall = decays.linear(learning_rate, rest) if rest > 0 else core_constant(0.0)
    return after_warmup(0.0, learning_rate, num_warmup_steps, fall)


@checked
def cosine(
    learning_rate: Rate, num_training_steps: Count, num_warmup_steps: Count = 0, num_cycles: Positive = 0.5
) -> Schedule:
    """A linear warmup, then lr * (1 + cos(2 pi num_cycles p)) / 2, which rises again after T."""
    wave = _wave(learning_rate, num_training_steps - num_warmup_steps, num_cycles, 0.0)
    return after_warmup(0.0, learning_rate, num_warmup_steps, wave)


@checked
def cosine_with_restarts(
    learning_rate: Rate, num_training_steps: Count, num_warmup_steps: Count = 0, num_cycles: Positive = 1
) -> Schedule:
    """A linear warmup, then lr * (1 + cos(pi ((num_cycles p) mod 1))) / 2, 0 from T on."""
    rest = max(num_training_steps - num_warmup_steps, 1)
    cycles = restarts(learning_rate, first=rest / num_cycles, until=rest)
    return after_warmup(0.0, learning_rate, num_warmup_steps, cycles)


@checked
def cosine_with_min_lr(
    learning_rate: Rate,
    num_training_steps: Count,
    num_warmup_steps: Count = 0,
    num_cycles: Positive = 0.5,
    min_lr: Rate | None = None,
    min_lr_rate: Rate | None = None,
) -> Schedule:
    """A linear warmup, then a cosine down to min_lr (or min_lr_rate * lr), which rises again after T."""
    low = _lowest(learning_rate, min_lr, min_lr_rate)
    wave = _wave(learning_rate, num_training_steps - num_warmup_steps, num_cycles, low)
    return after_warmup(0.0, learning_rate, num_warmup_steps, wave)


@checked
def cosine_warmup_with_min_lr(
    learning_rate: Rate,
    num_training_steps: Count,
    num_warmup_steps: Count = 0,
    num_cycles: Positive = 0.5,
    min_lr: Rate | None = None,
    min_lr_rate: Rate | None = None,
    warmup_lr_rate: Rate | None = None,
) -> Schedule:
    """As cosine_with_min_lr, one step ahead, after a warmup from lr / W (or warmup_lr_rate * lr).

    The peak is reached at W - 1 and, the decay being a step ahead, left for good at W.
    """
    low = _lowest(learning_rate, min_lr, min_lr_rate)
    wave = shift(_wave(learning_rate, num_training_steps - num_warmup_steps, num_cycles, low), -1)
    if not num_warmup_steps:
        return wave
    share = 1 / num_warmup_steps if warmup_lr_rate is None else warmup_lr_rate
    first = learning_rate * share
    rise = decays.linear(first, max(num_warmup_steps - 1, 1), learning_rate)
    return chain([(num_warmup_steps, rise)], wave)


@checked
def polynomial(
    learning_rate: Rate,
    num_training_steps: Count,
    num_warmup_steps: Count = 0,
    lr_end: Rate = 1e-7,
    power: Positive = 1.0,
) -> Schedule:
    """A linear warmup, then lr_end + (lr - lr_end) * (1 - p)^power, lr_end from T on."""
    if not learning_rate > lr_end:
        raise ScheduleError(
            f"`lr_end` must be below `learning_rate`; got {lr_end} and {learning_rate}. Lower `lr_end`."
        )
    rest = num_training_steps - num_warmup_steps
    fall = decays.polynomial(learning_rate, rest, lr_end, power) if rest > 0 else core_constant(lr_end)
    return after_warmup(0.0, learning_rate, num_warmup_steps, fall)


@checked
def constant(learning_rate: Rate) -> Schedule:
    """lr at every step; in transformers this type has no warmup, whatever the settings say."""
    return core_constant(learning_rate)


@checked
def constant_with_warmup(learning_rate: Rate, num_warmup_steps: Count = 0) -> Schedule:
    """lr * min(1, t / W)."""
    return warmup_constant(learning_rate, num_warmup_steps)


@checked
def inverse_sqrt(
    learning_rate: Rate, num_warmup_steps: Count = 0, timescale: Steps | None = None
) -> Schedule:
    """A linear warmup, then lr / sqrt(1 + (t - W) / timescale); timescale is W, or 10000 without a warmup."""
    return core_inverse_sqrt(learning_rate, num_warmup_steps, timescale=timescale)


@checked
def warmup_stable_decay(
    learning_rate: Rate,
    num_decay_steps: Count,
    num_training_steps: Count | None = None,
    num_stable_steps: Count | None = None,
    num_warmup_steps: Count = 0,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: Rate = 0.0,
    num_cycles: Positive = 0.5,
) -> Schedule:
    """Up from min_lr_ratio * lr, lr held, and down again; num_stable_steps takes precedence over the total.

    If warmup and decay are together longer than the total, the decay has already begun when the warmup ends.
    """
    stable = num_stable_steps
    if stable is None:
        stable = (num_training_steps or 0) - num_warmup_steps - num_decay_steps
    low, high = learning_rate * min_lr_ratio, learning_rate
    parts: list[tuple[int, Schedule]] = []
    if num_warmup_steps:
        parts.append((num_warmup_steps, _wsd_rise(low, num_warmup_steps, high, warmup_type)))
    if stable > 0:
        parts.append((stable, core_constant(high)))
    if num_decay_steps:
        fall = _wsd_fall(high, num_decay_steps, low, decay_type, num_cycles)
        begun = min(stable, 0)
        parts.append((num_decay_steps + begun, shift(fall, begun) if begun else fall))
    return chain(parts, core_constant(low))


def _wsd_rise(low: float, length: int, high: float, kind: str) -> Schedule:
    one_of("warmup_type", kind, WSD_SHAPES)
    if kind == "1-sqrt":
        return decays.polynomial(low, length, high, power=0.5)
    made: Callable[..., Schedule] = decays.linear if kind == "linear" else decays.cosine
    return made(low, length, high)


def _wsd_fall(high: float, length: int, low: float, kind: str, num_cycles: float) -> Schedule:
    one_of("decay_type", kind, WSD_SHAPES)
    if kind == "cosine":
        return _wave(high, length, num_cycles, low)
    made: Callable[..., Schedule] = decays.linear if kind == "linear" else decays.one_minus_sqrt
    return made(high, length, low)


WSD_SHAPES = ("linear", "cosine", "1-sqrt")


@checked
def reduce_lr_on_plateau(
    learning_rate: Rate,
    mode: str = "min",
    factor: Positive = 0.1,
    patience: Count = 10,
    threshold: Rate = 1e-4,
    threshold_mode: str = "rel",
    cooldown: Count = 0,
    min_lr: Rate = 0.0,
    eps: Rate = 1e-8,
) -> Schedule:
    """torch's ReduceLROnPlateau around a constant rate, as a controller: see `mlxsched.plateau`."""
    return torch.ReduceLROnPlateau(
        learning_rate, mode, factor, patience, threshold, threshold_mode, cooldown, min_lr, eps
    )


@checked
def greedy(
    learning_rate: Rate,
    mode: str = "min",
    factor: Positive = 0.95,
    patience: Count = 10,
    threshold: Rate = 1e-6,
    threshold_mode: str = "abs",
    cooldown: Count = 0,
    warmup: Count = 0,
    min_lr: Rate = 1e-3,
    max_lr: Positive = 1.0,
    eps: Rate = 1e-8,
    smooth: bool = False,
    window_size: Steps = 50,
    reset_start: Steps = 500,
) -> Schedule:
    """transformers' GreedyLR around a constant rate, as a controller: see `mlxsched.greedy`.

    Its default min_lr of 1e-3 is above most LoRA rates, which could then never fall: that is refused here.
    """
    _check_floor(min_lr, learning_rate)
    return adaptive.greedy(
        core_constant(learning_rate),
        decay_rate=factor,
        patience=patience,
        threshold=threshold,
        threshold_mode=threshold_mode,
        mode=mode,
        cooldown=cooldown,
        min_factor=min_lr / learning_rate,
        min_change=eps / learning_rate,
        max_factor=max_lr / learning_rate,
        settle=warmup,
        window=window_size if smooth else 0,
        reset_after=reset_start,
    )


def _check_floor(min_lr: float, learning_rate: float) -> None:
    if min_lr > as_positive("learning_rate", learning_rate):
        raise ScheduleError(
            f"`min_lr` must not be above `learning_rate`; got {min_lr} and {learning_rate}. "
            "Set `min_lr` (transformers' default of 1e-3 would never let the rate fall)."
        )


def _wave(peak: float, length: int, cycles: float, low: float) -> Schedule:
    return cosine_wave(peak, max(length, 1), cycles, low)


def _lowest(learning_rate: float, min_lr: float | None, min_lr_rate: float | None) -> float:
    if (min_lr is None) == (min_lr_rate is None):
        raise ScheduleError(
            f"one of `min_lr` and `min_lr_rate` must be given; got {min_lr} and {min_lr_rate}. "
            "Put it into `lr_scheduler_kwargs`."
        )
    return min_lr if min_lr is not None else learning_rate * (min_lr_rate or 0.0)


TYPES: dict[str, Callable[..., Schedule]] = {
    function.__name__: function
    for function in (
        linear,
        cosine,
        cosine_with_restarts,
        cosine_with_min_lr,
        cosine_warmup_with_min_lr,
        polynomial,
        constant,
        constant_with_warmup,
        inverse_sqrt,
        warmup_stable_decay,
        reduce_lr_on_plateau,
        greedy,
    )
}
"""transformers' ``SchedulerType``."""
