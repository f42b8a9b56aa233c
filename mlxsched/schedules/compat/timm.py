"""timm's schedules, by its ``--sched`` names; `lr` is the optimizer's rate, a step is an update.

Without ``warmup_prefix``, its default for cosine, tanh and poly, the decay counts from step 0, so it has begun
when the warmup ends, and the rate jumps down from `lr`. timm's noise is not included.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlxsched.schedules import controllers as adaptive
from mlxsched.schedules.backends import float_power
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.combinators import shift
from mlxsched.schedules.compat.mlx import step_decay
from mlxsched.schedules.compat.pieces import chain, line, stairs
from mlxsched.schedules.compat.primitives import falling_plateau
from mlxsched.schedules.compat.restarts import end_of_cycles, restarts
from mlxsched.schedules.families.whole_run import constant
from mlxsched.schedules.fields import Count, Positive, Rate, Real, Steps, as_positive, checked, one_of


@checked
def cosine(
    lr: Rate,
    t_initial: Steps,
    lr_min: Rate = 0.0,
    cycle_mul: Positive = 1.0,
    cycle_decay: Positive = 1.0,
    cycle_limit: Steps = 1,
    warmup_t: Count = 0,
    warmup_lr_init: Rate = 0.0,
    warmup_prefix: bool = False,
    k_decay: Positive = 1.0,
) -> Schedule:
    """lr_min + (lr * cycle_decay^i - lr_min) * (1 + cos(pi p^k_decay)) / 2 in cycle i, then lr_min."""
    until = end_of_cycles(t_initial, cycle_mul, cycle_limit)
    rest: Schedule = restarts(
        lr, t_initial, cycle_mul, cycle_decay, until=until, end=lr_min, shape="cosine", k=k_decay
    )
    return _warmed(lr, rest, warmup_t, warmup_lr_init, warmup_prefix)


@checked
def tanh(
    lr: Rate,
    t_initial: Steps,
    lb: Real = -7.0,
    ub: Real = 3.0,
    lr_min: Rate = 0.0,
    cycle_mul: Positive = 1.0,
    cycle_decay: Positive = 1.0,
    cycle_limit: Steps = 1,
    warmup_t: Count = 0,
    warmup_lr_init: Rate = 0.0,
    warmup_prefix: bool = False,
) -> Schedule:
    """lr_min + (lr * cycle_decay^i - lr_min) * (1 - tanh(lb (1 - p) + ub p)) / 2, then lr_min.

    Without warmup_prefix the warmup leads to the curve's value at warmup_t, not to lr.
    """
    until = end_of_cycles(t_initial, cycle_mul, cycle_limit)
    rest = restarts(
        lr, t_initial, cycle_mul, cycle_decay, until=until, end=lr_min, shape="tanh", lower=lb, upper=ub
    )
    top = lr if warmup_prefix else rest(warmup_t)
    return _warmed(top, rest, warmup_t, warmup_lr_init, warmup_prefix)


@checked
def poly(
    lr: Rate,
    t_initial: Steps,
    power: Positive = 0.5,
    lr_min: Rate = 0.0,
    cycle_mul: Positive = 1.0,
    cycle_decay: Positive = 1.0,
    cycle_limit: Steps = 1,
    warmup_t: Count = 0,
    warmup_lr_init: Rate = 0.0,
    warmup_prefix: bool = False,
    k_decay: Positive = 1.0,
) -> Schedule:
    """lr_min + (lr * cycle_decay^i - lr_min) * (1 - p^k_decay)^power; lr_min after the last cycle."""
    until = end_of_cycles(t_initial, cycle_mul, cycle_limit)
    rest = restarts(
        lr,
        t_initial,
        cycle_mul,
        cycle_decay,
        until=until,
        end=lr_min,
        shape="polynomial",
        power=power,
        k=k_decay,
    )
    return _warmed(lr, rest, warmup_t, warmup_lr_init, warmup_prefix)


@checked
def step(
    lr: Rate,
    decay_t: Steps,
    decay_rate: Rate = 1.0,
    warmup_t: Count = 0,
    warmup_lr_init: Rate = 0.0,
    warmup_prefix: bool = True,
) -> Schedule:
    """lr * decay_rate^floor(t / decay_t), t counted from the end of the warmup (or from 0)."""
    return _warmed(lr, step_decay(lr, decay_rate, decay_t), warmup_t, warmup_lr_init, warmup_prefix)


@checked
def multistep(
    lr: Rate,
    decay_t: Sequence[Count],
    decay_rate: Rate = 1.0,
    warmup_t: Count = 0,
    warmup_lr_init: Rate = 0.0,
    warmup_prefix: bool = True,
) -> Schedule:
    """lr * decay_rate^(number of milestones at or before t + 1): each drop is one step early, as in timm."""
    marks = sorted(decay_t)
    drops = {
        max(mark - 1, 0): lr * float_power(decay_rate, number) for number, mark in enumerate(marks, start=1)
    }
    return _warmed(lr, stairs({0: lr} | drops), warmup_t, warmup_lr_init, warmup_prefix)


@checked
def wsd(
    lr: Rate,
    t_initial: Steps,
    decay_t: Steps,
    lr_min: Rate = 0.0,
    stable_fn: str = "constant",
    stable_timescale: Positive | None = None,
    stable_power: Positive = 0.5,
    decay_fn: str = "1-sqrt",
    decay_power: Positive = 0.5,
    decay_ratio: Positive = 0.1,
    warmup_t: Count = 0,
    warmup_lr_init: Rate = 0.0,
) -> Schedule:
    """Warmup, stable, decay; t_initial excludes the warmup and includes the last decay_t."""
    one_of("stable_fn", stable_fn, ("constant", "rsqrt", "power"))
    timescale = None
    if stable_fn != "constant":
        timescale = as_positive(
            "stable_timescale", warmup_t if stable_timescale is None else stable_timescale
        )
    rest = falling_plateau(
        lr,
        t_initial - decay_t,
        decay_t,
        end=lr_min,
        timescale=timescale,
        stable_power=stable_power if stable_fn == "power" else 0.5,
        tail=decay_fn,
        tail_power=decay_power,
        tail_ratio=decay_ratio,
    )
    return _warmed(lr, rest, warmup_t, warmup_lr_init, prefix=True)


@checked
def plateau(
    lr: Rate,
    decay_rate: Rate = 0.1,
    patience_t: Count = 10,
    threshold: Rate = 1e-4,
    cooldown_t: Count = 0,
    warmup_t: Count = 0,
    warmup_lr_init: Rate = 0.0,
    lr_min: Rate = 0.0,
    mode: str = "max",
) -> Schedule:
    """torch's ReduceLROnPlateau after a warmup, as a controller; here the warmup's observations count too."""
    return adaptive.plateau(
        _warmed(lr, constant(lr), warmup_t, warmup_lr_init, prefix=True),
        decay_rate=decay_rate,
        patience=patience_t,
        threshold=threshold,
        mode=mode,
        cooldown=cooldown_t,
        min_factor=lr_min / as_positive("lr", lr),
        min_change=1e-8 / lr,
    )


def _warmed(top: float, rest: Schedule, warmup: int, init: float, prefix: bool) -> Schedule:
    """A line from `init` to `top`, then `rest`: from its start, or as if it had run from step 0."""
    if not warmup:
        return rest
    return chain([(warmup, line(init, top, warmup))], rest if prefix else shift(rest, -warmup))
