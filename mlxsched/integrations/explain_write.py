"""The run of an mlx-lm config, as a config of ours that spells out what mlx-lm does by default."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlxsched.config.importers import Entry, ImportedConfig, Leftover
from mlxsched.config.importers.result import in_our_order
from mlxsched.config.mlx_lm import INTERVALS
from mlxsched.config.schema import RunConfig
from mlxsched.errors import ConfigError
from mlxsched.integrations.explain import MlxLmConfig

_AS_THEY_ARE = (
    "model", "data", "hf_dataset", "prompt_feature", "completion_feature", "text_feature", "chat_feature",
    "mask_prompt", "max_seq_length", "fine_tune_type", "num_layers", "batch_size", "grad_accumulation_steps", "seed",
    "optimizer", "val_batches", "test", "test_batches", "grad_checkpoint", "resume_adapter_file", "report_to",
    "project_name",
)  # fmt: skip
_CANNOT_BE_THE_SAME = [
    "mlx-lm also scores one token of padding per row; here it is not scored",
    "mlx-lm leaves out rows beyond a multiple of batch_size, and orders rows differently",
]


def same_run(config: MlxLmConfig) -> ImportedConfig:
    """The run of ``config`` as a config of ours: as many updates, the same rates, the same optimizer.

    Raises:
        ConfigError: mlx-lm makes no update, or a value does not fit our config.
    """
    if not config.updates:
        raise ConfigError(
            f"{config.file.place('iters')}: mlx-lm makes no update of {config.settings['iters']} iterations with "
            f"grad_accumulation_steps {config.settings['grad_accumulation_steps']}. Raise `iters`."
        )
    used = {*_AS_THEY_ARE, *INTERVALS, "iters", "learning_rate", "lr_schedule", "lora_parameters"}
    used |= {"optimizer_config", "train", "adapter_path"}
    leftovers = [
        Leftover(key, value, config.file.line(key), "mlx-lm ignores it, or it does not decide the result")
        for key, value in config.file.values.items()
        if key not in used and value is not None
    ]
    result = ImportedConfig(
        [f"{config.file.path.name} (a config of mlx-lm)"],
        in_our_order(list(_entries(config))),
        leftovers,
        problems=_CANNOT_BE_THE_SAME,
    )
    try:
        RunConfig(**result.values)
    except ValueError as error:
        raise ConfigError(f"{config.file.path}: a value does not fit: {error}") from None
    return result


def _entries(config: MlxLmConfig) -> Iterator[Entry]:
    settings = config.settings
    accumulation = settings["grad_accumulation_steps"]
    for key in _AS_THEY_ARE:
        if settings.get(key) is not None:
            yield _entry(config, key, settings[key], key)
    for key in INTERVALS:  # a config with `iters` counts iterations in its intervals, here as in mlx-lm
        note = f"{max(settings[key] // accumulation, 1)} updates" if accumulation > 1 else ""
        yield _entry(config, key, settings[key], key, note)
    yield _entry(config, "iters", config.updates * accumulation, "iters", f"{config.updates} updates")
    yield from _lora(config)
    yield from _rate(config)
    yield from _optimizer(config)


def _lora(config: MlxLmConfig) -> Iterator[Entry]:
    if config.settings["fine_tune_type"] == "full":
        return
    for key, value in (config.settings["lora_parameters"] or {}).items():
        if key in ("rank", "scale", "dropout", "keys") and value is not None:
            yield _entry(config, f"lora_parameters.{key}", value, "lora_parameters")


def _rate(config: MlxLmConfig) -> Iterator[Entry]:
    if config.settings["lr_schedule"]:
        yield _entry(config, "lr_schedule", config.settings["lr_schedule"], "lr_schedule")
        return
    yield _entry(config, "learning_rate", config.settings["learning_rate"], "learning_rate")
    yield Entry("schedule", "constant", "mlx-lm holds the rate")
    yield Entry("warmup", 0, "mlx-lm holds the rate")


def _optimizer(config: MlxLmConfig) -> Iterator[Entry]:
    name = str(config.settings["optimizer"]).lower()
    arguments: dict[str, Any] = dict((config.settings["optimizer_config"] or {}).get(name) or {})
    corrected = bool(arguments.pop("bias_correction", False))
    if arguments:
        yield _entry(config, "optimizer_config", {name: arguments}, "optimizer_config")
    if name in ("adam", "adamw"):
        yield Entry("bias_correction", corrected, "mlx-lm's default" if not corrected else "optimizer_config")
    yield Entry("max_grad_norm", 0, "mlx-lm does not clip")


def _entry(config: MlxLmConfig, key: str, value: Any, name: str, note: str = "") -> Entry:
    given = config.file.values.get(name) is not None
    origin = f"from {config.file.line(name)}" if given else "mlx-lm's default"
    return Entry(key, value, origin, note)
