"""What fastai's Learner.fit_... methods set up; ``steps`` is epochs times batches of an epoch."""

from __future__ import annotations

from mlxsched.schedules.base import Schedule
from mlxsched.schedules.compat.pieces import chain
from mlxsched.schedules.compat.primitives import through
from mlxsched.schedules.families.decays import cosine
from mlxsched.schedules.fields import as_steps


def fit_one_cycle(
    steps: int, lr_max: float, div: float = 25.0, div_final: float = 1e5, pct_start: float = 0.25
) -> Schedule:
    """A cosine from lr_max / div to lr_max at pct_start of the run, then to lr_max / div_final."""
    total = as_steps("steps", steps)
    return through([0, pct_start * total, total], [lr_max / div, lr_max, lr_max / div_final], "cosine")


def fit_flat_cos(steps: int, lr: float, div_final: float = 1e5, pct_start: float = 0.75) -> Schedule:
    """lr until pct_start of the run, then a cosine to lr / div_final at its end."""
    total = as_steps("steps", steps)
    return through([0, pct_start * total, total], [lr, lr, lr / div_final], "cosine")


def fit_sgdr(n_cycles: int, cycle_len: int, lr_max: float, cycle_mult: int = 2) -> Schedule:
    """A cosine from lr_max to 0 in each cycle, cycle i of cycle_len * cycle_mult^i updates."""
    lengths = [cycle_len * cycle_mult**number for number in range(as_steps("n_cycles", n_cycles))]
    cycles = [(length, cosine(lr_max, length)) for length in lengths]
    return chain(cycles[:-1], cycles[-1][1])
