"""Which adapter files in a folder of the user's are ours to replace.

A run may copy its adapter to a folder that the user names, under mlx-lm's two file names. The files there may be the only
copy of another training, so those that mlxsched did not write are never replaced.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from mlxsched.errors import UsageError, UserError
from mlxsched.runs.json_file import LARGEST, open_plain_file, read_object

ADAPTER_FILES = ("adapter_config.json", "adapters.safetensors")
# What our files hold and mlx-lm's don't: its config has all settings of the training, and its weights no metadata.
_OUR_KEYS = {"model", "fine_tune_type", "num_layers", "lora_parameters"}
_OUR_METADATA = {"format": "mlx"}


def refuse_foreign_adapter(adapter_path: str | None) -> None:
    """Raise `UsageError` if ``adapter_path`` holds an adapter file that mlxsched did not write."""
    folder = Path(adapter_path or "").expanduser()
    foreign = [
        name for name in ADAPTER_FILES if os.path.lexists(folder / name) and not _is_ours(folder / name)
    ]
    if adapter_path and foreign:
        raise UsageError(
            f"{adapter_path} holds {' and '.join(foreign)}, not written by mlxsched, and the run would replace it. "
            "Move it away, or choose another --adapter-path."
        )


def _is_ours(file: Path) -> bool:
    with contextlib.suppress(UserError, ValueError, RecursionError):
        if file.suffix == ".json":
            return read_object(file).keys() == _OUR_KEYS
        return _metadata(file) == _OUR_METADATA
    return False


def _metadata(file: Path) -> object:
    """The metadata of a safetensors file: 8 bytes with the length of a JSON header, which may hold ``__metadata__``."""
    with open(open_plain_file(file), "rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(min(length, LARGEST)))
    return header.get("__metadata__") if isinstance(header, dict) else None
