"""torch.optim.lr_scheduler's schedules, by its class names; the first argument is the optimizer's rate.

The rate after n calls of ``scheduler.step()`` is the value at step n. `OneCycleLR` stays at its last value,
where torch refuses to go on (and at total_steps itself extrapolates).
"""

from __future__ import annotations

from collections.abc import Sequence

from mlxsched.errors import ScheduleError
from mlxsched.schedules import controllers as adaptive
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.compat.mlx import step_decay
from mlxsched.schedules.compat.pieces import stairs
from mlxsched.schedules.compat.primitives import cosine_wave, restarts, through
from mlxsched.schedules.families.cycles import cyclic
from mlxsched.schedules.families.decays import exponential, linear, polynomial
from mlxsched.schedules.families.whole_run import constant
from mlxsched.schedules.fields import as_positive, as_rate, one_of


def StepLR(lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """lr * gamma^floor(t / step_size)."""
    return step_decay(lr, gamma, step_size)


def MultiStepLR(lr: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """lr * gamma^(number of milestones at or before t); a milestone may be given twice."""
    marks = sorted(milestones)
    return stairs({0: lr} | {mark: lr * gamma**number for number, mark in enumerate(marks, start=1)})


def ConstantLR(lr: float, factor: float = 1 / 3, total_iters: int = 5) -> Schedule:
    """lr * factor until total_iters, then lr."""
    return stairs({0: lr * factor} | {total_iters: lr})


def LinearLR(
    lr: float, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
) -> Schedule:
    """A line from lr * start_factor to lr * end_factor at total_iters."""
    return linear(lr * start_factor, total_iters, lr * end_factor)


def ExponentialLR(lr: float, gamma: float) -> Schedule:
    """lr * gamma^t."""
    return exponential(lr, gamma)


def PolynomialLR(lr: float, total_iters: int = 5, power: float = 1.0) -> Schedule:
    """lr * (1 - t / total_iters)^power, 0 from total_iters on."""
    return polynomial(lr, total_iters, power=power)


def CosineAnnealingLR(lr: float, T_max: int, eta_min: float = 0.0) -> Schedule:
    """eta_min + (lr - eta_min) * (1 + cos(pi t / T_max)) / 2, which rises again after T_max."""
    return cosine_wave(lr, T_max, end=eta_min)


def CosineAnnealingWarmRestarts(lr: float, T_0: int, T_mult: int = 1, eta_min: float = 0.0) -> Schedule:
    """Cosines from lr to eta_min for ever, each T_mult times as long as the one before."""
    return restarts(lr, first=T_0, multiplier=T_mult, end=eta_min)


def CyclicLR(
    base_lr: float,
    max_lr: float,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: str = "triangular",
    gamma: float = 1.0,
) -> Schedule:
    """base_lr + (max_lr - base_lr) * triangle, times 1, 2^-(cycle) or gamma^t by mode."""
    return cyclic(base_lr, max_lr, step_size_up, step_size_down, mode, gamma)


def OneCycleLR(
    max_lr: float,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """max_lr / div to max_lr at pct_start * total - 1, to max_lr / div / final_div at total - 1.

    With three_phase, back to max_lr / div at 2 * pct_start * total - 2 in between.
    """
    one_of("anneal_strategy", anneal_strategy, ("cos", "linear"))
    total = total_steps if total_steps is not None else (epochs or 0) * (steps_per_epoch or 0)
    if total < 2:
        raise ScheduleError(
            f"`total_steps` (or `epochs` * `steps_per_epoch`) must be 2 or more; got {total}."
        )
    first = max_lr / as_positive("div_factor", div_factor)
    last = first / as_positive("final_div_factor", final_div_factor)
    at, values = [0.0, pct_start * total - 1, total - 1.0], [first, max_lr, last]
    if three_phase:
        at.insert(2, 2 * pct_start * total - 2)
        values.insert(2, first)
    if at[1] < 0:  # no way up at all: torch starts inside the way down
        del at[0], values[0]
    return through(at, values, "cosine" if anneal_strategy == "cos" else "linear")


def ReduceLROnPlateau(
    lr: float,
    mode: str = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
) -> Schedule:
    """A constant rate that `mlxsched.plateau` lowers; ``observe(metric)`` stands for ``step(metric)``."""
    as_positive("lr", lr)
    return adaptive.plateau(
        constant(lr),
        decay_rate=factor,
        patience=patience,
        threshold=threshold,
        threshold_mode=threshold_mode,
        mode=mode,
        cooldown=cooldown,
        min_factor=as_rate("min_lr", min_lr) / lr,
        min_change=as_rate("eps", eps) / lr,
    )
