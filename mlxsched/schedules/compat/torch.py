"""torch.optim.lr_scheduler's schedules, by its class names; the first argument is the optimizer's rate.

The rate after n calls of ``scheduler.step()`` is the value at step n. `OneCycleLR` stays at its last value,
where torch raises (and extrapolates at total_steps itself).
"""

from __future__ import annotations

from collections.abc import Sequence

from mlxsched.errors import ScheduleError
from mlxsched.schedules import controllers as adaptive
from mlxsched.schedules.backends import float_power
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.compat.mlx import step_decay
from mlxsched.schedules.compat.pieces import chain, stairs
from mlxsched.schedules.compat.primitives import cosine_wave, through
from mlxsched.schedules.compat.restarts import restarts
from mlxsched.schedules.families.cycles import cyclic
from mlxsched.schedules.families.decays import exponential, linear, polynomial
from mlxsched.schedules.families.whole_run import constant
from mlxsched.schedules.fields import (
    Count,
    Portion,
    Positive,
    Rate,
    Steps,
    as_positive,
    checked,
    one_of,
)


@checked
def StepLR(lr: Rate, step_size: Steps, gamma: Rate = 0.1) -> Schedule:
    """lr * gamma^floor(t / step_size)."""
    return step_decay(lr, gamma, step_size)


@checked
def MultiStepLR(lr: Rate, milestones: Sequence[Count], gamma: Rate = 0.1) -> Schedule:
    """lr * gamma^(number of milestones at or before t); a milestone may be given twice."""
    marks = sorted(milestones)
    return stairs(
        {0: lr} | {mark: lr * float_power(gamma, number) for number, mark in enumerate(marks, start=1)}
    )


@checked
def ConstantLR(lr: Rate, factor: Rate = 1 / 3, total_iters: Count = 5) -> Schedule:
    """lr * factor until total_iters, then lr; as in torch, lr * factor throughout if total_iters is 0."""
    if not total_iters:
        return constant(lr * factor)
    return stairs({0: lr * factor} | {total_iters: lr})


@checked
def LinearLR(
    lr: Rate, start_factor: Rate = 1 / 3, end_factor: Rate = 1.0, total_iters: Count = 5
) -> Schedule:
    """A line from lr * start_factor to lr * end_factor at total_iters; its start throughout if that is 0."""
    if not total_iters:
        return constant(lr * start_factor)
    return linear(lr * start_factor, total_iters, lr * end_factor)


@checked
def ExponentialLR(lr: Rate, gamma: Rate) -> Schedule:
    """lr * gamma^t."""
    return exponential(lr, gamma) if gamma else stairs({0: lr, 1: 0.0})


@checked
def PolynomialLR(lr: Rate, total_iters: Count = 5, power: Positive = 1.0) -> Schedule:
    """lr * (1 - t / total_iters)^power, 0 from total_iters on; lr throughout if total_iters is 0."""
    if not total_iters:
        return constant(lr)
    return polynomial(lr, total_iters, power=power)


@checked
def CosineAnnealingLR(lr: Rate, T_max: Steps, eta_min: Rate = 0.0) -> Schedule:
    """eta_min + (lr - eta_min) * (1 + cos(pi t / T_max)) / 2, which rises again after T_max."""
    return cosine_wave(lr, T_max, end=eta_min)


@checked
def CosineAnnealingWarmRestarts(lr: Rate, T_0: Steps, T_mult: Steps = 1, eta_min: Rate = 0.0) -> Schedule:
    """Cosines from lr to eta_min, one after the other, each T_mult times as long as the one before."""
    return restarts(lr, first=T_0, multiplier=T_mult, end=eta_min)


@checked
def CyclicLR(
    base_lr: Rate,
    max_lr: Rate,
    step_size_up: Steps = 2000,
    step_size_down: Steps | None = None,
    mode: str = "triangular",
    gamma: Rate = 1.0,
) -> Schedule:
    """base_lr + (max_lr - base_lr) * triangle, times 1, 2^-(cycle) or gamma^t by mode."""
    return cyclic(base_lr, max_lr, step_size_up, step_size_down, mode, gamma)


@checked
def OneCycleLR(
    max_lr: Rate,
    total_steps: Steps | None = None,
    epochs: Steps | None = None,
    steps_per_epoch: Steps | None = None,
    pct_start: Portion = 0.3,
    anneal_strategy: str = "cos",
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """max_lr / div to max_lr at pct_start * total - 1, to max_lr / div / final_div at total - 1.

    With three_phase, back to max_lr / div at 2 * pct_start * total - 2 in between. The run ends inside a phase that is
    longer than it, as in torch.
    """
    one_of("anneal_strategy", anneal_strategy, ("cos", "linear"))
    total = total_steps if total_steps is not None else (epochs or 0) * (steps_per_epoch or 0)
    if total < 1:
        raise ScheduleError(f"`total_steps`, or `epochs` and `steps_per_epoch`, must be given; got {total}.")
    first = max_lr / div_factor
    at, values = [0.0, pct_start * total - 1, total - 1.0], [first, max_lr, first / final_div_factor]
    if three_phase:
        at.insert(2, 2 * pct_start * total - 2)
        values.insert(2, first)
    while len(at) > 2 and at[1] < 0:  # this phase is over before step 0
        del at[0], values[0]
    return _cut_off(at, values, total - 1, "cosine" if anneal_strategy == "cos" else "linear")


def _cut_off(at: list[float], values: list[float], last: int, shape: str) -> Schedule:
    """A curve through the points, held from step `last` on; points after the first one that reaches it never count."""
    reached = next(index for index, step in enumerate(at) if step >= last and (index or last == 0))
    if reached == 0:
        return constant(values[0])
    curve = through(at[: reached + 1], values[: reached + 1], shape)
    return curve if at[reached] == last else chain([(last, curve)], constant(curve(last)))


@checked
def ReduceLROnPlateau(
    lr: Rate,
    mode: str = "min",
    factor: Rate = 0.1,
    patience: Count = 10,
    threshold: Rate = 1e-4,
    threshold_mode: str = "rel",
    cooldown: Count = 0,
    min_lr: Rate = 0.0,
    eps: Rate = 1e-8,
) -> Schedule:
    """A constant rate that `mlxsched.plateau` lowers; ``observe(metric)`` stands for ``step(metric)``."""
    as_positive("lr", lr)  # limits are divided by it
    return adaptive.plateau(
        constant(lr),
        decay_rate=factor,
        patience=patience,
        threshold=threshold,
        threshold_mode=threshold_mode,
        mode=mode,
        cooldown=cooldown,
        min_factor=min_lr / lr,
        min_change=eps / lr,
    )
