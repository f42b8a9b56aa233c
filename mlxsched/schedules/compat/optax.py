"""optax's schedules, by its function names and with its arguments.

``decay_steps`` includes the warmup, as there. Mappings of boundaries may be given as pairs, which a spec can
hold: ``optax.piecewise_constant_schedule(1e-3, [[10, 0.5], [30, 0.1]])``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from operator import mul
from typing import Any

from mlxsched.errors import ScheduleError
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.combinators import clamp
from mlxsched.schedules.compat.mlx import step_decay
from mlxsched.schedules.compat.pieces import boundaries, called, chain, line, stairs
from mlxsched.schedules.compat.primitives import through
from mlxsched.schedules.families.decays import cosine, exponential, polynomial
from mlxsched.schedules.families.whole_run import constant
from mlxsched.schedules.fields import (
    Count,
    Portion,
    Positive,
    Rate,
    Steps,
    Whole,
    as_positive,
    as_steps,
    checked,
    one_of,
    shown,
)

Pairs = Mapping[Any, float] | Sequence[Sequence[float]]


@checked
def constant_schedule(value: Rate) -> Schedule:
    """The same value at every step."""
    return constant(value)


@checked
def polynomial_schedule(
    init_value: Rate, end_value: Rate, power: Positive, transition_steps: Whole, transition_begin: Whole = 0
) -> Schedule:
    """(init - end) * (1 - p)^power + end, after transition_begin; init throughout without transition_steps."""
    if transition_steps <= 0:
        return constant(init_value)
    curve = polynomial(init_value, transition_steps, end_value, power)
    return chain([(max(transition_begin, 0), constant(init_value))], curve)


@checked
def linear_schedule(
    init_value: Rate, end_value: Rate, transition_steps: Whole, transition_begin: Whole = 0
) -> Schedule:
    """A line from init to end, after transition_begin; init throughout without transition_steps."""
    if transition_steps <= 0:
        return constant(init_value)
    rest = line(init_value, end_value, transition_steps)
    return chain([(max(transition_begin, 0), constant(init_value))], rest)


@checked
def cosine_decay_schedule(
    init_value: Rate, decay_steps: Steps, alpha: Rate = 0.0, exponent: Positive = 1.0
) -> Schedule:
    """init * ((1 - alpha) * ((1 + cos(pi p)) / 2)^exponent + alpha)."""
    return cosine(init_value, decay_steps, init_value * alpha, exponent)


@checked
def exponential_decay(
    init_value: Rate,
    transition_steps: Whole,
    decay_rate: Rate,
    transition_begin: Whole = 0,
    staircase: bool = False,
    end_value: Rate | None = None,
) -> Schedule:
    """init * rate^((t - begin) / steps), its exponent floored when staircase, and not beyond end_value."""
    if transition_steps <= 0 or decay_rate == 0:
        return constant(init_value)
    if staircase:
        curve: Schedule = step_decay(init_value, decay_rate, transition_steps)
    else:
        curve = exponential(init_value, decay_rate ** (1 / transition_steps))
    curve = chain([(max(transition_begin, 0), constant(init_value))], curve)
    if end_value is None:
        return curve
    return clamp(curve, low=end_value) if decay_rate < 1 else clamp(curve, high=end_value)


@checked
def piecewise_constant_schedule(init_value: Rate, boundaries_and_scales: Pairs | None = None) -> Schedule:
    """init times the scales of all boundaries at or before t."""
    at, values = _cumulative(init_value, boundaries(boundaries_and_scales))
    return stairs(dict(zip(at, values, strict=True)))


@checked
def piecewise_interpolate_schedule(
    interpolate_type: str, init_value: Rate, boundaries_and_scales: Pairs | None = None
) -> Schedule:
    """A line or half a cosine between the values at the boundaries, each the one before times its scale."""
    one_of("interpolate_type", interpolate_type, ("linear", "cosine"))
    at, values = _cumulative(init_value, boundaries(boundaries_and_scales))
    return through(at, values, interpolate_type) if len(at) > 1 else constant(init_value)


@checked
def linear_onecycle_schedule(
    transition_steps: Whole,
    peak_value: Rate,
    pct_start: Portion = 0.3,
    pct_final: Portion = 0.85,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> Schedule:
    """Lines: peak / div, peak at pct_start, peak / div at pct_final, that / final_div at the end."""
    total, div = as_steps("transition_steps", transition_steps), as_positive("div_factor", div_factor)
    turns = {int(pct_start * total): div, int(pct_final * total): 1 / div, total: 1 / final_div_factor}
    return piecewise_interpolate_schedule("linear", peak_value / div, turns)


@checked
def cosine_onecycle_schedule(
    transition_steps: Whole,
    peak_value: Rate,
    pct_start: Portion = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1e4,
) -> Schedule:
    """Cosines through peak / div at 0, peak at pct_start and peak / div / final_div at the end."""
    total, div = as_steps("transition_steps", transition_steps), as_positive("div_factor", div_factor)
    turns = {int(pct_start * total): div, total: 1 / (div * final_div_factor)}
    return piecewise_interpolate_schedule("cosine", peak_value / div, turns)


@checked
def warmup_constant_schedule(init_value: Rate, peak_value: Rate, warmup_steps: Count) -> Schedule:
    """A line from init to peak, then peak; as in optax, init throughout if warmup_steps is 0."""
    return linear_schedule(init_value, peak_value, warmup_steps)


@checked
def warmup_cosine_decay_schedule(
    init_value: Rate,
    peak_value: Rate,
    warmup_steps: Count,
    decay_steps: Steps,
    end_value: Rate = 0.0,
    exponent: Positive = 1.0,
) -> Schedule:
    """A line to peak at warmup_steps, a cosine to end at decay_steps, which counts the warmup too."""
    if decay_steps <= warmup_steps:
        raise ScheduleError(
            f"`decay_steps` must be above `warmup_steps`; got {decay_steps} and {warmup_steps}. "
            "It includes the warmup."
        )
    rest = cosine(peak_value, decay_steps - warmup_steps, end_value, exponent)
    return chain([(warmup_steps, line(init_value, peak_value, warmup_steps))], rest)


@checked
def warmup_exponential_decay_schedule(
    init_value: Rate,
    peak_value: Rate,
    warmup_steps: Count,
    transition_steps: Whole,
    decay_rate: Rate,
    transition_begin: Whole = 0,
    staircase: bool = False,
    end_value: Rate | None = None,
) -> Schedule:
    """A line to peak at warmup_steps, then exponential_decay."""
    rest = exponential_decay(peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value)
    return chain([(warmup_steps, line(init_value, peak_value, warmup_steps))], rest)


@checked
def sgdr_schedule(cosine_kwargs: Sequence[Mapping[str, Any]]) -> Schedule:
    """One warmup_cosine_decay_schedule after another, each with its arguments, each of its decay_steps."""
    if not isinstance(cosine_kwargs, list | tuple) or not cosine_kwargs:
        raise ScheduleError("`cosine_kwargs` must hold the arguments of at least one cycle; got none.")
    for cycle in cosine_kwargs:
        if not isinstance(cycle, Mapping):
            raise ScheduleError(
                f"`cosine_kwargs` must be a list of mappings of arguments; got {shown(cycle)}. "
                'Write [{"init_value": 0.0, ...}, ...].'
            )
    cycles = [called(warmup_cosine_decay_schedule, "cosine_kwargs", cycle) for cycle in cosine_kwargs]
    lengths = [int(cycle["decay_steps"]) for cycle in cosine_kwargs]
    return chain(list(zip(lengths[:-1], cycles[:-1], strict=True)), cycles[-1])


def _cumulative(init: float, pairs: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """The boundaries from 0 on, and the value from each one on."""
    at = [0, *(step for step, _ in pairs)]
    return at, list(accumulate((scale for _, scale in pairs), mul, initial=init))
