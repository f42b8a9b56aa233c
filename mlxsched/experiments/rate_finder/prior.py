"""A prior for the best peak, before any training.

For a LoRA with Adam::

    peak = 1.05e-3 * (scale / 20) ** -0.75 * (rank / 16) ** -0.55 * (modules / 7) ** -0.6 * ratio ** -0.6
           * (hidden / 96) ** -0.4 * (updates / 100) ** -0.15 * (0.5 / mean) ** 0.85 * (0.23 without bias correction)
           * (200 with SGD)

``scale`` multiplies what an update of B does to the output; rank and the number of adapted modules of a layer add such
terms, which partly point the same way; LoRA+ trains B at ``ratio`` times the rate, and A not. Without bias correction,
Adam's updates are 3 to 7 times larger in the first hundred updates. The gradients of A and B are small, and SGD does
not normalize them. ``mean`` is the mean rate of the run as a share of its peak: a schedule that stays at its peak
moves the weights further.

The exponents of scale, rank, modules and ratio and the factors were fitted on the even cases of
benchmarks/rate_finder.py, with a ridge penalty toward earlier values. Those of width and length lie between published
values: 0.08 (Qwen) and 0.78 (Llama) for the width, two thirds of the rate for a long run compared with a short one. The
data matters as much as all of these and is not in the formula, so a prior is only a starting point.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mlxsched.analysis.rates import peak_rates
from mlxsched.config.schema import RunConfig

BASE = 1.05e-3
NO_CORRECTION = 0.23
SGD = 200.0
MEAN_RATE = 0.85
"""Exponent of the mean rate. From seven even cases with four schedules each: compared with a linear decay, the best peak is
0.99 times as high with cosine, 0.66 times with wsd (an exponent of 0.78) and 0.56 times with a constant rate (0.86)."""
SPREAD = 2.0
"""The root of the mean squared error is a factor of 1.6 on the even cases; models of another size may be further off."""


class Prior(NamedTuple):
    """A guess of the best peak; ``spread`` is its standard deviation, as a factor."""

    peak: float
    spread: float


class Facts(NamedTuple):
    """The inputs of the prior from model and run.

    Args:
        hidden: the hidden size.
        modules: adapted modules per layer.
        updates: the length of the run.
        mean_rate: the mean rate of the run, as a share of its peak: 0.5 for a linear decay or a cosine.
    """

    hidden: int
    modules: float
    updates: int
    mean_rate: float = 0.5


def prior_of(config: RunConfig, facts: Facts) -> Prior:
    """The guess for a run."""
    usual, of_adam = (peak_rates(name, config.fine_tune_type).usual for name in (config.optimizer, "adamw"))
    size = (facts.hidden / 96) ** -0.4 * (facts.updates / 100) ** -0.15
    size *= (0.5 / facts.mean_rate) ** MEAN_RATE
    if config.fine_tune_type == "full":
        return Prior(usual * size, 4 * SPREAD)
    lora = config.lora_parameters
    peak = BASE * size * (lora.scale / 20) ** -0.75 * (lora.rank / 16) ** -0.55
    peak *= (facts.modules / 7) ** -0.6 * config.lora_plus_ratio**-0.6
    if config.optimizer == "sgd":
        return Prior(peak * SGD, 2 * SPREAD)
    if config.optimizer in ("adam", "adamw"):
        return Prior(peak if config.bias_correction else peak * NO_CORRECTION, SPREAD)
    return Prior(peak * usual / of_adam, 4 * SPREAD)


def hidden_size(config: Mapping[str, Any]) -> int:
    """The hidden size in a model's config, under any architecture's name for it; 96 if missing.

    >>> hidden_size({"hidden_size": 2048}), hidden_size({"text_config": {"n_embd": 768}})
    (2048, 768)
    """
    for values in (config, config.get("text_config") or {}):
        for key in ("hidden_size", "d_model", "n_embd", "dim", "model_dim"):
            if isinstance(values.get(key), int) and values[key] > 0:
                return int(values[key])
    return 96
