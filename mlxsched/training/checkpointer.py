"""What a run keeps on disk: checkpoints to resume from, and the adapter to use."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map_with_path

from mlxsched.errors import RunError
from mlxsched.model import adapters
from mlxsched.model.adapters import WEIGHTS, check_tensors, read_tensors
from mlxsched.model.trees import flatten
from mlxsched.runs import atomic
from mlxsched.runs.checkpoints import Checkpoint
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.json_file import read_object
from mlxsched.training.engine import Engine, Snapshot
from mlxsched.training.progress import Progress

OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


class Checkpointer:
    """Writes and reads the tensors of ``run``; every file is there whole or not at all.

    Args:
        run: whose lock the caller holds.
        adapter_config: what mlx-lm needs to rebuild the adapter.
        keep_last: number of checkpoints to keep.
    """

    def __init__(self, run: RunDirectory, adapter_config: Mapping[str, Any], keep_last: int) -> None:
        self._run, self._adapter_config, self._keep_last = run, adapter_config, keep_last

    def save(self, engine: Engine, progress: Progress) -> Path:
        """Write a checkpoint, remove old ones, and bring run.json up to date; returns the checkpoint's directory."""

        def fill(directory: Path) -> None:
            snapshot = engine.snapshot()
            mx.save_safetensors(str(directory / WEIGHTS), engine.tensors(), metadata={"format": "mlx"})
            mx.save_safetensors(str(directory / OPTIMIZER), flatten(snapshot.optimizer_state))
            text = json.dumps(progress.to_dict(), indent=2, allow_nan=False)
            (directory / STATE).write_text(text + "\n", encoding="utf-8")

        path = self._run.write_checkpoint(progress.update, fill)
        # The last state that computed a sane loss stays, even with keep_last 1: a rollback needs it.
        self._run.checkpoints.prune(self._keep_last, good=progress.good_update)
        self._run.update_info(update=progress.update, best=progress.best, results=dict(progress.results))
        progress.saved_update = progress.update
        return path

    def restore(
        self, engine: Engine, note: Callable[[str], None], up_to: int | None = None
    ) -> Progress | None:
        """Put the last intact checkpoint (of at most ``up_to`` updates) into ``engine``, and forget what came after it.

        Returns None if there is none. The run then starts again, unless ``up_to`` was given.
        """
        found = self._run.checkpoints.latest_good(note, up_to)
        if found is None and up_to is not None:
            return None
        if found is None:
            self._run.rewind(None)
            return None
        # Read before anything is cut back: a checkpoint that is refused must not cost any records.
        snapshot, progress = _read(found, engine)
        self._run.rewind(found)
        engine.restore(snapshot)
        progress.saved_update = found.update
        return progress

    def write_adapter(self, engine: Engine, *, final: bool = False) -> None:
        """Write the adapter to use, or (``final``) the one after the last update where another one is to be used."""
        tensors = engine.tensors()
        self._run.write_adapter(
            lambda directory: adapters.save(directory, self._adapter_config, tensors), final=final
        )


def copy_adapter(run: RunDirectory, adapter_config: Mapping[str, Any], target: Path) -> None:
    """Write the adapter to use to ``target`` as well, a folder of the user's: only its two files are replaced."""
    source = read_tensors(run.adapters)
    names = (adapters.CONFIG, adapters.WEIGHTS)
    atomic.replace_files(target, names, lambda directory: adapters.save(directory, adapter_config, source))


def _read(checkpoint: Checkpoint, engine: Engine) -> tuple[Snapshot, Progress]:
    """The tensors and the progress of ``checkpoint``; names and shapes must be those of ``engine``."""
    weights = read_tensors(checkpoint.path / WEIGHTS)
    check_tensors(checkpoint.path / WEIGHTS, weights, engine.tensors())
    moments = read_tensors(checkpoint.path / OPTIMIZER)
    state = engine.snapshot().optimizer_state
    check_tensors(checkpoint.path / OPTIMIZER, moments, flatten(state))
    restored = tree_map_with_path(lambda path, _: moments[path], state)
    _check_finite(checkpoint.path, weights)
    progress = Progress.from_dict(read_object(checkpoint.path / STATE))
    return Snapshot(engine.optimizer.pack(weights), restored), progress


def _check_finite(path: Path, weights: Mapping[str, mx.array]) -> None:
    """Raise `RunError` for weights that no run of ours stores: an update that would make them is not applied."""
    finite = mx.stack([mx.isfinite(value).all() for value in weights.values()])
    if not finite.all().item():
        raise RunError(
            f"the weights of {path} are not finite: the checkpoint is damaged or not from mlxsched. Remove that "
            "directory to resume from the checkpoint before it."
        )
