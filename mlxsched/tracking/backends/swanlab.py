"""SwanLab; ``SWANLAB_MODE=offline`` keeps the run on the disk, for ``swanlab sync``."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import swanlab

from mlxsched.tracking.tracker import Opening


class SwanLab:
    """An experiment of SwanLab."""

    def __init__(self, opening: Opening) -> None:
        self.run_id = opening.run_id or secrets.token_hex(8)
        self._run = swanlab.init(
            project=opening.project,
            name=opening.name,
            id=self.run_id,
            resume="allow",
            log_dir=str(opening.directory / "swanlog"),
            config=dict(opening.config),
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send metrics."""
        self._run.log(dict(metrics), step=step)

    def alert(self, code: str, message: str, step: int) -> None:
        """Send a text: SwanLab has no alerts."""
        self._run.log_text(key=f"alerts/{code}", data=message, step=step)

    def finish(self, *, failed: bool) -> None:
        """Upload what is left and close the experiment."""
        self._run.finish("crashed" if failed else "success", error="the run failed" if failed else None)


open_run = SwanLab
