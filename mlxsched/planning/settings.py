"""What to know about the settings of a run, before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mlxsched.analysis.findings import Finding
from mlxsched.analysis.rates import next_peak, peak_rates
from mlxsched.config.mlx_lm import INTERVALS, differing_defaults
from mlxsched.config.origins import DEFAULT, is_inherited
from mlxsched.config.schema import NESTED, RunConfig
from mlxsched.runs.ownership import ADAPTER_FILES
from mlxsched.text import number


def settings_findings(config: RunConfig, origins: Mapping[str, str], peak: float) -> Iterator[Finding]:
    """Notes and warnings about settings that may not mean what the user thinks.

    Args:
        config: the settings.
        origins: where each comes from.
        peak: the highest rate of the run.
    """
    yield from _default_model(config, origins)
    yield from _rate_too_high(config, peak)
    yield from _differing_defaults(config, origins)
    yield from _converted(config, origins)
    yield from _adapter_replaced(config)


def _default_model(config: RunConfig, origins: Mapping[str, str]) -> Iterator[Finding]:
    own_data = any(not is_inherited(origins.get(key, DEFAULT)) for key in ("data", "hf_dataset"))
    bundled = config.hf_dataset is None and config.data == RunConfig.model_fields["data"].default
    if own_data and not bundled and is_inherited(origins.get("model", DEFAULT)):
        yield Finding(
            "default_model",
            "warning",
            f"the data is your own and the model is the bundled {config.model!r}, because none was given",
            why="It is a toy that only knows spreadsheet formulas",
            fix="Give --model, a local directory or a Hugging Face repository",
        )


def _rate_too_high(config: RunConfig, peak: float) -> Iterator[Finding]:
    full = config.fine_tune_type == "full"
    rates = peak_rates(config.optimizer, config.fine_tune_type)
    ratio = 1.0 if full else max(config.lora_plus_ratio, 1.0)
    if peak * ratio <= rates.high * (1 + 1e-9):
        return
    times = f" times lora_plus_ratio {ratio:g}" if ratio > 1 else ""
    kind = (
        "all weights"
        if full
        else f"a {config.fine_tune_type.replace('lora', 'LoRA').replace('dora', 'DoRA')}"
    )
    yield Finding(
        "rate_too_high",
        "warning",
        f"the highest learning rate, {peak:.3g}{times}, is above {number(rates.high)}, where {config.optimizer} on "
        f"{kind} is likely to diverge",
        why="A few updates at this rate change a parameter by as much as its own value",
        fix=f"Train with --learning-rate {next_peak(peak, rates.start(ratio))}, a usual peak, or with auto, which searches for one",
    )


def _differing_defaults(config: RunConfig, origins: Mapping[str, str]) -> Iterator[Finding]:
    differing = differing_defaults(config, origins)
    if differing:
        yield Finding(
            "defaults_differ",
            "note",
            "the file lacks keys whose defaults differ from mlx-lm's: " + ", ".join(differing),
            fix="Give --as-mlx-lm to take mlx-lm's for all keys except model and data",
        )


def _converted(config: RunConfig, origins: Mapping[str, str]) -> Iterator[Finding]:
    """Values that were converted from another unit or name, as their origins tell."""
    values = config.to_dict()
    values |= {f"{NESTED}.{key}": value for key, value in values[NESTED].items()}
    for key in (*INTERVALS, f"{NESTED}.scale", "learning_rate", "schedule"):
        origin = origins.get(key, DEFAULT)
        if origin.endswith(")") and not is_inherited(origin):
            unit = " updates" if key in INTERVALS else ""
            yield Finding("converted", "note", f"{key} is {values[key]}{unit}: {origin}")


def _adapter_replaced(config: RunConfig) -> Iterator[Finding]:
    """A warning that the end of the run replaces an adapter, which may be the only copy of an earlier training."""
    folder = Path(config.adapter_path or "").expanduser()
    present = [name for name in ADAPTER_FILES if (folder / name).exists()]
    if config.adapter_path and present:
        yield Finding(
            "adapter_replaced",
            "warning",
            f"{config.adapter_path} holds {' and '.join(present)} already: they are replaced when the run ends",
            fix="Choose another --adapter-path to keep them",
        )
