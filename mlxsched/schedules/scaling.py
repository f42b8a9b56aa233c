"""Batch size, bias correction and LoRA+."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from mlxsched.errors import ScheduleError
from mlxsched.schedules.backends import Backend, Number
from mlxsched.schedules.combinators import Wrapped, scale
from mlxsched.schedules.fields import Real, as_positive, as_rate, as_steps, one_of
from mlxsched.schedules.parts import Part, checked_part, value_of

RULES: dict[str, float] = {"sqrt": 0.5, "linear": 1.0, "none": 0.0}
"""The power of the batch size's ratio that the peak is multiplied with."""


def scale_peak(peak: float, batch_size: int, reference_batch_size: int, rule: str = "sqrt") -> float:
    """The peak for another batch size: peak * (batch_size / reference_batch_size)^(1/2, 1 or 0).

    Args:
        peak: the rate that is right at `reference_batch_size`.
        batch_size: rows of an update.
        reference_batch_size: rows of an update that `peak` was found with.
        rule: ``sqrt`` for Adam and similar optimizers (Malladi et al. 2022, arXiv 2205.10287), ``linear`` for SGD
            (Goyal et al. 2017, arXiv 1706.02677), ``none`` to keep the peak.

    Raises:
        ScheduleError: an argument does not fit.

    >>> scale_peak(2e-4, batch_size=64, reference_batch_size=16)
    0.0004
    """
    one_of("rule", rule, tuple(RULES))
    ratio = as_steps("batch_size", batch_size) / as_steps("reference_batch_size", reference_batch_size)
    return as_rate("peak", peak) * float(ratio ** RULES[rule])


@dataclass(frozen=True)
class bias_corrected(Wrapped):
    """Makes Adam without bias correction, MLX's default, take the updates of Adam with it.

    Formula: rate(t) = schedule(t) * sqrt(1 - beta2^n) / (1 - beta1^n) with n = t + 1: about 0.32 * schedule(0) at t = 0,
        schedule(t) for large t
    When: with mlx.optimizers.Adam or AdamW at bias_correction=False, whose early updates are up to 6.6 times
        too large. Do not combine it with bias_correction=True.
    Source: Kingma & Ba 2014 (arXiv 1412.6980), section 3
    Spec: bias_corrected(schedule=warmup_linear(peak=2e-4, steps=1000, warmup=100), betas=[0.9, 0.999])

    Args:
        schedule: the schedule, or function of the step, that Adam with bias correction would use.
        betas: the optimizer's, each from 0 to below 1.

    Raises:
        ScheduleError: `schedule` cannot be called, or `betas` are not two numbers from 0 to below 1.

    >>> from mlxsched import warmup_constant
    >>> schedule = bias_corrected(warmup_constant(1e-3))
    >>> round(schedule(0) / 1e-3, 6), round(schedule(11) / 1e-3, 6), round(schedule(20_000) / 1e-3, 6)
    (0.316228, 0.152241, 1.0)
    """

    betas: Sequence[Real] = (0.9, 0.999)

    def _check(self) -> None:
        super()._check()
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ScheduleError(
                f"`betas` must be two numbers from 0 to below 1; got {list(self.betas)}. "
                "Use the optimizer's, such as [0.9, 0.999]."
            )

    def _value(self, step: Number, ops: Backend) -> Number:
        updates = ops.real(step + 1)
        first, second = (_one_minus_power(beta, updates, ops) for beta in self.betas)
        return value_of(self.schedule, step, ops) * ops.sqrt(second) / first

    def _knots(self, last: int) -> None:
        return None

    @property
    def steps(self) -> None:
        """None: the correction ends only in the limit."""
        return None


def _one_minus_power(beta: float, updates: Number, ops: Backend) -> Number:
    """1 - beta^updates, without cancellation for a beta near 1."""
    return -ops.expm1(math.log(beta) * updates) if beta else 0.0 * updates + 1.0


class LoraPlus(NamedTuple):
    """The arguments of ``MultiOptimizer``: a schedule for each group, a filter for all but the last."""

    schedules: tuple[Part, Part]
    filters: tuple[Callable[[str, Any], bool]]


def lora_plus(schedule: Part, ratio: float = 16.0) -> LoraPlus:
    """LoRA+: LoRA's B matrices at `ratio` times the rate of the rest (Hayou et al. 2024, arXiv 2402.12354).

    Args:
        schedule: the rate of A and of everything else that is trained.
        ratio: B's rate over A's, above 0.

    Returns:
        ``.schedules``, for B and for the rest, and ``.filters``, which picks mlx-lm's ``lora_b``; in the
        order that ``MultiOptimizer`` takes them.

    Raises:
        ScheduleError: `schedule` cannot be called or `ratio` is not above 0.

    >>> import mlx.optimizers as optim
    >>> from mlxsched import warmup_constant
    >>> plus = lora_plus(warmup_constant(1e-4, 100), ratio=16)
    >>> optimizer = optim.MultiOptimizer([optim.AdamW(rate) for rate in plus.schedules], list(plus.filters))
    >>> [rate(100) for rate in plus.schedules]
    [0.0016, 0.0001]
    """
    checked_part("schedule", schedule)
    return LoraPlus((scale(schedule, as_positive("ratio", ratio)), schedule), (is_lora_b,))


def is_lora_b(path: str, _: Any) -> bool:
    """Whether a parameter's path is that of a B matrix of mlx-lm's adapters."""
    return path.rpartition(".")[2] == "lora_b"
