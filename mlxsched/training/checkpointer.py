"""What a run keeps on disk: checkpoints to resume from, and the adapter to use."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map_with_path

from mlxsched.errors import RunError
from mlxsched.model import adapters
from mlxsched.model.adapters import WEIGHTS, check_tensors, read_tensors
from mlxsched.model.trees import Tensors, flatten
from mlxsched.runs import atomic
from mlxsched.runs.checkpoints import Checkpoint
from mlxsched.runs.directory import AVERAGED, SNAPSHOTS, RunDirectory
from mlxsched.runs.json_file import read_object
from mlxsched.runs.ownership import refuse_foreign_adapter
from mlxsched.runs.requests import Request
from mlxsched.training.averaging import Averager
from mlxsched.training.engine import Engine, Snapshot
from mlxsched.training.optimizers import Packed
from mlxsched.training.progress import Progress

OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
BEST = "best.safetensors"
AVERAGE = "average.safetensors"


class Checkpointer:
    """Writes and reads the tensors of ``run``; every file is there whole or not at all.

    Args:
        run: whose lock the caller holds.
        adapter_config: what mlx-lm needs to rebuild the adapter.
        keep_last: number of checkpoints to keep.
        trunk: returns the number of updates before the cooldown, whose checkpoint is kept too; None without one.
    """

    def __init__(
        self,
        run: RunDirectory,
        adapter_config: Mapping[str, Any],
        keep_last: int,
        trunk: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._run, self._adapter_config, self._keep_last, self._trunk = run, adapter_config, keep_last, trunk
        self.averager: Averager | None = None
        """Its state is part of each checkpoint."""

    def save(self, engine: Engine, progress: Progress) -> Path:
        """Write a checkpoint, remove old ones, and bring run.json up to date; returns the checkpoint's directory.

        The one before the cooldown also holds the best adapter so far: `adapters/` will have another one when the run is
        extended from there.
        """
        trunk = self._trunk()
        best = (
            self._run.adapters / WEIGHTS if progress.update == trunk and progress.best is not None else None
        )

        def fill(directory: Path) -> None:
            snapshot = engine.snapshot()
            mx.save_safetensors(str(directory / WEIGHTS), engine.tensors(), metadata={"format": "mlx"})
            mx.save_safetensors(str(directory / OPTIMIZER), flatten(snapshot.optimizer_state))
            if self.averager is not None and self.averager.state:
                mx.save_safetensors(str(directory / AVERAGE), flatten(_by_name(self.averager.state)))
            text = json.dumps(progress.to_dict(), indent=2, allow_nan=False)
            (directory / STATE).write_text(text + "\n", encoding="utf-8")
            if best is not None and best.is_file():
                shutil.copyfile(best, directory / BEST)

        path = self._run.write_checkpoint(progress.update, fill)
        # The last state that computed a sane loss stays, even with keep_last 1: a rollback needs it.
        self._run.checkpoints.prune(self._keep_last, good=progress.good_update, trunk=trunk)
        length = progress.revisions[-1]["updates"] if progress.revisions else None
        known = {"update": progress.update, "length": length, "best": progress.best}
        self._run.update_info(**known, results=dict(progress.results))
        progress.saved_update = progress.update
        return path

    def restore(
        self, engine: Engine, note: Callable[[str], None], up_to: int | None = None
    ) -> Progress | None:
        """Put the last intact checkpoint (of at most ``up_to`` updates) into ``engine``, and forget what came after it.

        Where a request (`mlxsched.runs.requests`) changed the run, a checkpoint from before it counts only if the request
        holds from there on or from later; the request's revisions then replace those of the checkpoint.

        Returns None if there is no checkpoint. The run then starts again, unless ``up_to`` was given.
        """
        request = self._run.info.requests[-1] if self._run.info.requests else None
        found = self._last_finite(note, up_to)
        changed = request is not None and (found is None or not request.holds_for(_revisions(found)))
        if request is not None and changed and found is not None and found.update > request.at:
            found = self._last_finite(note, request.at)
        if found is None:
            return self._start_again(request) if up_to is None else None
        # Read before anything is cut back: a checkpoint that is refused must not cost any records.
        snapshot, progress = _read(found, engine)
        averaged = _read_average(found, engine) if self.averager is not None else {}
        self._run.rewind(found)
        engine.restore(snapshot)
        if self.averager is not None:
            self.averager.state = averaged
        progress.saved_update = found.update
        if request is not None and changed:
            progress.follow(request)
            if up_to is None:
                self._go_back_to_best(found, progress, engine)
        return progress

    def _last_finite(self, note: Callable[[str], None], up_to: int | None) -> Checkpoint | None:
        """The last checkpoint that is intact and whose weights are finite; ``note`` names each one skipped."""
        while (found := self._run.checkpoints.latest_good(note, up_to)) is not None:
            if _is_finite(found):
                return found
            note(f"Skipped checkpoint {found.update}: the weights of {found.path} are not finite.")
            up_to = found.update - 1
        return None

    def _start_again(self, request: Request | None) -> Progress | None:
        self._run.rewind(None)
        return None if request is None else Progress(revisions=list(request.revisions))

    def _go_back_to_best(self, found: Checkpoint, progress: Progress, engine: Engine) -> None:
        """Make ``adapters/`` that of ``progress.best``; where that one is gone, keep the later one, which is there."""
        self._run.remove_final_adapter()
        best = found.path / BEST
        if progress.best_update == found.update and progress.best_average is None:
            self.write_adapter(engine.tensors())
        elif best.is_file():
            tensors = read_tensors(best)
            check_tensors(best, tensors, engine.tensors())
            self.write_adapter(tensors)
        elif self._run.info.best is not None:
            progress.take_best(self._run.info.best)

    def write_adapter(self, tensors: Tensors) -> None:
        """Write the adapter to use."""
        self._run.write_adapter(self._filled_with(tensors))

    def write_final_adapter(self, tensors: Tensors) -> None:
        """Write the adapter after the last update, where another one is to be used."""
        self._run.write_adapter(self._filled_with(tensors), self._run.final_adapters)

    def write_average(self, tensors: Tensors) -> None:
        """Write the average at the end of the run."""
        self._run.write_adapter(self._filled_with(tensors), self._run.path / AVERAGED)

    def write_snapshot(self, tensors: Tensors, update: int) -> None:
        """Write the adapter after ``update`` updates, to be kept."""
        self._run.write_adapter(self._filled_with(tensors), self._run.path / SNAPSHOTS / f"{update:06d}")

    def _filled_with(self, tensors: Tensors) -> Callable[[Path], None]:
        return lambda directory: adapters.save(directory, self._adapter_config, tensors)


def copy_adapter(run: RunDirectory, adapter_config: Mapping[str, Any], target: Path) -> None:
    """Write the adapter to use to ``target`` as well, a folder of the user's: only two files of ours are replaced."""
    refuse_foreign_adapter(str(target))
    source = read_tensors(run.adapters)
    names = (adapters.CONFIG, adapters.WEIGHTS)
    atomic.replace_files(target, names, lambda directory: adapters.save(directory, adapter_config, source))


