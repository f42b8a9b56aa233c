"""The files of a checkpoint: trainable tensors, optimizer state and progress."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_map_with_path

from mlxsched.model.adapters import WEIGHTS, check_tensors, read_tensors
from mlxsched.model.trees import flatten
from mlxsched.training.optimizers import GroupedOptimizer, Packed, State
from mlxsched.training.progress import Progress

OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


def save(
    directory: Path, optimizer: GroupedOptimizer, packed: Packed, state: State, progress: Progress
) -> None:
    """Write the three files into ``directory``; call it inside one of the atomic writers of ``runs``."""
    mx.save_safetensors(str(directory / WEIGHTS), optimizer.unpack(packed), metadata={"format": "mlx"})
    mx.save_safetensors(str(directory / OPTIMIZER), flatten(state))
    text = json.dumps(progress.to_dict(), indent=2, allow_nan=False)
    (directory / STATE).write_text(text + "\n", encoding="utf-8")


def load(
    directory: Path, optimizer: GroupedOptimizer, packed: Packed, state: State
) -> tuple[Packed, State, Progress]:
    """Read them back; names and shapes must be those of ``packed`` and ``state``, which are not changed."""
    weights = read_tensors(directory / WEIGHTS)
    check_tensors(directory / WEIGHTS, weights, optimizer.unpack(packed))
    moments = read_tensors(directory / OPTIMIZER)
    check_tensors(directory / OPTIMIZER, moments, flatten(state))
    restored: State = tree_map_with_path(lambda path, _: moments[path], state)
    progress = Progress.from_dict(json.loads((directory / STATE).read_text(encoding="utf-8")))
    return optimizer.pack(weights), restored, progress
