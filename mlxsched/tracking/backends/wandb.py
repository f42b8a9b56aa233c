"""Weights & Biases; ``WANDB_MODE=offline`` keeps the run on the disk, for ``wandb sync``."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import wandb

from mlxsched.tracking.tracker import Opening

_ERRORS = {"failed", "diverged", "non_finite"}


class WeightsAndBiases:
    """A run of W&B."""

    def __init__(self, opening: Opening) -> None:
        self.run_id = opening.run_id or secrets.token_hex(4)
        self._run = wandb.init(
            project=opening.project,
            name=opening.name,
            id=self.run_id,
            resume="allow",
            dir=str(opening.directory),
            config=dict(opening.config),
            settings=wandb.Settings(console="off"),  # it would capture the terminal, progress bar and all
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send metrics. W&B ignores steps before its last one: what a resume repeats is there already."""
        self._run.log(dict(metrics), step=step)

    def alert(self, code: str, message: str, step: int) -> None:
        """Send an alert."""
        level = wandb.AlertLevel.ERROR if code in _ERRORS else wandb.AlertLevel.WARN
        self._run.alert(title=code, text=f"update {step}: {message}", level=level)

    def finish(self, *, failed: bool) -> None:
        """Upload what is left and close the run."""
        self._run.finish(exit_code=int(failed))


open_run = WeightsAndBiases
