"""mlx-lm's configuration files: its defaults, and its unit of intervals, iterations.

Compared with ``mlx_lm/lora.py`` of mlx-lm 0.32. A file of mlx-lm's runs unchanged; where a default differs for a key
that the file lacks, the plan lists it, and ``--as-mlx-lm`` takes mlx-lm's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlxsched.config.layers import LENGTHS, Given, Layer
from mlxsched.config.origins import DEFAULT, MLX_LM, PRESET, from_file
from mlxsched.config.schema import RunConfig

# What mlx-lm does where its file says nothing. The last four are no settings of mlx-lm: it always does so.
DEFAULTS: dict[str, Any] = {
    "optimizer": "adam",
    "num_layers": 16,
    "batch_size": 4,
    "iters": 1000,
    "learning_rate": 1e-5,
    "val_batches": 25,
    "test_batches": 500,
    "steps_per_eval": 200,
    "steps_per_report": 10,
    "save_every": 100,
    "adapter_path": "adapters",
    "mask_prompt": False,
    "max_grad_norm": None,
    "bias_correction": False,
    "schedule": "constant",
    "warmup": 0,
}
# Not taken by --as-mlx-lm: both would be downloaded.
SOURCES = {"model": "Qwen/Qwen3-0.6b", "data": "mlx-community/WikiSQL"}
INTERVALS = ("steps_per_eval", "save_every", "steps_per_report")
IGNORED = ("config",)  # mlx-lm writes it into adapter_config.json, and ignores it in a file

_OURS_ALONE = {"max_grad_norm", "bias_correction", "schedule", "warmup"}
KEYS = (DEFAULTS.keys() - _OURS_ALONE) | {
    *("model", "data", "hf_dataset", "text_feature", "chat_feature", "prompt_feature", "completion_feature"),
    *("train", "test", "seed", "fine_tune_type", "lora_parameters", "resume_adapter_file", "lr_schedule"),
    *("optimizer_config", "max_seq_length", "grad_checkpoint", "grad_accumulation_steps"),
    *("clear_cache_threshold", "report_to", "project_name", "trust_remote_code"),
}


def default_layer() -> Layer:
    """mlx-lm's defaults, as the lowest layer."""
    return {key: Given(value, MLX_LM) for key, value in DEFAULTS.items()}


def intervals_in_updates(merged: Layer, *, all_layers: bool) -> Layer:
    """``merged`` with intervals that count iterations converted to updates.

    mlx-lm counts iterations, and makes an update every ``grad_accumulation_steps`` of them. A file that gives its
    length in ``iters`` means iterations in its intervals, too. A preset counts updates, and so do flags, unless
    ``all_layers`` says that everything is mlx-lm's.
    """
    accumulation = (
        _whole(merged["grad_accumulation_steps"].value) if "grad_accumulation_steps" in merged else 1
    )
    if accumulation is None or accumulation < 2:
        return merged
    converted: Layer = {}
    for key in INTERVALS:
        given = merged.get(key)
        counts = given is not None and (_counts_iterations(given) or (all_layers and not _of_preset(given)))
        value = _whole(given.value) if given is not None and counts else None
        if given is not None and value is not None and value > 0:
            # Rounded down: after 100 iterations of 8 to an update, 12 updates have been made.
            converted[key] = given.converted(max(value // accumulation, 1), f"{value} iterations")
    return merged | converted


def _counts_iterations(given: Given) -> bool:
    return given.is_from_own_file and given.file is not None and given.file.values.get("iters") is not None


def _of_preset(given: Given) -> bool:
    return given.origin.startswith(PRESET)


def _whole(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def differing_defaults(config: RunConfig, origins: Mapping[str, str]) -> list[str]:
    """For a file of mlx-lm's, ``key ours (mlx-lm: theirs)`` for each key it lacks whose default differs."""
    given = {key.partition(".")[0] for key, origin in origins.items() if from_file(origin)}
    others = set(origins.values())
    if not given or given - KEYS or MLX_LM in others or any(one.startswith(PRESET) for one in others):
        return []
    return [
        f"{key} {_shown(getattr(config, key))} (mlx-lm: {_shown(theirs)})"
        for key, theirs in (DEFAULTS | SOURCES).items()
        if origins.get(key, DEFAULT) == DEFAULT
        and getattr(config, key) != theirs
        and not _decided_elsewhere(key, config, origins)
    ]


def _decided_elsewhere(key: str, config: RunConfig, origins: Mapping[str, str]) -> bool:
    if key == "iters":
        return any(origins.get(length, DEFAULT) != DEFAULT for length in LENGTHS)
    if key == "data":
        return config.hf_dataset is not None
    if key == "test_batches":
        return not config.test
    if key == "bias_correction":
        return config.optimizer not in ("adam", "adamw")
    return key in ("schedule", "learning_rate", "warmup") and config.lr_schedule is not None


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "unset" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
