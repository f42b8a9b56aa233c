"""What is known of the best peak before anything is trained.

    peak = BASE * (scale * rank / 320) ** -0.5 * (hidden / 96) ** -WIDTH * (updates / 100) ** -LENGTH * factors

`scale * rank` decides how far one update of A and B moves the output (LoRA's product has `scale` in front and `rank` terms), so
ranks and scales with one product want one rate. The exponents of width and length and the factors were fitted on the
even cases of benchmarks/rate_finder.py, which are small models; for a large model the width is the least certain part.
A published predictor has exponents of the width between 0.08 (Qwen) and 0.78 (Llama).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mlxsched.analysis.rates import peak_rates
from mlxsched.config.schema import RunConfig

BASE = 1.5e-3
WIDTH = 0.4
LENGTH = 0.3
REFERENCE = (320, 96, 100)  # scale * rank, hidden size, updates
NO_CORRECTION = 0.5  # Adam without bias correction runs hotter in its first thousand updates
PLUS = 0.35  # exponent of LoRA+'s ratio: B learns `ratio` times faster, A does not
SPREAD = 2.0


class Prior(NamedTuple):
    """A guess of the best peak; about two thirds of all runs have theirs within a factor of ``spread`` of it."""

    peak: float
    spread: float


def prior_of(config: RunConfig, hidden: int, updates: int) -> Prior:
    """The guess for a run of ``updates`` of a model with that ``hidden`` size."""
    usual, of_adam = (peak_rates(name, config.fine_tune_type).usual for name in (config.optimizer, "adamw"))
    width = (hidden / REFERENCE[1]) ** -WIDTH
    if config.fine_tune_type == "full":
        return Prior(usual * width, 4 * SPREAD)
    size = config.lora_parameters.scale * config.lora_parameters.rank / REFERENCE[0]
    peak = BASE * size**-0.5 * width * (updates / REFERENCE[2]) ** -LENGTH * config.lora_plus_ratio**-PLUS
    if config.optimizer in ("adam", "adamw"):
        return Prior(peak if config.bias_correction else peak * NO_CORRECTION, SPREAD)
    return Prior(peak * usual / of_adam, 4 * SPREAD)


def hidden_size(config: dict[str, Any]) -> int:
    """The hidden size in a model's config, whatever its architecture calls it; the reference if it does not say.

    >>> hidden_size({"hidden_size": 2048}), hidden_size({"text_config": {"n_embd": 768}})
    (2048, 768)
    """
    for values in (config, config.get("text_config") or {}):
        for key in ("hidden_size", "d_model", "n_embd", "dim", "model_dim"):
            if isinstance(values.get(key), int) and values[key] > 0:
                return int(values[key])
    return REFERENCE[1]