def _revisions(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """The revisions of the horizon that ``checkpoint`` was written with."""
    return Progress.from_dict(read_object(checkpoint.path / STATE)).revisions


def _read(checkpoint: Checkpoint, engine: Engine) -> tuple[Snapshot, Progress]:
    """The tensors and the progress of ``checkpoint``; names and shapes must be those of ``engine``."""
    weights = read_tensors(checkpoint.path / WEIGHTS)
    check_tensors(checkpoint.path / WEIGHTS, weights, engine.tensors())
    moments = read_tensors(checkpoint.path / OPTIMIZER)
    state = engine.snapshot().optimizer_state
    check_tensors(checkpoint.path / OPTIMIZER, moments, flatten(state))
    restored = tree_map_with_path(lambda path, _: moments[path], state)
    progress = Progress.from_dict(read_object(checkpoint.path / STATE))
    return Snapshot(engine.optimizer.pack(weights), restored), progress


def _is_finite(checkpoint: Checkpoint) -> bool:
    """Whether all weights are finite. No run of ours stores others: an update that would make them is not applied."""
    weights = read_tensors(checkpoint.path / WEIGHTS)
    return all(mx.isfinite(value).all().item() for value in weights.values())


def _by_name(state: Mapping[int, Packed]) -> dict[str, Packed]:
    return {f"{update:06d}": packed for update, packed in state.items()}


def _read_average(checkpoint: Checkpoint, engine: Engine) -> dict[int, Packed]:
    """The state of the averager; empty for a checkpoint of a run that had none, or no points yet."""
    path = checkpoint.path / AVERAGE
    if not path.is_file():
        return {}
    tensors = read_tensors(path)
    updates = sorted({name.partition(".")[0] for name in tensors})
    if not all(re.fullmatch(r"[0-9]{6,12}", update) for update in updates):
        raise RunError(
            f"{path} is not the average of a run. Remove {checkpoint.path} to resume from the one before."
        )
    form = {update: engine.snapshot().parameters for update in updates}
    check_tensors(path, tensors, flatten(form))
    restored = tree_map_with_path(lambda name, _: tensors[name], form)
    return {int(update): packed for update, packed in restored.items()}
