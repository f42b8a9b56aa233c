"""What a run keeps on disk: checkpoints to go on from, and the adapter to use."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlxsched.model import adapters
from mlxsched.runs import atomic
from mlxsched.runs.directory import RunDirectory
from mlxsched.training import checkpoint
from mlxsched.training.optimizers import GroupedOptimizer, Packed, State
from mlxsched.training.progress import Progress


class Checkpointer:
    """Writes and reads the tensors of ``run``; every file is there whole or not at all."""

    def __init__(
        self,
        run: RunDirectory,
        optimizer: GroupedOptimizer,
        adapter_config: Mapping[str, Any],
        keep_last: int,
    ) -> None:
        self._run, self._optimizer = run, optimizer
        self._adapter_config, self._keep_last = adapter_config, keep_last
        self._saved_update: int | None = None
        self._saved_at = time.monotonic()

    @property
    def minutes_since_save(self) -> float:
        """How long ago the last checkpoint was written."""
        return (time.monotonic() - self._saved_at) / 60

    def is_saved(self, update: int) -> bool:
        """Whether the state after ``update`` updates is the last one written."""
        return self._saved_update == update

    def save(self, packed: Packed, state: State, progress: Progress) -> None:
        """Write a checkpoint, drop old ones, and bring run.json up to date."""

        def fill(directory: Path) -> None:
            checkpoint.save(directory, self._optimizer, packed, state, progress)

        self._run.write_checkpoint(progress.update, fill)
        self._run.checkpoints.prune(self._keep_last)
        self._run.update_info(update=progress.update, best=progress.best, results=dict(progress.results))
        self._saved_update, self._saved_at = progress.update, time.monotonic()

    def restore(
        self, packed: Packed, state: State, note: Callable[[str], None]
    ) -> tuple[Packed, State, Progress] | None:
        """The last good checkpoint, with everything after it forgotten; None when there is none."""
        found = self._run.checkpoints.latest_good(note)
        self._run.rewind(found)
        if found is None:
            return None
        self._saved_update = found.update
        return checkpoint.load(found.path, self._optimizer, packed, state)

    def write_adapter(self, packed: Packed, *, final: bool = False) -> None:
        """Write the adapter to use, or the one after the last update where another is to use."""
        self._run.write_adapter(self._fill(packed), final=final)

    def copy_adapter(self, target: Path) -> None:
        """Write the adapter to use to ``target`` as well, a folder of the user's: only its two files are replaced."""
        source = adapters.read_tensors(self._run.adapters)
        atomic.replace_files(
            target,
            (adapters.CONFIG, adapters.WEIGHTS),
            lambda directory: adapters.save(directory, self._adapter_config, source),
        )

    def _fill(self, packed: Packed) -> Callable[[Path], None]:
        return lambda directory: adapters.save(
            directory, self._adapter_config, self._optimizer.unpack(packed)
        )
