"""Checks of a model directory that may come from a stranger, before anything reads or builds it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlxsched.errors import ModelError, UserError
from mlxsched.runs.json_file import shortened

MOST_LAYERS = 10_000
"""mlx-lm makes a Python object for each layer and each expert: a billion of them would fill the memory."""


def check_model_directory(path: Path) -> None:
    """Raise `ModelError` for a directory whose files would hang a reader, or whose sizes would fill the memory.

    Links are followed, since the cache of Hugging Face consists of them.
    """
    try:
        for entry in os.scandir(path):
            mode = entry.stat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise ModelError(f"{entry.path} is not a regular file. Remove it.")
        config = _read_config(path)
    except OSError as error:
        raise ModelError(f"cannot read the model in {path}: {error.strerror or error}.") from error
    for key, value in _sizes(config):
        if not 0 <= value <= MOST_LAYERS:
            raise ModelError(
                f"{path / 'config.json'}: {key} must be from 0 to {MOST_LAYERS:,}; got {shortened(value)}."
            )


def _read_config(path: Path) -> Mapping[str, object]:
    from mlxsched.runs.json_file import read_object

    try:
        return read_object((path / "config.json").resolve())
    except UserError as error:
        raise ModelError(str(error)) from error


def _sizes(config: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    """The numbers of layers and experts in a config and in the configs inside it."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _sizes(value)
        elif isinstance(value, int | float) and ("layer" in key or "experts" in key) and key.startswith("n"):
            yield key, value
