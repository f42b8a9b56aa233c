"""What a tracker is asked to do, and what it is opened with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Opening:
    """A run to open at a tracker.

    Args:
        project: the project's name there.
        name: the run's name there.
        directory: the run directory, for trackers that write files.
        config: the run's configuration.
        run_id: the tracker's id of the run when it continues, else None.
        update: updates made so far; metrics of later updates that the tracker has will be sent again.
    """

    project: str
    name: str
    directory: Path
    config: Mapping[str, Any]
    run_id: str | None
    update: int


class Tracker(Protocol):
    """An open run at a tracker."""

    run_id: str

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send metrics, which are finite numbers."""

    def alert(self, code: str, message: str, step: int) -> None:
        """Send a message: a spike, a rollback, a failure. Text where the tracker has no alerts."""

    def finish(self, *, failed: bool) -> None:
        """Flush and close the run."""
