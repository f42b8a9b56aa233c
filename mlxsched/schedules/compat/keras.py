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
from mlxsched.schedules.compat.primitives import stretched_polynomial
from mlxsched.schedules.compat.restarts import restarts
from mlxsched.schedules.families.decays import cosine, inverse_time, polynomial
from mlxsched.schedules.fields import Count, Positive, Rate, Steps, as_steps, checked


@checked
def ExponentialDecay(
    initial_learning_rate: Rate, decay_steps: Steps, decay_rate: Rate, staircase: bool = False
) -> Schedule:
    """lr * rate^(t / steps), the exponent floored when staircase."""
    length = as_steps("decay_steps", decay_steps)
    return optax.exponential_decay(initial_learning_rate, length, decay_rate, staircase=staircase)


@checked
def PiecewiseConstantDecay(boundaries: Sequence[Count], values: Sequence[Rate]) -> Schedule:
    """values[0] up to boundaries[0] and at it, values[1] after it, and so on."""
    if len(values) != len(boundaries) + 1:
        raise ScheduleError(
            f"`values` must be one more than `boundaries`; got {len(values)} and "
            f"{len(boundaries)}. Give the first one too."
        )
    starts = [0, *(boundary + 1 for boundary in boundaries)]
    return stairs(dict(zip(starts, values, strict=True)))


@checked
def PolynomialDecay(
    initial_learning_rate: Rate,
    decay_steps: Steps,
    end_learning_rate: Rate = 1e-4,
    power: Positive = 1.0,
    cycle: bool = False,
) -> Schedule:
    """(lr - end) * (1 - t / steps)^power + end; with cycle, steps grows to the next multiple of itself."""
    made = stretched_polynomial if cycle else polynomial
    return made(initial_learning_rate, decay_steps, end_learning_rate, power)


@checked
def InverseTimeDecay(
    initial_learning_rate: Rate, decay_steps: Steps, decay_rate: Rate, staircase: bool = False
) -> Schedule:
    """lr / (1 + rate * t / steps), t / steps floored when staircase."""
    return inverse_time(initial_learning_rate, decay_rate, decay_steps, staircase)


@checked
def CosineDecay(
    initial_learning_rate: Rate,
    decay_steps: Steps,
    alpha: Rate = 0.0,
    warmup_target: Rate | None = None,
    warmup_steps: Count = 0,
) -> Schedule:
    """lr * ((1 - alpha) * (1 + cos(pi p)) / 2 + alpha); after a line to warmup_target, from there."""
    if warmup_target is None:
        return cosine(initial_learning_rate, decay_steps, initial_learning_rate * alpha)
    rest = cosine(warmup_target, decay_steps, warmup_target * alpha)
    return chain([(warmup_steps, line(initial_learning_rate, warmup_target, warmup_steps))], rest)


@checked
def CosineDecayRestarts(
    initial_learning_rate: Rate,
    first_decay_steps: Steps,
    t_mul: Positive = 2.0,
    m_mul: Positive = 1.0,
    alpha: Rate = 0.0,
) -> Schedule:
    """lr * ((1 - alpha) * m_mul^i * (1 + cos(pi p)) / 2 + alpha), cycle i of first_decay_steps * t_mul^i."""
    lowest = initial_learning_rate * alpha
    return restarts(initial_learning_rate, first_decay_steps, t_mul, m_mul, end=lowest, shrinks="height")
