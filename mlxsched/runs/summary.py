"""What a list of runs shows of each of them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxsched.errors import MlxschedError, UsageError
from mlxsched.runs.info import RunInfo
from mlxsched.runs.json_file import finite_number
from mlxsched.runs.lock import is_locked
from mlxsched.runs.recording import Recording, read_recording
from mlxsched.runs.store import StoredRun

INTERRUPTED = "interrupted"
"""The status of a run that says "running" while no process holds its lock: it was killed."""


@dataclass(frozen=True)
class RunSummary:
    """One run of a list; what is not known is None.

    Attributes:
        status: one of `mlxsched.runs.info.STATUSES`, `INTERRUPTED`, or "unreadable" with the reason in ``problem``.
        updates: updates made.
        planned: updates of the plan, or of what was asked of the run since.
        loss: the best validation loss, or the mean of the last training losses where none was measured.
        schedule: the name of the schedule.
        peak: its highest rate.
        seconds: `training_seconds`.
        size: bytes on the disk.
        created: UTC, ISO 8601.
    """

    name: str
    path: Path
    status: str
    updates: int = 0
    planned: int | None = None
    loss: float | None = None
    schedule: str | None = None
    peak: float | None = None
    seconds: float | None = None
    size: int = 0
    created: str = ""
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**vars(self), "path": str(self.path)}


def summarize(run: StoredRun) -> RunSummary:
    """Read what the list shows of ``run``; damage is reported in ``problem``, never raised."""
    name, size = run.path.resolve().name, _bytes_below(run.path)
    if run.info is None:
        return RunSummary(name, run.path, "unreadable", size=size, problem=run.problem)
    try:
        recording, problem = read_recording(run.path), ""
    except MlxschedError as error:
        recording, problem = None, str(error)
    info = run.info
    return RunSummary(
        name,
        run.path,
        status_now(run.path, info),
        updates=_updates(info.update, recording),
        planned=planned_updates(info),
        loss=_loss(info.best, recording),
        schedule=_schedule(info.plan),
        peak=finite_number(info.plan.get("peak")),
        seconds=None if recording is None else training_seconds(recording),
        size=size,
        created=info.created,
        problem=problem,
    )


def status_now(path: Path, info: RunInfo) -> str:
    """The status of the run in ``path``: `INTERRUPTED` where run.json says "running" and no process holds the lock."""
    killed = info.status == "running" and not is_locked(path)
    return INTERRUPTED if killed else info.status


def planned_updates(info: RunInfo) -> int | None:
    """The length of a run, as it was planned or last revised; None where run.json does not say."""
    return info.updates or _whole(info.plan.get("updates"))


def _updates(noted: int, recording: Recording | None) -> int:
    """run.json is written now and then: the records are ahead of it while a run goes on."""
    made = 0 if recording is None or not len(recording.train) else int(recording.train["update"][-1]) + 1
    return max(noted, made)


def _loss(best: Mapping[str, object] | None, recording: Recording | None) -> float | None:
    value = finite_number((best or {}).get("loss"))
    if value is not None or recording is None:
        return value
    last = recording.train.curve("loss").values[-20:]
    return math.fsum(last) / len(last) if last else None


def training_seconds(recording: Recording) -> float:
    """The seconds that all updates and evaluations took, without loading and the test rows."""
    columns = (recording.train.curve("seconds"), recording.evaluations.curve("seconds"))
    return math.fsum(value for curve in columns for value in curve.values)


def _schedule(plan: Mapping[str, object]) -> str | None:
    schedule = plan.get("schedule")
    name = schedule.get("name") if isinstance(schedule, dict) else None
    return name if isinstance(name, str) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _bytes_below(path: Path) -> int:
    """Bytes of all files below ``path``; a file that vanishes meanwhile counts nothing."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total


# Sorting

SORT_KEYS = ("created", "name", "loss", "updates", "seconds", "size", "peak")


def sort_runs(runs: list[RunSummary], key: str, *, reverse: bool = False) -> list[RunSummary]:
    """``runs`` in the order of ``key``, one of `SORT_KEYS`; those whose value is not known come last.

    >>> one, two = (RunSummary(name, Path(name), "finished", loss=loss) for name, loss in (("a", None), ("b", 0.3)))
    >>> [run.name for run in sort_runs([one, two], "loss")]
    ['b', 'a']
    """
    if key not in SORT_KEYS:
        raise UsageError(f"runs can't be sorted by {key!r}. Choose one of: {', '.join(SORT_KEYS)}.")
    known = [run for run in runs if getattr(run, key) is not None]
    unknown = [run for run in runs if getattr(run, key) is None]
    return sorted(known, key=lambda run: getattr(run, key), reverse=reverse) + unknown
