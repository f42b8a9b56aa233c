"""Trackio, which keeps its runs in a local database (``TRACKIO_DIR``)."""

from __future__ import annotations

from collections.abc import Mapping

import trackio

from mlxsched.tracking.tracker import Opening

_ERRORS = {"failed", "diverged", "non_finite"}


class Trackio:
    """A run of Trackio, continued by its name."""

    def __init__(self, opening: Opening) -> None:
        # Trackio resumes by name, so the name must be unique in the project: two runs may both be called laptop-001.
        self.run_id = opening.run_id or _free_name(opening)
        self._run = trackio.init(
            project=opening.project,
            name=self.run_id,
            config=dict(opening.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Store metrics."""
        self._run.log(dict(metrics), step=step)

    def alert(self, code: str, message: str, step: int) -> None:
        """Store an alert."""
        level = trackio.AlertLevel.ERROR if code in _ERRORS else trackio.AlertLevel.WARN
        self._run.alert(title=code, text=message, level=level, step=step)

    def finish(self, *, failed: bool) -> None:
        """Wait until all is stored."""
        self._run.finish()


def _free_name(opening: Opening) -> str:
    taken = {run.name for run in _runs(opening.project)}
    name, number = opening.name, 2
    while name in taken:
        name, number = f"{opening.name}-{number}", number + 1
    return name


def _runs(project: str) -> list[trackio.api.Run]:
    try:
        return list(trackio.Api().runs(project))
    except ValueError:  # no such project yet
        return []


open_run = Trackio
