"""keras.optimizers.schedules, by its class names and with its arguments.

``decay_steps`` excludes the warmup, as there, and `PiecewiseConstantDecay` changes one step after its
boundary.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlxsched.errors import ScheduleError
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.compat import optax
from mlxsched.schedules.compat.pieces import chain, line, stairs
from mlxsched.schedules.compat.primitives import restarts, stretched_polynomial
from mlxsched.schedules.families.decays import cosine, inverse_time, polynomial
from mlxsched.schedules.fields import as_steps


def ExponentialDecay(
    initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
) -> Schedule:
    """lr * rate^(t / steps), the exponent floored when staircase."""
    length = as_steps("decay_steps", decay_steps)
    return optax.exponential_decay(initial_learning_rate, length, decay_rate, staircase=staircase)


def PiecewiseConstantDecay(boundaries: Sequence[int], values: Sequence[float]) -> Schedule:
    """values[0] up to boundaries[0] and at it, values[1] after it, and so on."""
    if len(values) != len(boundaries) + 1:
        raise ScheduleError(
            f"`values` must be one more than `boundaries`; got {len(values)} and "
            f"{len(boundaries)}. Give the first one too."
        )
    starts = [0, *(boundary + 1 for boundary in boundaries)]
    return stairs(dict(zip(starts, values, strict=True)))


def PolynomialDecay(
    initial_learning_rate: float,
    decay_steps: int,
    end_learning_rate: float = 1e-4,
    power: float = 1.0,
    cycle: bool = False,
) -> Schedule:
    """(lr - end) * (1 - t / steps)^power + end; with cycle, steps grows to the next multiple of itself."""
    made = stretched_polynomial if cycle else polynomial
    return made(initial_learning_rate, decay_steps, end_learning_rate, power)


def InverseTimeDecay(
    initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
) -> Schedule:
    """lr / (1 + rate * t / steps), t / steps floored when staircase."""
    return inverse_time(initial_learning_rate, decay_rate, decay_steps, staircase)


def CosineDecay(
    initial_learning_rate: float,
    decay_steps: int,
    alpha: float = 0.0,
    warmup_target: float | None = None,
    warmup_steps: int = 0,
) -> Schedule:
    """lr * ((1 - alpha) * (1 + cos(pi p)) / 2 + alpha); after a line to warmup_target, from there."""
    if warmup_target is None:
        return cosine(initial_learning_rate, decay_steps, initial_learning_rate * alpha)
    rest = cosine(warmup_target, decay_steps, warmup_target * alpha)
    return chain([(warmup_steps, line(initial_learning_rate, warmup_target, warmup_steps))], rest)


def CosineDecayRestarts(
    initial_learning_rate: float,
    first_decay_steps: int,
    t_mul: float = 2.0,
    m_mul: float = 1.0,
    alpha: float = 0.0,
) -> Schedule:
    """lr * ((1 - alpha) * m_mul^i * (1 + cos(pi p)) / 2 + alpha), cycle i of first_decay_steps * t_mul^i."""
    lowest = initial_learning_rate * alpha
    return restarts(initial_learning_rate, first_decay_steps, t_mul, m_mul, end=lowest, shrinks="height")
