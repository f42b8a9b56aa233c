"""A tracker as a sink of events."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from mlxsched.runs.events import Evaluated, Event, Notice, RunFinished, RunStarted, UpdateMade
from mlxsched.tracking.metrics import TrainMetrics, evaluation_metrics
from mlxsched.tracking.names import check_names
from mlxsched.tracking.state import read_ids, write_id
from mlxsched.tracking.tracker import Opening, Tracker

DEFAULT_PROJECT = "mlxsched"
_QUIET = {"note"}  # notices about how the run is made, not about how it goes


class _Run(Protocol):
    """The part of a ``RunDirectory`` that is used."""

    @property
    def path(self) -> Path: ...
    @property
    def info(self) -> Any: ...


class _Settings(Protocol):
    """The part of a ``RunConfig`` that is used."""

    @property
    def steps_per_report(self) -> int: ...
    @property
    def project_name(self) -> str | None: ...
    def to_dict(self) -> dict[str, Any]: ...


def sinks(report_to: str | None, run: _Run, config: _Settings) -> list[TrackerSink]:
    """One sink for each tracker in ``report_to``, for ``run``; nothing is imported or opened yet.

    Raises `UsageError` as `check_names` does; call that before anything is loaded.
    """
    return [TrackerSink(name, run, config) for name in check_names(report_to)]


class TrackerSink:
    """Sends a run's events to one tracker.

    The tracker is imported and opened at the first event. Whatever it prints goes to stderr: stdout belongs to the
    results of the command.
    """

    def __init__(self, name: str, run: _Run, config: _Settings) -> None:
        self.name = name
        self._run, self._config = run, config
        self._tracker: Tracker | None = None
        per_epoch = run.info.plan.get("updates_per_epoch") or 1
        self._metrics = TrainMetrics(config.steps_per_report, per_epoch)
        self._step = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, UpdateMade | Evaluated | Notice | RunStarted | RunFinished):
            with contextlib.redirect_stdout(sys.stderr):
                self._send(event, self._tracker or self._open(event))

    def close(self, status: str, message: str = "") -> None:
        """Finish the run at the tracker, if it is open: the training ended without a `RunFinished`."""
        if self._tracker is not None:
            # What a tracker cannot upload now must not hide how the training ended.
            with contextlib.suppress(Exception):
                self(RunFinished(self._step, status, message))

    def _open(self, event: Event) -> Tracker:
        directory = self._run.path
        known = read_ids(directory).get(self.name)
        opening = Opening(
            project=self._config.project_name or DEFAULT_PROJECT,
            name=directory.resolve().name,
            directory=directory.resolve(),
            config=_without_unset(self._config.to_dict()),
            run_id=known,
            update=event.update,
        )
        backend = importlib.import_module(f"mlxsched.tracking.backends.{self.name}")
        tracker: Tracker = backend.open_run(opening)
        self._tracker = tracker
        if tracker.run_id != known:
            write_id(directory, self.name, tracker.run_id)
        return tracker

    def _send(self, event: Event, tracker: Tracker) -> None:
        if isinstance(event, UpdateMade):
            self._step = event.update + 1
            self._log(self._metrics.add(event), self._step)
        elif isinstance(event, Evaluated):
            self._log(evaluation_metrics(event), event.update)
        elif isinstance(event, Notice) and event.code not in _QUIET:
            tracker.alert(event.code, event.message, event.update)
        elif isinstance(event, RunFinished):
            self._finish(event, tracker)

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        if metrics and self._tracker is not None:
            self._tracker.log(metrics, step)

    def _finish(self, event: RunFinished, tracker: Tracker) -> None:
        self._log(self._metrics.flush(), self._step)
        failed = event.status == "failed"
        if failed:
            tracker.alert("failed", event.message or "the run failed", event.update)
        tracker.finish(failed=failed)
        self._tracker = None


def _without_unset(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if value is not None}
