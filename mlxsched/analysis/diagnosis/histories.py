"""The history that a path stands for: a run directory of mlxsched, or a log of another trainer."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from mlxsched.analysis.diagnosis.history import History
from mlxsched.analysis.schedule_health import RunFacts
from mlxsched.errors import ScheduleError, UsageError
from mlxsched.runs.directory import METRICS_FILE, RunDirectory, elsewhere, is_run
from mlxsched.runs.foreign_logs import read_log
from mlxsched.runs.info import RunInfo
from mlxsched.runs.json_file import finite_number
from mlxsched.runs.recording import EventColumns, Recording, read_recording
from mlxsched.runs.summary import planned_updates, status_now
from mlxsched.schedules import from_dict


def history_of(path: Path) -> History:
    """The history of the run directory or the log in ``path``.

    Raises:
        UsageError: there is neither, or nothing was recorded.
        DataError: a record or a log cannot be read.
    """
    if path.name == METRICS_FILE and is_run(path.parent):
        path = path.parent
    if is_run(path):
        return run_history(RunDirectory.open(path))
    if not path.is_file():
        raise UsageError(f"There is no run and no log in {path}. {elsewhere(path)}")
    log = read_log(path)
    return History(log.events, planned=log.planned, target=shlex.quote(str(path)))


def run_history(run: RunDirectory, recording: Recording | None = None, status: str | None = None) -> History:
    """The history of one of our runs, with what ``run.json`` says about its plan.

    ``recording`` and ``status`` where they are known, so that they need not be read.
    """
    recording = recording or read_recording(run.path)
    recording.require_updates()
    history = info_history(run.info, recording, status or status_now(run.path, run.info))
    return replace(history, target=shlex.quote(str(run.path)))


def info_history(info: RunInfo, records: EventColumns, status: str) -> History:
    """The history of one of our runs from its `RunInfo`, its records and its current ``status``."""
    return History(
        records.events,
        planned=planned_updates(info),
        status=status,
        peaks=_usual_peaks(info),
        schedule_steps=_schedule_steps(info),
        is_run=True,
        saved=info.update,
        rate_factor=_rate_factor(info),
        results=info.results,
        best_update=_best_update(info),
    )


def _best_update(info: RunInfo) -> int | None:
    update = (info.best or {}).get("update")
    return update if isinstance(update, int) else None


def _rate_factor(info: RunInfo) -> float:
    ratio = finite_number(info.config.get("lora_plus_ratio"))
    return 1.0 if ratio is None or info.config.get("fine_tune_type") == "full" else max(ratio, 1.0)


def _schedule_steps(info: RunInfo) -> int | None:
    """The length that the planned schedule is made for; None for one without an end, or a user's own function."""
    try:
        return from_dict(info.plan.get("schedule")).steps  # type: ignore[arg-type]  # it is checked there
    except ScheduleError:
        return None


def _usual_peaks(info: RunInfo) -> tuple[float, float, float] | None:
    config = info.config
    optimizer, kind = config.get("optimizer"), config.get("fine_tune_type")
    if not isinstance(optimizer, str) or kind not in ("lora", "dora", "full"):
        return None
    return RunFacts(1, optimizer=optimizer, fine_tune_type=str(kind)).peaks
