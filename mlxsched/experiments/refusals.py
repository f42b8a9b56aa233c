"""Rejects settings that a comparison can't have, and names where they were set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mlxsched.config.origins import DEFAULT, PRESET, from_file
from mlxsched.config.schema import RunConfig
from mlxsched.errors import UsageError


def refuse_settings(config: RunConfig, origins: Mapping[str, str], keys: Sequence[str], why: str) -> None:
    """Refuse those of ``keys`` that are set.

    Raises:
        UsageError: says ``why``, and where the setting comes from.
    """
    for key in keys:
        if getattr(config, key):
            raise UsageError(f"{why}: {_fix(key, origins.get(key, DEFAULT))}.")


def without_preset_limit(
    config: RunConfig, origins: Mapping[str, str], say: Callable[[str], None]
) -> RunConfig:
    """``config`` without the time limit of a preset, with a note to ``say``; a limit that the user gave stays, to be refused."""
    origin = origins.get("max_time", DEFAULT)
    if config.max_time is None or not origin.startswith(PRESET):
        return config
    say(
        f"Note: the time limit (max_time) of {origin} is ignored: a comparison trains the same updates each time."
    )
    return config.model_copy(update={"max_time": None})


def _fix(key: str, origin: str) -> str:
    if origin.startswith(PRESET):
        return f"{origin} sets {key}, so choose another --preset"
    if from_file(origin):
        return f"remove {key} at {origin}"
    return f"leave --{key.replace('_', '-')} out"
