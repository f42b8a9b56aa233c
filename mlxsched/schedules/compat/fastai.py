"""The schedules of fastai's Learner.fit_... methods; ``steps`` is epochs times batches per epoch."""

from __future__ import annotations

from mlxsched.schedules.base import Schedule
from mlxsched.schedules.compat.primitives import through
from mlxsched.schedules.compat.restarts import end_of_cycles, restarts
from mlxsched.schedules.fields import Portion, Positive, Rate, Steps, as_steps, checked


@checked
def fit_one_cycle(
    steps: Steps, lr_max: Rate, div: Positive = 25.0, div_final: Positive = 1e5, pct_start: Portion = 0.25
) -> Schedule:
    """A cosine from lr_max / div to lr_max at pct_start of the run, then to lr_max / div_final."""
    total = as_steps("steps", steps)
    return through([0, pct_start * total, total], [lr_max / div, lr_max, lr_max / div_final], "cosine")


@checked
def fit_flat_cos(steps: Steps, lr: Rate, div_final: Positive = 1e5, pct_start: Portion = 0.75) -> Schedule:
    """lr until pct_start of the run, then a cosine to lr / div_final at its end."""
    total = as_steps("steps", steps)
    return through([0, pct_start * total, total], [lr, lr, lr / div_final], "cosine")


@checked
def fit_sgdr(n_cycles: Steps, cycle_len: Steps, lr_max: Rate, cycle_mult: Steps = 2) -> Schedule:
    """A cosine from lr_max to 0 in each cycle, cycle i of cycle_len * cycle_mult^i updates; 0 after the last."""
    until = end_of_cycles(cycle_len, cycle_mult, n_cycles)
    return restarts(lr_max, cycle_len, cycle_mult, until=until)
